"""The files around the gateway: who may own, read and write them (T115, T239).

What the gateway trusts must not be writable by an agent: not the file, not a directory above it,
not a link on the way.  Group-writable directories above are let be, for a umask of 002 makes them
everywhere; the thing itself has to be ours alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator

from slapenir.config.settings import Settings
from slapenir.errors import ConfigError, ConfigErrors, PkiError
from slapenir.names import Action
from slapenir.pki.files import read_guarded, replace, write_new

KEY_FILE = "gateway.key"
KEY_BYTES = 32
_STATE_PATH = "$.gateway.state_dir"


def _is_ours(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _check_way(path: str, key: str) -> None:
    """Refuse a link or a holding directory that is another user's, and ones that anyone can write.

    Who owns the directories further up is not asked: a checkout in a user's home may be run by
    root.
    """
    link = os.lstat(path)
    if stat.S_ISLNK(link.st_mode) and not _is_ours(link.st_uid):
        raise ConfigError(f"{path} is a link made by another user", key, "remove the link")
    for start in {os.path.abspath(path), os.path.realpath(path)}:
        above = os.path.dirname(start)
        holder = os.stat(above)
        if not _is_ours(holder.st_uid):
            raise ConfigError(
                f"{above} belongs to user {holder.st_uid}", key, f"run: chown root {above}"
            )
        for directory in _upwards(above):
            mode = os.stat(directory).st_mode
            if mode & 0o002 and not mode & stat.S_ISVTX:
                raise ConfigError(
                    f"anyone can write to {directory}", key, f"run: chmod o-w {directory}"
                )


def _upwards(directory: str) -> Iterator[str]:
    yield directory
    while directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
        yield directory


def read_config_file(file: str) -> bytes:
    """Return the content of the configuration file.

    Raises ConfigErrors when it is missing, not a file, longer than 1 MiB, owned by someone other
    than root or this user, or writable by anyone else, in itself or by way of a directory or link.
    """
    try:
        _check_way(file, "$")
        data = read_guarded(os.path.realpath(file), private=False)
    except ConfigError as error:
        raise ConfigErrors([ConfigError(error.message, "$", error.remedy, file)]) from None
    except PkiError as error:
        raise ConfigErrors([ConfigError(str(error), "$", "", file)]) from None
    except FileNotFoundError:
        raise ConfigErrors(
            [ConfigError("does not exist", "$", "run: slapenir init DIR", file)]
        ) from None
    except OSError as error:
        raise ConfigErrors([ConfigError(f"{error.strerror}", "$", "", file)]) from None
    return data


def _check_directory(path: str, key: str, forbidden: int, remedy: str) -> None:
    try:
        _check_way(path, key)
        status = os.stat(path)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", key, remedy) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", key) from None
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path} is not a directory", key, remedy)
    if not _is_ours(status.st_uid):
        raise ConfigError(
            f"{path} belongs to user {status.st_uid}", key, "own it by root or the gateway's user"
        )
    if status.st_mode & forbidden:
        raise ConfigError(f"{path} is open to others", key, f"run: chmod 700 {path}")


def check_state_dir(path: str) -> None:
    """Raise ConfigError unless the state directory is there and closed to everyone else."""
    _check_directory(path, _STATE_PATH, 0o077, "run: slapenir ca init FILE")


def check_audit_dir(path: str) -> None:
    """Raise ConfigError unless the audit directory is there and nobody else can write to it."""
    _check_directory(path, "$.gateway.audit", 0o022, f"run: mkdir -m 700 {path}")


def check_origin_ca(path: str) -> None:
    """Raise ConfigError unless the file of CAs for origins can be read and is ours or root's."""
    key = "$.origin.ca_file"
    try:
        _check_way(path, key)
        read_guarded(os.path.realpath(path), private=False)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", key, "install ca-certificates") from None
    except PkiError as error:
        raise ConfigError(str(error), key) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", key) from None


def make_directory(path: str, key: str, mode: int = 0o700) -> None:
    """Make a directory, with exactly that mode, where there is none; raises ConfigError."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, mode)
        os.chmod(path, mode)
    except FileExistsError:
        return
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}", key) from None


def gateway_key(state_dir: str, create: bool) -> bytes:
    """Return the 32 bytes from which placeholders are derived, from gateway.key (0600).

    With ``create`` a missing one is made, from the system's random source.  Raises ConfigError
    when it is missing otherwise, a link, open to others, or of another length.
    """
    path = os.path.join(state_dir, KEY_FILE)
    try:
        try:
            key = read_guarded(path, private=True)
        except FileNotFoundError:
            if not create:
                raise ConfigError(
                    f"{path} is missing", _STATE_PATH, "run: slapenir ca init FILE"
                ) from None
            key = secrets.token_bytes(KEY_BYTES)
            write_new(path, key, 0o600)
    except PkiError as error:
        raise ConfigError(str(error), _STATE_PATH) from None
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path} does not hold {KEY_BYTES} bytes", _STATE_PATH, "restore it from a backup"
        )
    return key


def bundle_path(settings: Settings, identity: str = "") -> str:
    """Return the file of certificates that an identity's agents are told to trust.

    With a CA for each identity it is ``ca_bundle`` with the identity's name before its suffix.
    """
    path = settings.gateway.ca_bundle
    if settings.gateway.ca != "per-identity" or not identity:
        return path
    stem, suffix = os.path.splitext(path)
    return f"{stem}.{identity}{suffix}"


def write_ca_bundle(settings: Settings, authority_pem: bytes, identity: str = "") -> None:
    """Write what agents are to trust to their bundle, mode 0644; nothing when it is up to date.

    That is the interception authority, and the origins' CAs too when a rule passes TLS through, for
    then agents see the origins' own certificates.  Raises ConfigError.
    """
    path, key = bundle_path(settings, identity), "$.gateway.ca_bundle"
    data = authority_pem
    if any(rule.action is Action.PASSTHROUGH for rule in settings.rules):
        data += _origin_cas(settings.origin.ca_file)
    with contextlib.suppress(FileNotFoundError, PkiError):  # whatever is there is replaced
        if read_guarded(path, private=False) == data:
            return
    try:
        replace(path, data, 0o644)
    except PkiError as error:
        raise ConfigError(str(error), key, "set ca_bundle to a path that can be written") from None


def _origin_cas(path: str) -> bytes:
    check_origin_ca(path)
    return b"\n" + read_guarded(os.path.realpath(path), private=False)
