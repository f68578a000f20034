"""A relay session over real sockets: bytes, ends and gauges."""

from __future__ import annotations

from OpenSSL import SSL

from slapenir.edge.tls import Tls
from slapenir.edge.tlscontext import OriginContext
from slapenir.events import TlsHandshake
from slapenir.exchange.inputs import CLIENT, PeerClosed
from slapenir.names import Authority
from tests.edge.rig import EdgeTestCase, Peer, TlsPeer
from tests.support.relay_session import RelaySession


def echo(peer: Peer, data: bytes) -> None:
    """Send everything back."""
    peer.transport.write(data)


class PlainRelayTests(EdgeTestCase):
    """Two plain or two TLS connections, one relay session between."""

    async def test_bytes_pass_both_ways_and_gauges_return(self) -> None:
        def make() -> Peer:
            peer = Peer()
            peer.on_data = echo
            return peer

        port, _ = self.serve(make)
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", port)),
            allow=[f"127.0.0.1:{port}"],
        )
        client = self.connect(edge.port, Peer())
        await client.opened
        client.transport.write(b"hello")
        await self.until(lambda: client.data == b"hello")
        self.assertEqual(edge.recorder.gauges(), (1, 1))
        client.transport.loseConnection()
        await self.until(lambda: edge.recorder.gauges() == (0, 0))

    async def test_tls_on_both_sides(self) -> None:
        origin = self.ca.issue("localhost")

        def make() -> TlsPeer:
            connection = SSL.Connection(origin.server_context(), None)
            connection.set_accept_state()
            peer = TlsPeer(Tls(connection))
            peer.on_data = lambda p, d: p.flow.write(d.upper())
            return peer

        port, _ = self.serve(make)
        self.hosts["localhost"] = ["127.0.0.1"]
        authority = Authority("localhost", port)
        edge = await self.edge(
            lambda who: RelaySession(who, authority, tls=True, intercept="localhost"),
            allow=[f"127.0.0.1:{port}"],
        )
        context = OriginContext(self.ca.write(self.path("ca")))
        client = self.connect(edge.port, TlsPeer(Tls(context.connection(authority))))
        await self.until(lambda: client.secured)
        client.send(b"hello" * 10000)
        await self.until(lambda: client.data == b"HELLO" * 10000)
        client.flow.close()
        await self.until(lambda: edge.recorder.gauges() == (0, 0))
        self.assertIn(PeerClosed(CLIENT, True), edge.sessions[0].inputs)
        sides = sorted(e.side.value for e in edge.recorder.of(TlsHandshake))
        self.assertEqual(sides, ["client", "origin"])
        self.assertEqual({e.error for e in edge.recorder.of(TlsHandshake)}, {""})
