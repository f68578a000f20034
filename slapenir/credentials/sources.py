"""Reading secrets from where the operator keeps them.

An error names the source and what to do about it, never the value.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from slapenir.secret import Secret

MAX_FILE = 64 * 1024
MIN_SECRET = 8
MAX_SECRET = 8192
MIN_DISTINCT = 4

_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def read_source(
    source: str, environ: Mapping[str, str], credentials_directory: str | None
) -> Secret:
    """Return the checked secret that a source names, without one trailing newline.

    ``env:NAME`` reads ``environ``; ``file:/PATH`` a regular file of ours that nobody else can
    read; ``systemd:NAME`` a file of ``credentials_directory`` (systemd.exec(5), LoadCredential=).
    Raises ValueError when it cannot be read or check_secret refuses it.
    """
    kind, _, name = source.partition(":")
    if kind == "env":
        value = _read_env(name, environ)
    elif kind == "file":
        value = _read_file(name, shared_bits=0o077)
    elif kind == "systemd":
        value = _read_systemd(name, credentials_directory)
    else:
        raise ValueError("a source is env:NAME, file:/PATH or systemd:NAME")
    for newline in (b"\r\n", b"\n"):
        if value.endswith(newline):
            value = value[: -len(newline)]
            break
    secret = Secret(value)
    try:
        check_secret(secret)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return secret


def check_secret(secret: Secret) -> None:
    """Raise ValueError for a secret that is unsafe to send or too poor to look for.

    It has 8 to 8192 bytes, no control bytes (so it cannot end a header field), and 4 different
    bytes at least: redaction of a poorer one would overwrite innocent text.
    """
    value = secret.reveal()
    if len(value) < MIN_SECRET:
        raise ValueError(f"the secret is shorter than {MIN_SECRET} bytes")
    if len(value) > MAX_SECRET:
        raise ValueError(f"the secret is longer than {MAX_SECRET} bytes")
    if any(byte < 0x20 or byte == 0x7F for byte in value):
        raise ValueError("the secret has control bytes, such as a newline inside")
    if not value.strip():
        raise ValueError("the secret is nothing but spaces")
    if len(set(value)) < MIN_DISTINCT:
        raise ValueError(f"the secret has fewer than {MIN_DISTINCT} different bytes")


def _read_env(name: str, environ: Mapping[str, str]) -> bytes:
    if _VARIABLE.fullmatch(name) is None:
        raise ValueError("what follows env: is not the name of an environment variable")
    value = environ.get(name)
    if not value:
        state = "not set" if value is None else "empty"
        raise ValueError(f"env:{name}: the environment variable is {state}")
    return os.fsencode(value)


def _read_systemd(name: str, directory: str | None) -> bytes:
    if _NAME.fullmatch(name) is None or name in (".", ".."):
        raise ValueError("what follows systemd: is not a credential name")
    if not directory:
        raise ValueError(f"systemd:{name}: the service was not given credentials by systemd")
    # systemd lets the unit's user in by an ACL, which shows as group bits; others have none.
    return _read_file(os.path.join(directory, name), shared_bits=0o007)


def _read_file(path: str, shared_bits: int) -> bytes:
    if not os.path.isabs(path) or "\0" in path:
        raise ValueError("what follows file: is not an absolute path")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        linked = os.path.islink(path)
        why = "it is a symbolic link; name the file itself" if linked else error.strerror
        raise ValueError(f"{path}: cannot be opened: {why}") from None
    try:
        _check_status(path, os.fstat(descriptor), shared_bits)
        value = _read_all(descriptor)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(value) > MAX_FILE:
        raise ValueError(f"{path}: is longer than {MAX_FILE} bytes")
    if not value:
        raise ValueError(f"{path}: is empty")
    return value


def _check_status(path: str, status: os.stat_result, shared_bits: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: is not a regular file")
    if status.st_mode & shared_bits:
        raise ValueError(f"{path}: others can use it; run chmod 600 on it")
    if status.st_uid not in (os.geteuid(), 0):
        raise ValueError(f"{path}: belongs to neither this user nor root")


def _read_all(descriptor: int) -> bytes:
    """Return what the file holds, or one byte more than MAX_FILE of it."""
    value = b""
    while len(value) <= MAX_FILE:
        piece = os.read(descriptor, MAX_FILE + 1 - len(value))
        if not piece:
            break
        value += piece
    return value
