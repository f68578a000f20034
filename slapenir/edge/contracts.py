"""What edge/ is given from outside: a session, somewhere to publish, and its own bounds."""

from __future__ import annotations

from typing import Protocol

import attrs

from slapenir.events import Event
from slapenir.exchange.commands import Command
from slapenir.exchange.inputs import Input


class Publisher(Protocol):
    """Where events go."""

    def publish(self, event: Event) -> None:
        """Deliver one event.  Raises AuditError when its audit record cannot be written."""


class SessionLike(Protocol):
    """The sans-I/O logic of one client connection."""

    @property
    def finished(self) -> bool:
        """Whether the client's connection is closed for the session and nothing is left."""

    def receive(self, item: Input, now: float, /) -> list[Command]:
        """Return what to do about one input; ``now`` is monotonic seconds."""

    def wants(self, connection: int, /) -> bool:
        """Whether more bytes of this connection may be read."""


@attrs.frozen(slots=True)
class EdgeLimits:
    """Every bound and deadline that edge/ holds itself; times are seconds.

    ``refusals`` is how many refused clients may be told so at one time; more are reset.
    ``discard`` is how many bytes a closing client may still send before it is reset, and how many
    of TLS's own answers may wait behind a full buffer.
    ``strangers_per_source`` bounds the clients of one address that nobody knows yet.
    ``names_per_minute`` bounds the different names looked up for one identity.
    ``arrival_seconds`` bound the time until it is known who a client is: a PROXY header and TLS.
    ``mints_per_second`` and ``mint_burst`` bound how fast unseen hosts get leaves.
    """

    connections: int = 1000
    connections_per_identity: int = 500
    sandboxes: int = 32
    strangers_per_source: int = 100
    origin_idle_per_key: int = 8
    origin_idle_total: int = 256
    origin_connections: int = 1000
    lookups: int = 256
    lookup_threads: int = 64
    names_per_minute: int = 120
    leaf_cache: int = 512
    mints_per_second: float = 200.0
    mint_burst: int = 400
    refusals: int = 64
    discard: int = 1048576
    arrival_seconds: float = 10.0
    dial_seconds: float = 10.0
    resolve_seconds: float = 5.0
    origin_idle_seconds: float = 60.0
    close_seconds: float = 5.0
