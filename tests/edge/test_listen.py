"""Limits at accept, draining, and our own ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.internet.task import deferLater

from slapenir.edge.arrival import Listener
from slapenir.edge.arrival import Peer as PeerAddress
from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.listen import start_listening
from slapenir.events import ConnectionClosed, ConnectionOpened, ConnectionRefused, Decided
from slapenir.exchange.inputs import Drain
from slapenir.names import Authority, Reason
from tests.edge.rig import REACTOR, Edge, EdgeTestCase, Peer
from tests.support.relay_session import RelaySession


class LimitTests(EdgeTestCase):
    """T194: one more than the limit is told so, and every end frees a place."""

    async def start(self, limits: EdgeLimits) -> Edge:
        """Start an edge whose sessions relay to a silent origin."""
        port, _ = self.serve(Peer)
        return await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", port)),
            allow=[f"127.0.0.1:{port}"],
            limits=limits,
        )

    async def fill(self, edge: Edge, count: int) -> list[Peer]:
        """Connect clients and wait until each counts."""
        before = len(edge.clients)
        peers = [self.connect(edge.port, Peer()) for _ in range(count)]
        await self.until(lambda: len(edge.clients) == before + count)
        return peers

    async def refused(self, edge: Edge, limit: str) -> Peer:
        """Connect one client too many."""
        count = len(edge.recorder.of(ConnectionRefused))
        peer: Peer = self.connect(edge.port, Peer())
        await peer.opened
        peer.transport.write(b"GET http://a.test/ HTTP/1.1\r\n\r\n")
        await self.until(lambda: b"}\n" in peer.data)
        head, _, body = peer.data.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 503 "))
        self.assertIn(b"\r\nRetry-After: 1", head)
        self.assertEqual(json.loads(body)["reason"], "limit")
        await peer.ended
        refusals = edge.recorder.of(ConnectionRefused)[count:]
        self.assertEqual([event.limit for event in refusals], [limit])
        return peer

    async def test_per_identity(self) -> None:
        edge = await self.start(EdgeLimits(connections_per_identity=2, close_seconds=1))
        peers = await self.fill(edge, 2)
        await self.refused(edge, "connections_per_identity")
        peers[0].transport.abortConnection()
        await self.until(lambda: len(edge.clients) == 1)
        await self.fill(edge, 1)
        self.assertEqual(len(edge.recorder.of(ConnectionOpened)), 3)

    async def test_another_identity_has_its_own(self) -> None:
        edge = await self.start(EdgeLimits(connections_per_identity=1, close_seconds=1))
        await self.fill(edge, 1)
        other = Listener("tcp:0:interface=127.0.0.1", "other", "other")
        port = await start_listening(REACTOR, other, edge.clients)
        self.connect(port.getHost().port, Peer())
        await self.until(lambda: len(edge.clients) == 2)

    async def test_in_total(self) -> None:
        edge = await self.start(EdgeLimits(connections=2, close_seconds=1))
        await self.fill(edge, 2)
        await self.refused(edge, "connections")

    async def test_refusals_are_bounded_too(self) -> None:
        edge = await self.start(EdgeLimits(connections=0, refusals=2, close_seconds=0.3))
        peers = [self.connect(edge.port, Peer()) for _ in range(5)]
        await self.until(lambda: len(edge.recorder.of(ConnectionRefused)) == 5)
        await self.until(lambda: sum(bool(peer.lost) for peer in peers) >= 3)
        self.assertEqual(sum(bool(peer.data) for peer in peers), 2)
        await self.until(lambda: all(peer.lost for peer in peers))
        await self.refused(edge, "connections")

    async def test_every_end_frees_a_place(self) -> None:
        """T194, T224: resets, closes, refusals of the origin; then all places are free."""
        edge = await self.start(EdgeLimits(connections=3, close_seconds=1))
        for how in ("abortConnection", "loseConnection", "abortConnection"):
            for peer in await self.fill(edge, 3):
                getattr(peer.transport, how)()
                if how == "loseConnection":
                    peer.transport.abortConnection()
            await self.until(lambda: not len(edge.clients))
        await self.until(lambda: edge.recorder.gauges() == (0, 0))
        opened = [event.who for event in edge.recorder.of(ConnectionOpened)]
        closed = [event.who for event in edge.recorder.of(ConnectionClosed)]
        self.assertEqual(len(opened), 9)
        self.assertEqual(sorted(w.connection for w in opened), sorted(w.connection for w in closed))

    async def test_dialling_our_own_listener_is_denied(self) -> None:
        """T031, T032: permitted by configuration or not; there is no loop."""
        ports: list[int] = []
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", ports[0])),
            allow=["127.0.0.1:1"],
        )
        ports.append(edge.port)
        peer = self.connect(edge.port, Peer())
        await peer.ended
        decided = edge.recorder.of(Decided)
        self.assertEqual([d.reason for d in decided], [Reason.ADDRESS_OWN_LISTENER])
        self.assertEqual(len(edge.recorder.of(ConnectionOpened)), 1)


class DrainTests(EdgeTestCase):
    """Leaving."""

    async def test_drain_tells_sessions_and_ends_with_the_last(self) -> None:
        port, _ = self.serve(Peer)
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", port)),
            allow=[f"127.0.0.1:{port}"],
        )
        peer = self.connect(edge.port, Peer())
        await self.until(lambda: edge.recorder.gauges() == (1, 1))
        await edge.clients.drain(5)
        self.assertIn(Drain(), edge.sessions[0].inputs)
        self.assertEqual(edge.recorder.gauges()[0], 0)
        await peer.ended
        late = self.connect(edge.port, Peer())
        await deferLater(REACTOR, 0.02)
        self.assertFalse(late.opened.called)

    async def test_the_deadline_cuts_what_is_left(self) -> None:
        class Stubborn(RelaySession):
            def receive(self, item, now):  # type: ignore[no-untyped-def]
                return [] if isinstance(item, Drain) else super().receive(item, now)

        port, _ = self.serve(Peer)
        edge = await self.edge(
            lambda who: Stubborn(who, Authority("127.0.0.1", port)), allow=[f"127.0.0.1:{port}"]
        )
        peer = self.connect(edge.port, Peer())
        await self.until(lambda: edge.recorder.gauges() == (1, 1))
        begun = REACTOR.seconds()
        await edge.clients.drain(0.1)
        self.assertGreaterEqual(REACTOR.seconds() - begun, 0.09)
        await peer.ended
        await self.until(lambda: edge.recorder.gauges() == (0, 0))


class PeerTextTests(EdgeTestCase):
    """How a peer is written."""

    def test_forms(self) -> None:
        from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

        self.assertEqual(str(PeerAddress.of(IPv4Address("TCP", "192.0.2.1", 5))), "192.0.2.1:5")
        self.assertEqual(
            str(PeerAddress.of(IPv6Address("TCP", "2001:db8::1", 5))), "[2001:db8::1]:5"
        )
        self.assertEqual(str(PeerAddress.of(UNIXAddress("/run/x"))), "unix")


class DescriptorTests(EdgeTestCase):
    """T198: more connections than file descriptors."""

    async def test_no_accept_spin_and_recovery(self) -> None:
        """While every descriptor is taken the process sleeps; later it serves again."""
        script = Path(__file__).with_name("few_descriptors.py")
        root = Path(__file__).parents[2]
        process = subprocess.Popen(  # a process of its own, for its own limit
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert process.stdout is not None and process.stdin is not None
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        port = int(process.stdout.readline())
        peers: list[Peer] = []
        for _ in range(8):  # no more at once than the backlog takes
            batch = [self.connect(port, Peer()) for _ in range(20)]
            await self.until(lambda b=batch: all(peer.opened.called for peer in b))
            peers += batch
        await self.until(lambda: sum(bool(peer.lost) for peer in peers) > 80)
        before = _cpu_seconds(process.pid)
        await deferLater(REACTOR, 0.5)
        self.assertLess(_cpu_seconds(process.pid) - before, 0.2)
        for peer in peers:
            if not peer.lost:
                peer.transport.abortConnection()
        await deferLater(REACTOR, 0.1)
        peer = self.connect(port, Peer())
        await peer.opened
        peer.transport.write(b"hello")
        await self.until(lambda: peer.data == b"hello")
        peer.transport.abortConnection()
        await peer.ended


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
