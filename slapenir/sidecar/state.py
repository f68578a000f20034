"""The sidecar's directory and its token: who may read them (T239)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Mapping

from slapenir.credentials.sources import read_source
from slapenir.errors import PkiError
from slapenir.secret import Secret
from slapenir.sidecar.options import TOKEN_VARIABLE

_LOCK = "lock"


def claim_state(path: str) -> int:
    """Make the directory where it is missing, and lock it; returns the descriptor of the lock.

    The lock is held until that is closed or the process ends.  Raises PkiError when the directory
    is open to others, another user's, or used by another sidecar.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(path, 0o700)
        _check(path, os.stat(path))
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(os.path.join(path, _LOCK), flags, 0o600)
    except OSError as error:
        raise PkiError(
            f"{path} cannot be used: {error.strerror}; choose another with --state"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise PkiError(f"{path} is used by another sidecar; give each its own --state") from None
    return descriptor


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise PkiError(f"{path} is not a directory; choose another with --state")
    if status.st_uid not in (0, os.geteuid()):
        raise PkiError(f"{path} belongs to user {status.st_uid}; own it by this user")
    if status.st_mode & 0o077:
        raise PkiError(f"{path} is open to others; run: chmod 700 {path}")


def token_reader(token_file: str, environ: Mapping[str, str]) -> Callable[[], Secret | None]:
    """Return what reads the token anew each time, from the file or else from the environment.

    It returns None when neither was given, and raises PkiError when the file cannot be used.  A
    file that systemd passed (LoadCredential=) may be read by the unit's user through an ACL.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    value = environ.get(TOKEN_VARIABLE, "")
    held = Secret(value.encode("utf-8", "surrogateescape")) if value else None
    source = f"file:{token_file}"
    if directory and os.path.dirname(token_file) == os.path.normpath(directory):
        source = f"systemd:{os.path.basename(token_file)}"

    def read() -> Secret | None:
        if not token_file:
            return held
        try:
            return read_source(source, {}, directory or None)
        except ValueError as error:
            raise PkiError(f"the token cannot be used: {error}") from None

    return read
