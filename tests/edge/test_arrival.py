"""Clients on their way in, on real sockets: PROXY header, TLS, who they are, when they are cut."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.protocol import ClientFactory

from slapenir.edge.arrival import Listener, Way
from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.doorway import ClientAuth, Doorway, Material
from slapenir.edge.listen import start_listening
from slapenir.edge.tls import Tls
from slapenir.events import (
    AuditFailed,
    ClientIdentified,
    ConnectionOpened,
    ConnectionRefused,
    Decided,
    TlsHandshake,
    Who,
)
from slapenir.evidence import Evidence
from slapenir.exchange.authentication import Authenticator
from slapenir.exchange.commands import Admit, Close, Command, Send
from slapenir.exchange.inputs import CLIENT, BytesReceived, Input, PeerClosed
from slapenir.names import Action, Reason, Side, Stage
from slapenir.pki.revocation import Revocations
from slapenir.policy.identities import IdentityTable, Marks
from slapenir.wire.proxyauth import token_digest
from tests.edge.rig import REACTOR, Edge, EdgeTestCase, Peer, TlsPeer
from tests.support.agents import SERVER, AgentCA, AgentCertificate, spiffe
from tests.wire.test_proxyprotocol import header

CA = AgentCA()
OWN = AgentCA("Server CA").issue(dns=["gateway.internal"], usage=(SERVER,))
TCP = "tcp:0:interface=127.0.0.1"
LOCAL = ipaddress.ip_network("127.0.0.1/32")


class Echo:
    """A session that says back what it is told and who said it."""

    def __init__(self, who: Who, authenticator: Authenticator | None = None) -> None:
        self.who = who
        self.authenticator = authenticator
        self.finished = False

    def receive(self, item: Input, now: float) -> list[Command]:
        if isinstance(item, BytesReceived):
            name = self.who.identity.encode()
            if item.data == b"bye":
                self.finished = True
                return [Close(CLIENT)]
            if self.authenticator is not None and not name:
                self.who = Who(self.who.connection, self.who.listener, "agent-1", self.who.peer)
                evidence = Evidence(token=token_digest(item.data))
                return [Admit(self.who, evidence), Send(CLIENT, b"admitted")]
            return [Send(CLIENT, name + b":" + item.data)]
        if isinstance(item, PeerClosed):
            self.finished = True
        return []

    def wants(self, connection: int) -> bool:
        return True


class ArrivalCase(EdgeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.table = IdentityTable(
            [
                Marks("agent-1", spiffe=frozenset({spiffe("1")}), tokens=frozenset({TOKEN})),
                Marks("agent-2", spiffe=frozenset({spiffe("2")}), sources=(LOCAL,)),
                Marks("user", uids=frozenset({os.getuid()})),
            ]
        )

    def doorway(self, auth: ClientAuth = ClientAuth.REQUIRED, required: bool = False) -> Doorway:
        return Doorway(Material(OWN.chain, OWN.key, auth, (CA.certificate,)), required)

    async def start(
        self,
        *ways: Way,
        doorway: Doorway | None = None,
        identity: str = "",
        balancers: tuple[ipaddress.IPv4Network, ...] = (),
        endpoint: str = TCP,
        limits: EdgeLimits | None = None,
    ) -> Edge:
        """Start an edge with one listener."""
        listener = Listener(endpoint, "main", identity, frozenset(ways), doorway, balancers)
        return await self.edge(
            Echo, listener=listener, identify=lambda one: self.table.identify(one), limits=limits
        )

    def shows(self, shown: AgentCertificate | None) -> TlsPeer:
        """Return a TLS client that shows a certificate."""
        context = SSL.Context(SSL.TLS_METHOD)
        if shown is not None:
            context.use_certificate(shown.certificate)
            context.use_privatekey(shown.key)
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        return TlsPeer(Tls(connection))

    async def enter(self, edge: Edge, shown: AgentCertificate | None) -> TlsPeer:
        """Connect, shake hands, say hello."""
        peer: TlsPeer = self.connect(edge.port, self.shows(shown))
        await self.until(lambda: peer.secured or peer.gone)
        if peer.secured:
            peer.send(b"hello")
        await self.until(lambda: peer.data or peer.gone)
        return peer

    def assert_nobody(self, edge: Edge, reason: Reason, detail: str = "") -> Decided:
        """Exactly one record, of nobody; no session was ever made."""
        (record,) = edge.recorder.of(Decided)
        self.assertEqual((record.stage, record.action), (Stage.IDENTIFY, Action.DENY))
        self.assertEqual((record.reason, record.who.identity), (reason, ""))
        self.assertIn(detail, record.detail)
        self.assertEqual(edge.sessions, [])
        self.assertEqual(edge.recorder.of(ConnectionOpened), [])
        return record


TOKEN = token_digest(b"a token")


class CertificateTests(ArrivalCase):
    """Clients of a TLS listener."""

    async def test_known(self) -> None:
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway())
        shown = CA.agent("1")
        peer = await self.enter(edge, shown)
        self.assertEqual(peer.data, b"agent-1:hello")
        (known,) = edge.recorder.of(ClientIdentified)
        self.assertEqual((known.who.identity, known.way), ("agent-1", "certificate"))
        self.assertEqual(known.serial, f"{shown.certificate.serial_number:x}")
        self.assertEqual(known.not_after, shown.certificate.not_valid_after_utc.timestamp())
        (shaken,) = edge.recorder.of(TlsHandshake)
        self.assertEqual((shaken.side, shaken.authority, shaken.error), (Side.LISTENER, "main", ""))
        self.assertEqual(edge.recorder.of(Decided), [])
        peer.send(b"bye")
        await self.until(lambda: peer.gone and not edge.clients)

    async def test_t104_no_identity_without_a_good_certificate(self) -> None:
        """T104: one record for each, and no session."""
        for shown, reason, detail in (
            (None, Reason.CERTIFICATE_REFUSED, "did not return a certificate"),
            (CA.agent("1", starts=-3, ends=-1), Reason.CERTIFICATE_REFUSED, "expired"),
            (AgentCA("Other").agent("1"), Reason.CERTIFICATE_REFUSED, "issuer"),
            (CA.agent("1", ca=True), Reason.CERTIFICATE_REFUSED, "it is a CA"),
            (CA.agent("3"), Reason.IDENTITY_UNKNOWN, ""),
            (CA.issue([spiffe("1"), spiffe("2")]), Reason.IDENTITY_UNKNOWN, ""),
            (CA.issue(common=["agent-1"]), Reason.IDENTITY_UNKNOWN, ""),
        ):
            edge = await self.start(Way.CERTIFICATE, doorway=self.doorway())
            peer = await self.enter(edge, shown)
            await self.until(lambda peer=peer: peer.gone)  # type: ignore[misc]
            self.assert_nobody(edge, reason, detail)
            await self.until(lambda edge=edge: not edge.clients)  # type: ignore[misc]

    async def test_it_is_told_why(self) -> None:
        """Who was let through the handshake and is nobody gets an answer in the gateway's style."""
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway())
        peer = await self.enter(edge, CA.agent("3"))
        await self.until(lambda: peer.gone)
        head, _, body = peer.data.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 403 "), head)
        self.assertEqual(json.loads(body)["reason"], "identity_unknown")

    async def test_t105_t106_revoked(self) -> None:
        doorway = self.doorway(required=True)
        shown = CA.agent("1")
        doorway.revise(Revocations.parse(CA.crl(shown), [CA.certificate]))
        edge = await self.start(Way.CERTIFICATE, doorway=doorway)
        await self.enter(edge, shown)
        self.assert_nobody(edge, Reason.CERTIFICATE_REVOKED)
        other = await self.enter(edge, CA.agent("2"))
        self.assertEqual(other.data, b"agent-2:hello")

    async def test_t105_a_live_connection_is_cut(self) -> None:
        """T105: revoked while it is open; the other agent's connection goes on."""
        doorway = self.doorway(required=True)
        doorway.revise(Revocations.parse(CA.crl(), [CA.certificate]))
        edge = await self.start(Way.CERTIFICATE, doorway=doorway)
        shown = CA.agent("1")
        one, two = await self.enter(edge, shown), await self.enter(edge, CA.agent("2"))
        edge.clients.review()
        self.assertEqual(edge.recorder.of(Decided), [])
        doorway.revise(Revocations.parse(CA.crl(shown), [CA.certificate]))
        edge.clients.review()
        (record,) = edge.recorder.of(Decided)
        self.assertEqual(
            (record.reason, record.who.identity), (Reason.CERTIFICATE_REVOKED, "agent-1")
        )
        await self.until(lambda: one.gone)
        self.assertFalse(one.clean)
        two.send(b"again")
        await self.until(lambda: two.data == b"agent-2:helloagent-2:again")

    async def test_t211_an_identity_that_is_gone(self) -> None:
        """T211: the configuration does not know it any more, or takes it for another."""
        for change, reason in (
            (Marks("agent-9"), Reason.IDENTITY_UNKNOWN),
            (Marks("other", spiffe=frozenset({spiffe("1")})), Reason.IDENTITY_CHANGED),
        ):
            edge = await self.start(Way.CERTIFICATE, doorway=self.doorway())
            peer = await self.enter(edge, CA.agent("1"))
            table, self.table = self.table, IdentityTable([change])
            edge.clients.revise()
            self.table = table
            (record,) = edge.recorder.of(Decided)
            self.assertEqual((record.reason, record.who.identity), (reason, "agent-1"))
            await self.until(lambda peer=peer: peer.gone)  # type: ignore[misc]

    async def test_fixed_identity_still_needs_the_certificate(self) -> None:
        edge = await self.start(doorway=self.doorway(), identity="sandbox")
        peer = await self.enter(edge, CA.agent("3"))
        self.assertEqual(peer.data, b"sandbox:hello")
        await self.enter(edge, None)
        (record,) = edge.recorder.of(Decided)
        self.assertIs(record.reason, Reason.CERTIFICATE_REFUSED)

    async def test_the_record_comes_first(self) -> None:
        """Who a client is cannot be recorded: it is turned away before it is asked anything."""
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway())
        edge.recorder.refuse = (ClientIdentified,)
        peer = await self.enter(edge, CA.agent("1"))
        await self.until(lambda: peer.gone)
        self.assertTrue(peer.data.startswith(b"HTTP/1.1 503 "), peer.data)
        self.assertEqual(edge.sessions, [])
        self.assertEqual(len(edge.recorder.of(AuditFailed)), 1)
        await self.until(lambda: not edge.clients)

    async def test_t098_half_a_hello_then_nothing(self) -> None:
        """T098: the handshake has an absolute deadline; others are not held up."""
        limits = EdgeLimits(arrival_seconds=0.3, close_seconds=1.0)
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway(), limits=limits)
        silent, half = self.connect(edge.port, Peer()), self.connect(edge.port, Peer())
        await half.opened
        half.transport.write(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        other = await self.enter(edge, CA.agent("1"))
        self.assertEqual(other.data, b"agent-1:hello")
        await silent.ended
        await half.ended
        errors = [one.error for one in edge.recorder.of(TlsHandshake)]
        self.assertEqual(sorted(errors), ["", "timed out", "timed out"])

    async def test_t097_not_tls(self) -> None:
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway())
        peer = self.connect(edge.port, Peer())
        await peer.opened
        peer.transport.write(b"CONNECT api.example.test:443 HTTP/1.1\r\n\r\n")
        await peer.ended
        self.assertEqual(edge.sessions, [])
        self.assertTrue(edge.recorder.of(TlsHandshake)[0].error)

    async def test_t194_limits(self) -> None:
        """T194: arrivals count, and an identity has its own bound; both are freed."""
        limits = EdgeLimits(connections=2, connections_per_identity=1, close_seconds=1)
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway(), limits=limits)
        one = await self.enter(edge, CA.agent("1"))
        again = await self.enter(edge, CA.agent("1"))
        await self.until(lambda: again.gone)
        self.assertTrue(again.data.startswith(b"HTTP/1.1 503 "))
        silent = self.connect(edge.port, Peer())
        await silent.opened
        await self.until(lambda: len(edge.clients) + len(edge.clients._arrivals) == 2)
        third = self.connect(edge.port, Peer())
        await third.ended
        refusals = [event.limit for event in edge.recorder.of(ConnectionRefused)]
        self.assertEqual(refusals, ["connections_per_identity", "connections"])
        silent.transport.abortConnection()
        one.send(b"bye")
        await self.until(lambda: one.gone and not edge.clients and not edge.clients._arrivals)
        self.assertEqual((await self.enter(edge, CA.agent("1"))).data, b"agent-1:hello")

    async def test_t194_strangers_of_one_source(self) -> None:
        """Silent ones are bounded by address; who is known, and another address, get in."""
        limits = EdgeLimits(strangers_per_source=2, close_seconds=1)
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway(), limits=limits)
        known = await self.enter(edge, CA.agent("1"))
        silent = [self.connect(edge.port, Peer()) for _ in range(2)]
        for one in silent:
            await one.opened
        await self.until(lambda: len(edge.clients._arrivals) == 2)
        third = await self.enter(edge, CA.agent("2"))
        self.assertFalse(third.secured)
        refusals = [event.limit for event in edge.recorder.of(ConnectionRefused)]
        self.assertEqual(refusals, ["strangers_per_source"])
        peer = self.shows(CA.agent("2"))
        self.connect(edge.port, peer, source="127.0.0.2")
        await self.until(lambda: peer.secured)
        known.send(b"again")
        await self.until(lambda: known.data.endswith(b"again"))
        silent[0].transport.abortConnection()
        await self.until(lambda: len(edge.clients._arrivals) == 1)
        self.assertEqual((await self.enter(edge, CA.agent("2"))).data, b"agent-2:hello")
        silent[1].transport.abortConnection()
        await self.until(lambda: not edge.clients._arrivals)
        self.assertEqual(len(edge.clients._strangers), 0)

    async def test_draining_waits_for_arrivals(self) -> None:
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway())
        silent = self.connect(edge.port, Peer())
        await silent.opened
        await self.until(lambda: edge.clients._arrivals)
        await edge.clients.drain(0.05)
        await silent.ended
        self.edges.remove(edge)


