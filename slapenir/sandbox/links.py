"""Following a path one name at a time, so that no link of an agent's decides where it leads.

What an agent may write to, it may replace by a link; what a path was checked to be is then not
what is mounted.  So each link is judged as it is met, and what was found is held by a descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

import attrs

from slapenir.errors import SandboxError

_MAX_LINKS = 40  # as the kernel has it
_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.frozen
class Link:
    """A symbolic link on the way: where it is, what its directory and it itself are."""

    place: str
    directory: os.stat_result
    status: os.stat_result


@attrs.frozen
class Agent:
    """Whom a sandbox runs as, and the directories that it writes to whoever owns them.

    ``anybody``: earlier runs may have been as any user but root, as they are where root asks.
    """

    uid: int
    gid: int
    trees: tuple[str, ...] = ()
    anybody: bool = False

    def made(self, link: Link) -> bool:
        """Whether a link may be one that an agent put there, now or in an earlier run."""
        if self.holds(link) or link.status.st_uid == self.uid:
            return True
        mode = link.directory.st_mode
        if self.anybody and (link.status.st_uid or link.directory.st_uid):
            return True
        mine = link.directory.st_uid == self.uid
        shift = 6 if mine else 3 if link.directory.st_gid == self.gid else 0
        return bool(mode >> shift & 2) and (mine or not mode & stat.S_ISVTX)

    def holds(self, link: Link) -> bool:
        """Whether a link is in one of the directories."""
        return any(contains(tree, link.place) for tree in self.trees)


def contains(directory: str, path: str) -> bool:
    """Whether a path is a directory or below it, by their names."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def resolve(path: str, option: str, agent: Agent) -> str:
    """Return where a path leads; refuses links that an agent may have made, with SandboxError."""

    def judge(link: Link) -> None:
        if agent.made(link):
            raise SandboxError(
                f"{option} {path} goes through the link {link.place}, which an agent may have made",
                "look where it leads, and name that place itself",
            )

    try:
        held, real = follow(path, judge)
    except OSError as error:
        raise SandboxError(f"{option} {path}: {error.strerror}", "check the path") from None
    os.close(held)
    return real


def links_of(path: str) -> tuple[str, list[Link]]:
    """Return where a path leads and the links on the way; raises OSError."""
    found: list[Link] = []
    held, real = follow(path, found.append)
    os.close(held)
    return real, found


def follow(path: str, judge: Callable[[Link], None]) -> tuple[int, str]:
    """Return a descriptor of what a path leads to, and its real path; raises OSError.

    ``judge`` is told each link before it is followed, and raises to refuse it.
    """
    here, real, links = os.open("/", _FLAGS), "/", 0
    rest = os.path.join(os.getcwd(), path).split("/")[::-1]
    try:
        while rest:
            part = rest.pop()
            if part in ("", "."):
                continue
            there = os.open(part, _FLAGS, dir_fd=here)
            status = os.fstat(there)
            if not stat.S_ISLNK(status.st_mode):
                os.close(here)
                here = there
                real = os.path.dirname(real) if part == ".." else os.path.join(real, part)
                continue
            try:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(0, "too many links")
                judge(Link(os.path.join(real, part), os.fstat(here), status))
                target = os.readlink("", dir_fd=there)
            finally:
                os.close(there)
            rest += target.split("/")[::-1]
            if target.startswith("/"):
                os.close(here)
                here, real = os.open("/", _FLAGS), "/"
        return here, real
    except BaseException:
        os.close(here)
        raise


class Pins:
    """Descriptors of what is mounted, by real paths: no link decides what a restart mounts."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Open real paths; raises SandboxError where one has become a link meanwhile."""
        self.held: dict[str, int] = {}
        try:
            for path in paths:
                if path not in self.held:
                    self.held[path] = _pin(path)
        except BaseException:
            self.close()
            raise

    def renew(self) -> None:
        """Take what is there now; raises SandboxError where a link has come in between.

        A directory that was made anew is one of the same place, which is what was judged.
        """
        for path, held in self.held.items():
            self.held[path] = _pin(path)
            os.close(held)

    def close(self) -> None:
        """Let go of them."""
        while self.held:
            os.close(self.held.popitem()[1])


def _pin(path: str) -> int:
    def judge(link: Link) -> None:
        raise _changed(path)

    try:
        return follow(path, judge)[0]
    except OSError:
        raise _changed(path) from None


def _changed(path: str) -> SandboxError:
    return SandboxError(
        f"{path} is not there any more, or a link has taken its place", "see what became of it"
    )


def check_way(top: str, path: str) -> None:
    """Raise SandboxError when a path goes through a link below ``top``, which is an agent's.

    What is not there yet is made as a directory when something is mounted on it.
    """
    here = top
    for part in os.path.relpath(path, top).split("/"):
        here = os.path.join(here, part)
        if os.path.islink(here):
            raise SandboxError(
                f"{here} is a link, and something of the sandbox's belongs there", "remove it"
            )
