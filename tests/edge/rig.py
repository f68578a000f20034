"""A gateway's edge on loopback for tests: real sockets, sessions of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from slapenir.edge.arrival import Listener
from slapenir.edge.contracts import EdgeLimits, SessionLike
from slapenir.edge.dial import Dialler
from slapenir.edge.flow import Bystander, Flow
from slapenir.edge.gateway import Gateway
from slapenir.edge.listen import Clients, start_listening
from slapenir.edge.lookup import Lookup
from slapenir.edge.resolver import Resolver
from slapenir.edge.tls import Tls, TlsError
from slapenir.edge.tlscontext import OriginContext, ServerContexts
from slapenir.errors import AuditError
from slapenir.events import (
    ConnectionClosed,
    ConnectionOpened,
    Event,
    OriginClosed,
    OriginOpened,
    Who,
)
from slapenir.evidence import Evidence
from slapenir.policy.addresses import AddressPolicy, parse_allow_private
from slapenir.policy.identities import Identified
from tests.support.tls import TestCA

E = TypeVar("E")
REACTOR: Any = reactor


class Recorder:
    """Keep every event; fail for those of the kinds in ``refuse`` like a full disk."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.refuse: tuple[type, ...] = ()

    def publish(self, event: Event) -> None:
        """Keep it or fail."""
        if isinstance(event, self.refuse):
            raise AuditError("the disk is full")
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def gauges(self) -> tuple[int, int]:
        """Return how many client and origin connections are open by the events' account."""
        return (
            len(self.of(ConnectionOpened)) - len(self.of(ConnectionClosed)),
            len(self.of(OriginOpened)) - len(self.of(OriginClosed)),
        )


class FakeLookup:
    """Answers set by the test: a list of answers for each name, the last one repeated."""

    def __init__(self, answers: Mapping[str, Sequence[Any]] | None = None) -> None:
        self.answers = {name: list(values) for name, values in (answers or {}).items()}
        self.asked: list[str] = []

    def lookup(self, host: str) -> Deferred[list[str]]:
        """Return the next answer; a Deferred in the list is returned as it is."""
        self.asked.append(host)
        answers = self.answers.get(host, [LookupError("no answer")])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Deferred):
            return answer
        if isinstance(answer, Exception):
            return defer_fail(answer)
        return succeed(list(answer))

    def stop(self) -> None:
        """Nothing is kept."""


def defer_fail(error: Exception) -> Deferred[Any]:
    """Return a Deferred that failed."""
    failed: Deferred[Any] = Deferred()
    failed.errback(Failure(error))
    return failed


class Peer(Protocol):
    """The other end in a test: keeps what it gets and when it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.on_data: Callable[[Peer, bytes], None] | None = None
        self.opened: Deferred[Peer] = Deferred()
        self.ended: Deferred[Peer] = Deferred()

    def connectionMade(self) -> None:
        self.opened.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self.on_data is not None:
            self.on_data(self, data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.lost = reason
        self.ended.callback(self)


class TlsPeer(Bystander):
    """A TLS end in a test, on the Flow under test's own machinery."""

    def __init__(self, tls: Tls, limits: EdgeLimits | None = None) -> None:
        self.flow = Flow(REACTOR, limits or EdgeLimits(), self)
        self.data = b""
        self.error = ""
        self.secured = False
        self.clean: bool | None = None
        self.gone = False
        self.on_data: Callable[[TlsPeer, bytes], None] | None = None
        self._tls = tls

    def flow_open(self, flow: Flow) -> None:
        flow.start_tls(self._tls)

    def flow_secured(self, flow: Flow) -> None:
        self.secured = True

    def flow_insecure(self, flow: Flow, error: TlsError) -> None:
        self.error = error.reason

    def flow_data(self, flow: Flow, data: bytes) -> None:
        self.data += data
        if self.on_data is not None:
            self.on_data(self, data)
            flow.flush()

    def flow_closed(self, flow: Flow, clean: bool) -> None:
        self.clean = clean

    def flow_gone(self, flow: Flow) -> None:
        self.gone = True

    def send(self, data: bytes) -> None:
        """Send now."""
        self.flow.write(data)
        self.flow.flush()


