"""A certificate, a key and roots in files of somebody else: read again when they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from OpenSSL import crypto
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from slapenir.errors import PkiError
from slapenir.pki.files import read_guarded
from slapenir.pki.held import from_pem
from slapenir.sidecar.options import ByHand
from slapenir.sidecar.towards import Towards

POLL_SECONDS = 5.0
_Stamp = tuple[tuple[int, int, int], ...]


class Handmade:
    """Look at the files every five seconds.

    ``changed`` is called with what they hold, in the reactor's thread; ``failed`` with why they
    cannot be used, and then what was there before stays in use.
    """

    def __init__(
        self,
        reactor: Any,
        way: ByHand,
        changed: Callable[[Towards], None],
        failed: Callable[[str], None],
    ) -> None:
        self._way = way
        self._changed = changed
        self._failed = failed
        self._stamp: _Stamp = ()
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def start(self) -> None:
        """Read the files once, then watch them; raises PkiError when they cannot be used."""
        self._stamp = self._stamps()
        self._changed(self.read())
        self._loop.start(POLL_SECONDS, now=False)

    def stop(self) -> None:
        """Watch no more."""
        if self._loop.running:
            self._loop.stop()

    def read(self) -> Towards:
        """Return what the files hold; raises PkiError.  Blocks."""
        way = self._way
        chain = from_pem(_read(way.certificate, private=False), way.certificate)
        roots = from_pem(_read(way.ca, private=False), way.ca)
        key = _key(way.key)
        return Towards(chain, key, roots, chain[0].not_valid_after_utc.timestamp())

    def _look(self) -> Deferred[None]:
        return deferToThread(self._read_if_changed).addCallbacks(self._take, self._told)

    def _read_if_changed(self) -> Towards | None:
        stamp = self._stamps()
        if stamp == self._stamp:
            return None
        self._stamp = stamp  # also when it cannot be read: that is said once for each change
        return self.read()

    def _take(self, found: Towards | None) -> None:
        if found is not None:
            self._changed(found)

    def _told(self, failure: Failure) -> None:
        error = failure.value
        self._failed(str(error) if isinstance(error, PkiError) else type(error).__name__)

    def _stamps(self) -> _Stamp:
        way = self._way
        return tuple(_stamp(path) for path in (way.certificate, way.key, way.ca))


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: str, *, private: bool) -> bytes:
    try:
        return read_guarded(os.path.realpath(path), private=private)
    except FileNotFoundError:
        raise PkiError(f"{path} is missing") from None
    except OSError as error:
        raise PkiError(f"{path} cannot be read: {error.strerror}") from None


def _key(path: str) -> Any:
    data = _read(path, private=True)
    try:  # an empty passphrase keeps OpenSSL from asking for one on the terminal
        return crypto.load_privatekey(crypto.FILETYPE_PEM, data, b"").to_cryptography_key()
    except (crypto.Error, ValueError, TypeError):
        raise PkiError(
            f"{path} is not a private key in PEM without a passphrase; write one, mode 0600"
        ) from None
