"""Origins whose certificates are wrong in one way: no byte of a request is ever sent to them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from slapenir.edge.tls import Tls
from slapenir.events import Decided, OriginOpened, TlsHandshake
from slapenir.exchange.inputs import DialFailed, DialFailure, Dialled
from slapenir.names import Authority, Side
from tests.edge.rig import Edge, EdgeTestCase, Peer, TlsPeer
from tests.support.relay_session import ORIGIN, RelaySession
from tests.support.tls import CLIENT_AUTH, Identity, TestCA, self_signed

HOST = "api.example.test"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


class TrustTests(EdgeTestCase):
    """T101, T102: who is trusted and who is not."""

    async def dial(self, context: SSL.Context, host: str = HOST) -> tuple[Edge, TlsPeer]:
        """Dial an origin with this context while a client already sends its request."""
        origins: list[TlsPeer] = []

        def make() -> TlsPeer:
            connection = SSL.Connection(context, None)
            connection.set_accept_state()
            origins.append(TlsPeer(Tls(connection)))
            return origins[-1]

        port, _ = self.serve(make)
        self.hosts[HOST] = ["127.0.0.1"]
        authority = Authority(host, port)
        edge = await self.edge(
            lambda who: RelaySession(who, authority, tls=True), allow=[f"127.0.0.1:{port}"]
        )
        client = self.connect(edge.port, Peer())
        await client.opened
        client.transport.write(REQUEST)
        await self.until(
            lambda: (
                edge.sessions
                and any(isinstance(i, Dialled | DialFailed) for i in edge.sessions[0].inputs)
            )
        )
        await self.until(lambda: origins and (origins[0].gone or origins[0].data))
        if not origins[0].gone:
            client.transport.abortConnection()
        await self.until(lambda: edge.recorder.gauges() == (0, 0))
        return edge, origins[0]

    async def refused(
        self,
        identity: Identity | SSL.Context,
        reason: str,
        failure: DialFailure = DialFailure.TLS_UNTRUSTED,
        host: str = HOST,
    ) -> None:
        """Check that the dial fails, says why, and sent nothing but its handshake."""
        context = identity if isinstance(identity, SSL.Context) else identity.server_context()
        edge, origin = await self.dial(context, host)
        self.assertIn(DialFailed(ORIGIN, failure), edge.sessions[0].inputs)
        self.assertEqual(origin.data, b"")
        handshakes = edge.recorder.of(TlsHandshake)
        self.assertEqual([(h.side, h.error) for h in handshakes], [(Side.ORIGIN, reason)])

    async def accepted(self, identity: Identity, host: str = HOST) -> None:
        """Check that the request arrives."""
        edge, origin = await self.dial(identity.server_context(), host)
        self.assertIn(Dialled(ORIGIN, "127.0.0.1", False), edge.sessions[0].inputs)
        self.assertEqual(origin.data, REQUEST)
        kinds = [type(e) for e in edge.recorder.events if isinstance(e, Decided | OriginOpened)]
        self.assertEqual(kinds, [Decided, OriginOpened])

    async def test_good_ones(self) -> None:
        """T101, controls: exact name, wildcard, an intermediate that is sent, an address."""
        await self.accepted(self.ca.issue(HOST))
        await self.accepted(self.ca.issue("*.example.test"))
        await self.accepted(TestCA("Below", self.ca).issue(HOST))
        await self.accepted(self.ca.issue("127.0.0.1"), host="127.0.0.1")

    async def test_expired(self) -> None:
        await self.refused(self.ca.issue(HOST, starts=-9, ends=-1), "certificate has expired")

    async def test_not_yet_valid(self) -> None:
        wrong = self.ca.issue(HOST, starts=2, ends=9)
        await self.refused(wrong, "certificate is not yet valid")

    async def test_self_signed(self) -> None:
        await self.refused(self_signed(HOST), "self-signed certificate")

    async def test_untrusted_root(self) -> None:
        other = TestCA("Other CA")
        await self.refused(other.issue(HOST), "unable to get local issuer certificate")

    async def test_root_of_the_same_name(self) -> None:
        await self.refused(TestCA().issue(HOST), "certificate signature failure")

    async def test_missing_intermediate(self) -> None:
        leaf = TestCA("Below", self.ca).issue(HOST)
        alone = Identity(leaf.certificate, leaf.key)
        await self.refused(alone, "unable to get local issuer certificate")

    async def test_leaf_used_as_authority(self) -> None:
        """T101: CA:FALSE in the middle of a chain."""
        middle = self.ca.issue("Middle")
        forger = TestCA("Middle", self.ca)
        leaf = forger.issue(HOST)
        forger_chain = Identity(leaf.certificate, leaf.key, (middle.certificate,))
        edge, origin = await self.dial(forger_chain.server_context())
        failed = DialFailed(ORIGIN, DialFailure.TLS_UNTRUSTED)
        self.assertIn(failed, edge.sessions[0].inputs)
        self.assertEqual(origin.data, b"")

    async def test_wrong_host(self) -> None:
        text = "certificate is for another host"
        for name in ("other.example.test", "example.test", "*.a.example.test"):
            await self.refused(self.ca.issue(name), text)

    async def test_wildcard_of_a_top_level_domain(self) -> None:
        """T101: ``*.test`` may not stand for ``example.test``."""
        edge, origin = await self.dial(self.ca.issue("*.test").server_context())
        self.assertEqual(origin.data, b"")
        self.assertNotIn(Dialled(ORIGIN, "127.0.0.1", False), edge.sessions[0].inputs)

    async def test_common_name_only(self) -> None:
        wrong = self.ca.issue(common_name=HOST)
        await self.refused(wrong, "certificate has no usable host name")

    async def test_address_for_a_name_and_name_for_an_address(self) -> None:
        text = "certificate is for another host"
        await self.refused(self.ca.issue("127.0.0.1"), text)
        await self.refused(self.ca.issue(HOST), text, host="127.0.0.1")

    async def test_client_certificate(self) -> None:
        wrong = self.ca.issue(HOST, usage=[CLIENT_AUTH])
        await self.refused(wrong, "unsuitable certificate purpose")

    async def test_weak_key(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
        await self.refused(self.ca.issue(HOST, key=key), "certificate key too weak")

    async def test_old_version(self) -> None:
        """T102."""
        context = self.ca.issue(HOST).server_context()
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        edge, origin = await self.dial(context)
        failed = DialFailed(ORIGIN, DialFailure.TLS_FAILED)
        self.assertIn(failed, edge.sessions[0].inputs)
        self.assertEqual(origin.data, b"")

    async def test_static_rsa_and_old_ciphers(self) -> None:
        """T102."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        for ciphers in (b"AES128-GCM-SHA256", b"AES128-SHA", b"NULL-SHA256", b"ADH-AES128-SHA"):
            context = self.ca.issue(HOST, key=key).server_context()
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            context.set_cipher_list(ciphers + b":@SECLEVEL=0")
            edge, origin = await self.dial(context)
            failed = DialFailed(ORIGIN, DialFailure.TLS_FAILED)
            self.assertIn(failed, edge.sessions[0].inputs)
            self.assertEqual(origin.data, b"")

    async def test_an_origin_that_asks_for_a_certificate_gets_none(self) -> None:
        """T110: the gateway has no identity of its own to give."""
        seen: list[object] = []
        context = self.ca.issue(HOST).server_context()
        context.set_verify(SSL.VERIFY_PEER, lambda *args: bool(seen.append(args)) or True)
        _, origin = await self.dial(context)
        self.assertEqual((seen, origin.data), ([], REQUEST))

    async def test_not_tls_at_all(self) -> None:
        """T220: what answers is not TLS."""

        def make() -> Peer:
            peer = Peer()
            peer.on_data = lambda p, d: p.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return peer

        port, _ = self.serve(make)
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", port), tls=True),
            allow=[f"127.0.0.1:{port}"],
        )
        self.connect(edge.port, Peer())
        failed = DialFailed(ORIGIN, DialFailure.TLS_FAILED)
        await self.until(lambda: edge.sessions and failed in edge.sessions[0].inputs)
        await self.until(lambda: edge.recorder.gauges() == (0, 0))