class _Serve(Factory):
    noisy = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self.made: list[Any] = []
        self._make = make

    def buildProtocol(self, addr: Any) -> Any:
        made = self._make()
        self.made.append(made)
        return getattr(made, "flow", made)


class _Connect(ClientFactory):
    noisy = False

    def __init__(self, made: Any) -> None:
        self._made = made

    def buildProtocol(self, addr: Any) -> Any:
        return self._made


@attrs.define(eq=False)
class Edge:
    """The parts of one edge under test."""

    clients: Clients
    dialler: Dialler
    resolver: Resolver
    recorder: Recorder
    port: int
    sessions: list[Any]


class EdgeTestCase(TestCase):
    """Open things on loopback and close them all at the end."""

    timeout = 20

    def setUp(self) -> None:
        self.ca = TestCA()
        self.edges: list[Edge] = []
        self.policy: AddressPolicy | None = None
        self.hosts: dict[str, list[str]] = {}

    async def tearDown(self) -> None:
        for edge in self.edges:
            await edge.clients.drain(0.01)
            edge.dialler.pool.close()
            edge.resolver.stop()
        await self.until(lambda: all(not e.dialler.open for e in self.edges))

    def path(self, name: str) -> Path:
        """Return a new path for a file of this test."""
        return Path(self.mktemp())

    def serve(self, make: Callable[[], Any], interface: str = "127.0.0.1") -> tuple[int, _Serve]:
        """Listen; ``make`` returns a protocol or something with a ``flow``."""
        factory = _Serve(make)
        port: IListeningPort = REACTOR.listenTCP(0, factory, interface=interface)
        self.addCleanup(port.stopListening)
        return port.getHost().port, factory

    def connect(
        self, port: int, made: Any, host: str = "127.0.0.1", source: str | None = None
    ) -> Any:
        """Connect a protocol, or something with a ``flow``, from an address; return it."""
        bind = None if source is None else (source, 0)
        REACTOR.connectTCP(host, port, _Connect(getattr(made, "flow", made)), bindAddress=bind)
        return made

    async def edge(
        self,
        new_session: Callable[..., SessionLike],
        *,
        allow: Sequence[str] = (),
        limits: EdgeLimits | None = None,
        lookup: Lookup | None = None,
        recorder: Recorder | None = None,
        ca: TestCA | None = None,
        listener: Listener | None = None,
        identify: Callable[[Evidence], Identified] | None = None,
    ) -> Edge:
        """Start an edge whose dials may go to ``allow`` (address:port).

        Its one listener is a plain one of the identity ``sandbox`` unless another is given.
        """
        limits = limits or EdgeLimits(close_seconds=1.0)
        recorder = recorder or Recorder()
        policy = parse_allow_private(list(allow))
        resolver = Resolver(
            REACTOR, limits, lookup or FakeLookup(), lambda: policy, lambda: self.hosts
        )
        ca_file = (ca or self.ca).write(Path(self.mktemp()))
        dialler = Dialler(REACTOR, limits, recorder, resolver, OriginContext(ca_file))
        contexts = ServerContexts(self.ca.mint, limits)  # type: ignore[arg-type]
        sessions: list[Any] = []

        def keep(who: Who, *asked: Any) -> SessionLike:
            sessions.append(new_session(who, *asked))
            return sessions[-1]  # type: ignore[no-any-return]

        gateway = Gateway(REACTOR, limits, recorder, dialler, contexts)
        clients = Clients(gateway, keep, *([identify] if identify else []))
        listener = listener or Listener("tcp:0:interface=127.0.0.1", "main", "sandbox")
        port = await start_listening(REACTOR, listener, clients)
        number = getattr(port.getHost(), "port", 0)
        edge = Edge(clients, dialler, resolver, recorder, number, sessions)
        self.edges.append(edge)
        return edge

    async def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> None:
        """Wait for a condition; fail when it takes too long."""
        end = REACTOR.seconds() + seconds
        while not condition():
            if REACTOR.seconds() > end:
                self.fail("it took too long")
            await deferLater(REACTOR, 0.005)
