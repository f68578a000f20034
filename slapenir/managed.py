"""``tls = "managed"``: one certificate of [pki]'s provider for all listeners that say so.

With the embedded CA its issuing certificates are what clients are checked by, and its list of
revoked ones; with another provider its root, and the list that ``pki.crl`` names.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import attrs
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from slapenir.config.durations import duration
from slapenir.config.identities import wanted_server
from slapenir.config.settings import Pki, Settings
from slapenir.config.state import make_directory
from slapenir.doors import phrase_of, tell_list
from slapenir.edge.doorway import ClientAuth, Doorway, Material
from slapenir.events import CertificateLoaded, CertificateRetired, Event, InternalError
from slapenir.issuance.managed import make_provider
from slapenir.issuance.renewer import Renewer
from slapenir.issuance.revocation_lists import Fetch, RevocationList
from slapenir.pki.held import Held
from slapenir.pki.identity_authority import IdentityAuthority
from slapenir.pki.revocation import Revocations

LABEL = "managed"
DIRECTORY = "managed"
PKI_DIRECTORY = "pki"


@attrs.frozen(slots=True, eq=False)
class _Trust:
    """What the embedded CA says at one time; ``crl`` is what ``revocations`` was read from."""

    issuers: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    crl: bytes
    revocations: Revocations


class ManagedDoor:
    """Make doorways whose certificate is looked after; see doors.Door for ``look``."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        publish: Callable[[Event], None],
        review: Callable[[], None],
        fetch: Fetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._publish = publish
        self._review = review
        self._clock = clock
        self._pki = settings.pki or Pki()
        self._waiting: list[Deferred[Held]] = []
        self._doorways: list[Doorway] = []
        self._busy = False
        self._failed = ""
        self._anchors: tuple[x509.Certificate, ...] = ()
        self._told: dict[str, tuple[x509.Certificate, ...]] = {}
        self._trust: _Trust | None = None
        self._list: RevocationList | None = None
        self._listed: Revocations | None = None
        self.authority: IdentityAuthority | None = None
        state_dir = settings.gateway.state_dir
        issue = None
        if self._pki.provider == "embedded":
            self.authority = authority = IdentityAuthority.load(
                os.path.join(state_dir, PKI_DIRECTORY), clock
            )
            self._took(self._read())
            issue = lambda wanted, key: authority.issue(wanted, key, identity="")  # noqa: E731
        elif self._pki.crl:
            self._list = RevocationList(
                reactor, self._pki.crl, fetch, lambda: self._anchors, self._revoked
            )
        directory = os.path.join(state_dir, DIRECTORY)
        make_directory(directory, "$.gateway.state_dir")
        wanted = wanted_server(settings)
        provider = make_provider(
            reactor,
            settings,
            directory,
            wanted,
            issue,
            lambda: authority.roots if self.authority is not None else (),
        )
        self._wanted = wanted
        self._renewer = Renewer(
            reactor,
            clock,
            provider,
            directory,
            LABEL,
            publish,
            random.SystemRandom().random,
            self._suits,
        )
        self._renewer.subscribe(self._renewed)

    def start(self) -> None:
        """Get the certificate, from its directory or from the provider, and renew it."""
        self._renewer.start()

    def stop(self) -> None:
        """Renew no more."""
        self._renewer.stop()

    def doorway(self, auth: ClientAuth = ClientAuth.REQUIRED) -> Deferred[Doorway]:
        """Return a doorway, once there is a certificate; it stays up to date."""

        def make(held: Held) -> Doorway:
            required = self.authority is not None or self._list is not None
            made = Doorway(self._material(held, auth), required, self._clock)
            made.revise(self._listed)
            self._doorways.append(made)
            return made

        waiting: Deferred[Held] = Deferred()
        current = self._renewer.current
        if current is not None:
            waiting.callback(current)
        else:
            self._waiting.append(waiting)
        return waiting.addCallback(make)

    def look(self, force: bool = False) -> None:
        """See whether the CA or the list changed."""
        if self._list is not None:
            self._list.look(force)
        if self.authority is None or self._busy:
            return
        self._busy = True
        pool = self._reactor.getThreadPool()
        reading: Deferred[_Trust] = deferToThreadPool(self._reactor, pool, self._read)
        reading.addCallbacks(self._changed, self._unread).addErrback(self._broke)

    # The provider's certificate.

    def _suits(self, held: Held) -> bool:
        """Whether a certificate that was kept is still the one to show."""
        if self.authority is not None and held.chain[1:2] != self._anchors[:1]:
            return False
        return self._wanted.is_said_by(held.leaf)

    def _renewed(self, held: Held) -> None:
        if self.authority is None:
            self._anchors = held.roots
            self._tell_anchors(held.roots, "pki-root")
            if self._list is not None:
                self._list.forget()
                self._list.look()
        for doorway in self._doorways:
            doorway.replace(self._material(held, doorway.material.client_auth))
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(held)

    def _material(self, held: Held, auth: ClientAuth) -> Material:
        return Material(held.chain, held.key, auth, self._anchors)

    # The embedded CA, in a thread and then in the reactor's.

    def _read(self) -> _Trust:
        authority = self.authority
        if authority is None:
            raise AssertionError("there is a CA")
        lifetime = duration(self._pki.crl_lifetime)
        issuers, data = authority.issuers, authority.crl()
        found = Revocations.parse(data, issuers)
        if found.next_update - self._clock() < lifetime / 2:
            authority.refresh_crl(lifetime)
            data = authority.crl()
            found = Revocations.parse(data, issuers)
        return _Trust(issuers, authority.roots, data, found)

    def _changed(self, trust: _Trust) -> None:
        self._busy = False
        before = self._trust
        if before is None or trust.issuers != before.issuers or trust.crl != before.crl:
            self._took(trust)
            if before is not None and trust.issuers[:1] != before.issuers[:1]:
                self._renewer.renew_now()
        self._failed = ""

    def _unread(self, failure: Failure) -> None:
        """Fail closed the second time in a row: the first may have been amid a change."""
        self._busy = False
        phrase = phrase_of(failure)
        if self._failed and self._listed is not None:
            self._listed = None
            for doorway in self._doorways:
                doorway.revise(None)
            self._trust = None
            tell_list(LABEL, None, phrase, self._publish)
            self._review()
        self._failed = phrase

    def _broke(self, failure: Failure) -> None:
        """Count what went wrong half-way; the next look does it again, for ``_trust`` is old."""
        self._publish(InternalError("managed", type(failure.value).__name__))

    def _took(self, trust: _Trust) -> None:
        """Put CAs and list in force at every door; what goes wrong half-way is done again."""
        found = trust.revocations
        for doorway in self._doorways:  # the list first: it may be all that keeps somebody out
            doorway.revise(found)
        for doorway in self._doorways:
            material = doorway.material
            if material.anchors != trust.issuers:
                doorway.replace(attrs.evolve(material, anchors=trust.issuers))
        self._listed, self._anchors = found, trust.issuers
        self._tell_anchors(trust.issuers, "identity-issuing")
        self._tell_anchors(trust.roots, "identity-root")
        tell_list(LABEL, found, "", self._publish)
        self._trust = trust
        self._review()

    def _tell_anchors(self, anchors: tuple[x509.Certificate, ...], label: str) -> None:
        before = self._told.get(label, ())
        if before == anchors:
            return
        self._told[label] = anchors
        count = max(len(before), len(anchors))
        names = [label, *(f"{label}-{number}" for number in range(2, count + 1))]
        for name, one in zip(names, anchors, strict=False):
            self._publish(CertificateLoaded(name, one.not_valid_after_utc.timestamp()))
        for name in names[len(anchors) :]:
            self._publish(CertificateRetired(name))

    def _revoked(self, found: Revocations | None, error: str) -> None:
        self._listed = found
        for doorway in self._doorways:
            doorway.revise(found)
        tell_list(LABEL, found, error, self._publish)
        self._review()
