"""A file that only grows: opened safely, never torn, found again after rotation.

Only a regular file is accepted, so a write goes to the page cache and cannot block the reactor
the way a full pipe does.  The file is locked while it is open: two gateways that wrote to one
file could tear each other's lines and repair them wrongly.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ROTATION_SECONDS = 1.0
_TAIL = 65536


class LogFile:
    """Append whole lines to ``name`` in ``directory``.

    ``clock`` gives seconds; jumps of it do no harm.  Every method but ``close`` raises OSError.
    A failed call leaves the object usable: the next one opens the file again if it has to.
    """

    __slots__ = ("_checked", "_clock", "_directory", "_fd", "_identity", "_name", "_torn", "path")

    def __init__(self, directory: str, name: str, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._name = name
        self._clock = clock
        self._fd = -1
        self._identity = (0, 0)
        self._checked = 0.0
        self._torn = False
        self.path = os.path.join(directory, name)

    def open(self) -> None:
        """Open the file, made with mode 0600 if need be, and cut off a line that was torn.

        Raises OSError when the directory or the file could be changed by somebody else, the file
        is no regular file (a symbolic link, a pipe), or another process has it open.
        """
        self.close()
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _refuse_shared(os.fstat(directory), self._directory)
            fd = os.open(self._name, _FLAGS, 0o600, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file", self.path)
            _refuse_shared(status, self.path)
            _lock(fd, self.path)
            self._torn = not _cut_torn_line(fd, status.st_size)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._identity = (status.st_dev, status.st_ino)
        self._checked = self._clock()

    def append(self, line: bytes) -> None:
        """Write ``line``, which ends in a newline, whole or not at all; OSError when it failed."""
        if self._fd < 0:
            self.open()
        elif abs(self._clock() - self._checked) >= _ROTATION_SECONDS:
            self._follow_rotation()
        if self._torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        if written != len(line):
            self._take_back(written)
            raise OSError(errno.ENOSPC, "was written in part only", self.path)
        self._torn = False

    def close(self) -> None:
        """Close the file; a later ``append`` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _follow_rotation(self) -> None:
        """Open the file anew when its name no longer means the file that is open."""
        self._checked = self._clock()
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            self.open()
            return
        if (status.st_dev, status.st_ino) != self._identity:
            self.open()

    def _take_back(self, written: int) -> None:
        """Remove the last ``written`` bytes; where that is forbidden, begin a new line next."""
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
        except OSError:
            self._torn = True


def _refuse_shared(status: os.stat_result, path: str) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise OSError(errno.EPERM, "is owned by another user", path)
    if status.st_mode & 0o022:
        raise OSError(errno.EPERM, "can be written by group or others", path)


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "is in use by another process", path) from None


def _cut_torn_line(fd: int, size: int) -> bool:
    """Cut what follows the last newline; False when there is such a tail and it had to stay.

    A torn line is the record of something that did not happen: records come before effects.
    """
    start = max(0, size - _TAIL)
    tail = os.pread(fd, size - start, start)
    if not tail or tail.endswith(b"\n"):
        return True
    end = tail.rfind(b"\n") + 1
    if end == 0 and start > 0:
        return False
    try:
        os.ftruncate(fd, start + end)
    except OSError:
        return False
    return True
