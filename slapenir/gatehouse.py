"""The listeners as the configuration describes them, and where their TLS comes from.

A listener with files has a FileDoor.  ``tls = "managed"`` is one door for all that say so: its
certificate is the ``[pki]`` provider's, renewed while the gateway runs, and its clients are
those that the provider's CA vouches for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort

from slapenir.config.identity_checks import parse_network, ways_of
from slapenir.config.settings import Listener as ListenerSettings
from slapenir.config.settings import Settings
from slapenir.doors import Doors, FileDoor
from slapenir.edge.arrival import Listener, Way
from slapenir.edge.doorway import Doorway
from slapenir.errors import SlapenirError
from slapenir.events import Event


def listener_of(one: ListenerSettings, doorway: Doorway | None) -> Listener:
    """Return a listener as the edge wants it."""
    return Listener(
        one.endpoint,
        one.name,
        one.identity,
        frozenset(Way(way) for way in ways_of(one)),
        doorway,
        tuple(parse_network(text) for text in one.proxy_protocol or ()),
    )


class Gatehouse:
    """Make the doorways, keep them up to date, and serve enrolment."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        publish: Callable[[Event], None],
        review: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._publish = publish
        self._review = review
        self._doors = Doors(reactor, review)

    def doorway(self, one: ListenerSettings) -> Deferred[Doorway | None]:
        """Return the doorway of a listener, None for a plain one.

        Raises PkiError for files that cannot be used.
        """
        if one.tls is None:
            return succeed(None)
        door = FileDoor(self._reactor, one.name, one.tls, self._publish, self._review, self._fetch)
        return succeed(self._doors.add(door))

    def serve_enrolment(self, listening: Callable[[IListeningPort], None]) -> Deferred[None]:
        """Open the enrolment service where one is configured; ``listening`` is told the port."""
        return succeed(None)

    def reload(self, settings: Settings) -> None:
        """Read every file anew; what identities may be issued is that of ``settings`` from now."""
        self._settings = settings
        self._doors.look_now()

    def stop(self) -> None:
        """Let go of timers."""
        self._doors.stop()

    def _fetch(self, url: str) -> Deferred[bytes]:
        def refuse() -> bytes:
            raise SlapenirError("lists from URLs are not there yet")

        return maybeDeferred(refuse)
