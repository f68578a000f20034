"""What can happen to a session.  Connection 0 is the client's; others were named by a Dial."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from slapenir.names import value
from slapenir.policy.model import Destination

CLIENT = 0


class Timer(Enum):
    """The deadlines of a session; at most one of each is set."""

    HEAD = "head"
    IDLE = "idle"
    HANDSHAKE = "handshake"
    BODY = "body"
    RESPONSE = "response"
    PROGRESS = "progress"
    TUNNEL = "tunnel"
    QUIET = "quiet"
    CLOSE = "close"


class DialFailure(Enum):
    """Why no usable connection to the origin came about."""

    ADDRESS_DENIED = "address_denied"
    UNRESOLVABLE = "unresolvable"
    RESOLVER_TIMEOUT = "resolver_timeout"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    TLS_UNTRUSTED = "tls_untrusted"
    TLS_FAILED = "tls_failed"
    LIMIT = "limit"
    INTERNAL = "internal"


@value
class Opened:
    """The client's connection is there: the first input of every session.

    ``destination`` is where a redirected connection was going; None where nobody knows.
    """

    destination: Destination | None = None


@value
class BytesReceived:
    """Bytes of the connection's top layer: plaintext once TLS is up.  Never empty."""

    connection: int
    data: bytes


@value
class Dialled:
    """The Dial of this connection succeeded: TLS is up and the name was verified if asked for.

    ``reused`` says that it came from the pool and has carried a request before.
    """

    connection: int
    address: str
    reused: bool


@value
class DialFailed:
    """The Dial of this connection failed; the connection does not exist."""

    connection: int
    failure: DialFailure


@value
class HandshakeDone:
    """The client's TLS is up."""


@value
class PeerClosed:
    """The connection is gone or its peer will send no more.

    ``clean`` means a TCP FIN, after a TLS close_notify where there is TLS.  ``half`` means the
    other direction still works (plain TCP only).
    """

    connection: int
    clean: bool
    half: bool = False


@value
class WriteFull:
    """The connection's send buffer is over its mark."""

    connection: int


@value
class WriteReady:
    """The connection's send buffer is empty again."""

    connection: int


@value
class TimerFired:
    """A deadline passed."""

    timer: Timer


@value
class Drain:
    """The gateway stops: finish the exchange under way, then close."""


@value
class Revised:
    """The terms changed: a tunnel that they no longer allow ends now."""


Input: TypeAlias = (
    Opened
    | BytesReceived
    | Dialled
    | DialFailed
    | HandshakeDone
    | PeerClosed
    | WriteFull
    | WriteReady
    | TimerFired
    | Drain
    | Revised
)
