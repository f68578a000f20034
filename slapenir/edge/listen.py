"""Accepting clients: who they are, how many there may be, and how they leave when we stop."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.protocol import ServerFactory

from slapenir.edge.arrival import Arrival, Claim, Listener, Peer
from slapenir.edge.client import UNRECORDED, ClientDriver
from slapenir.edge.contracts import SessionLike
from slapenir.edge.flow import Bystander, Flow
from slapenir.edge.gateway import Gateway
from slapenir.edge.redirect import accept_foreign_addresses
from slapenir.edge.strangers import Strangers, source_of
from slapenir.edge.unix_sockets import beware
from slapenir.errors import AuditError
from slapenir.events import AuditFailed, ClientIdentified, ConnectionRefused, Decided, Who
from slapenir.evidence import Evidence
from slapenir.exchange.answers import Answer
from slapenir.exchange.authentication import Authenticator
from slapenir.exchange.commands import Admit
from slapenir.names import Action, Reason, Stage
from slapenir.policy.identities import Identified

_BUSY = Answer(
    503, "error", "limit", "The gateway has too many connections. Try again later.", retry=True
).encode()
# Clients that may wait to be accepted; of Twisted's 50 a burst makes the kernel drop the rest,
# and each of those waits a second before it tries again (T190).
_BACKLOG = 1024
_ON_ALL = re.compile(r"tcp:([0-9]+)", re.ASCII)
_REFUSED = _BUSY.replace(b"\r\n", b"\r\nRetry-After: 1\r\n", 1)


def _nobody(evidence: Evidence) -> Identified:
    """Know nobody: for listeners that say who their clients are."""
    return Identified("", Reason.IDENTITY_UNKNOWN)


class Clients:
    """Every client connection, bounded in total and for each identity.

    ``new_session`` makes the session of one connection, from its Who and, where requests have to
    show a token, an Authenticator; with ``redirected`` for a client that was.  ``identify`` says
    who evidence stands for; it is asked anew each time, so a reload is seen at once.
    """

    def __init__(
        self,
        gateway: Gateway,
        new_session: Callable[..., SessionLike],
        identify: Callable[[Evidence], Identified] = _nobody,
    ) -> None:
        self.gateway = self._gateway = gateway
        self.identify = identify
        self._new_session = new_session
        self._arrivals: set[Arrival] = set()
        self._numbers = count(1)
        self._drivers: set[ClientDriver] = set()
        self._identities: Counter[str] = Counter()
        self._refusals = 0
        self._refused: set[Arrival] = set()
        self._strangers = Strangers(gateway.limits)
        self._ports: list[IListeningPort] = []
        self._drained: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._drivers)

    def accept(self, listener: Listener, peer: Peer) -> Flow | None:
        """Return the protocol for a new connection; None closes it without a word."""
        number = next(self._numbers)
        who = Who(number, listener.name, listener.identity, str(peer))
        limit = self._limit_reached(listener.identity)
        known = listener.identity and listener.doorway is None and not listener.balancers
        if not limit and not known and not listener.is_balancer(peer.host):
            limit = self._crowd(source_of(peer.host, listener.name))
        if limit:
            self._gateway.publisher.publish(ConnectionRefused(who, limit))
            unheard = listener.doorway is not None or listener.transparent
            if unheard or self._refusals >= self._gateway.limits.refusals:
                return None
            return Flow(self._gateway.clock, self._gateway.limits, _Refusal(self._refusing))
        if known:
            session = self._session(listener, who)
            return ClientDriver(self._gateway, who, session, self, listener=listener).flow
        return Arrival(self, listener, number, peer).flow

    # What an Arrival says.

    def arrived(self, arrival: Arrival) -> None:
        """Count a client that is not known yet."""
        self._arrivals.add(arrival)
        if not arrival.behind_balancer:
            self._strangers.hold(arrival, arrival.source)

    def introduced(self, arrival: Arrival, who: Who) -> bool:
        """Count a client by the source that its load balancer named, unless there are too many."""
        limit = self._crowd(arrival.source)
        if limit:
            self._gateway.publisher.publish(ConnectionRefused(who, limit))
            return False
        self._strangers.hold(arrival, arrival.source)
        return True

    def left(self, arrival: Arrival) -> None:
        """Forget a client that never came to be known."""
        self._arrivals.discard(arrival)
        self._strangers.release(arrival)
        if arrival in self._refused:
            self._refused.discard(arrival)
            self._refusals -= 1
        self._check_drained()

    def admit(self, arrival: Arrival, who: Who, claim: Claim, asks: bool, received: bytes) -> None:
        """Begin the session of a client that is known, or that will be ``asks``-ed for a token."""
        self._arrivals.discard(arrival)
        self._strangers.release(arrival)
        flow = arrival.flow
        limit = self._limit_reached(who.identity)
        if limit:
            self._gateway.publisher.publish(ConnectionRefused(who, limit))
            self._turn_away(arrival, _REFUSED)
            return
        if who.identity and not self._recorded(who, claim, arrival):
            return
        asked = (Authenticator(claim.evidence, self.identify),) if asks else ()
        session = self._session(claim.listener, who, *asked)
        driver = ClientDriver(self._gateway, who, session, self, flow, claim, claim.listener)
        if not who.identity:
            self._strangers.hold(driver, arrival.source)
        driver.flow_open(flow)
        if received:
            driver.flow_data(flow, received)

    def listening(self, port: IListeningPort) -> None:
        """Keep a port, to close it in drain; dialling it is refused from now on."""
        self._ports.append(port)
        number = getattr(port.getHost(), "port", None)
        if number is not None:
            self._gateway.dialler.resolver.own_ports.add(number)

    def drain(self, seconds: float) -> Deferred[None]:
        """Stop listening and let exchanges finish; after ``seconds`` cut what is left.

        The Deferred fires when the last client is gone.
        """
        ports, self._ports = self._ports, []
        closed = DeferredList(
            [maybeDeferred(port.stopListening) for port in ports], consumeErrors=True
        )
        self._drained = Deferred()
        drained = self._drained
        self._deadline = self._gateway.clock.callLater(seconds, self._overdue)
        for driver in list(self._drivers):
            driver.drain()
        self._check_drained()
        return closed.addCallback(lambda _: drained)

    def _session(self, listener: Listener, who: Who, *asked: Authenticator) -> SessionLike:
        if listener.transparent:
            return self._new_session(who, redirected=True)
        return self._new_session(who, *asked)

    def _crowd(self, source: str) -> str:
        return "strangers_per_source" if self._strangers.crowded(source) else ""

    def _turn_away(self, arrival: Arrival, answer: bytes) -> None:
        """Answer and close where there is room for one more refusal; it counts until it is gone."""
        self._refused.add(arrival)
        self._refusals += 1
        if self._refusals > self._gateway.limits.refusals:
            arrival.flow.abort()
            return
        arrival.flow.write(answer)
        arrival.flow.close_gently()

    def _recorded(self, who: Who, claim: Claim, arrival: Arrival) -> bool:
        """Record who a client is; when that fails it is turned away."""
        try:
            self._gateway.publisher.publish(claim.event(who))
        except AuditError as error:
            self._turn_away(arrival, UNRECORDED)
            self._gateway.publisher.publish(AuditFailed(str(error)))
            return False
        return True

    # While they are connected.

    def revise(self) -> None:
        """Look again at who every client is, and let sessions look at their terms again."""
        self.review()
        for driver in list(self._drivers):
            driver.revise()

    def review(self) -> None:
        """Cut off every client that is not, or not any more, who it was taken for.

        Its certificate was revoked or has expired, its CA is not trusted any more, or the
        configuration knows it by nothing that it showed.
        """
        for driver in list(self._drivers):
            claim = driver.claim
            if claim is None:
                continue
            identity = driver.who.identity
            reason = claim.objection(identity, self.identify(claim.evidence))
            if reason is not None:
                self._cut_off(driver, reason)

    def cut_those_of(self, listener: Listener) -> None:
        """Cut off every client of one listener, which is gone."""
        for driver in list(self._drivers):
            if driver.listener is listener:
                driver.abort()

    def _cut_off(self, driver: ClientDriver, reason: Reason) -> None:
        event = Decided(
            driver.who,
            0,
            Stage.IDENTIFY,
            Action.DENY,
            reason,
            detail="the connection was cut",
        )
        publisher = self._gateway.publisher
        try:
            publisher.publish(event)
        except AuditError as error:  # it is cut whether that is recorded or not
            publisher.publish(AuditFailed(str(error)))
        driver.abort()

    def _limit_reached(self, identity: str, more: int = 1) -> str:
        """Return the bound that ``more`` connections, for an identity, would go over."""
        limits = self._gateway.limits
        if self._drained is not None:
            return "draining"
        if len(self._drivers) + len(self._arrivals) + more > limits.connections:
            return "connections"
        if identity and self._identities[identity] >= limits.connections_per_identity:
            return "connections_per_identity"
        return ""

    # What a ClientDriver says.

    def opened(self, driver: ClientDriver) -> None:
        """Count a client."""
        self._drivers.add(driver)
        self._identities[driver.who.identity] += 1

    def gone(self, driver: ClientDriver) -> None:
        """Forget a client."""
        self._drivers.discard(driver)
        self._identities[driver.who.identity] -= 1
        self._strangers.release(driver)
        self._check_drained()

    def proved(self, driver: ClientDriver, command: Admit) -> bytes:
        """Count a client for the identity that a token proved.

        Returns what to answer instead when that identity has too many.
        """
        limit = self._limit_reached(command.who.identity, more=0)  # the client is counted
        if limit:
            self._gateway.publisher.publish(ConnectionRefused(command.who, limit))
            return _REFUSED
        self._gateway.publisher.publish(ClientIdentified(command.who, "token"))
        self._identities[driver.who.identity] -= 1
        self._identities[command.who.identity] += 1
        driver.who = command.who
        self._strangers.release(driver)
        if driver.claim is not None:
            driver.claim = attrs.evolve(driver.claim, evidence=command.evidence)
        return b""

    def _refusing(self, change: int) -> None:
        self._refusals += change

    def cut(self) -> None:
        """Cut every client off at once."""
        for arrival in [*self._arrivals, *self._refused]:
            arrival.abort()
        for driver in list(self._drivers):
            driver.abort()

    def _overdue(self) -> None:
        self._deadline = None
        self.cut()

    def _check_drained(self) -> None:
        if self._drained is None or self._drivers or self._arrivals or self._refused:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._gateway.dialler.pool.close()
        if not self._drained.called:
            self._drained.callback(None)


def with_backlog(endpoint: str) -> str:
    """Return a Twisted endpoint string that says how many clients may wait to be accepted."""
    if endpoint.partition(":")[0] not in ("tcp", "tcp6", "unix") or ":backlog=" in endpoint:
        return endpoint
    return f"{endpoint}:backlog={_BACKLOG}"


class ListenerFactory(ServerFactory):
    """Hand each new connection of one listener to Clients."""

    noisy = False

    def __init__(self, clients: Clients, listener: Listener) -> None:
        self._clients = clients
        self._listener = listener

    def buildProtocol(self, addr: IAddress) -> Flow | None:  # type: ignore[override]
        """Return the protocol of one connection, or None to close it at once."""
        return self._clients.accept(self._listener, Peer.of(addr))


def start_listening(reactor: Any, listener: Listener, clients: Clients) -> Deferred[IListeningPort]:
    """Open a listener's endpoint; errbacks CannotListenError, or ValueError for a bad string.

    A transparent one on all IPv4 addresses is one of both families where the system has IPv6.
    """

    def open_at(text: str) -> Deferred[IListeningPort]:
        opened = maybeDeferred(serverFromString, reactor, with_backlog(text))
        return opened.addCallback(lambda one: one.listen(ListenerFactory(clients, listener)))

    def listening(port: IListeningPort) -> IListeningPort:
        clients.listening(beware(port))
        handle = getattr(port, "socket", None)
        if listener.transparent and handle is not None:
            accept_foreign_addresses(handle)
        return port

    both = _ON_ALL.fullmatch(listener.endpoint) if listener.transparent else None
    if both is None:
        return open_at(listener.endpoint).addCallback(listening)
    opened = open_at(f"tcp6:{both[1]}")
    return opened.addErrback(lambda _: open_at(listener.endpoint)).addCallback(listening)


class _Refusal(Bystander):
    """Tell a client that there are too many, then close."""

    def __init__(self, count_change: Callable[[int], None]) -> None:
        self._count = count_change

    def flow_open(self, flow: Flow) -> None:
        """Answer before anything was read."""
        self._count(1)
        flow.write(_REFUSED)
        flow.close_gently()

    def flow_gone(self, flow: Flow) -> None:
        """Make room for the next refusal."""
        self._count(-1)
