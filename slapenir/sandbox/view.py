"""What a sandbox sees of the host, as arguments of bubblewrap: what is there, and nothing else.

Sockets of the host are why: one that can be reached can be connected to, also on a read-only mount.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import attrs

from slapenir.sandbox.cgroups import physical_memory
from slapenir.sandbox.covers import covers
from slapenir.sandbox.links import check_way, contains
from slapenir.sandbox.places import SCRATCH, SYSTEM
from slapenir.sandbox.toolchains import Shown

KIT = "/run/slapenir/trust"
LAUNCHER = "/run/slapenir/launcher.py"
_PYTHON = "/run/slapenir/python"
_HOSTS = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n"
_RESOLVER = "nameserver 127.0.0.1\noptions edns0\n"
# What each file system in memory may hold: this part of the memory.
_PARTS = {
    "/tmp": 4, "/home": 4, "/var/tmp": 16, "/dev/shm": 16, "/run": 64, "/root": 64,  # noqa: S108
}  # fmt: skip
_COVER_BYTES = 64 << 10


@attrs.frozen(kw_only=True)
class View:
    """What is asked for; all paths are absolute and real.

    ``hidden`` are the gateway's own files and ``sockets`` what was found of the host's, ``shown``
    more to show read-only, ``home`` the sandbox's home inside and ``kept`` where it is kept on
    the host (empty: nowhere).  ``memory`` in bytes is what scratch directories are measured by.
    """

    workspace: str
    home: str
    uid: int
    gid: int
    kept: str = ""
    hidden: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    toolchains: tuple[Shown, ...] = ()
    memory: int = attrs.field(factory=physical_memory)

    @property
    def writable(self) -> tuple[str, ...]:
        """Where the sandbox may write, as it sees it."""
        return (self.workspace, self.home, "/tmp", "/var/tmp", "/run", "/dev", "/proc")  # noqa: S108

    @property
    def sources(self) -> tuple[str, ...]:
        """What is mounted that is not the system's, by real paths."""
        kept = (self.kept,) if self.kept else ()
        return (*kept, self.workspace, *self.shown, *(source for source, _ in self.toolchains))

    def check_kept(self) -> None:
        """Raise SandboxError for a link in the kept home where something is to be mounted."""
        if not self.kept:
            return
        places = [self.workspace, *self.shown, *(place for _, place in self.toolchains)]
        for place in places:
            if contains(self.home, place) and place != self.home:
                check_way(self.kept, os.path.join(self.kept, os.path.relpath(place, self.home)))


def mounts(view: View, pinned: Mapping[str, int] | None = None) -> list[str]:
    """Return bubblewrap's arguments for the file system, all but the kit's overlays.

    ``pinned`` are descriptors to mount instead of what their paths lead to by then.  Raises
    SandboxError where something of the gateway's cannot be covered.
    """
    words = ["--proc", "/proc", "--dev", "/dev", *_scratch("/dev/shm", view)]  # noqa: S108
    words += ["--remount-ro", "/dev"]  # itself is one in memory, of no size
    for path in SYSTEM:
        words += _system(path)
    for path in SCRATCH:
        words += _scratch(path, view)
    pinned = pinned or {}
    if view.kept:
        words += _bind("--bind", view.kept, view.home, pinned)
    else:
        words += ["--perms", "0700", "--dir", view.home]
    placed = [
        (place, _bind("--ro-bind", source, place, pinned)) for source, place in view.toolchains
    ]
    placed += [(view.workspace, _bind("--bind", view.workspace, view.workspace, pinned))]
    placed += [(path, _bind("--ro-bind", path, path, pinned)) for path in view.shown]
    inside = [place for place, _ in placed]
    placed += _covered(view, inside)
    # What is further down comes later, so that nothing lies under what holds it.
    for _, some in sorted(placed, key=lambda one: one[0].count("/")):
        words += some
    return words


def knows_descriptors(bwrap: str) -> bool:
    """Whether bubblewrap can be given descriptors to mount."""
    told = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False)
    return "--ro-bind-fd" in told.stdout


def _bind(option: str, source: str, place: str, pinned: Mapping[str, int]) -> list[str]:
    if source in pinned:
        return [f"{option}-fd", str(pinned[source]), place]
    return [option, source, place]


def _system(path: str) -> list[str]:
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind", path, path] if os.path.isdir(path) else []


def _scratch(path: str, view: View) -> list[str]:
    mode = "1777" if path.endswith(("tmp", "shm")) else "0755"
    return ["--perms", mode, "--size", str(view.memory // _PARTS[path]), "--tmpfs", path]


def _covered(view: View, inside: list[str]) -> list[tuple[str, list[str]]]:
    """Return what covers files of the gateway and sockets of the host, by where it is."""
    seen = [*((path, path) for path in view.shown), *view.toolchains]
    found = []
    for path, whole in covers(view.hidden, view.sockets, seen).items():
        if whole:
            mode = "0111" if any(contains(path, one) for one in inside) else "0000"
            words = ["--perms", mode, "--size", str(_COVER_BYTES), "--tmpfs", path]
        else:
            words = ["--ro-bind", "/dev/null", path]
        found.append((path, words))
    return found


def is_visible(path: str, view: View) -> bool:
    """Whether a directory on PATH is there inside."""
    places = (*SYSTEM, view.workspace, *view.shown, *(place for _, place in view.toolchains))
    named, real = os.path.normpath(path), os.path.realpath(path)
    return os.path.isdir(real) and all(
        any(contains(root, one) for root in places) for one in (named, real)
    )


def is_writable(path: str, uid: int, gid: int) -> bool:
    """Whether a user could write to a directory, as far as its mode says."""
    status = os.stat(path)
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
    return bool(status.st_mode >> shift & 2)


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
