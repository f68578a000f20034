"""The listeners as the configuration describes them, and where their TLS comes from.

A listener with files has a FileDoor.  ``tls = "managed"`` is one door for all that say so: its
certificate is the ``[pki]`` provider's, renewed while the gateway runs, and its clients are
those that the provider's CA vouches for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort

from slapenir.config.identities import wanted_for
from slapenir.config.identity_checks import parse_network, ways_of
from slapenir.config.settings import TRANSPARENT, Settings
from slapenir.config.settings import Listener as ListenerSettings
from slapenir.doors import Doors, FileDoor
from slapenir.edge.arrival import Listener, Way
from slapenir.edge.doorway import ClientAuth, Doorway, Untrusted
from slapenir.edge.listen import with_backlog
from slapenir.edge.unix_sockets import beware
from slapenir.events import Event
from slapenir.evidence import Evidence
from slapenir.issuance.enrol_service import EnrolmentService
from slapenir.issuance.fetch import Fetcher
from slapenir.managed import ManagedDoor
from slapenir.policy.identities import Identified


def listener_of(one: ListenerSettings, doorway: Doorway | None) -> Listener:
    """Return a listener as the edge wants it."""
    return Listener(
        one.endpoint,
        one.name,
        one.identity,
        frozenset(Way(way) for way in ways_of(one)),
        doorway,
        tuple(parse_network(text) for text in one.proxy_protocol or ()),
        transparent=one.mode == TRANSPARENT,
    )


class Gatehouse:
    """Make the doorways, keep them up to date, and serve enrolment.

    ``review`` puts a change to every open connection; ``identify`` says who is who.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        publish: Callable[[Event], None],
        review: Callable[[], None],
        identify: Callable[[Evidence], Identified],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._publish = publish
        self._review = review
        self._identify = identify
        self._doors = Doors(reactor, review)
        self._fetch = Fetcher(reactor, settings.origin.ca_file)
        self._managed: ManagedDoor | None = None

    def doorway(self, one: ListenerSettings) -> Deferred[Doorway | None]:
        """Return the doorway of a listener, None for a plain one.

        A managed one comes when the provider gave its first certificate.  Raises PkiError for
        files that cannot be used.
        """
        if one.tls is None:
            return succeed(None)
        if one.tls.managed:
            made: Deferred[Doorway | None] = self._manager().doorway()  # type: ignore[assignment]
            return made
        door = FileDoor(self._reactor, one.name, one.tls, self._publish, self._review, self._fetch)
        self._doors.add(door)
        return succeed(door.doorway)

    def serve_enrolment(self, listening: Callable[[IListeningPort], None]) -> Deferred[None]:
        """Open the enrolment service where one is configured; ``listening`` is told the port."""
        pki = self._settings.pki
        if pki is None or not pki.enrol:
            return succeed(None)
        opened = self._manager().doorway(ClientAuth.OPTIONAL)
        return opened.addCallback(self._open_enrolment, pki.enrol).addCallback(listening)

    def reload(self, settings: Settings) -> None:
        """Read every file anew; what identities may be issued is that of ``settings`` from now."""
        self._settings = settings
        self._doors.look_now()

    def stop(self) -> None:
        """Let go of timers."""
        self._doors.stop()
        if self._managed is not None:
            self._managed.stop()

    def _manager(self) -> ManagedDoor:
        if self._managed is None:
            self._managed = ManagedDoor(
                self._reactor, self._settings, self._publish, self._review, self._fetch
            )
            self._doors.add(self._managed)
            self._managed.start()
        return self._managed

    def _open_enrolment(self, doorway: Doorway, endpoint: str) -> Deferred[IListeningPort]:
        authority = self._manager().authority
        if authority is None:
            raise AssertionError("only the embedded CA enrols")

        def who(connection: SSL.Connection) -> str | None:
            try:
                passport = doorway.passport(connection)
            except Untrusted:
                return None
            if passport is None:
                return None
            return self._identify(Evidence(certificate=passport.names)).name or None

        service = EnrolmentService(
            self._reactor,
            lambda identity, key, replaced: authority.issue(
                wanted_for(self._settings, identity), key, identity=identity, replaced=replaced
            ),
            lambda secret, key: authority.enrol(
                secret, key, lambda identity: wanted_for(self._settings, identity)
            ),
            who,
            lambda: authority.roots,
            authority.crl,
            self._publish,
        )
        opened = maybeDeferred(serverFromString, self._reactor, with_backlog(endpoint))
        opened.addCallback(lambda found: found.listen(service.factory(doorway.connection)))
        return opened.addCallback(beware)
