"""One client connection: feed its session, do what the session says.

Inputs that come up while commands are executed wait in a queue, so a session is never entered
twice at a time.  What commands write leaves after the round that wrote it, in one piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slapenir.edge.contracts import SessionLike
from slapenir.edge.deadlines import Deadlines
from slapenir.edge.dial import Attempt
from slapenir.edge.flow import Flow
from slapenir.edge.gateway import Gateway
from slapenir.edge.origin import OriginFlow
from slapenir.edge.tls import Tls, TlsError
from slapenir.edge.tlscontext import MintBudgetError
from slapenir.errors import AuditError, SlapenirError
from slapenir.events import (
    AuditFailed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRefused,
    ExchangeFinished,
    InternalError,
    TlsHandshake,
    Who,
)
from slapenir.exchange.answers import Answer
from slapenir.exchange.commands import (
    Abort,
    Admit,
    Close,
    CloseWrite,
    Command,
    Dial,
    Emit,
    Release,
    Send,
    SetTimer,
    StartTLS,
)
from slapenir.exchange.inputs import (
    CLIENT,
    BytesReceived,
    DialFailed,
    DialFailure,
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
from slapenir.names import Side
from slapenir.policy.model import Destination

if TYPE_CHECKING:
    from slapenir.edge.arrival import Claim, Listener
    from slapenir.edge.listen import Clients

UNRECORDED = Answer(
    503,
    "deny",
    "audit_unavailable",
    "The audit record cannot be written, so nothing is forwarded.",
    retry=True,
).encode()


class ClientDriver:
    """Drive one session; the owner of the client's Flow (``flow``) and of its origins' Flows.

    ``clients`` hears of it once when the client's connection is there and once when it is closed.
    A ``flow`` that is given is taken over; ``claim`` stands behind the client's identity.  A
    transparent ``listener`` is one whose clients were redirected.
    """

    def __init__(
        self,
        gateway: Gateway,
        who: Who,
        session: SessionLike,
        clients: Clients,
        flow: Flow | None = None,
        claim: Claim | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.who = who
        self.listener = listener
        self.claim = claim
        self._gateway = gateway
        self._session = session
        self._clients = clients
        self._seconds = gateway.clock.seconds
        self._deadlines = Deadlines(gateway.clock, self._timer_fired)
        self._queue: deque[Input] = deque()
        self._running = False
        self._over = False
        self._answered = False  # bytes of the current exchange were given to the client
        self.flow = flow or Flow(gateway.clock, gateway.limits, self)
        self.flow.owner = self
        self._written: list[Flow] = []  # who has something to flush
        self._origins: dict[int, OriginFlow] = {}
        self._dials: dict[int, Attempt] = {}
        self._tls_host = ""
        self._tls_started = 0.0

    def drain(self) -> None:
        """Tell the session that the gateway stops."""
        self._feed(Drain())

    def revise(self) -> None:
        """Tell the session that its terms changed."""
        self._feed(Revised())

    def abort(self) -> None:
        """Cut the client and its origins off."""
        self._finish()
        self.flow.abort()

    # Rounds: an input, its commands, the writes, and what the writes brought about.

    def _feed(self, item: Input) -> None:
        if self._over:
            return
        self._queue.append(item)
        if not self._running:
            self._run()

    def _run(self) -> None:
        queue = self._queue
        self._running = True
        try:
            receive, now = self._session.receive, self._seconds()
            while queue:
                for command in receive(queue.popleft(), now):
                    _EXECUTE[type(command)](self, command)
                    if self._over:
                        return
                if self._written and not queue:
                    self._flush()
        except AuditError as error:
            self._unrecorded(error)
        except Exception as error:
            self._crashed(error)
        finally:
            self._running = False
        if not self._over:
            self._settle()

    def _flush(self) -> None:
        """Let what was written leave, in the order of the connections that were written to."""
        written, self._written = self._written, []
        for flow in written:
            flow.flush()

    def _settle(self) -> None:
        """Read what the session wants to read; end when it is finished."""
        session = self._session
        if session.finished:
            self._finish()
            return
        wants, client = session.wants, self.flow
        reading = wants(CLIENT)
        if reading is not client.reading:
            client.set_reading(reading)
        for number, flow in self._origins.items():
            reading = wants(number)
            if reading is not flow.reading:
                flow.set_reading(reading)

    def _finish(self) -> None:
        """Let go of everything but the client's connection."""
        self._over = True
        self._queue.clear()
        self._deadlines.clear()
        dials, self._dials = self._dials, {}
        for attempt in dials.values():
            attempt.cancel()
        origins, self._origins = self._origins, {}
        for flow in origins.values():
            flow.abort()

    def _unrecorded(self, error: SlapenirError) -> None:
        """Refuse what cannot be recorded: answer when nothing was answered yet, and drop."""
        client = self.flow
        if not self._answered and (client.tls is None or client.tls.up):
            client.write(UNRECORDED)
        client.close()
        self._finish()
        self._gateway.publisher.publish(AuditFailed(str(error)))

    def _crashed(self, error: Exception) -> None:
        """Abort and count: an unexpected exception never leaves a connection open."""
        self.abort()
        self._gateway.publisher.publish(InternalError("client", type(error).__name__))

    # Commands.

    def _send(self, command: Send) -> None:
        flow: Flow | None = self.flow
        if command.connection == CLIENT:
            self._answered = True
        else:
            flow = self._origins.get(command.connection)
        if flow is not None:
            flow.write(command.data)
            if flow not in self._written:
                self._written.append(flow)

    def _emit(self, command: Emit) -> None:
        event = command.event
        self._gateway.publisher.publish(event)
        if type(event) is ExchangeFinished:
            self._answered = False

    def _admit(self, command: Admit) -> None:
        refused = self._clients.proved(self, command)
        if refused:
            self.flow.write(refused)
            self.flow.close()
            self._finish()

    def _set_timer(self, command: SetTimer) -> None:
        self._deadlines.set(command.timer, command.seconds)

    def _dial(self, command: Dial) -> None:
        dialler = self._gateway.dialler
        flow = dialler.pooled(command)
        if flow is not None:
            self._attach(flow, command.connection)
            self._queue.append(Dialled(command.connection, flow.address, True))
            return
        attempt = Attempt(dialler, command, self)
        self._dials[command.connection] = attempt
        attempt.start()

    def _attach(self, flow: OriginFlow, connection: int) -> None:
        flow.owner = self
        flow.connection = connection
        self._origins[connection] = flow

    def _release(self, command: Release) -> None:
        flow = self._origins.pop(command.connection, None)
        if flow is not None:
            flow.flush()
            self._gateway.dialler.pool.put(flow)

    def _close(self, command: Close) -> None:
        if command.connection == CLIENT:
            self.flow.close()
            return
        flow = self._drop(command.connection)
        if flow is not None:
            flow.close()

    def _close_write(self, command: CloseWrite) -> None:
        number = command.connection
        flow = self.flow if number == CLIENT else self._origins.get(number)
        if flow is not None:
            flow.close_write()

    def _abort(self, command: Abort) -> None:
        if command.connection == CLIENT:
            self.flow.abort()
            return
        flow = self._drop(command.connection)
        if flow is not None:
            flow.abort()

    def _drop(self, connection: int) -> OriginFlow | None:
        """Forget an origin connection, or the dial for it."""
        attempt = self._dials.pop(connection, None)
        if attempt is not None:
            attempt.cancel()
        return self._origins.pop(connection, None)

    def _start_tls(self, command: StartTLS) -> None:
        client = self.flow
        self._tls_host = command.host
        self._tls_started = self._seconds()
        try:
            connection = self._gateway.contexts.connection(command.host, self.who.identity)
        except MintBudgetError:
            self._gateway.publisher.publish(ConnectionRefused(self.who, "mints"))
            self.flow_insecure(client, TlsError("too many new hosts at once"))
            client.abort()
            return
        client.start_tls(Tls(connection), command.received)

    def _timer_fired(self, timer: Timer) -> None:
        self._feed(TimerFired(timer))

    # What a dial answers.

    def dialled(self, attempt: Attempt, flow: OriginFlow) -> None:
        """Take a new origin connection."""
        connection = attempt.connection
        self._dials.pop(connection, None)
        self._attach(flow, connection)
        self._feed(Dialled(connection, flow.address, False))

    def dial_failed(self, attempt: Attempt, failure: DialFailure) -> None:
        """Take a dial's failure."""
        self._dials.pop(attempt.connection, None)
        self._feed(DialFailed(attempt.connection, failure))

    def dial_unrecorded(self, attempt: Attempt, error: AuditError) -> None:
        """Take that the judgement of an address could not be recorded."""
        self._dials.pop(attempt.connection, None)
        if not self._over:
            self._unrecorded(error)

    # What a Flow says.

    def flow_open(self, flow: Flow) -> None:
        """Take the client's connection."""
        self._clients.opened(self)
        self._gateway.publisher.publish(ConnectionOpened(self.who))
        self._feed(Opened(self._destination()))

    def _destination(self) -> Destination | None:
        """Return where a redirected client was going."""
        listener, handle = self.listener, getattr(self.flow.transport, "socket", None)
        if listener is None or not listener.transparent or handle is None:
            return None
        return self._gateway.redirections.destination(handle, self.who.identity, listener.adopted)

    def flow_data(self, flow: Flow, data: bytes) -> None:
        """Take bytes."""
        self._feed(BytesReceived(flow.connection, data))

    def flow_secured(self, flow: Flow) -> None:
        """Take the end of the client's handshake."""
        seconds = self._seconds() - self._tls_started
        self._gateway.publisher.publish(TlsHandshake(Side.CLIENT, self._tls_host, seconds))
        self._feed(HandshakeDone())

    def flow_insecure(self, flow: Flow, error: TlsError) -> None:
        """Take the failure of the client's handshake."""
        seconds = self._seconds() - self._tls_started
        event = TlsHandshake(Side.CLIENT, self._tls_host, seconds, error.reason)
        self._gateway.publisher.publish(event)
        self._feed(PeerClosed(flow.connection, False))

    def flow_half_closed(self, flow: Flow) -> None:
        """Take a FIN on a plain connection: of an origin it is the end."""
        if flow.connection == CLIENT:
            self._feed(PeerClosed(CLIENT, True, True))
        else:
            self._origins.pop(flow.connection, None)
            flow.close()
            self._feed(PeerClosed(flow.connection, True))

    def flow_closed(self, flow: Flow, clean: bool) -> None:
        """Take the end of a connection."""
        if flow.connection != CLIENT:
            self._origins.pop(flow.connection, None)
        self._feed(PeerClosed(flow.connection, clean))

    def flow_full(self, flow: Flow) -> None:
        """Take that a send buffer is over its mark."""
        self._feed(WriteFull(flow.connection))

    def flow_ready(self, flow: Flow) -> None:
        """Take that a send buffer is empty."""
        self._feed(WriteReady(flow.connection))

    def flow_gone(self, flow: Flow) -> None:
        """Take the end of a transport; the client's ends everything."""
        if flow is not self.flow:
            return
        if not self._over:
            self._feed(PeerClosed(CLIENT, False))
            self._finish()
        self._gateway.publisher.publish(ConnectionClosed(self.who))
        self._clients.gone(self)


_EXECUTE: dict[type[Command], Callable[[ClientDriver, Any], None]] = {
    Send: ClientDriver._send,
    Emit: ClientDriver._emit,
    SetTimer: ClientDriver._set_timer,
    Admit: ClientDriver._admit,
    Dial: ClientDriver._dial,
    Release: ClientDriver._release,
    Close: ClientDriver._close,
    CloseWrite: ClientDriver._close_write,
    Abort: ClientDriver._abort,
    StartTLS: ClientDriver._start_tls,
}
