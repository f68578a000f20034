"""Directories of a runner for as long as it lives, and what killed ones have left of theirs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator

from slapenir.errors import SandboxError

KIT, RUN = "slapenir-kit-", "slapenir-run-"
_NAMES = re.compile(f"(?:{KIT}|{RUN})[a-z0-9_]{{8}}", re.ASCII)
_TRIES = 5


class Scratch:
    """A new private directory in ``place``; this process has a lock on it until its ``cleanup``."""

    def __init__(self, place: str, prefix: str) -> None:
        for _ in range(_TRIES):
            self.name = tempfile.mkdtemp(prefix=prefix, dir=place)
            self._lock = _locked(self.name)
            if self._lock >= 0:
                return  # else another runner took it for a dead one's, before the lock
        raise SandboxError(f"{place} cannot be used", "see who removes what is in it")

    def cleanup(self) -> None:
        """Remove it."""
        shutil.rmtree(self.name, ignore_errors=True)
        os.close(self._lock)


def held(place: str, prefix: str) -> Iterator[str]:
    """Yield the directories of this user's other runners that live."""
    for path in _ours(place):
        if os.path.basename(path).startswith(prefix):
            lock = _locked(path)
            if lock < 0:
                yield path
            else:
                os.close(lock)


def sweep(place: str) -> None:
    """Remove the directories of this user's runners that are dead."""
    for path in _ours(place):
        lock = _locked(path)
        if lock >= 0:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _ours(top: str) -> Iterator[str]:
    """Yield the directories that have such a name and belong to this user, no links."""
    with contextlib.suppress(OSError):
        for name in os.listdir(top):
            path = os.path.join(top, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
                if mine and _NAMES.fullmatch(name):
                    yield path


def _locked(path: str) -> int:
    """Lock a directory; return the descriptor, -1 where another has it or it is gone."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        lock = os.open(path, flags)
    except OSError:
        return -1
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.lstat(path)):
            return lock
    os.close(lock)
    return -1
