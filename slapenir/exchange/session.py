"""One client connection, without I/O: inputs in, commands out.

The session knows which layer the connection is at (HTTP on the plain connection, a CONNECT, a
tunnel, HTTP inside an intercepted tunnel) and hands each input to it.  It reads no clock: the
edge passes the time with every input.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from slapenir.events import Event, Who
from slapenir.exchange.authentication import Authenticator
from slapenir.exchange.commands import Abort, Close, Command, Emit, PoolKey, Release, Send, SetTimer
from slapenir.exchange.connect import ConnectLayer
from slapenir.exchange.http import HttpLayer
from slapenir.exchange.inputs import (
    CLIENT,
    BytesReceived,
    DialFailed,
    Dialled,
    Drain,
    HandshakeDone,
    Input,
    Opened,
    PeerClosed,
    Revised,
    Timer,
    TimerFired,
    WriteFull,
    WriteReady,
)
from slapenir.exchange.opening import Opening
from slapenir.exchange.terms import Terms
from slapenir.exchange.transparent import TransparentLayer
from slapenir.names import Authority
from slapenir.wire.messages import RequestHead

# Sends to one connection that follow each other are joined up to this many bytes, so that a head
# and a small body make one TLS record.
_JOIN = 16384


# One object for equal keys of all sessions, so that finding a pooled connection compares nothing.
_one_key = lru_cache(maxsize=1024)(PoolKey)


class Layer(Protocol):
    """What a session's layer must answer to; ``origin`` is its origin connection or 0."""

    @property
    def origin(self) -> int:
        """The origin connection under way, or 0."""

    def received(self, data: bytes) -> None:
        """Bytes from the client."""

    def origin_received(self, data: bytes) -> None:
        """Bytes from the origin."""

    def client_closed(self, half: bool) -> None:
        """The client closed."""

    def origin_closed(self, clean: bool) -> None:
        """The origin closed."""

    def dialled(self, result: Dialled) -> None:
        """A dial succeeded."""

    def dial_failed(self, result: DialFailed) -> None:
        """A dial failed."""

    def timer(self, timer: Timer) -> None:
        """A deadline passed."""

    def progress(self) -> None:
        """A send buffer drained."""

    def drain(self) -> None:
        """The gateway stops."""

    def revised(self) -> None:
        """The terms changed."""

    def wants_client(self) -> bool:
        """Whether to read the client."""