class OtherWaysTests(ArrivalCase):
    """Source addresses, UNIX users, tokens, and all that beside a certificate."""

    async def say(self, edge: Edge, data: bytes = b"hello", first: bytes = b"") -> Peer:
        peer: Peer = self.connect(edge.port, Peer())
        await peer.opened
        peer.transport.write(first + data)
        await self.until(lambda: peer.data or peer.lost)
        return peer

    async def test_source(self) -> None:
        edge = await self.start(Way.SOURCE)
        self.assertEqual((await self.say(edge)).data, b"agent-2:hello")
        self.assertEqual([one.way for one in edge.recorder.of(ClientIdentified)], ["source"])
        self.table = IdentityTable([Marks("agent-1")])
        peer = await self.say(edge)
        self.assertTrue(peer.data.startswith(b"HTTP/1.1 403 "))
        self.assertEqual(edge.recorder.of(Decided)[0].reason, Reason.IDENTITY_UNKNOWN)

    async def test_unix_uid(self) -> None:
        path = str(Path(self.mktemp()).resolve())[-90:]
        path = f"/tmp/{os.getpid()}-{abs(hash(path))}.sock"
        edge = await self.start(Way.UNIX_UID, endpoint=f"unix:{path}")
        for known in (True, False):
            if not known:
                self.table = IdentityTable([Marks("user", uids=frozenset({os.getuid() + 1}))])
            peer = Peer()
            REACTOR.connectUNIX(path, _Made(peer))
            await peer.opened
            peer.transport.write(b"hello")  # type: ignore[union-attr]
            await self.until(lambda peer=peer: peer.data)  # type: ignore[misc]
            start = b"user:hello" if known else b"HTTP/1.1 403 "
            self.assertTrue(peer.data.startswith(start), peer.data)
            peer.transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(edge.recorder.of(ClientIdentified)[0].who.peer, "unix")

    async def test_certificate_and_source_must_agree(self) -> None:
        edge = await self.start(Way.CERTIFICATE, Way.SOURCE, doorway=self.doorway())
        await self.enter(edge, CA.agent("1"))
        self.assert_nobody(edge, Reason.IDENTITY_AMBIGUOUS)
        self.assertEqual((await self.enter(edge, CA.agent("2"))).data, b"agent-2:hello")

    async def test_token(self) -> None:
        """The client is nobody until a request proves who it is; then it counts."""
        limits = EdgeLimits(connections_per_identity=1, close_seconds=1)
        edge = await self.start(Way.TOKEN, limits=limits)
        peer = await self.say(edge, b"a token")
        self.assertEqual(peer.data, b"admitted")
        (known,) = edge.recorder.of(ClientIdentified)
        self.assertEqual((known.who.identity, known.way), ("agent-1", "token"))
        more = await self.say(edge, b"a token")
        self.assertTrue(more.data.startswith(b"HTTP/1.1 503 "), more.data)
        edge.clients.review()
        self.assertEqual(edge.recorder.of(Decided), [])
        self.table = IdentityTable([Marks("agent-1", tokens=frozenset({token_digest(b"new")}))])
        edge.clients.review()
        (record,) = edge.recorder.of(Decided)
        self.assertEqual((record.reason, record.who.identity), (Reason.IDENTITY_UNKNOWN, "agent-1"))
        await peer.ended
        await self.until(lambda: not edge.clients)
        self.assertEqual(sum(edge.clients._identities.values()), 0)

    async def test_t204_one_bucket_however_it_arrives(self) -> None:
        """T204: a certificate, another certificate, a source and a token of one identity."""
        marks = Marks(
            "agent-1",
            spiffe=frozenset({spiffe("1"), spiffe("2")}),
            sources=(LOCAL,),
            tokens=frozenset({TOKEN}),
        )
        self.table = IdentityTable([marks])
        limits = EdgeLimits(connections_per_identity=1, close_seconds=1)
        edge = await self.start(Way.CERTIFICATE, doorway=self.doorway(), limits=limits)
        named: dict[str, Listener] = {
            "source": Listener(TCP, "source", "", frozenset({Way.SOURCE})),
            "token": Listener(TCP, "token", "", frozenset({Way.TOKEN})),
            "fixed": Listener(TCP, "fixed", "agent-1", frozenset()),
        }
        ports = {}
        for name, listener in named.items():
            port = await start_listening(REACTOR, listener, edge.clients)
            ports[name] = port.getHost().port  # type: ignore[attr-defined]
        first = await self.enter(edge, CA.agent("1"))
        self.assertEqual(first.data, b"agent-1:hello")
        second = await self.enter(edge, CA.agent("2"))
        self.assertTrue(second.data.startswith(b"HTTP/1.1 503 "), second.data)
        for name, said in (("source", b"hello"), ("token", b"a token"), ("fixed", b"hello")):
            peer: Peer = self.connect(ports[name], Peer())
            await peer.opened
            peer.transport.write(said)
            await self.until(lambda peer=peer: peer.data or peer.lost)  # type: ignore[misc]
            self.assertTrue(peer.data.startswith(b"HTTP/1.1 503 "), (name, peer.data))
        refusals = [event.limit for event in edge.recorder.of(ConnectionRefused)]
        self.assertEqual(refusals, ["connections_per_identity"] * 4)

    async def test_t194_the_last_place_is_one(self) -> None:
        """Who proves with a token who it is was counted when it came."""
        edge = await self.start(Way.TOKEN, limits=EdgeLimits(connections=1, close_seconds=1))
        self.assertEqual((await self.say(edge, b"a token")).data, b"admitted")

    async def test_t194_without_a_token_it_is_a_stranger(self) -> None:
        """Until it proves who it is."""
        limits = EdgeLimits(strangers_per_source=1, close_seconds=1)
        edge = await self.start(Way.TOKEN, limits=limits)
        first: Peer = self.connect(edge.port, Peer())
        await first.opened
        await self.until(lambda: len(edge.clients))
        self.assertTrue((await self.say(edge, b"a token")).data.startswith(b"HTTP/1.1 503 "))
        first.transport.write(b"a token")
        await self.until(lambda: first.data)
        self.assertEqual((await self.say(edge, b"a token")).data, b"admitted")
        self.assertEqual(len(edge.clients._strangers), 0)

    async def test_t194_refusals_count_until_they_are_gone(self) -> None:
        """At its bound an identity cannot heap up refused connections; draining waits for them."""
        limits = EdgeLimits(connections_per_identity=1, refusals=1, close_seconds=2)
        edge = await self.start(Way.SOURCE, limits=limits)
        await self.say(edge)
        stubborn = [socket.create_connection(("127.0.0.1", edge.port)) for _ in range(20)]
        for one in stubborn:
            self.addCleanup(one.close)
        refused = lambda: edge.recorder.of(ConnectionRefused)  # noqa: E731
        await self.until(lambda: len(refused()) == 20)
        await self.until(lambda: len(edge.clients._refused) <= 1)  # the others are being aborted
        self.assertLessEqual(edge.clients._refusals, 1)
        answered: list[bytes] = []

        def look() -> bool:
            for one in stubborn:
                one.setblocking(False)
                with contextlib.suppress(OSError):
                    answered.append(one.recv(12))
            return b"HTTP/1.1 503" in answered

        await self.until(look)  # it is written after the record
        self.assertEqual(answered.count(b"HTTP/1.1 503"), 1)
        drained = edge.clients.drain(10.0)
        for driver in list(edge.clients._drivers):
            driver.abort()
        self.assertFalse(drained.called)
        for one in stubborn:
            one.close()
        await drained
        self.assertEqual(edge.clients._refusals, 0)
        self.edges.remove(edge)

    async def test_a_strangers_certificate_is_not_asked_for_a_token(self) -> None:
        doorway = self.doorway(ClientAuth.OPTIONAL)
        edge = await self.start(Way.CERTIFICATE, Way.TOKEN, doorway=doorway)
        await self.enter(edge, CA.agent("3"))
        self.assert_nobody(edge, Reason.IDENTITY_UNKNOWN)
        peer: TlsPeer = self.connect(edge.port, self.shows(None))
        await self.until(lambda: peer.secured)
        peer.send(b"a token")
        await self.until(lambda: peer.data == b"admitted")


