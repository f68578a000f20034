"""What the identity CA remembers: its certificates in force, what it revoked, its lists' number.

One JSON file that is replaced in one step: whatever is written before that is not there yet, so a
process that dies at any point leaves the CA as it was.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

import attrs

from slapenir.errors import PkiError
from slapenir.pki.files import check_private_directory, read_guarded, replace

BOOK, LOCK, ISSUED = "book.json", "lock", "issued.jsonl"
_MAX_BOOK, _MAX_LOG = 64 << 20, 1 << 30
_SHORTENED_EVERY = 16 << 20
_KEPT_SECONDS = 90 * 86400.0


@attrs.frozen(slots=True)
class Term:
    """A certificate of the CA by the stem of its files; in force ``until`` then, None for open."""

    name: str
    until: float | None = None

    def in_force(self, now: float) -> bool:
        """Whether it is trusted at ``now``."""
        return self.until is None or now < self.until


@attrs.frozen(slots=True)
class Revoked:
    """One revoked certificate; ``issuer`` is the stem of the issuing CA's files."""

    serial: str
    issuer: str
    when: float
    reason: str
    identity: str = ""


@attrs.frozen(slots=True)
class Book:
    """The CA's state.  The first of ``roots`` and of ``issuing`` are those that sign."""

    roots: tuple[Term, ...]
    issuing: tuple[Term, ...]
    cross: str = ""
    revoked: tuple[Revoked, ...] = ()
    lists: int = 0
    made: int = 0


@attrs.frozen(slots=True)
class Entry:
    """One line of the log of issued certificates."""

    serial: str
    identity: str
    issuer: str
    not_after: float


def read_book(directory: str) -> Book:
    """Return the book; raises PkiError saying what to do."""
    path = os.path.join(directory, BOOK)
    try:
        found: Any = json.loads(read_guarded(path, private=True, limit=_MAX_BOOK))
        book = Book(
            tuple(Term(**one) for one in found["roots"]),
            tuple(Term(**one) for one in found["issuing"]),
            found["cross"],
            tuple(Revoked(**one) for one in found["revoked"]),
            found["lists"],
            found["made"],
        )
        if not book.roots or not book.issuing:
            raise ValueError("nothing signs")
    except FileNotFoundError:
        raise PkiError(f"{path} is missing; run: slapenir ca init FILE") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PkiError(f"{path} is damaged; restore it from a backup") from None
    return book


def write_book(directory: str, book: Book) -> None:
    """Replace the book in one step; raises PkiError."""
    data = json.dumps(attrs.asdict(book), indent=1).encode("ascii")
    replace(os.path.join(directory, BOOK), data, 0o600)


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Hold the CA's lock: one process or thread changes it at a time."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    check_private_directory(directory)
    try:
        descriptor = os.open(os.path.join(directory, LOCK), flags, 0o600)
    except OSError as error:
        raise PkiError(
            f"{directory} cannot be locked: {error.strerror}; run this as the gateway's user"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def append_entry(directory: str, entry: Entry, now: float) -> None:
    """Add a line to the log of issued certificates and flush it to the disk; raises PkiError.

    Whenever it has grown by 16 MiB, what ended 90 days before ``now`` is left out of it.
    """
    path = os.path.join(directory, ISSUED)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            line = (b"\n" if torn else b"") + _line(entry)
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PkiError(f"{path} cannot be written: {error.strerror}") from None
    if size // _SHORTENED_EVERY != (size + len(line)) // _SHORTENED_EVERY:
        kept = [one for one in read_entries(directory) if one.not_after > now - _KEPT_SECONDS]
        replace(path, b"".join(_line(one) for one in kept), 0o600)


def _line(entry: Entry) -> bytes:
    return json.dumps(attrs.asdict(entry)).encode("ascii") + b"\n"


def read_entries(directory: str) -> list[Entry]:
    """Return every issued certificate in order; a torn last line is left out."""
    path = os.path.join(directory, ISSUED)
    try:
        data = read_guarded(path, private=True, limit=_MAX_LOG)
    except FileNotFoundError:
        return []
    found = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError, TypeError):
            found.append(Entry(**json.loads(line)))
    return found
