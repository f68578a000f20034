"""TLS over memory: framing, ends, and what the contexts refuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.tls import Tls, TlsError
from slapenir.edge.tlscontext import MintBudgetError, OriginContext, ServerContexts
from slapenir.errors import PkiError
from slapenir.names import Authority
from tests.support.tls import TestCA

CA = TestCA()
HOST = "api.example.test"


def client_connection(*, alpn: list[bytes] | None = None, newest: int = 0) -> SSL.Connection:
    """Return a client that trusts anybody."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    if newest:
        context.set_max_proto_version(newest)
    if alpn is not None:
        context.set_alpn_protos(alpn)
    connection = SSL.Connection(context, None)
    connection.set_tlsext_host_name(HOST.encode())
    connection.set_connect_state()
    return connection


def contexts(limits: EdgeLimits | None = None) -> ServerContexts:
    """Return server contexts over the tests' authority."""
    return ServerContexts(CA.mint, limits or EdgeLimits())  # type: ignore[arg-type]


def pair(
    client: SSL.Connection | None = None, server: SSL.Connection | None = None
) -> tuple[Tls, Tls]:
    """Return a client and a server whose handshake is done.  Raises TlsError."""
    one = Tls(client or client_connection())
    two = Tls(server or contexts().connection(HOST, ""))
    to_two = one.start()
    while to_two:
        _, to_one = two.feed(to_two)
        _, to_two = one.feed(to_one) if to_one else (b"", b"")
    return one, two


class FramingTests(SynchronousTestCase):
    """Plaintext is the same for every cut of the ciphertext."""

    def setUp(self) -> None:
        self.client, self.server = pair()

    def test_both_are_up(self) -> None:
        self.assertTrue(self.client.up and self.server.up)

    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(st.binary(min_size=1, max_size=40000), max_size=4),
        st.lists(st.integers(0, 200000), max_size=12),
    )
    def test_any_cut_gives_the_same_plaintext(self, writes: list[bytes], cuts: list[int]) -> None:
        wire = b"".join(self.client.send(data) for data in writes)
        edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
        got = b"".join(self.server.feed(wire[a:b])[0] for a, b in itertools.pairwise(edges))
        self.assertEqual(got, b"".join(writes))

    def test_byte_by_byte(self) -> None:
        """T096: no segmentation makes a handshake or a record unreadable."""
        client = Tls(client_connection())
        server = Tls(contexts().connection(HOST, ""))
        answer = b"".join(server.feed(bytes([b]))[1] for b in client.start())
        finished = b"".join(client.feed(bytes([b]))[1] for b in answer)
        for byte in finished + client.send(b"hello"):
            plain, _ = server.feed(bytes([byte]))
        self.assertEqual(plain, b"hello")

    def test_data_with_the_finished_message_is_not_lost(self) -> None:
        client = Tls(client_connection())
        server = Tls(contexts().connection(HOST, ""))
        _, flight = server.feed(client.start())
        _, finished = client.feed(flight)
        plain, _ = server.feed(finished + client.send(b"early bird"))
        self.assertEqual(plain, b"early bird")

    def test_close_notify_behind_data_in_one_segment(self) -> None:
        plain, _ = self.server.feed(self.client.send(b"last") + self.client.close())
        self.assertEqual((plain, self.server.ended), (b"last", True))

    def test_not_ended_without_close_notify(self) -> None:
        self.server.feed(self.client.send(b"last"))
        self.assertFalse(self.server.ended)

    def test_garbage_fails(self) -> None:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 40):
            with self.assertRaises(TlsError):
                Tls(contexts().connection(HOST, "")).feed(garbage)

    def test_empty_records_are_bounded(self) -> None:
        """T108: a flood of empty records ends the connection."""
        empty = b"\x17\x03\x03\x00\x00"
        with self.assertRaises(TlsError):
            self.server.feed(empty * 1000)


