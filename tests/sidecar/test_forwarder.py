"""The relay of the sidecar over real sockets: trust, backpressure, hot swap, ends."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from slapenir.names import Authority
from slapenir.pki.held import read_chain
from slapenir.sidecar.towards import Towards
from slapenir.sidecar.trouble import Trouble
from tests.edge.rig import Peer
from tests.sidecar.rig import REACTOR, SidecarTestCase, digest, echo, towards
from tests.support.certs import ThrowawayCA
from tests.support.tls import CLIENT_AUTH, TestCA, self_signed

REQUEST = b"GET http://api.example.test/ HTTP/1.1\r\nHost: api.example.test\r\n\r\n"


def reason(answer: bytes) -> str:
    """Return the reason in an answer of the sidecar's own, which is well-formed."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head
    found: str = json.loads(body)["reason"]
    return found


class RelayTests(SidecarTestCase):
    async def test_bytes_go_both_ways_and_the_certificate_is_shown(self) -> None:
        """What the client sends arrives, what the gateway sends comes back, as this agent."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo))
        peer = await self.client(forwarder, REQUEST)
        await self.until(lambda: peer.data == REQUEST)
        self.assertEqual(self.ends[0].serial, self.agent.certificate.serial_number)
        self.assertEqual(len(forwarder), 1)
        peer.transport.abortConnection()
        await self.until(lambda: len(forwarder) == 0 and self.ends[0].gone)
        self.assertEqual(self.failures, [])

    async def test_a_megabyte_each_way_is_the_same_bytes(self) -> None:
        """A body arrives byte for byte, in both directions at once."""
        data = os.urandom(3 << 20)
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo))
        peer = await self.client(forwarder, data)
        await self.until(lambda: len(peer.data) == len(data), 30)
        self.assertEqual(digest(peer.data), digest(data))
        self.assertEqual(digest(self.ends[0].data), digest(data))
        peer.transport.loseConnection()

    async def test_a_slow_client_holds_the_gateway_back(self) -> None:
        """With a client that does not read, a bounded part of it all leaves the gateway."""
        size = 128 << 20  # more than the kernel may buffer at both ends of two connections
        sent = 0

        def flood(end: Any, data: bytes) -> None:
            nonlocal sent
            end.flow_ready = lambda flow: flood(end, b"")
            while sent < size and not end.flow.full:
                end.flow.write(bytes(65536))
                end.flow.flush()
                sent += 65536

        forwarder = self.forwarder(self.gateway(self.doorway().connection, flood))
        peer = await self.client(forwarder)
        peer.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.transport.pauseProducing()
        peer.transport.write(REQUEST)
        before = -1
        while before != sent or not sent:  # until the gateway sends no more
            before = sent
            for _ in range(40):
                await deferLater(REACTOR, 0.005)
        link = next(iter(forwarder._links))
        held = link.client.transport
        waiting = len(held.dataBuffer) + sum(map(len, held._tempDataBuffer))
        self.assertLess(waiting, 256 << 10)
        self.assertLess(before, size // 2)
        size = sent  # what is left of it need not be
        peer.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        peer.transport.resumeProducing()
        await self.until(lambda: len(peer.data) >= size, 40)
        self.assertEqual(len(peer.data), size)
        peer.transport.loseConnection()

    async def test_a_slow_gateway_holds_the_client_back(self) -> None:
        """With a gateway that does not read, the client is not read from either."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection))
        peer = await self.client(forwarder, REQUEST)
        await self.until(lambda: self.ends and self.ends[0].data)
        self.ends[0].flow.set_reading(False)
        peer.transport.write(bytes(32 << 20))
        link = next(iter(forwarder._links))
        await self.until(lambda: link.gateway is not None and link.gateway.full)
        await self.until(lambda: not link.client.reading)
        assert link.gateway is not None
        held = link.gateway.transport
        waiting = len(held.dataBuffer) + sum(map(len, held._tempDataBuffer))
        self.assertLess(waiting, 256 << 10)
        self.ends[0].flow.set_reading(True)
        await self.until(lambda: len(self.ends[0].data) == len(REQUEST) + (32 << 20), 40)
        peer.transport.abortConnection()

    async def test_the_gateway_dies_in_the_middle_t072(self) -> None:
        """T072: an end without close_notify resets the client; with it the client ends cleanly."""
        for dies in (True, False):
            forwarder = self.forwarder(self.gateway(self.doorway().connection, echo))
            peer = await self.client(forwarder, REQUEST)
            await self.until(lambda peer=peer: peer.data == REQUEST)
            end = self.ends[-1]
            if dies:
                end.flow.transport.abortConnection()
            else:
                end.flow.close()
            await peer.ended
            assert peer.lost is not None
            self.assertEqual(bool(peer.lost.check(ConnectionDone)), not dies)
            self.assertEqual(self.failures, [])

    async def test_a_gateway_that_only_closes_is_told(self) -> None:
        """A request that gets no byte of an answer gets one of the sidecar's own."""
        port = self.gateway(self.doorway().connection, lambda end, data: end.flow.close())
        self.assertEqual(reason(await self.answer(self.forwarder(port))), "gateway_closed")

    async def test_the_certificate_is_swapped_while_connections_are_open(self) -> None:
        """Open connections go on with the old one; the next connection shows the new one."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo))
        old = await self.client(forwarder, b"one")
        await self.until(lambda: old.data == b"one")
        renewed = self.ca.issue("agent-1.example.test", usage=(CLIENT_AUTH,))
        self.current = towards(renewed, self.ca)
        new = await self.client(forwarder, b"two")
        await self.until(lambda: new.data == b"two")
        old.transport.write(b" still")
        await self.until(lambda: old.data == b"one still")
        self.assertEqual(
            [end.serial for end in self.ends],
            [self.agent.certificate.serial_number, renewed.certificate.serial_number],
        )
        for peer in (old, new):
            peer.transport.loseConnection()

    async def test_no_session_is_resumed_t106_t109(self) -> None:
        """T106, T109: each connection is a full handshake, though tickets are offered."""
        place = Path(self.mktemp())
        place.mkdir()
        authority = ThrowawayCA(place)
        context = authority.server_context("gateway.example.test")
        context.num_tickets = 2
        roots = read_chain(str(authority.ca_file))
        self.current = Towards((self.agent.certificate,), self.agent.key, roots, self.agent.expiry)
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        forwarder = self.forwarder(server.getsockname()[1])

        def serve() -> bool | None:
            connection, _ = server.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.sendall(secured.recv(10))
                return secured.session_reused

        for _ in range(3):
            reused = deferToThread(serve)
            peer = await self.client(forwarder, b"x")
            self.assertEqual(await reused, False)
            await self.until(lambda peer=peer: peer.data == b"x")
            peer.transport.loseConnection()

    async def test_alpn_is_http_1_1(self) -> None:
        """The gateway's ALPN choice is http/1.1, for it is offered alone."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo))
        peer = await self.client(forwarder, b"x")
        await self.until(lambda: peer.data == b"x")
        connection: Any = self.ends[0].flow.tls.connection
        self.assertEqual(connection.get_alpn_proto_negotiated(), b"http/1.1")
        peer.transport.loseConnection()

    async def test_a_host_name_is_looked_up(self) -> None:
        """The gateway may be a name; one that does not resolve is an unreachable gateway."""
        port = self.gateway(self.doorway().connection, echo)
        peer = await self.client(self.forwarder(port, "localhost"), b"x")
        await self.until(lambda: peer.data == b"x")
        peer.transport.loseConnection()
        lost = self.forwarder(port, "no-such-host.invalid", connect_seconds=5.0)
        self.assertEqual(reason(await self.answer(lost)), "gateway_unreachable")


