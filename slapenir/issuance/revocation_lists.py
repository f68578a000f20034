"""A listener's list of revoked certificates: read from a file or a URL, again and again.

A file is looked at every few seconds and read when it changed.  What cannot be read twice in a row
is no list: the first time may have been in the middle of its being written.  A list from a URL
stays in force until its own end when it cannot be fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from slapenir.errors import PkiError, SlapenirError
from slapenir.pki.files import read_guarded
from slapenir.pki.revocation import MAX_BYTES, Revocations

URL_SECONDS = 60.0
Stamp = tuple[int, int, int]
Fetch = Callable[[str], "Deferred[bytes]"]


class RevocationList:
    """One list.  ``look`` is to be called every few seconds.

    ``fetch`` gets a URL's body; ``issuers`` are the CAs whose signature counts; ``changed`` is told
    the list that is in force, or None, and what went wrong.
    """

    def __init__(
        self,
        reactor: Any,
        where: str,
        fetch: Fetch,
        issuers: Callable[[], Sequence[x509.Certificate]],
        changed: Callable[[Revocations | None, str], None],
    ) -> None:
        self._reactor = reactor
        self._where = where
        self._fetch = fetch
        self._issuers = issuers
        self._changed = changed
        self._stamp: Stamp | None = None
        self._due = 0.0
        self._busy = False
        self._failures = 0
        self._last: Revocations | None = None
        self._newest: Revocations | None = None

    @property
    def is_url(self) -> bool:
        """Whether it comes from somewhere else."""
        return "://" in self._where

    def read_now(self) -> Revocations:
        """Read the file at once, for the start; raises PkiError."""
        stamp = stamp_of(self._where)
        found = self._parse(_read(self._where))
        self._stamp, self._last = stamp, found
        return found

    def look(self, force: bool = False) -> None:
        """Read it again when it is time, or changed; one reading at a time."""
        if self._busy:
            return
        if self.is_url:
            now = self._reactor.seconds()
            if not force and now < self._due:
                return
            self._due = now + URL_SECONDS
            self._begin(maybeDeferred(self._fetch, self._where), None)
        else:
            stamp = stamp_of(self._where)
            if not force and stamp == self._stamp and not self._failures:
                return
            self._begin(self._in_thread(_read, self._where), stamp)

    def forget(self) -> None:
        """Read it anew at the next look: the issuers changed."""
        self._stamp, self._due = None, 0.0

    def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, call, *arguments)

    def _begin(self, reading: Deferred[bytes], stamp: Stamp | None) -> None:
        self._busy = True
        parsed = reading.addCallback(lambda data: self._in_thread(self._parse, data))
        parsed.addCallbacks(self._read, self._failed, callbackArgs=(stamp,))

    def _parse(self, data: bytes) -> Revocations:
        return Revocations.parse(data, self._issuers())

    def _read(self, found: Revocations, stamp: Stamp | None) -> None:
        if self.is_url:  # a file is the operator's, a URL's answer may be anybody's
            found = self._newest = found.after(self._newest, self._issuers())
        self._busy, self._failures, self._stamp, self._last = False, 0, stamp, found
        self._changed(found, "")

    def _failed(self, failure: Failure) -> None:
        self._busy = False
        self._failures += 1
        error = failure.value
        phrase = str(error) if isinstance(error, SlapenirError) else "it cannot be read"
        if not self.is_url and self._failures >= 2:
            self._last = None
        if self._failures <= 2:
            self._changed(self._last, phrase)


def stamp_of(path: str) -> Stamp | None:
    """Return what changes when a file does; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: str) -> bytes:
    try:
        return read_guarded(path, private=False, limit=MAX_BYTES)
    except FileNotFoundError:
        raise PkiError(f"{path} does not exist") from None
