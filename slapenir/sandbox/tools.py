"""The host's programs that a sandbox is made with: found where only root writes, nowhere else.

The caller's PATH may lead into a workspace, and what is run here runs outside of the sandbox, as
root often.  So neither PATH nor anything else of the caller's environment has a say.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Mapping

import attrs

from slapenir.errors import SandboxError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C"}
_PACKAGES = {
    "bwrap": "bubblewrap",
    "nft": "nftables",
    "ip": "iproute2",
    "certutil": "libnss3-tools, for Chromium",
}
ISOLATED = ("-E", "-P")
"""For a Python of our own: nothing from PYTHON* variables, and no module from where it stands."""

_OF_PYTHON = re.compile(r"PYTHON[A-Z0-9]+", re.ASCII)
_SECONDS = 20.0
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@attrs.frozen
class Tool:
    """A program by its name and its real path."""

    name: str
    path: str

    def run(
        self,
        *arguments: str,
        data: bytes = b"",
        enter: Callable[[], object] | None = None,
        user: int | None = None,
    ) -> bytes:
        """Run it and return what it printed; raises SandboxError with what it complained of.

        ``enter`` is called in the new process, ``user`` is whom it runs as.
        """
        try:
            done = subprocess.run(
                [self.name, *arguments],
                executable=self.path,
                input=data,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
                env=ENVIRONMENT,
                cwd="/",
                preexec_fn=enter,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        except subprocess.TimeoutExpired:
            raise SandboxError(f"{self.name} did not end in {_SECONDS:.0f} s") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxError(f"{self.path} cannot be run: {error}") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise SandboxError(f"{self.name} failed: {said[0] if said else done.returncode}")
        return done.stdout


def find(name: str) -> Tool | None:
    """Return a tool, None where it is not installed.

    Raises SandboxError when the only ones that there are could be changed by others than root.
    """
    wrong = ""
    for directory in PATH.split(":"):
        candidate = os.path.join(directory, name)
        real = os.path.realpath(candidate)
        if not os.path.isfile(real) or not os.access(real, os.X_OK):
            continue
        unsafe = _unsafe(real) or _unsafe(os.path.realpath(directory))
        if not unsafe:
            return Tool(name, real)
        wrong = wrong or f"{candidate} is not used: {unsafe}"
    if wrong:
        raise SandboxError(wrong, "let root own it and its directories, and nobody else write")
    return None


def need(name: str) -> Tool:
    """Return a tool; raises SandboxError with what to install."""
    found = find(name)
    if found is None:
        raise SandboxError(f"{name} is not installed", f"install {_PACKAGES[name]}")
    return found


def for_python(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what tells Python, and so its children, what to load.

    A name such as PYTHON_API_KEY may be a credential's.
    """
    return {key: value for key, value in environ.items() if not _OF_PYTHON.fullmatch(key)}


def _unsafe(path: str) -> str:
    """Say who else than root could put something else there; nothing for nobody."""
    while True:
        status = os.lstat(path)
        if status.st_uid:
            return f"{path} belongs to user {status.st_uid}"
        if status.st_mode & _OTHERS:
            return f"others may write to {path}"
        if path == "/":
            return ""
        path = os.path.dirname(path)
