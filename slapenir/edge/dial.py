"""Dialling origins: resolve, judge, record, connect to the judged address, verify."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TCPTimedOutError, TimeoutError
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from slapenir.edge.contracts import EdgeLimits, Publisher
from slapenir.edge.flow import Bystander, Flow, Owner
from slapenir.edge.origin import OriginFlow, OriginPool
from slapenir.edge.resolver import Judged, ResolutionError, Resolver
from slapenir.edge.tls import Tls, TlsError
from slapenir.edge.tlscontext import OriginContext, verify_name, verify_protocol
from slapenir.errors import AuditError
from slapenir.events import Decided, InternalError, OriginClosed, OriginOpened, TlsHandshake
from slapenir.exchange.commands import Dial
from slapenir.exchange.inputs import DialFailure
from slapenir.names import Side, Stage


class Dialling(Owner, Protocol):
    """Who asked for a connection, and owns its Flow once it has it."""

    def dialled(self, attempt: Attempt, flow: OriginFlow) -> None:
        """Take the connection."""

    def dial_failed(self, attempt: Attempt, failure: DialFailure) -> None:
        """Take that there is none."""

    def dial_unrecorded(self, attempt: Attempt, error: AuditError) -> None:
        """Take that the judgement of an address could not be recorded."""


class Dialler:
    """What every dial shares, and how many origin connections there are.

    ``reactor`` provides IReactorTCP and IReactorTime.
    """

    def __init__(
        self,
        reactor: Any,
        limits: EdgeLimits,
        publisher: Publisher,
        resolver: Resolver,
        context: OriginContext,
    ) -> None:
        self.reactor = reactor
        self.limits = limits
        self.publisher = publisher
        self.resolver = resolver
        self.context = context
        self.pool = OriginPool(reactor, limits)
        self.open = 0  # connections that are open or being made

    def pooled(self, command: Dial) -> OriginFlow | None:
        """Return an idle connection that may serve this dial, or None."""
        key = command.pool
        if key is None or command.fresh:
            return None
        return self.pool.take(key)

    def reserve(self) -> bool:
        """Take a place for a connection; an idle connection gives way when there is none."""
        if self.open >= self.limits.origin_connections:
            # The one that gives way is closed a moment later; the bound is exceeded by it only.
            if not self.pool.drop_oldest():
                return False
        self.open += 1
        return True

    def free(self) -> None:
        """Give a place back: a connection was closed or never made."""
        self.open -= 1

    def opened(self, flow: OriginFlow) -> None:
        """Record a connection."""
        self.publisher.publish(OriginOpened(flow.authority, flow.address))

    def closed(self, flow: OriginFlow) -> None:
        """Record its end."""
        self.free()
        self.publisher.publish(OriginClosed(flow.authority, flow.address))


class Attempt(Bystander):
    """One dial that is under way: answers its owner exactly once unless cancelled.

    The owner of the Flow until it is handed over.  ``dial_seconds`` bound connecting and TLS
    together; each address gets its part of what is left.
    """

    def __init__(self, dialler: Dialler, command: Dial, owner: Dialling) -> None:
        self.connection = command.connection
        self._dialler = dialler
        self._command = command
        self._owner = owner
        self._over = False
        self._resolving: Deferred[Any] | None = None
        self._deadline: IDelayedCall | None = None
        self._connector: IConnector | None = None
        self._flow: OriginFlow | None = None
        self._left: deque[Judged] = deque()
        self._failure = DialFailure.REFUSED
        self._until = 0.0
        self._generation = 0
        self._tls_started = 0.0

    def start(self) -> None:
        """Begin; the owner may be answered before this returns."""
        self._generation = self._dialler.pool.generation
        self._resolving = self._dialler.resolver.resolve(
            self._command.authority, self._command.who.identity
        )
        self._resolving.addCallbacks(self._resolved, self._unresolved)
        self._resolving.addErrback(self._crashed)

    def cancel(self) -> None:
        """Stop whatever is under way and answer nobody."""
        if self._over:
            return
        self._end()
        if self._resolving is not None and not self._resolving.called:
            self._resolving.cancel()

    # Resolving and judging.

    def _unresolved(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, ResolutionError):
            self._fail(error.failure)
        elif not (self._over and isinstance(error, CancelledError)):
            self._crashed(failure)

    def _resolved(self, judged: list[Judged]) -> None:
        if self._over:
            return
        try:
            for one in judged:
                if not one.decision.allowed:
                    self._record(one)
        except AuditError as error:
            self._unrecorded(error)
            return
        self._left.extend(one for one in judged if one.decision.allowed)
        if not judged:
            self._fail(DialFailure.UNRESOLVABLE)
        elif not self._left:
            self._fail(DialFailure.ADDRESS_DENIED)
        else:
            reactor, limits = self._dialler.reactor, self._dialler.limits
            self._deadline = reactor.callLater(limits.dial_seconds, self._too_late)
            self._until = reactor.seconds() + limits.dial_seconds
            self._next()

    def _record(self, judged: Judged) -> None:
        """Publish the judgement of one address before anything is done about it."""
        command, decision = self._command, judged.decision
        self._dialler.publisher.publish(
            Decided(
                who=command.who,
                exchange=command.exchange,
                stage=Stage.ADDRESS,
                action=decision.action,
                reason=decision.reason,
                rule=decision.rule,
                scheme="https" if command.tls else "",
                authority=str(command.authority),
                address=judged.address,
            )
        )

    # Connecting.

    def _next(self) -> None:
        """Connect to the next permitted address."""
        if not self._left:
            self._fail(self._failure)
            return
        if not self._dialler.reserve():
            self._fail(DialFailure.LIMIT)
            return
        judged = self._left.popleft()
        try:
            self._record(judged)
        except AuditError as error:
            self._dialler.free()
            self._unrecorded(error)
            return
        dialler, command = self._dialler, self._command
        left = max(self._until - dialler.reactor.seconds(), 0.0)
        self._flow = flow = OriginFlow(
            dialler.reactor,
            dialler.limits,
            self,
            str(command.authority),
            judged.address,
            command.pool,
            dialler.opened,
            dialler.closed,
        )
        flow.generation = self._generation
        self._connector = dialler.reactor.connectTCP(
            judged.address,
            command.authority.port,
            _OneConnection(self, flow),
            timeout=left / (len(self._left) + 1),
        )

    def connect_failed(self, reason: Failure) -> None:
        """Take that an address did not answer; try the next."""
        self._dialler.free()
        self._connector = self._flow = None
        if self._over:
            return
        timed_out = isinstance(reason.value, TimeoutError | TCPTimedOutError)
        self._failure = DialFailure.TIMED_OUT if timed_out else DialFailure.REFUSED
        self._next()

    def flow_open(self, flow: Flow) -> None:
        """Take the TCP connection; begin TLS where it was asked for."""
        self._connector = None
        if self._over:
            flow.abort()
            return
        if not self._command.tls:
            self._hand_over()
            return
        self._tls_started = self._dialler.reactor.seconds()
        flow.start_tls(Tls(self._dialler.context.connection(self._command.authority)))

    # TLS.

    def flow_secured(self, flow: Flow) -> None:
        """Check whom the chain that OpenSSL verified was issued for, then hand over."""
        try:
            if isinstance(flow.tls, Tls):
                verify_protocol(flow.tls.connection)
                verify_name(flow.tls.connection, self._command.authority)
        except TlsError as error:
            self.flow_insecure(flow, error)
            return
        self._handshake_ended("")
        self._hand_over()

    def flow_insecure(self, flow: Flow, error: TlsError) -> None:
        """Take that the handshake failed, or that it was with somebody else."""
        self._handshake_ended(error.reason)
        self._fail(DialFailure.TLS_UNTRUSTED if error.untrusted else DialFailure.TLS_FAILED)

    def _handshake_ended(self, error: str) -> None:
        dialler = self._dialler
        seconds = dialler.reactor.seconds() - self._tls_started
        event = TlsHandshake(Side.ORIGIN, str(self._command.authority), seconds, error)
        dialler.publisher.publish(event)

    # Ends.

    def _hand_over(self) -> None:
        flow, self._flow = self._flow, None
        self._end()
        if flow is not None:
            self._owner.dialled(self, flow)

    def _fail(self, failure: DialFailure) -> None:
        if not self._over:
            self._end()
            self._owner.dial_failed(self, failure)

    def _unrecorded(self, error: AuditError) -> None:
        self._end()
        self._owner.dial_unrecorded(self, error)

    def _crashed(self, failure: Failure) -> None:
        self._dialler.publisher.publish(InternalError("dial", type(failure.value).__name__))
        self._fail(DialFailure.INTERNAL)

    def _too_late(self) -> None:
        self._deadline = None
        self._fail(DialFailure.TIMED_OUT)

    def _end(self) -> None:
        """Let go of everything."""
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._connector is not None:
            self._connector.stopConnecting()
            self._connector = None
        if self._flow is not None:
            self._flow.abort()
            self._flow = None

    # What a Flow says besides.

    def flow_data(self, flow: Flow, data: bytes) -> None:
        """Fail: bytes before the handshake is done cannot be."""
        self._fail(DialFailure.TLS_FAILED)

    def flow_half_closed(self, flow: Flow) -> None:
        """Fail: the origin closed."""
        self._fail(DialFailure.REFUSED)

    def flow_closed(self, flow: Flow, clean: bool) -> None:
        """Fail: the origin closed."""
        self._fail(DialFailure.REFUSED)


class _OneConnection(ClientFactory):
    """Make one Flow out of one connection."""

    noisy = False

    def __init__(self, attempt: Attempt, flow: OriginFlow) -> None:
        self._attempt = attempt
        self._flow = flow

    def buildProtocol(self, addr: IAddress) -> OriginFlow:  # type: ignore[override]
        return self._flow

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._attempt.connect_failed(reason)