class ServerContextTests(SynchronousTestCase):
    """What clients get."""

    def test_alpn(self) -> None:
        """T100: http/1.1, or an explicit no_application_protocol; never a guess."""
        for offered, chosen in (
            (None, b""),
            ([b"http/1.1"], b"http/1.1"),
            ([b"h2", b"http/1.1"], b"http/1.1"),
        ):
            client, _ = pair(client_connection(alpn=offered))
            self.assertEqual(client.connection.get_alpn_proto_negotiated(), chosen)
        for offered in ([b"h2"], [b"h3"], [b"acme-tls/1"], [b"foo"]):
            client = Tls(client_connection(alpn=offered))
            with self.assertRaises(TlsError) as caught:
                Tls(contexts().connection(HOST, "")).feed(client.start())
            self.assertEqual(caught.exception.reason, "no application protocol")
            self.assertEqual(caught.exception.alert[-2:], bytes([2, 120]))

    def test_old_versions_are_refused(self) -> None:
        """T102: TLS 1.1 is not spoken, TLS 1.2 (control) is."""
        pair(client_connection(newest=SSL.TLS1_2_VERSION))
        with self.assertRaises(TlsError):
            pair(client_connection(newest=SSL.TLS1_1_VERSION))

    def resumed(self, newest: int, server: Callable[[], SSL.Connection]) -> bool:
        """Shake hands, offer that session again, and return whether it was taken.

        A server that resumes sends no certificate: its first flight is some 400 bytes shorter.
        """
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(newest)
        first = SSL.Connection(context, None)
        first.set_connect_state()
        one, two = pair(first, server())
        one.feed(two.send(b"tickets would be here by now"))
        session = first.get_session()
        assert session is not None
        flights = []
        for offered in (None, session):
            connection = SSL.Connection(context, None)
            if offered is not None:
                connection.set_session(offered)
            connection.set_connect_state()
            flights.append(len(Tls(server()).feed(Tls(connection).start())[1]))
        return flights[0] - flights[1] > 300

    def test_nothing_is_resumed(self) -> None:
        """T107, T109: every handshake is a full one, so there is no early data either."""
        shared = contexts()
        ordinary = CA.issue(HOST).server_context()
        ordinary.set_session_id(b"control")

        def control() -> SSL.Connection:
            connection = SSL.Connection(ordinary, None)
            connection.set_accept_state()
            return connection

        for newest in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            self.assertFalse(self.resumed(newest, lambda: shared.connection(HOST, "")))
            self.assertTrue(self.resumed(newest, control))

    def test_renegotiation_is_refused(self) -> None:
        """T108: a client cannot make the gateway shake hands again."""
        client, server = pair(client_connection(newest=SSL.TLS1_2_VERSION))
        self.assertTrue(client.connection.renegotiate())
        with self.assertRaises(SSL.WantReadError):
            client.connection.do_handshake()
        plain, refusal = server.feed(client.connection.bio_read(65536))
        self.assertEqual(plain, b"")
        self.assertEqual(refusal[:1], b"\x15")
        self.assertEqual(server.connection.total_renegotiations(), 0)

    def test_contexts_are_cached_and_bounded(self) -> None:
        """T196: least recently used hosts give way."""
        minted: list[str] = []

        def mint(host: str, identity: str) -> object:
            minted.append(host)
            return CA.mint(host)

        cache = ServerContexts(mint, EdgeLimits(leaf_cache=2))  # type: ignore[arg-type]
        for host in ("a.test", "b.test", "a.test", "c.test", "a.test", "b.test"):
            cache.connection(host, "")
        self.assertEqual(minted, ["a.test", "b.test", "c.test", "b.test"])
        self.assertEqual(len(cache), 2)

    def test_minting_has_a_budget(self) -> None:
        """T196: an identity's unseen hosts are bounded per second, seen ones and others' not."""
        now = [0.0]
        limits = EdgeLimits(mint_burst=3, mints_per_second=2)
        cache = ServerContexts(CA.mint, limits, ticks=lambda: now[0])  # type: ignore[arg-type]
        for number in range(3):
            cache.connection(f"h{number}.test", "")
        with self.assertRaises(MintBudgetError):
            cache.connection("h3.test", "")
        cache.connection("h0.test", "")
        cache.connection("h4.test", "another")
        now[0] += 0.5
        cache.connection("h3.test", "")

    def test_a_leaf_is_renewed_before_it_ends(self) -> None:
        now = [0.0]
        minted: list[str] = []

        def mint(host: str, identity: str) -> object:
            minted.append(host)
            return CA.mint(host)

        cache = ServerContexts(mint, EdgeLimits(), clock=lambda: now[0])  # type: ignore[arg-type]
        cache.connection(HOST, "")
        now[0] = CA.mint(HOST).expiry - 7200
        cache.connection(HOST, "")
        self.assertEqual(len(minted), 1)
        now[0] += 4000
        cache.connection(HOST, "")
        self.assertEqual(len(minted), 2)


class OriginContextTests(SynchronousTestCase):
    """What origins are asked."""

    def test_the_hello_names_the_host_and_http_1_1_only(self) -> None:
        context = OriginContext(CA.write(Path(self.mktemp())))
        hello = Tls(context.connection(Authority(HOST, 443))).start()
        self.assertIn(HOST.encode(), hello)
        self.assertIn(b"\x08http/1.1", hello)
        self.assertNotIn(b"\x02h2", hello)

    def test_an_address_is_not_sent_as_a_name(self) -> None:
        context = OriginContext(CA.write(Path(self.mktemp())))
        hello = Tls(context.connection(Authority("192.0.2.1", 443))).start()
        self.assertNotIn(b"192.0.2.1", hello)

    def test_a_file_without_certificates_is_refused(self) -> None:
        path = Path(self.mktemp())
        path.write_text("nothing")
        self.assertRaises(PkiError, OriginContext, str(path))