class Session:
    """The state of one client connection; never raises on any order of inputs.

    With an ``authenticator`` each request to the proxy itself has to show a token, and
    ``who.identity`` may be empty until the first one has.  A ``redirected`` client does not know
    that there is a proxy.
    """

    def __init__(
        self,
        who: Who,
        terms: Callable[[], Terms],
        authenticator: Authenticator | None = None,
        redirected: bool = False,
    ) -> None:
        self.who = who
        self.terms = terms
        self.authenticator = authenticator
        self.now = 0.0
        self.out: list[Command] = []
        self.finished = False
        self.draining = False
        self.exchanges = 0
        self.connections = CLIENT
        self._full: set[int] = set()
        self._running: set[str] = set()
        self._pool_key = PoolKey("", Authority("", 0), False, ())
        self.layer: Layer = TransparentLayer(self) if redirected else HttpLayer(self, None, None)

    def receive(self, event: Input, now: float) -> list[Command]:
        """Take one input at monotonic time ``now`` (seconds); return what is to be done."""
        out: list[Command] = []
        self.out = out
        if self.finished:
            return out
        self.now = now
        if type(event) is BytesReceived:
            if event.connection == CLIENT:
                self.layer.received(event.data)
            elif event.connection == self.layer.origin:
                self.layer.origin_received(event.data)
        else:
            _DISPATCH[type(event)](self, event)
        return out

    def wants(self, connection: int) -> bool:
        """Whether bytes of this connection should be read now."""
        if connection == CLIENT:
            return self.layer.wants_client()
        return CLIENT not in self._full

    # -- inputs -----------------------------------------------------------------------------

    def _opened(self, event: Opened) -> None:
        if isinstance(self.layer, TransparentLayer):
            self.layer.begin(event.destination)
        elif isinstance(self.layer, HttpLayer):
            self.layer.begin()

    def _dialled(self, event: Dialled) -> None:
        if event.connection == self.layer.origin:
            self.layer.dialled(event)
        else:
            self.out.append(Abort(event.connection))

    def _dial_failed(self, event: DialFailed) -> None:
        if event.connection == self.layer.origin:
            self.layer.dial_failed(event)

    def _handshake(self, event: HandshakeDone) -> None:
        if isinstance(self.layer, Opening):
            self.layer.handshake_done()

    def _closed(self, event: PeerClosed) -> None:
        self._full.discard(event.connection)
        if event.connection == CLIENT:
            self.layer.client_closed(event.half)
            if not event.half:
                self.finished = True
        elif event.connection == self.layer.origin:
            self.layer.origin_closed(event.clean)

    def _write_full(self, event: WriteFull) -> None:
        self._full.add(event.connection)

    def _write_ready(self, event: WriteReady) -> None:
        self._full.discard(event.connection)
        self.layer.progress()

    def _timer(self, event: TimerFired) -> None:
        self._running.discard(event.timer._value_)
        self.layer.timer(event.timer)

    def _drain(self, event: Drain) -> None:
        self.draining = True
        self.layer.drain()

    def _revised(self, event: Revised) -> None:
        self.layer.revised()

    # -- for the layers ---------------------------------------------------------------------

    def ensure_timer(self, timer: Timer, seconds: float) -> bool:
        """Set a timer unless it runs since an earlier wait; return whether it does.

        A running one fires too early: whoever it fires for sets it again for what is left.
        """
        name, running = timer._value_, self._running
        if name in running:
            return True
        running.add(name)
        self.out.append(SetTimer(timer, seconds))
        return False

    def again(self, timer: Timer, seconds: float) -> None:
        """Set a timer that has fired once more."""
        self._running.add(timer._value_)
        self.out.append(SetTimer(timer, seconds))

    def pool_key(self, authority: Authority, tls: bool, credentials: tuple[str, ...]) -> PoolKey:
        """Return the key of the idle connections that a request may use; the same for the same."""
        key = self._pool_key
        if (
            key.authority is not authority
            or key.credentials is not credentials
            or key.tls is not tls
        ):
            key = _one_key(self.who.identity, authority, tls, credentials)
            self._pool_key = key
        return key

    def send(self, connection: int, data: bytes) -> None:
        """Send bytes, joined with those sent to the same connection just before."""
        out = self.out
        if out:
            last = out[-1]
            if type(last) is Send and last.connection == connection:
                if len(last.data) + len(data) <= _JOIN:
                    out[-1] = Send(connection, last.data + data)
                    return
        out.append(Send(connection, data))

    def emit(self, event: Event) -> None:
        """Publish an event."""
        self.out.append(Emit(event))

    def is_full(self, connection: int) -> bool:
        """Whether the connection's send buffer is over its mark."""
        return connection in self._full

    def connect(self, head: RequestHead, rest: bytes) -> None:
        """Leave HTTP for a CONNECT; ``rest`` are bytes that came after its head."""
        layer = ConnectLayer(self, rest)
        self.layer = layer
        layer.begin(head)

    def origin_gone(self, connection: int) -> None:
        """Forget an origin connection."""
        self._full.discard(connection)

    def release_origin(self, connection: int) -> None:
        """Give an origin connection back to the pool."""
        self._full.discard(connection)
        self.out.append(Release(connection))

    def abort_origin(self, connection: int) -> None:
        """Drop an origin connection at once."""
        self._full.discard(connection)
        self.out.append(Abort(connection))

    def close_origin(self, connection: int) -> None:
        """Flush and close an origin connection."""
        self._full.discard(connection)
        self.out.append(Close(connection))

    def close_client(self) -> None:
        """Flush and close the client's connection; the session is over."""
        if not self.finished:
            self.finished = True
            self.out.append(Close(CLIENT))

    def abort_client(self) -> None:
        """Reset the client's connection, so that it cannot take what it got for the whole."""
        if not self.finished:
            self.finished = True
            self.out.append(Abort(CLIENT))


_DISPATCH: dict[type, Callable[[Session, Any], None]] = {
    Opened: Session._opened,
    Dialled: Session._dialled,
    DialFailed: Session._dial_failed,
    HandshakeDone: Session._handshake,
    PeerClosed: Session._closed,
    WriteFull: Session._write_full,
    WriteReady: Session._write_ready,
    TimerFired: Session._timer,
    Drain: Session._drain,
    Revised: Session._revised,
}
