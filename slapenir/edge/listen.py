"""Accepting clients: who they are, how many there may be, and how they leave when we stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.protocol import ServerFactory

from slapenir.edge.client import ClientDriver, Gateway
from slapenir.edge.contracts import SessionLike
from slapenir.edge.flow import Bystander, Flow
from slapenir.events import ConnectionRefused, Who
from slapenir.exchange.answers import Answer

_BUSY = Answer(
    503, "error", "limit", "The gateway has too many connections. Try again later.", retry=True
).encode()
_REFUSED = _BUSY.replace(b"\r\n", b"\r\nRetry-After: 1\r\n", 1)


@attrs.frozen(slots=True)
class Listener:
    """Where clients come in: a Twisted endpoint string, and who they are."""

    endpoint: str
    name: str
    identity: str


class Clients:
    """Every client connection, bounded in total and for each identity.

    ``new_session`` makes the session of one connection.
    """

    def __init__(self, gateway: Gateway, new_session: Callable[[Who], SessionLike]) -> None:
        self._gateway = gateway
        self._new_session = new_session
        self._numbers = count(1)
        self._drivers: set[ClientDriver] = set()
        self._identities: Counter[str] = Counter()
        self._refusals = 0
        self._ports: list[IListeningPort] = []
        self._drained: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._drivers)

    def accept(self, listener: Listener, peer: str) -> Flow | None:
        """Return the protocol for a new connection; None closes it without a word."""
        who = Who(next(self._numbers), listener.name, listener.identity, peer)
        limit = self._limit_reached(listener.identity)
        if not limit:
            session = self._new_session(who)
            return ClientDriver(self._gateway, who, session, self._opened, self._gone).flow
        self._gateway.publisher.publish(ConnectionRefused(who, limit))
        if self._refusals >= self._gateway.limits.refusals:
            return None
        return Flow(self._gateway.clock, self._gateway.limits, _Refusal(self._refusing))

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

    def _limit_reached(self, identity: str) -> str:
        limits = self._gateway.limits
        if self._drained is not None:
            return "draining"
        if len(self._drivers) >= limits.connections:
            return "connections"
        if self._identities[identity] >= limits.connections_per_identity:
            return "connections_per_identity"
        return ""

    def _opened(self, driver: ClientDriver) -> None:
        self._drivers.add(driver)
        self._identities[driver.who.identity] += 1

    def _gone(self, driver: ClientDriver) -> None:
        self._drivers.discard(driver)
        self._identities[driver.who.identity] -= 1
        self._check_drained()

    def _refusing(self, change: int) -> None:
        self._refusals += change

    def cut(self) -> None:
        """Cut every client off at once."""
        for driver in list(self._drivers):
            driver.abort()

    def _overdue(self) -> None:
        self._deadline = None
        self.cut()

    def _check_drained(self) -> None:
        if self._drained is None or self._drivers:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._gateway.dialler.pool.close()
        if not self._drained.called:
            self._drained.callback(None)


class ListenerFactory(ServerFactory):
    """Hand each new connection of one listener to Clients."""

    noisy = False

    def __init__(self, clients: Clients, listener: Listener) -> None:
        self._clients = clients
        self._listener = listener

    def buildProtocol(self, addr: IAddress) -> Flow | None:  # type: ignore[override]
        """Return the protocol of one connection, or None to close it at once."""
        return self._clients.accept(self._listener, peer_text(addr))


def start_listening(reactor: Any, listener: Listener, clients: Clients) -> Deferred[IListeningPort]:
    """Open a listener's endpoint; errbacks CannotListenError, or ValueError for a bad string."""

    def listening(port: IListeningPort) -> IListeningPort:
        clients.listening(port)
        return port

    opened = maybeDeferred(serverFromString, reactor, listener.endpoint)
    opened.addCallback(lambda endpoint: endpoint.listen(ListenerFactory(clients, listener)))
    return opened.addCallback(listening)


def peer_text(address: IAddress) -> str:
    """Return ``address:port``, with brackets around IPv6; ``unix`` for what has neither."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return "unix"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
