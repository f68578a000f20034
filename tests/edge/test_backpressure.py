"""T191, T192: whichever side is slow, the other is paused and memory stays small."""

from __future__ import annotations

import hashlib
from typing import Any

from OpenSSL import SSL

from slapenir.edge.flow import Flow
from slapenir.edge.tls import Tls
from slapenir.edge.tlscontext import OriginContext
from slapenir.exchange.inputs import WriteFull, WriteReady
from slapenir.names import Authority
from tests.edge.rig import REACTOR, Edge, EdgeTestCase, Peer, TlsPeer
from tests.support.relay_session import RelaySession

TOTAL = 64 << 20
BLOCK = b"0123456789abcdef" * 4096
BOUND = 1 << 20


def buffered(flow: Flow) -> int:
    """Return how many bytes a flow's transport holds."""
    transport: Any = flow.transport
    held = sum(len(data) for data in transport._tempDataBuffer)
    return held + len(transport.dataBuffer) - int(transport.offset)


class Pump:
    """A producer that writes blocks to a transport as fast as it takes them."""

    def __init__(self, flow_or_transport: Any, total: int) -> None:
        self.write = flow_or_transport.write
        self.left = total
        self.paused = False
        self.digest = hashlib.sha256()

    def resumeProducing(self) -> None:
        """Write until paused."""
        self.paused = False
        REACTOR.callLater(0, self.some)

    def pauseProducing(self) -> None:
        """Stop."""
        self.paused = True

    def stopProducing(self) -> None:
        """Stop for good."""
        self.left = 0

    def some(self) -> None:
        """Write one block and come back."""
        if self.paused or not self.left:
            return
        self.left -= len(BLOCK)
        self.digest.update(BLOCK)
        self.write(BLOCK)
        REACTOR.callLater(0, self.some)


class Counting(Peer):
    """Counts and hashes instead of keeping."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.digest = hashlib.sha256()

    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)
        self.digest.update(data)


class PlainTests(EdgeTestCase):
    """Two plain connections; the fast side has 64 MiB to give."""

    timeout = 60

    async def transfer(self, edge: Edge, source: Any, sink: Counting) -> None:
        """Stall the sink, see everything stand still, then let it go."""
        pump = Pump(source.transport, TOTAL)
        source.transport.registerProducer(pump, True)
        sink.transport.pauseProducing()
        pump.resumeProducing()
        await self.until(lambda: pump.paused)
        driver = next(iter(edge.clients._drivers))
        flows = [driver.flow, *driver._origins.values()]
        session = edge.sessions[0]
        await self.until(lambda: session.full)
        stalled_at = TOTAL - pump.left
        self.assertLess(stalled_at, TOTAL // 2)
        self.assertLess(sum(buffered(flow) for flow in flows), BOUND)
        sink.transport.resumeProducing()
        peak = 0

        def done() -> bool:
            nonlocal peak
            peak = max(peak, sum(buffered(flow) for flow in flows))
            return sink.count == TOTAL

        await self.until(done, 40)
        self.assertLess(peak, BOUND)
        self.assertEqual(sink.digest.digest(), pump.digest.digest())
        kinds = [type(item) for item in session.inputs if isinstance(item, WriteFull | WriteReady)]
        self.assertEqual(kinds[:2], [WriteFull, WriteReady])
        source.transport.unregisterProducer()

    async def start(self) -> tuple[Edge, Counting, Counting]:
        """Return the edge, the client and the origin, connected."""
        port, server = self.serve(Counting)
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", port)),
            allow=[f"127.0.0.1:{port}"],
        )
        client = self.connect(edge.port, Counting())
        await self.until(lambda: server.made and edge.recorder.gauges() == (1, 1))
        return edge, client, server.made[0]

    async def test_slow_client(self) -> None:
        """T191."""
        edge, client, origin = await self.start()
        await self.transfer(edge, origin, client)

    async def test_slow_origin(self) -> None:
        """T192."""
        edge, client, origin = await self.start()
        await self.transfer(edge, client, origin)


class TlsTests(EdgeTestCase):
    """TLS on both sides; the origin gives 16 MiB to a client that stalls."""

    timeout = 60

    async def test_slow_client(self) -> None:
        """T191."""
        total = 16 << 20
        identity = self.ca.issue("localhost")

        def make() -> TlsPeer:
            connection = SSL.Connection(identity.server_context(), None)
            connection.set_accept_state()
            return TlsPeer(Tls(connection))

        port, server = self.serve(make)
        self.hosts["localhost"] = ["127.0.0.1"]
        authority = Authority("localhost", port)
        edge = await self.edge(
            lambda who: RelaySession(who, authority, tls=True, intercept="localhost"),
            allow=[f"127.0.0.1:{port}"],
        )
        context = OriginContext(self.ca.write(self.path("ca")))
        client = self.connect(edge.port, TlsPeer(Tls(context.connection(authority))))
        await self.until(lambda: client.secured and server.made and server.made[0].secured)
        got = [0]
        client.on_data = lambda peer, data: got.__setitem__(0, got[0] + len(data))
        client.flow.set_reading(False)
        origin = server.made[0]
        sent = 0
        while sent < total:
            origin.send(BLOCK)
            sent += len(BLOCK)
        driver = next(iter(edge.clients._drivers))
        await self.until(lambda: edge.sessions[0].full)
        flows = [driver.flow, *driver._origins.values()]
        self.assertLess(sum(buffered(flow) for flow in flows), BOUND)
        self.assertGreater(buffered(origin.flow), total // 4)
        client.flow.set_reading(True)
        await self.until(lambda: got[0] == total, 30)
