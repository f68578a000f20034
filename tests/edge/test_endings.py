"""Every way for a connection to end: the right signal to the other side, and nothing left open."""

from __future__ import annotations

import os

from OpenSSL import SSL
from twisted.internet.defer import Deferred

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.tls import Tls
from slapenir.edge.tlscontext import OriginContext
from slapenir.events import OriginOpened
from slapenir.exchange.inputs import CLIENT, DialFailed, DialFailure, PeerClosed
from slapenir.names import Authority
from tests.edge.rig import Edge, EdgeTestCase, FakeLookup, Peer, TlsPeer
from tests.support.relay_session import ORIGIN, RelaySession


def descriptors() -> int:
    """Return how many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def connected(peer: Peer | TlsPeer) -> bool:
    """Whether a test's client has been connected."""
    return peer.opened.called if isinstance(peer, Peer) else peer.flow.transport is not None


class EndingTests(EdgeTestCase):
    """A relay between a client and an origin that end in every way."""

    async def plain(self) -> tuple[Edge, Peer, Peer]:
        """Return an edge with a client and an origin, both plain."""
        port, server = self.serve(Peer)
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", port)),
            allow=[f"127.0.0.1:{port}"],
        )
        client = self.connect(edge.port, Peer())
        await self.until(lambda: server.made and edge.recorder.gauges() == (1, 1))
        return edge, client, server.made[0]

    async def test_client_half_close_still_gets_the_answer(self) -> None:
        """T222."""
        edge, client, origin = await self.plain()
        client.transport.write(b"request")
        client.transport.loseWriteConnection()
        await self.until(lambda: origin.data == b"request")
        self.assertIn(PeerClosed(CLIENT, True, True), edge.sessions[0].inputs)
        await origin.ended  # a Peer is not half-closeable, so its FIN comes with an answer
        await client.ended
        await self.until(lambda: edge.recorder.gauges() == (0, 0))

    async def test_origin_fin_after_data_delivers_the_data(self) -> None:
        """T222."""
        edge, client, origin = await self.plain()
        origin.transport.write(b"x" * 1000000)
        origin.transport.loseConnection()
        await client.ended
        self.assertEqual(len(client.data), 1000000)
        self.assertIn(PeerClosed(ORIGIN, True), edge.sessions[0].inputs)

    async def test_origin_reset(self) -> None:
        """T220."""
        edge, client, origin = await self.plain()
        origin.transport.abortConnection()
        await client.ended
        self.assertIn(PeerClosed(ORIGIN, False), edge.sessions[0].inputs)
        await self.until(lambda: edge.recorder.gauges() == (0, 0))

    async def test_client_reset_closes_the_origin(self) -> None:
        """T221."""
        edge, client, origin = await self.plain()
        client.transport.abortConnection()
        await origin.ended
        self.assertIn(PeerClosed(CLIENT, False), edge.sessions[0].inputs)
        await self.until(lambda: edge.recorder.gauges() == (0, 0))

    async def test_client_reset_during_the_lookup(self) -> None:
        """T221: nothing is dialled any more."""
        late: Deferred[list[str]] = Deferred()
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("slow.test", 1)),
            lookup=FakeLookup({"slow.test": [late]}),
        )
        client = self.connect(edge.port, Peer())
        await self.until(lambda: edge.sessions)
        client.transport.abortConnection()
        await self.until(lambda: edge.recorder.gauges() == (0, 0))
        late.callback(["8.8.8.8"])
        self.assertEqual((edge.dialler.open, edge.recorder.of(OriginOpened)), (0, []))

    async def test_origin_refuses(self) -> None:
        """T220."""
        port, _ = self.serve(Peer)
        await self._cleanups[-1][0]()  # type: ignore[attr-defined]
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", port)),
            allow=[f"127.0.0.1:{port}"],
        )
        client = self.connect(edge.port, Peer())
        await client.ended
        self.assertIn(DialFailed(ORIGIN, DialFailure.REFUSED), edge.sessions[0].inputs)
        self.assertEqual((edge.dialler.open, edge.recorder.gauges()[1]), (0, 0))

    async def test_tls_origin_with_and_without_close_notify(self) -> None:
        """T072."""
        identity = self.ca.issue("localhost")
        self.hosts["localhost"] = ["127.0.0.1"]

        def make() -> TlsPeer:
            connection = SSL.Connection(identity.server_context(), None)
            connection.set_accept_state()
            return TlsPeer(Tls(connection))

        port, server = self.serve(make)
        authority = Authority("localhost", port)
        edge = await self.edge(
            lambda who: RelaySession(who, authority, tls=True), allow=[f"127.0.0.1:{port}"]
        )
        for number, clean in enumerate((True, False)):
            client = self.connect(edge.port, Peer())
            await self.until(lambda n=number: len(server.made) > n and server.made[n].secured)
            origin = server.made[number]
            origin.send(b"body")
            await self.until(lambda c=client: c.data == b"body")
            if clean:
                origin.flow.close()
            else:
                origin.flow.transport.loseConnection()
            await client.ended
            self.assertIn(PeerClosed(ORIGIN, clean), edge.sessions[number].inputs)
        await self.until(lambda: edge.recorder.gauges() == (0, 0))

    async def test_many_mixed_ends_leave_nothing(self) -> None:
        """T220, T224: gauges, counts and file descriptors are as before."""
        port, server = self.serve(Peer)
        targets = [Authority("127.0.0.1", port), Authority("10.0.0.1", 1), Authority("x.test", 1)]
        edge = await self.edge(
            lambda who: RelaySession(
                who, targets[who.connection % 3], intercept="localhost" * (who.connection % 2)
            ),
            allow=[f"127.0.0.1:{port}"],
            limits=EdgeLimits(close_seconds=0.5, connections=15),
        )
        before = descriptors() + 3  # the reactor's own, which come with its first signal
        context = OriginContext(self.ca.write(self.path("ca")))
        for round_number in range(6):
            clients = [self.connect(edge.port, Peer()) for _ in range(15)]
            clients += [
                self.connect(edge.port, TlsPeer(Tls(context.connection(targets[2]))))
                for _ in range(5)
            ]
            await self.until(lambda c=clients: all(connected(one) for one in c))
            for number, client in enumerate(clients):
                if isinstance(client, TlsPeer):
                    client.flow.abort()
                elif number % 3 == 0:
                    client.transport.write(os.urandom(100))
                    client.transport.loseConnection()
                else:
                    client.transport.abortConnection()
            for origin in server.made:
                if origin.transport is not None and (round_number + len(origin.data)) % 2:
                    origin.transport.abortConnection()
            for client in clients:
                if isinstance(client, Peer) and not client.lost:
                    client.transport.abortConnection()
            await self.until(lambda: not len(edge.clients))
        await self.until(lambda: edge.recorder.gauges() == (0, 0) and edge.dialler.open == 0)
        await self.until(lambda: descriptors() <= before)