class BalancerTests(ArrivalCase):
    """The PROXY protocol, from whom it is expected and from nobody else."""

    async def start_behind(self, doorway: Doorway | None = None) -> Edge:
        self.table = IdentityTable(
            [
                Marks("agent-1", spiffe=frozenset({spiffe("1")})),
                Marks("agent-7", sources=(ipaddress.ip_network("192.0.2.7/32"),)),
            ]
        )
        way = Way.SOURCE if doorway is None else Way.CERTIFICATE
        return await self.start(way, doorway=doorway, balancers=(LOCAL,))

    async def test_whom_it_speaks_for(self) -> None:
        edge = await self.start_behind()
        peer: Peer = self.connect(edge.port, Peer())
        await peer.opened
        data = header("192.0.2.7", 40000) + b"hello"
        for at in range(0, len(data), 7):
            peer.transport.write(data[at : at + 7])
        await self.until(lambda: peer.data)
        self.assertTrue(peer.data.startswith(b"agent-7:"), peer.data)
        (known,) = edge.recorder.of(ClientIdentified)
        self.assertEqual(known.who.peer, "192.0.2.7:40000")

    async def test_under_tls(self) -> None:
        edge = await self.start_behind(self.doorway())
        peer = self.shows(CA.agent("1"))
        flow_open = peer.flow_open

        def opened(flow: object) -> None:
            peer.flow._give(header("192.0.2.7", 40000))
            flow_open(peer.flow)

        peer.flow_open = opened  # type: ignore[method-assign,assignment]
        self.connect(edge.port, peer)
        await self.until(lambda: peer.secured)
        peer.send(b"hello")
        await self.until(lambda: peer.data == b"agent-1:hello")
        self.assertEqual(edge.recorder.of(ClientIdentified)[0].who.peer, "192.0.2.7:40000")

    async def test_a_balancer_that_says_nothing_of_the_kind(self) -> None:
        edge = await self.start_behind()
        peer: Peer = self.connect(edge.port, Peer())
        await peer.opened
        peer.transport.write(b"GET http://a.test/ HTTP/1.1\r\n\r\n")
        await peer.ended
        self.assert_nobody(edge, Reason.PROTOCOL_ERROR, "no PROXY protocol header")

    async def test_from_anybody_else_it_is_no_header(self) -> None:
        """A client that is no balancer cannot say that it is another: its bytes are its own."""
        elsewhere = (ipaddress.ip_network("10.0.0.5/32"),)
        edge = await self.start(Way.SOURCE, balancers=elsewhere)
        peer: Peer = self.connect(edge.port, Peer())
        await peer.opened
        peer.transport.write(header("192.0.2.7", 40000))
        await self.until(lambda: peer.data)
        self.assertTrue(peer.data.startswith(b"agent-2:\r\n\r\n\0"), peer.data)


class _Made(ClientFactory):
    noisy = False

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def buildProtocol(self, addr: object) -> Peer:  # type: ignore[override]
        return self._peer