class TrustTests(SidecarTestCase):
    """A gateway that cannot be trusted gets not one byte of the client."""

    async def refused(self, connect: Any, name: str = "gateway.example.test") -> str:
        """Return the sidecar's answer, after seeing that nothing was sent to the gateway."""
        before = len(self.ends)
        forwarder = self.forwarder(self.gateway(connect), name=Authority(name, 0))
        found = reason(await self.answer(forwarder, REQUEST))
        await self.until(lambda: all(end.gone for end in self.ends))
        self.assertEqual([end.data for end in self.ends[before:]], [b""])
        return found

    async def test_untrusted_gateways_t101(self) -> None:
        """T101: expired, not yet valid, unknown CA, self-signed, another name, an agent's own."""
        host = "gateway.example.test"
        for shown in (
            self.ca.issue(host, starts=-20, ends=-1),
            self.ca.issue(host, starts=1, ends=20),
            TestCA().issue(host),
            TestCA("Other CA").issue(host),
            self_signed(host),
            self.ca.issue("other.example.test"),
            self.ca.issue(host, usage=(CLIENT_AUTH,)),
        ):
            doorway = self.doorway(shown, auth="none")
            self.assertEqual(await self.refused(doorway.connection), "gateway_untrusted")
        self.assertEqual({trouble for trouble, _ in self.failures}, {Trouble.UNTRUSTED})
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo))
        peer = await self.client(forwarder, REQUEST)
        await self.until(lambda: peer.data == REQUEST)
        peer.transport.loseConnection()

    async def test_the_name_is_the_one_that_was_given(self) -> None:
        """The certificate has to be for the server name, not for the host that is dialled."""
        doorway = self.doorway(self.ca.issue("127.0.0.1"))
        self.assertEqual(await self.refused(doorway.connection), "gateway_untrusted")
        forwarder = self.forwarder(
            self.gateway(doorway.connection, echo), name=Authority("127.0.0.1", 0)
        )
        peer = await self.client(forwarder, b"x")
        await self.until(lambda: peer.data == b"x")
        peer.transport.loseConnection()

    async def test_our_certificate_is_refused(self) -> None:
        """An agent of a CA that the gateway does not know is told so, with TLS 1.3 and 1.2."""
        stranger = TestCA("Strangers").issue("agent-1.example.test", usage=(CLIENT_AUTH,))
        for version in (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION):
            doorway = self.doorway()
            doorway.context.set_max_proto_version(version)
            port = self.gateway(doorway.connection, echo)
            self.current = towards(stranger, self.ca)
            self.assertEqual(reason(await self.answer(self.forwarder(port))), "certificate_refused")
            self.current = towards(self.agent, self.ca)
            peer = await self.client(self.forwarder(port), b"x")
            await self.until(lambda peer=peer: peer.data == b"x")
            peer.transport.loseConnection()

    async def test_no_certificate_yet_and_an_expired_one(self) -> None:
        """Without a certificate nothing is dialled and the client is told which it is."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection))
        for trouble in (Trouble.NOT_ENROLLED, Trouble.EXPIRED):
            self.current = trouble
            answer = await self.answer(forwarder)
            self.assertEqual(reason(answer), trouble.value)
            self.assertTrue(answer.startswith(b"HTTP/1.1 503 "))
            self.assertTrue(json.loads(answer.partition(b"\r\n\r\n")[2])["retry"])
        self.assertEqual(self.ends, [])


class BoundTests(SidecarTestCase):
    async def test_unreachable(self) -> None:
        """A port where nobody listens, and one that is no TLS."""
        unused = REACTOR.listenTCP(0, _Silent(b""), interface="127.0.0.1")
        number = unused.getHost().port
        await unused.stopListening()
        self.assertEqual(reason(await self.answer(self.forwarder(number))), "gateway_unreachable")
        plain = REACTOR.listenTCP(0, _Silent(b"HTTP/1.1 200 OK\r\n\r\n"), interface="127.0.0.1")
        self.addCleanup(plain.stopListening)
        forwarder = self.forwarder(plain.getHost().port)
        self.assertEqual(reason(await self.answer(forwarder)), "gateway_unreachable")

    async def test_a_gateway_that_does_not_shake_hands(self) -> None:
        """Connecting and TLS have one deadline."""
        silent = _Silent(b"")
        port = REACTOR.listenTCP(0, silent, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        forwarder = self.forwarder(port.getHost().port, connect_seconds=0.2)
        self.assertEqual(reason(await self.answer(forwarder)), "gateway_unreachable")
        self.assertEqual(self.failures, [(Trouble.UNREACHABLE, "TLS took too long")])
        await self.until(lambda: all(peer.lost for peer in silent.peers))

    async def test_one_more_than_the_bound_gets_a_503(self) -> None:
        """With all places taken the next is told; a place that is given up is free."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo), connections=2)
        held = [await self.client(forwarder, b"x") for _ in range(2)]
        await self.until(lambda: all(peer.data == b"x" for peer in held))
        answer = await self.answer(forwarder, REQUEST)
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "))
        self.assertEqual(reason(answer), "limit")
        held[0].transport.loseConnection()
        await self.until(lambda: len(forwarder) == 1)
        again = await self.client(forwarder, b"y")
        await self.until(lambda: again.data == b"y")
        for peer in (held[1], again):
            peer.transport.loseConnection()

    async def test_an_idle_link_is_closed(self) -> None:
        """Without a byte either way both connections are closed; with bytes they are not."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo), idle_seconds=0.4)
        peer = await self.client(forwarder, b"x")
        for _ in range(6):
            size = len(peer.data)
            await deferLater(REACTOR, 0.15)
            peer.transport.write(b"x")
            await self.until(lambda size=size: len(peer.data) > size)
        self.assertIsNone(peer.lost)
        await peer.ended
        await self.until(lambda: self.ends[0].gone and not len(forwarder))
        self.assertTrue(self.ends[0].clean)

    async def test_a_half_closed_client_still_gets_its_answer(self) -> None:
        """After a FIN the answer comes; with none the link ends after the shorter time."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection), half_closed_seconds=0.3)
        for answers in (True, False):
            peer = await self.client(forwarder, REQUEST)
            await self.until(lambda: self.ends and self.ends[-1].data == REQUEST)
            peer.transport.loseWriteConnection()
            if answers:
                self.ends[-1].send(b"answer")
                await self.until(lambda peer=peer: peer.data == b"answer")
                self.ends[-1].flow.close()
            await peer.ended
            await self.until(lambda: not len(forwarder))

    async def test_a_client_that_leaves_takes_the_gateways_connection_with_it(self) -> None:
        """A client that closes without a word, or while the gateway is dialled."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection))
        peer = await self.client(forwarder)
        await self.until(lambda: self.ends and self.ends[0].secured)
        peer.transport.loseConnection()
        await self.until(lambda: self.ends[0].gone and not len(forwarder))
        silent = _Silent(b"")
        port = REACTOR.listenTCP(0, silent, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        slow = self.forwarder(port.getHost().port, connect_seconds=0.5)
        peer = await self.client(slow)
        await self.until(lambda: silent.peers)
        peer.transport.abortConnection()
        await self.until(lambda: not len(slow))

    async def test_stop_cuts_what_is_left(self) -> None:
        """After stop nobody gets in; who is still there is cut at the deadline."""
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo))
        peer = await self.client(forwarder, b"x")
        await self.until(lambda: peer.data == b"x")
        await forwarder.stop(0.1)
        await peer.ended
        self.assertEqual(forwarder.port, 0)


class _Silent:
    """A factory of plain servers that say one thing and then nothing."""

    noisy = False

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.peers: list[Peer] = []

    def doStart(self) -> None:
        """Nothing."""

    doStop = doStart

    def buildProtocol(self, addr: Any) -> Any:
        peer = Peer()
        peer.opened.addCallback(lambda one: one.transport.write(self.greeting))
        self.peers.append(peer)
        return peer
