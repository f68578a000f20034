"""A small configuration that loads, and how tests change it."""

from __future__ import annotations

import os
import stat

BASE = """\
[gateway]
state_dir = "state"
audit = "audit"

[[listener]]
endpoint = "tcp:8080:interface=127.0.0.1"
mode = "explicit"
identity = "sandbox"

[resolver]
hosts = { "llm.internal" = ["10.20.0.5"] }
allow_private = ["10.20.0.0/16", "127.0.0.1:8081"]

[limits]
connections = 1000

[[credential]]
id = "openai"
source = "env:OPENAI_API_KEY"
placeholder = "DUMMY_OPENAI"
hosts = ["api.openai.com"]
inject = [{ header = "Authorization", scheme = "Bearer" }]

[[credential]]
id = "other"
source = "env:OTHER_KEY"
hosts = ["*.other.example"]
inject = [{ header = "x-api-key" }]

[[rule]]
id = "openai"
identities = ["sandbox"]
hosts = ["api.openai.com", "*.openai.com"]
methods = ["GET", "POST"]
paths = ["/v1/*"]
credentials = ["openai"]
action = "allow"

[[rule]]
id = "blind"
identities = ["*"]
hosts = ["pinned.example", "*.pinned.example"]
action = "passthrough"
"""


def with_changes(*changes: tuple[str, str], text: str = BASE) -> bytes:
    """Return the configuration with each (old, new) replaced; the old has to be there."""
    for old, new in changes:
        if old not in text:
            raise AssertionError(f"{old!r} is not in the configuration")
        text = text.replace(old, new, 1)
    return text.encode("utf-8")


def write_file(directory: str, data: bytes, name: str = "slapenir.toml") -> str:
    """Write a configuration that only we can write to, and return its path."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(os.path.abspath(directory), name)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o600)
    return path


def mode_of(path: str) -> int:
    """Return the permission bits of a path."""
    return stat.S_IMODE(os.stat(path).st_mode)
