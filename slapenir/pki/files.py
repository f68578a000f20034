"""Key and certificate files, opened so that a swapped link or a loose mode is seen (T115, T239)."""

from __future__ import annotations

import contextlib
import os
import stat

from slapenir.errors import PkiError

MAX_BYTES = 1 << 20


def _trusted_owner(uid: int) -> bool:
    return uid in (0, os.geteuid())


def read_guarded(path: str, *, private: bool, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises FileNotFoundError when it is missing, and PkiError with the remedy when it is a
    symbolic link, not a regular file, owned by someone other than root or this user, writable by
    group or others or, with ``private``, readable by them.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        if os.path.islink(path):
            raise PkiError(f"{path} is a symbolic link; put the file itself there") from None
        raise PkiError(f"{path} cannot be read: {error.strerror}") from None
    try:
        _check_status(path, os.fstat(descriptor), private)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise PkiError(f"{path} is longer than {limit} bytes")
    return data


def _check_status(path: str, status: os.stat_result, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PkiError(f"{path} is not a regular file")
    if not _trusted_owner(status.st_uid):
        raise PkiError(f"{path} is owned by user {status.st_uid}; own it by root or this user")
    if private and status.st_mode & 0o077:
        raise PkiError(f"{path} can be read or written by others; run: chmod 600 {path}")
    if status.st_mode & 0o022:
        raise PkiError(f"{path} can be written by others; run: chmod go-w {path}")


def write_new(path: str, data: bytes, mode: int) -> None:
    """Write a file that did not exist, with exactly ``mode``, and flush it to the disk.

    Raises PkiError when the path exists (whatever it is) or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        raise PkiError(f"{path} exists already and is never overwritten") from None
    except OSError as error:
        raise PkiError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):  # half a file would be in the way the next time
            os.unlink(path)
        raise PkiError(f"{path} cannot be written: {error.strerror}") from None


def replace(path: str, data: bytes, mode: int) -> None:
    """Put ``data`` at ``path`` in one step; a link there is replaced and never followed.

    Raises PkiError when that cannot be done.
    """
    temporary = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    write_new(temporary, data, mode)
    try:
        os.replace(temporary, path)
        flush_directory(os.path.dirname(path))
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise PkiError(f"{path} cannot be written: {error.strerror}") from None


def check_private_directory(path: str) -> None:
    """Raise PkiError unless a directory is there, no link, ours or root's, and closed to others."""
    try:
        status = os.lstat(path)
    except OSError as error:
        raise PkiError(f"{path} cannot be used: {error.strerror}") from None
    if stat.S_ISLNK(status.st_mode):
        raise PkiError(f"{path} is a symbolic link; put the directory itself there")
    if not stat.S_ISDIR(status.st_mode):
        raise PkiError(f"{path} is not a directory")
    if not _trusted_owner(status.st_uid):
        raise PkiError(f"{path} is owned by user {status.st_uid}; own it by root or this user")
    if status.st_mode & 0o077:
        raise PkiError(f"{path} is open to others; run: chmod 700 {path}")


def flush_directory(path: str) -> None:
    """Flush a directory to the disk, so that names that came and went in it stay so.

    Raises OSError.
    """
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
