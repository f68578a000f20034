"""The pool of idle origin connections, over real sockets."""

from __future__ import annotations

import socket

import attrs
from twisted.internet.task import Clock

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.flow import Bystander
from slapenir.edge.origin import OriginFlow, OriginPool
from slapenir.exchange.commands import PoolKey
from slapenir.names import Authority
from tests.edge.rig import REACTOR, EdgeTestCase, Peer

AUTHORITY = Authority("a.test", 443)
KEY = PoolKey("sandbox", AUTHORITY, True, ("openai",))


class PoolTests(EdgeTestCase):
    """What may be used again and what may not."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.limits = EdgeLimits(
            origin_idle_per_key=2, origin_idle_total=3, origin_idle_seconds=60, close_seconds=1
        )
        self.pool = OriginPool(self.clock, self.limits)
        self.port, self.server = self.serve(Peer)
        self.opened: list[OriginFlow] = []
        self.closed: list[OriginFlow] = []

    async def tearDown(self) -> None:
        self.pool.close()
        for flow in self.opened:
            flow.abort()
        await self.until(lambda: len(self.closed) == len(self.opened))
        await self.until(lambda: all(peer.lost for peer in self.server.made))

    async def flow(self, key: PoolKey = KEY) -> OriginFlow:
        """Return an open connection to the test's server."""
        count = len(self.opened)
        flow = OriginFlow(
            REACTOR,
            self.limits,
            Bystander(),
            "a.test:443",
            "127.0.0.1",
            key,
            self.opened.append,
            self.closed.append,
        )
        self.connect(self.port, flow)
        await self.until(lambda: len(self.opened) > count and len(self.server.made) > count)
        return flow

    async def test_last_in_first_out(self) -> None:
        one, two = await self.flow(), await self.flow()
        self.pool.put(one)
        self.pool.put(two)
        self.assertIs(self.pool.take(KEY), two)
        self.assertIs(self.pool.take(KEY), one)
        self.assertIsNone(self.pool.take(KEY))

    async def test_every_part_of_the_key_counts(self) -> None:
        """T071: never for another identity, authority, scheme or credential set."""
        flow = await self.flow()
        self.pool.put(flow)
        for other in (
            attrs.evolve(KEY, identity="other"),
            attrs.evolve(KEY, authority=Authority("a.test", 8443)),
            attrs.evolve(KEY, tls=False),
            attrs.evolve(KEY, credentials=()),
        ):
            self.assertIsNone(self.pool.take(other))
        self.assertIs(self.pool.take(KEY), flow)

    async def test_bounded_per_key_and_in_total(self) -> None:
        flows = [await self.flow() for _ in range(3)]
        for flow in flows:
            self.pool.put(flow)
        self.assertEqual(len(self.pool), 2)
        for number in range(3):
            self.pool.put(await self.flow(attrs.evolve(KEY, identity=f"i{number}")))
        self.assertEqual(len(self.pool), 3)
        self.assertIsNone(self.pool.take(KEY))
        await self.until(lambda: len(self.closed) == 3)

    async def test_an_unasked_answer_drops_the_connection(self) -> None:
        """T071: a second response to one request is never given to the next."""
        self.pool.put(await self.flow())
        self.server.made[0].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await self.until(lambda: len(self.closed) == 1)
        self.assertIsNone(self.pool.take(KEY))

    async def test_an_unasked_answer_that_nobody_has_read_yet(self) -> None:
        """T071: the bytes stand in the socket when the next request wants the connection."""
        flow = await self.flow()
        self.pool.put(flow)
        peer = self.server.made[0].transport.getHandle()
        peer.setblocking(True)
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertIsNone(self.pool.take(KEY))

    async def test_a_connection_that_the_origin_closed_is_not_used(self) -> None:
        """T220: also when the reactor has not noticed yet."""
        self.pool.put(await self.flow())
        self.server.made[0].transport.getHandle().shutdown(socket.SHUT_WR)
        self.assertIsNone(self.pool.take(KEY))

    async def test_a_close_is_noticed_while_idle(self) -> None:
        self.pool.put(await self.flow())
        self.server.made[0].transport.loseConnection()
        await self.until(lambda: len(self.pool) == 0)

    async def test_idle_connections_are_closed_in_time(self) -> None:
        self.pool.put(await self.flow())
        self.clock.advance(40)
        self.pool.put(await self.flow())
        self.clock.advance(30)
        self.assertEqual(len(self.pool), 1)
        self.clock.advance(31)
        self.assertEqual(len(self.pool), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        await self.until(lambda: len(self.closed) == 2)

    async def test_a_full_or_half_closed_connection_is_not_kept(self) -> None:
        flow = await self.flow()
        flow.pauseProducing()
        self.pool.put(flow)
        self.assertEqual(len(self.pool), 0)
