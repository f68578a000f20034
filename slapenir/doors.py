"""The TLS listeners' doorways: where their certificates and lists come from while the gateway runs.

Files are looked at every few seconds, off the reactor where they are read.  A certificate that
cannot be used changes nothing; a CA or a list that changed is put to every open connection at
once, whatever is wrong with the other files.  CAs that cannot be read twice running are trusted no
more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from slapenir.config.settings import ListenerTls
from slapenir.edge.doorway import ClientAuth, Doorway, Material
from slapenir.errors import PkiError, SlapenirError
from slapenir.events import CertificateLoaded, Event, RenewalFailed, RevocationsLoaded
from slapenir.issuance.revocation_lists import Fetch, RevocationList, Stamp, stamp_of
from slapenir.pki.held import read_chain
from slapenir.pki.key_files import read_signing_key
from slapenir.pki.revocation import Revocations

Anchors: TypeAlias = tuple[x509.Certificate, ...]
Own: TypeAlias = tuple[Anchors, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]

LOOK_SECONDS = 5.0
"""How often files are looked at: what changed is in force within twice this time."""


class Door(Protocol):
    """One listener's TLS with what keeps it up to date."""

    def look(self, force: bool = False) -> None:
        """Look whether something changed; ``force`` reads it all anew."""


class Doors:
    """Every door, looked at every LOOK_SECONDS; ``review`` puts changes to open connections."""

    def __init__(self, reactor: Any, review: Callable[[], None]) -> None:
        self._reactor = reactor
        self._review = review
        self._doors: list[Door] = []
        self._call: IDelayedCall | None = None

    def add(self, door: Door) -> None:
        """Keep a door up to date from now on."""
        self._doors.append(door)
        if self._call is None:
            self._call = self._reactor.callLater(LOOK_SECONDS, self._look)

    def look_now(self) -> None:
        """Read everything anew: a SIGHUP asks for it."""
        for door in self._doors:
            door.look(force=True)

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = self._reactor.callLater(LOOK_SECONDS, self._look)
        for door in self._doors:
            door.look()
        self._review()  # certificates end by themselves, too


