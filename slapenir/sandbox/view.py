"""What a sandbox sees of the host, as arguments of bubblewrap: what is there, and nothing else.

Sockets of the host are why: one that can be reached can be connected to, also on a read-only mount.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Sequence

import attrs

from slapenir.errors import SandboxError

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix")
SCRATCH = ("/tmp", "/var/tmp", "/run", "/home", "/root")  # noqa: S108
_NEVER_WRITTEN = (
    *(one for one in SYSTEM if one != "/opt"), "/dev", "/proc", "/sys", "/boot",
)  # fmt: skip
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
"""Where bubblewrap is looked for: never where the caller's PATH leads."""

KIT = "/run/slapenir/trust"
LAUNCHER = "/run/slapenir/launcher.py"
_PYTHON = "/run/slapenir/python"
_HOSTS = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n"
_RESOLVER = "nameserver 127.0.0.1\noptions edns0\n"
# Beside a directory of programs: what they load.
_BESIDE = ("lib", "lib64", "libexec")
# Never shown of a home directory, whatever PATH says.
_PRIVATE = (".ssh", ".aws", ".gnupg", ".config", ".docker", ".kube", ".netrc", ".mozilla")


@attrs.frozen(kw_only=True)
class View:
    """What is asked for; all paths are absolute and real.

    ``hidden`` are the gateway's own files, ``shown`` more directories to show read-only, ``home``
    the sandbox's home inside and ``kept`` where it is kept on the host (empty: nowhere).
    """

    workspace: str
    home: str
    uid: int
    gid: int
    kept: str = ""
    hidden: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    path: tuple[str, ...] = ()

    @property
    def writable(self) -> tuple[str, ...]:
        """Where the sandbox may write, as it sees it."""
        return (self.workspace, self.home, "/tmp", "/var/tmp", "/run", "/dev", "/proc")  # noqa: S108


def check_workspace(workspace: str, hidden: Iterable[str], homes: Iterable[str]) -> None:
    """Raise SandboxError for a directory that an agent must not write to (T239)."""
    if not os.path.isdir(workspace):
        raise SandboxError(f"{workspace} is not a directory", "name the project: --workspace DIR")
    for home in homes:
        if _contains(workspace, home):
            raise SandboxError(
                f"{workspace} is, or holds, a home directory",
                "start in the project's directory, or name it: --workspace DIR",
            )
    if workspace in ("/", "/var", "/srv", "/mnt", "/media", "/opt", *SCRATCH) or any(
        _contains(root, workspace) for root in _NEVER_WRITTEN
    ):
        raise SandboxError(f"{workspace} belongs to the system", "use --workspace DIR")
    for path in hidden:
        if _contains(workspace, path):
            raise SandboxError(
                f"the workspace {workspace} holds {path}, which is the gateway's",
                "an agent could change it: keep the two apart",
            )


def _contains(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def mounts(view: View) -> list[str]:
    """Return bubblewrap's arguments for the file system, all but the kit's overlays."""
    words = ["--proc", "/proc", "--dev", "/dev"]
    for path in SYSTEM:
        words += _system(path)
    for path in SCRATCH:
        words += ["--perms", "1777" if path.endswith("tmp") else "0755", "--tmpfs", path]
    if view.kept:
        words += ["--bind", view.kept, view.home]
    else:
        words += ["--perms", "0700", "--dir", view.home]
    for path in (*_toolchains(view), *view.shown):
        words += ["--ro-bind", path, path]
    words += ["--bind", view.workspace, view.workspace]
    for path in view.hidden:
        words += _hide(path, view)
    return words


def _system(path: str) -> list[str]:
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind", path, path] if os.path.isdir(path) else []


def _hide(path: str, view: View) -> list[str]:
    """Return what covers a file or a directory of the gateway's, where it would be seen."""
    seen = (*SYSTEM, *view.shown, *_toolchains(view))
    if not os.path.lexists(path) or not any(_contains(root, path) for root in seen):
        return []
    if os.path.isdir(path):
        return ["--perms", "0000", "--tmpfs", path]
    return ["--ro-bind", "/dev/null", path]


def _toolchains(view: View) -> list[str]:
    """Return the directories on PATH that the view does not have yet, and what lies beside them.

    Below a home these are only the directories of programs and their libraries, never the home.
    """
    found: list[str] = []
    for entry in view.path:
        real = os.path.realpath(entry)
        if not os.path.isdir(real) or any(_contains(root, real) for root in SYSTEM):
            continue
        if not _reachable(real, view.uid, view.gid):
            continue
        if _is_private(real) or _contains(view.workspace, real) or real == "/":
            continue
        found.append(real)
        if entry != real:
            found.append(entry)
        if os.path.basename(real) in ("bin", "sbin"):
            above = os.path.dirname(real)
            beside = [os.path.join(above, name) for name in _BESIDE]
            found += [one for one in beside if os.path.isdir(one)]
    return list(dict.fromkeys(found))


def is_visible(path: str, view: View) -> bool:
    """Whether a directory on PATH is there inside."""
    real = os.path.realpath(path)
    seen = (*SYSTEM, *_toolchains(view), view.workspace)
    return os.path.isdir(real) and any(_contains(root, real) for root in seen)


def is_writable(path: str, uid: int, gid: int) -> bool:
    """Whether a user could write to a directory, as far as its mode says."""
    status = os.stat(path)
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
    return bool(status.st_mode >> shift & 2)


def _reachable(path: str, uid: int, gid: int) -> bool:
    """Whether a user could look into a directory; the view shows nobody more than that."""
    while True:
        status = os.stat(path)
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not status.st_mode >> shift & 1:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _is_private(path: str) -> bool:
    """Whether a path is in a directory that holds credentials, or open to everybody's writing."""
    if any(part in _PRIVATE for part in path.split("/")):
        return True
    mode = os.stat(path).st_mode
    return bool(mode & stat.S_IWOTH)


def of_command(command: str, path: Sequence[str]) -> list[str]:
    """Return the directory that a command really is in, where PATH only has a link to it."""
    candidates = [command] if "/" in command else [os.path.join(one, command) for one in path]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            real = os.path.realpath(candidate)
            if real != candidate and not any(_contains(root, real) for root in SYSTEM):
                return [os.path.dirname(real)]
            return []
    return []


def interpreter() -> tuple[str, list[str]]:
    """Return a Python inside, and bubblewrap's arguments that bring it there."""
    for path in ("/usr/bin/python3", "/bin/python3"):
        if os.access(path, os.X_OK):
            return path, []
    name = os.path.basename(os.path.realpath(sys.executable))
    return f"{_PYTHON}/bin/{name}", ["--ro-bind", sys.base_prefix, _PYTHON]


def texts() -> dict[str, str]:
    """Return the small files that stand for the host's, by where they are inside."""
    return {
        os.path.realpath("/etc/hosts"): _HOSTS,
        os.path.realpath("/etc/resolv.conf"): _RESOLVER,
    }
