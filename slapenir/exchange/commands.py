"""What a session asks of the edge; executed in order, and by the edge only."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from slapenir.events import Event, Who
from slapenir.evidence import Evidence
from slapenir.exchange.inputs import Timer
from slapenir.names import Authority, value


@attrs.frozen(slots=True, cache_hash=True)
class PoolKey:
    """Which idle origin connections may serve a request: all parts must be equal."""

    identity: str
    authority: Authority
    tls: bool
    credentials: tuple[str, ...]


@value
class Dial:
    """Get a connection to ``authority``; answered by Dialled or DialFailed, maybe at once.

    With ``pool`` an idle connection of that key may be given unless ``fresh``; without it the
    connection is new and never pooled.  ``tls`` asks for TLS verified for the authority's host.
    Resolving, judging each address and auditing that judgement are the edge's part.
    """

    connection: int
    authority: Authority
    tls: bool
    who: Who
    exchange: int
    pool: PoolKey | None = None
    fresh: bool = False


@value
class Send:
    """Write bytes; the edge never refuses and reports WriteFull when its buffer is full."""

    connection: int
    data: bytes


@value
class StartTLS:
    """Be the TLS server on the client's connection with a leaf for ``host``.

    ``received`` holds bytes already read (the ClientHello): they go into TLS first.
    """

    host: str
    received: bytes


@value
class Close:
    """Flush what was sent, then close in an orderly way (TLS close_notify, FIN)."""

    connection: int


@value
class CloseWrite:
    """Flush, then send FIN on a plain TCP connection (tunnels only; never under TLS)."""

    connection: int


@value
class Abort:
    """Drop the connection at once (RST)."""

    connection: int


@value
class Release:
    """Give an origin connection back to the pool: its response is complete, nothing is left."""

    connection: int


@value
class SetTimer:
    """Set a deadline ``seconds`` from now, replacing the same timer; None clears it."""

    timer: Timer
    seconds: float | None


@value
class Admit:
    """A request proved whose connection it is: count it for ``who.identity``.

    The edge cuts the connection off when that identity has too many, and looks at ``evidence``
    again whenever the identities change.
    """

    who: Who
    evidence: Evidence


@value
class Emit:
    """Publish an event.  When an audit record cannot be written the edge executes nothing more
    of the list, answers 503 if nothing was sent yet, and drops the connection."""

    event: Event


Command: TypeAlias = (
    Dial | Send | StartTLS | Close | CloseWrite | Abort | Release | SetTimer | Admit | Emit
)