class FileDoor:
    """A door of files: ``tls = { certificate, key, client_ca, crl }``.

    The constructor reads them; it raises PkiError for what cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        tls: ListenerTls,
        publish: Callable[[Event], None],
        review: Callable[[], None],
        fetch: Fetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._label = f"listener:{name}"
        self._name = name
        self._tls = tls
        self._publish = publish
        self._review = review
        self._busy = False
        self._failures = self._unread = 0
        self._stamps = self._stamps_now()
        material = read_material(tls)
        self.doorway = Doorway(material, bool(tls.crl) and tls.crl_required, clock)
        self._list = None
        if tls.crl:
            self._list = RevocationList(
                reactor, tls.crl, fetch, lambda: self.doorway.material.anchors, self._revoked
            )
            if self._list.is_url:
                self._list.look()
            else:
                self._revoked(self._list.read_now(), "")
        self._told(material)

    def look(self, force: bool = False) -> None:
        """See Door."""
        stamps = self._stamps_now()
        if not self._busy and (force or self._failures or stamps != self._stamps):
            self._busy = True
            reading: Deferred[Files] = deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), read_files, self._tls
            )
            reading.addCallback(self._changed, stamps).addErrback(self._failed)
        if self._list is not None:
            self._list.look(force)

    def _stamps_now(self) -> tuple[Stamp | None, ...]:
        tls = self._tls
        return tuple(stamp_of(path) for path in (tls.certificate, tls.key, tls.client_ca) if path)

    def _changed(self, files: Files, stamps: tuple[Stamp | None, ...]) -> None:
        """Take what can be used of the files; the first failure may be amid a replacement."""
        self._busy = False
        anchors = files.anchors
        if isinstance(anchors, PkiError):
            self._unread += 1
            anchors = () if self._unread > 1 else self.doorway.material.anchors
        else:
            self._unread = 0
        self._take(anchors, files.own)
        error = next((e for e in (files.own, files.anchors) if isinstance(e, PkiError)), None)
        if error is None:
            self._stamps, self._failures = stamps, 0
        else:
            self._failed(Failure(error))

    def _take(self, anchors: Anchors, own: Own | PkiError) -> None:
        """Put CAs in force, and the certificate where it can be used."""
        before = self.doorway.material
        material = attrs.evolve(before, anchors=anchors)
        if material.anchors != before.anchors:
            self._put(material)
            if self._list is not None:
                self._list.forget()
        if not isinstance(own, PkiError) and own[0] != material.chain:
            self._put(attrs.evolve(material, chain=own[0], key=own[1]))

    def _put(self, material: Material) -> None:
        self.doorway.replace(material)
        self._told(material)
        self._review()

    def _failed(self, failure: Failure) -> None:
        """Say so the second time running; it is tried again at the next look."""
        self._busy = False
        self._failures += 1
        if self._failures == 2:
            ends = self.doorway.material.chain[0].not_valid_after_utc.timestamp()
            self._publish(RenewalFailed(self._label, phrase_of(failure), LOOK_SECONDS, ends))

    def _told(self, material: Material) -> None:
        for label, certificate in labelled(self._label, material):
            ends = certificate.not_valid_after_utc.timestamp()
            self._publish(CertificateLoaded(label, ends))

    def _revoked(self, found: Revocations | None, error: str) -> None:
        self.doorway.revise(found)
        tell_list(self._name, found, error, self._publish)
        self._review()


def tell_list(
    name: str, found: Revocations | None, error: str, publish: Callable[[Event], None]
) -> None:
    """Say which list of revoked certificates is in force from now on."""
    count, until = (found.count, found.next_update) if found is not None else (0, 0.0)
    publish(RevocationsLoaded(name, count, until, error))


def labelled(label: str, material: Material) -> Sequence[tuple[str, x509.Certificate]]:
    """Return a listener's certificate and its clients' CAs with the labels of their gauges."""
    anchors = material.anchors
    return [
        (label, material.chain[0]),
        *((f"{label}:client-ca-{number}", one) for number, one in enumerate(anchors, 1)),
    ]


@attrs.frozen(slots=True)
class Files:
    """A listener's files as they are now: the certificate with its key, and the clients' CAs."""

    own: Own | PkiError
    anchors: Anchors | PkiError


def read_files(tls: ListenerTls) -> Files:
    """Read a listener's files, each part by itself."""
    own: Own | PkiError
    anchors: Anchors | PkiError
    try:
        own = _read_own(tls)
    except FileNotFoundError as error:
        own = PkiError(f"{error.filename} does not exist")
    except PkiError as error:
        own = error
    try:
        anchors = read_chain(tls.client_ca) if tls.client_ca else ()
    except FileNotFoundError as error:
        anchors = PkiError(f"{error.filename} does not exist")
    except PkiError as error:
        anchors = error
    return Files(own, anchors)


def read_material(tls: ListenerTls) -> Material:
    """Read a listener's files; raises PkiError saying which cannot be used."""
    files = read_files(tls)
    if isinstance(files.own, PkiError):
        raise files.own
    if isinstance(files.anchors, PkiError):
        raise files.anchors
    return Material(*files.own, ClientAuth(tls.client_auth), files.anchors)


def _read_own(tls: ListenerTls) -> Own:
    chain, key = read_chain(tls.certificate), read_signing_key(tls.key)
    if chain[0].public_key() != key.public_key():
        raise PkiError(f"{tls.key} is not the key of {tls.certificate}")
    return chain, key


def phrase_of(failure: Failure) -> str:
    """Return what went wrong in words that may be logged."""
    error = failure.value
    return str(error) if isinstance(error, SlapenirError) else type(error).__name__
