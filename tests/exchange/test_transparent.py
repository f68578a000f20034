"""Redirected connections: which name they are for, and that the address is believed for nothing."""

from __future__ import annotations

import base64
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from slapenir.exchange.inputs import (
    CLIENT,
    DialFailure,
    Drain,
    HandshakeDone,
    Revised,
    Timer,
)
from slapenir.names import Action, Authority, Outcome, Reason, Scheme
from slapenir.policy.model import Destination, Rule
from tests.support.hello import client_hello
from tests.support.hellos import extension, handshake, hello_body, real_hello, records, server_name
from tests.support.playbook import Playbook, bearer, make_terms, new_secret, rule
from tests.support.splits import every_split

HOST = "api.example.test"
BLIND = "blind.example.test"
RAW = "git.example.test"
ATTACKER = "203.0.113.66"
FAKE = "198.18.0.9"
ECH = 0xFE0D


def going_to(address: str = ATTACKER, port: int = 443, name: str = "") -> Destination:
    """Return where a connection was going; by default to the attacker."""
    return Destination(Authority(address, port), name)


class Case(SynchronousTestCase):
    """Rules for https, plain http, passthrough and raw TCP, and a credential for the first."""

    def setUp(self) -> None:
        self.secret = new_secret()
        self.rules = [
            rule("tls", [HOST], credentials=("key",)),
            rule("plain", [HOST], scheme=Scheme.HTTP, ports=(80, 8080)),
            rule("blind", [BLIND], action=Action.PASSTHROUGH),
            rule("raw", [RAW], action=Action.TUNNEL, ports=(22,)),
            rule("other", ["other.example.test"]),
        ]
        self.terms = make_terms(self.rules, [bearer("key", self.secret, [HOST])])

    def book(self, destination: Destination | None, **more: bool) -> Playbook:
        """Return a connection that was redirected from ``destination``."""
        return Playbook(self.terms, destination=destination, redirected=True, **more)

    def assert_denied(self, book: Playbook, reason: Reason) -> None:
        """Cut with this reason in the only record, and nothing dialled."""
        self.assertEqual(book.dials, [])
        (record,) = book.decisions()
        self.assertEqual((record.action, record.reason), (Action.DENY, reason))
        self.assertTrue({CLIENT} & {*book.closed, *book.aborted}, book.commands)
        self.assertEqual(len(book.outcomes()), 1)


class TlsTests(Case):
    """By the server name in the ClientHello."""

    def test_intercepted(self) -> None:
        """T186: as after a CONNECT: leaf, decision on each request, credential; own resolution."""
        for hello in every_split(client_hello(HOST)):
            book = self.book(going_to())
            for piece in hello:
                book.client_sends(piece)
            (start,) = book.started_tls
            self.assertEqual((start.host, start.received), (HOST, b"".join(hello)))
            self.assertEqual(book.client, b"")
            book.give(HandshakeDone())
            placeholder = book.placeholder("key")
            fields = b"Host: %s\r\nAuthorization: Bearer %s" % (HOST.encode(), placeholder)
            book.client_sends(b"GET /v1 HTTP/1.1\r\n%s\r\n\r\n" % fields)
            (dial,) = book.dials
            self.assertEqual((dial.authority, dial.tls), (Authority(HOST, 443), True))
            self.assertIn(b"Bearer " + self.secret, book.origin)
            self.assertEqual([d.action for d in book.decisions()], [Action.ALLOW, Action.ALLOW])
            self.assertEqual(book.decisions()[0].authority, f"{HOST}:443")

    def test_no_name_T092(self) -> None:
        """Without SNI there is no name, even where our DNS gave the address out for one."""
        for destination in (going_to(), going_to(FAKE, 443, HOST)):
            book = self.book(destination)
            book.client_sends(real_hello(None))
            self.assert_denied(book, Reason.NAME_MISSING)
            self.assertEqual(book.client[-1:], bytes([112]))
            self.assertEqual(book.started_tls, [])

    def test_the_address_is_not_believed_T093(self) -> None:
        """The name of an allowed host at an attacker's address: our own resolution is dialled."""
        book = self.book(going_to(ATTACKER))
        book.client_sends(client_hello(HOST))
        book.give(HandshakeDone())
        book.client_sends(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % HOST.encode())
        self.assertEqual([dial.authority.host for dial in book.dials], [HOST])

    def test_another_name_than_was_resolved_T090(self) -> None:
        """Our DNS gave the address out for one name; the ClientHello has another: cut."""
        book = self.book(going_to(FAKE, 443, "other.example.test"))
        book.client_sends(client_hello(HOST))
        self.assert_denied(book, Reason.SNI_MISMATCH)
        self.assertEqual(book.client[-1:], bytes([112]))
        same = self.book(going_to(FAKE, 443, HOST))
        same.client_sends(client_hello(HOST))
        self.assertEqual(len(same.started_tls), 1)

    def test_denied(self) -> None:
        """No rule for the name, or none for the port: a TLS alert and one record."""
        for name, port in (("evil.example.test", 443), (HOST, 8443), (RAW, 443)):
            book = self.book(going_to(port=port))
            book.client_sends(client_hello(name))
            self.assert_denied(book, Reason.NO_RULE)
            self.assertEqual(book.client, b"\x15\x03\x01\x00\x02\x02" + bytes([49]))

    def test_inner_authority_is_pinned_T186(self) -> None:
        """Inside, another Host is a mismatch as it is after a CONNECT."""
        book = self.book(going_to())
        book.client_sends(client_hello(HOST))
        book.give(HandshakeDone())
        book.client_sends(b"GET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n")
        self.assertTrue(book.client.startswith(b"HTTP/1.1 421 "), bytes(book.client))
        self.assertEqual(book.dials, [])

    def test_a_secret_in_the_name_T039(self) -> None:
        """A real secret as a label is denied and recorded without the name."""
        label = base64.b32encode(b"x").decode().lower().rstrip("=")
        secret = b"k" * 8 + new_secret("")[:20].lower().replace(b"_", b"a").replace(b"-", b"b")
        terms = make_terms(
            [rule("any", ["*.example.test"])], [bearer("key", secret, ["api.example.test"])]
        )
        book = Playbook(terms, destination=going_to())
        book.client_sends(client_hello(f"{secret.decode()}.{label}.example.test"))
        self.assert_denied(book, Reason.SECRET_IN_REQUEST)
        self.assertEqual(book.decisions()[0].authority, "")
        control = Playbook(terms, destination=going_to())
        control.client_sends(client_hello(f"{label}.example.test"))
        self.assertEqual(len(control.started_tls), 1)

    def test_broken_hellos_T096(self) -> None:
        """In one-byte records it is read; with lengths that lie it is refused, never passed on."""
        message = handshake(hello_body(server_name(HOST.encode())))
        book = self.book(going_to())
        for byte in records(message, 1):
            book.client_sends(bytes([byte]))
        self.assertEqual(len(book.started_tls), 1)
        lying = bytearray(records(message))
        lying[50] ^= 0x7F
        for bad in (bytes(lying), b"\x16\x03\x01\xff\xff" + b"A" * 40, b"\x16\x03\x01\x00\x00"):
            book = self.book(going_to())
            book.client_sends(bad)
            self.assert_denied(book, Reason.CLIENT_HELLO_REFUSED)

    def test_what_is_not_tls_T097(self) -> None:
        """0x16 and then something else is neither TLS nor anything."""
        book = self.book(going_to())
        book.client_sends(b"\x16\x00\x00\x00")
        self.assert_denied(book, Reason.PROTOCOL_UNKNOWN)

    def test_a_stalled_hello_T098(self) -> None:
        """Half a ClientHello has one absolute deadline."""
        book = self.book(going_to())
        book.client_sends(client_hello(HOST)[:60])
        due = book.timers[Timer.HANDSHAKE]
        book.client_sends(client_hello(HOST)[60:61])
        self.assertEqual(book.timers[Timer.HANDSHAKE], due)
        book.fire(Timer.HANDSHAKE)
        self.assertEqual([one.outcome for one in book.outcomes()], [Outcome.TIMED_OUT])
        self.assertIn(CLIENT, book.closed)

    def test_ech_T099(self) -> None:
        """Intercepted, ECH is no concern (the outer name is all we serve); passed on, it is."""
        grease = extension(ECH, b"\x00" * 20)
        for name, refused in ((HOST, False), (BLIND, True)):
            book = self.book(going_to())
            book.client_sends(records(handshake(hello_body(server_name(name.encode()), grease))))
            self.assertEqual(bool(book.started_tls), not refused)
            if refused:
                self.assert_denied(book, Reason.CLIENT_HELLO_REFUSED)

    def test_only_http2_is_offered(self) -> None:
        book = self.book(going_to())
        book.client_sends(client_hello(HOST, (b"h2",)))
        self.assertEqual(book.client[-1:], bytes([120]))
        self.assertEqual(book.started_tls, [])


class PassthroughTests(Case):
    """TLS that a rule passes on: dialled by our resolution, then relayed from its first byte."""

    def test_relayed(self) -> None:
        book = self.book(going_to(), auto_dial=False)
        hello = client_hello(BLIND)
        book.client_sends(hello)
        (dial,) = book.dials
        self.assertEqual((dial.authority, dial.tls), (Authority(BLIND, 443), False))
        self.assertFalse(book.session.wants(CLIENT))
        book.client_sends(b"more")
        book.dial_succeeds()
        self.assertEqual(book.origin, hello + b"more")
        book.origin_sends(b"\x16answer")
        self.assertEqual(book.client, b"\x16answer")

    def test_unreachable(self) -> None:
        for failure, alert, outcome in (
            (DialFailure.REFUSED, 40, Outcome.ORIGIN_UNREACHABLE),
            (DialFailure.ADDRESS_DENIED, 49, Outcome.DENIED),
        ):
            book = self.book(going_to(), auto_dial=False)
            book.client_sends(client_hello(BLIND))
            book.dial_fails(failure)
            self.assertEqual(book.client[-1:], bytes([alert]))
            self.assertEqual([one.outcome for one in book.outcomes()], [outcome])


class PlainTests(Case):
    """By the Host field of each request."""

    def send(self, book: Playbook, host: str | None, target: str = "/v1/x", more: str = "") -> None:
        """Send one GET."""
        field = "" if host is None else f"Host: {host}\r\n"
        version = "1.0" if host is None else "1.1"
        book.client_sends(f"GET {target} HTTP/{version}\r\n{field}{more}\r\n".encode())

    def test_forwarded_T230(self) -> None:
        """Origin-form and absolute-form; each request is decided by its own Host."""
        for target in ("/v1/x", f"http://{HOST}/v1/x"):
            book = self.book(going_to(port=80))
            self.send(book, HOST, target)
            (dial,) = book.dials
            self.assertEqual((dial.authority, dial.tls), (Authority(HOST, 80), False))
            self.assertTrue(book.origin.startswith(b"GET /v1/x HTTP/1.1\r\n"))
            self.assertEqual([one.rule for one in book.decisions()], ["plain"])
            book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            self.send(book, "evil.example.test")
            self.assertIn(b"HTTP/1.1 403 ", book.client)
            self.assertEqual(len(book.dials), 1)

    def test_foreign_address_T094(self) -> None:
        """A placeholder to an attacker's address under an allowed name: nothing is put in, 403."""
        book = self.book(going_to(ATTACKER, 80))
        field = f"Authorization: Bearer {book.placeholder('key').decode()}\r\n"
        self.send(book, HOST, more=field)
        self.assertTrue(book.client.startswith(b"HTTP/1.1 403 "), bytes(book.client))
        self.assertEqual((book.dials, book.origins), ([], {}))
        (record,) = book.decisions()
        self.assertEqual(record.reason, Reason.HONEYTOKEN)
        control = self.book(going_to(ATTACKER, 80))
        self.send(control, HOST)
        self.assertEqual([dial.authority.host for dial in control.dials], [HOST])

    def test_no_host(self) -> None:
        """HTTP/1.0 without a Host field names nobody, whatever the address was given out for."""
        book = self.book(going_to(FAKE, 80, HOST))
        self.send(book, None)
        self.assertTrue(book.client.startswith(b"HTTP/1.1 400 "), bytes(book.client))
        self.assertEqual(book.dials, [])

    def test_mismatches(self) -> None:
        """Another port than was dialled, another name than was resolved, two names."""
        for destination, host, target in (
            (going_to(port=8080), HOST, "/"),
            (going_to(port=80), f"{HOST}:8080", "/"),
            (going_to(FAKE, 80, "other.example.test"), HOST, "/"),
            (going_to(port=80), HOST, "http://other.example.test/"),
        ):
            book = self.book(destination)
            self.send(book, host, target)
            self.assertTrue(book.client.startswith(b"HTTP/1.1 421 "), bytes(book.client))
            self.assertEqual(book.dials, [])
        control = self.book(going_to(port=8080))
        self.send(control, f"{HOST}:8080")
        self.assertEqual([dial.authority for dial in control.dials], [Authority(HOST, 8080)])

    def test_what_only_a_proxy_is_asked(self) -> None:
        """CONNECT and https targets are for explicit listeners."""
        for target, method in ((f"{HOST}:443", b"CONNECT"), (f"https://{HOST}/", b"GET")):
            book = self.book(going_to(port=80))
            head = b"%s %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (method, target.encode(), HOST.encode())
            book.client_sends(head)
            self.assertTrue(book.client.startswith(b"HTTP/1.1 400 "), bytes(book.client))
            self.assertEqual((book.dials, book.started_tls), ([], []))


class AuthorityTests(Case):
    """The odd hosts of the catalogue, as a redirected client would write them (T010 to T031)."""

    # Malformed, another host than it looks like, an address that only some take for one, internal.
    HOSTS = (
        "[::1%25eth0]", "[fe80::1%eth0]", "0.0.0.0", "[::]", "0.1.2.3", "100.64.0.1",
        "169.254.169.254", "metadata.google.internal", "172.16.0.1", "224.0.0.1", "[ff02::1]",
        "localhost", "LOCALHOST.", "x.localhost", "localhost.evil.com", f"{HOST}..", "..",
        f"[{HOST}]", "[[evil.com]]", "[127.0.0.1]", "\u212aapi.example.test", "xn--", "xn--a",
        "api\u3002example.test", "ap%69.example.test", "api%2eexample.test",
        f"evil.com\0.{HOST}", f"evil.com%00.{HOST}", f"{HOST} evil.com", f"{HOST}\tx",
        f"{HOST}@evil.com", f"u@{HOST}", f"a:b@{HOST}", f"evil{HOST}", f"{HOST}.evil.com",
        f"{HOST}:65536", f"{HOST}:-1", f"{HOST}:+80", f"{HOST}:8_0", f"{HOST}:80:22",
        f"{HOST}:https", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "-a.test", "a..b",
        ".a", "*", f"*.{HOST}", f"{'a' * 64}.test", f"{HOST},evil.com", f"{HOST}/", f"http://{HOST}",
    )  # fmt: skip

    def test_plain(self) -> None:
        """In the Host field: each is refused, and nothing is dialled; the plain name is."""
        for host in self.HOSTS:
            book = self.book(going_to(port=80))
            head = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode("utf-8")
            book.client_sends(head)
            self.assertIn(bytes(book.client[9:12]), (b"400", b"403", b"421"), host)
            self.assertEqual(book.dials, [], host)
        for host in (HOST, HOST.upper(), f"{HOST}.", f"{HOST}:80", f"{HOST}:"):
            book = self.book(going_to(port=80))
            book.client_sends(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
            dialled = [dial.authority.host for dial in book.dials]
            self.assertIn(dialled, ([HOST], []) if host.endswith(":") else ([HOST],), host)

    def test_tls(self) -> None:
        """As the server name (T095): each is refused or another name, and nothing is minted."""
        for host in self.HOSTS:
            raw = host.encode("utf-8")
            book = self.book(going_to())
            book.client_sends(records(handshake(hello_body(server_name(raw)))))
            self.assertEqual((book.started_tls, book.dials), ([], []), host)
            self.assertEqual([one.action for one in book.decisions()], [Action.DENY], host)


class OtherProtocolTests(Case):
    """Neither TLS nor HTTP/1.1."""

    def test_refused_T044(self) -> None:
        """One record each, closed at once."""
        for data in (
            b"SSH-2.0-x\r\n",
            b"\x05\x01\x00",
            b"\x04\x01",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            bytes(65536),
            b"\x80\x2e\x01\x03\x01",
            b"get / http/1.1\r\n",
            b"EHLO x\r\n",
            b"GET /\r\n",
            b"\r\n\r\n",
        ):
            book = self.book(going_to())
            book.client_sends(data)
            self.assert_denied(book, Reason.PROTOCOL_UNKNOWN)

    def test_silence(self) -> None:
        """A client that waits for the server to speak is told nothing and ends by the deadline."""
        book = self.book(going_to())
        book.fire(Timer.HEAD)
        self.assert_denied(book, Reason.NAME_MISSING)

    def test_the_listener_itself_T032(self) -> None:
        """Nothing was redirected: reset at once, one record; whatever is sent later is not read."""
        book = self.book(Destination(Authority("127.0.0.1", 8444), "", True))
        self.assertEqual(book.aborted, [CLIENT])
        book.client_sends(client_hello(HOST))
        self.assertEqual(book.dials, [])
        (record,) = book.decisions()
        self.assertEqual(record.reason, Reason.ADDRESS_OWN_LISTENER)

    def test_gone_at_once(self) -> None:
        """The client reset before it was asked where it was going: nothing was decided."""
        book = self.book(None)
        self.assertEqual((book.aborted, book.decisions()), ([CLIENT], []))
        self.assertEqual([one.outcome for one in book.outcomes()], [Outcome.CLIENT_ABORTED])
        book.client_sends(client_hello(HOST))
        self.assertEqual((book.dials, book.started_tls), ([], []))


class RawTests(Case):
    """Raw TCP where a rule names the destination."""

    def test_relayed(self) -> None:
        """By the name that our DNS gave the address out for; the server may speak first."""
        book = self.book(going_to(FAKE, 22, RAW))
        (dial,) = book.dials
        self.assertEqual((dial.authority, dial.tls), (Authority(RAW, 22), False))
        book.origin_sends(b"SSH-2.0-server\r\n")
        book.client_sends(b"SSH-2.0-client\r\n")
        self.assertEqual((book.client, book.origin), (b"SSH-2.0-server\r\n", b"SSH-2.0-client\r\n"))
        (record,) = book.decisions()
        self.assertEqual((record.action, record.rule, record.scheme), (Action.TUNNEL, "raw", ""))
        book.client_closes()
        (outcome,) = book.outcomes()
        self.assertEqual((outcome.request_bytes, outcome.response_bytes), (16, 16))

    def test_only_by_name_and_port(self) -> None:
        """The same address without its name, or another port: sniffed like anything else."""
        for destination in (going_to(FAKE, 22), going_to(FAKE, 23, RAW), going_to(FAKE, 22, HOST)):
            book = self.book(destination)
            self.assertEqual(book.dials, [])
            book.client_sends(b"SSH-2.0-client\r\n")
            self.assert_denied(book, Reason.PROTOCOL_UNKNOWN)

    def test_an_address_that_a_rule_names(self) -> None:
        """A rule may name an address; then that one, and no other, is dialled."""
        terms = make_terms([rule("raw", [ATTACKER], action=Action.TUNNEL, ports=(22,))])
        book = Playbook(terms, destination=going_to(ATTACKER, 22))
        self.assertEqual([dial.authority for dial in book.dials], [Authority(ATTACKER, 22)])
        other = Playbook(terms, destination=going_to("203.0.113.67", 22))
        self.assertEqual(other.dials, [])

    def test_scanned_both_ways(self) -> None:
        """A secret or a placeholder ends it before its last byte passed; never injected."""
        placeholder = Playbook(self.terms).placeholder("key")
        for data, upwards, reason in (
            (self.secret, True, Reason.SECRET_IN_REQUEST),
            (base64.b64encode(self.secret), True, Reason.SECRET_IN_REQUEST),
            (placeholder, True, Reason.HONEYTOKEN),
            (self.secret, False, Reason.SECRET_IN_RESPONSE),
            (self.secret.hex().encode(), False, Reason.SECRET_IN_RESPONSE),
        ):
            for cut in (0, 1, len(data) // 2, len(data) - 1):
                book = self.book(going_to(FAKE, 22, RAW))
                sends = book.client_sends if upwards else book.origin_sends
                sends(b"<" + data[:cut])
                sends(data[cut:] + b">")
                passed = bytes(book.origin if upwards else book.client)
                self.assertIn(passed, (b"", b"<"))
                self.assertEqual(book.decisions()[-1].reason, reason)
                self.assertEqual(book.decisions()[-1].finding.credential, "key")  # type: ignore[union-attr]
                self.assertEqual(book.aborted[-1], CLIENT)
                self.assertEqual([one.outcome for one in book.outcomes()], [Outcome.DENIED])
        control = self.book(going_to(FAKE, 22, RAW))
        control.client_sends(b"<" + self.secret[:-1] + b"!>")
        self.assertEqual(control.origin, b"<" + self.secret[:-1] + b"!>")

    def test_a_short_beginning_is_let_go(self) -> None:
        """What begins like a secret waits a moment, then passes; the rest is still caught."""
        book = self.book(going_to(FAKE, 22, RAW))
        begun = self.secret[:4]
        book.origin_sends(b"ready>" + begun)
        self.assertEqual(book.client, b"ready>")
        book.fire(Timer.QUIET)
        self.assertEqual(book.client, b"ready>" + begun)
        book.origin_sends(self.secret[4:20])
        book.fire(Timer.QUIET)
        self.assertEqual(book.client, b"ready>" + begun, "five bytes and more stay")
        book.origin_sends(self.secret[20:])
        self.assertEqual(book.client, b"ready>" + begun)
        self.assertEqual(book.decisions()[-1].reason, Reason.SECRET_IN_RESPONSE)

    def test_let_go_and_harmless(self) -> None:
        """Every byte passes once and in order, wherever it was let go."""
        text = b"a" + self.secret[:5] + b"b" + self.secret[:7] + b"c" + self.secret[:3]
        for pieces in every_split(text):
            book = self.book(going_to(FAKE, 22, RAW))
            for piece in pieces:
                book.client_sends(piece)
                if Timer.QUIET in book.timers:
                    book.fire(Timer.QUIET)
            self.assertEqual(book.origin, text)

    def test_what_is_held_at_the_end_passes(self) -> None:
        """A stream that ends in the beginning of a secret arrives whole, in both directions."""
        begun = self.secret[:12]
        book = self.book(going_to(FAKE, 22, RAW))
        book.client_sends(begun)
        book.client_closes(half=True)
        self.assertEqual(book.origin, begun)
        book.origin_sends(begun)
        book.origin_closes()
        self.assertEqual(book.client, begun)

    def test_the_client_ends_before_the_origin_is_there(self) -> None:
        """Bytes and a half-close that came during the dial are not lost."""
        book = self.book(going_to(FAKE, 22, RAW), auto_dial=False)
        book.client_sends(b"one line\n")
        book.client_closes(half=True)
        self.assertEqual(book.outcomes(), [])
        book.dial_succeeds()
        self.assertEqual(book.origin, b"one line\n")
        book.origin_sends(b"answer")
        self.assertEqual(book.client, b"answer")

    def test_unreachable(self) -> None:
        """Reset, as a refused connection; the outcome says which it was."""
        for failure, outcome in (
            (DialFailure.REFUSED, Outcome.ORIGIN_UNREACHABLE),
            (DialFailure.ADDRESS_DENIED, Outcome.DENIED),
        ):
            book = self.book(going_to(FAKE, 22, RAW), auto_dial=False)
            book.dial_fails(failure)
            self.assertEqual((bytes(book.client), book.aborted), (b"", [CLIENT]))
            self.assertEqual([one.outcome for one in book.outcomes()], [outcome])

    def test_by_connect(self) -> None:
        """T186: a client that knows the proxy gets the same tunnel."""
        book = Playbook(self.terms)
        target = f"{RAW}:22".encode()
        book.client_sends(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target))
        self.assertTrue(book.client.startswith(b"HTTP/1.1 200 "))
        del book.client[:]
        book.client_sends(b"hello")
        book.origin_sends(b"welcome")
        self.assertEqual((book.origin, book.client), (b"hello", b"welcome"))
        book.client_sends(self.secret)
        self.assertEqual(book.decisions()[-1].reason, Reason.SECRET_IN_REQUEST)
        self.assertEqual(book.origin, b"hello")

    @staticmethod
    def passed(book: Playbook, upwards: bool) -> bytes:
        """Return what came out at the other side."""
        return bytes(book.origin if upwards else book.client)

    def test_a_reload_brings_new_secrets_T209(self) -> None:
        """What is in force since the reload is looked for in an open tunnel, too, both ways."""
        fresh = new_secret()
        for upwards, held in product((True, False), (0, 6)):
            book = self.book(going_to(FAKE, 22, RAW))
            sends = book.client_sends if upwards else book.origin_sends
            sends(b"<" + fresh + b">")
            self.assertEqual(self.passed(book, upwards), b"<" + fresh + b">", "not known yet")
            sends(self.secret[:held])
            book.terms = make_terms(self.rules, [bearer("key", fresh, [HOST])])
            book.give(Revised())
            self.assertEqual(book.aborted, [])
            self.assertEqual(
                self.passed(book, upwards)[len(fresh) + 2 :],
                self.secret[:held],
                "no secret any more",
            )
            sends(b"<" + fresh + b">")
            self.assertEqual(self.passed(book, upwards)[len(fresh) + 2 + held :], b"")
            reason = Reason.SECRET_IN_REQUEST if upwards else Reason.SECRET_IN_RESPONSE
            self.assertEqual(book.decisions()[-1].reason, reason)
            self.assertIn(CLIENT, book.aborted)

    def test_a_reload_finds_what_is_held_T209(self) -> None:
        """A new secret that began before the reload and was held back is caught whole."""
        old, new = b"k" * 8 + self.secret, b"k" * 8 + self.secret[:9] + b"-new"
        for upwards in (True, False):
            terms = make_terms(self.rules, [bearer("key", old, [HOST])])
            book = Playbook(terms, destination=going_to(FAKE, 22, RAW), redirected=True)
            sends = book.client_sends if upwards else book.origin_sends
            sends(b"<" + new[:15])
            self.assertEqual(self.passed(book, upwards), b"<")
            book.terms = make_terms(self.rules, [bearer("key", new, [HOST])])
            book.give(Revised())
            sends(new[15:] + b">")
            self.assertEqual(self.passed(book, upwards), b"<")
            self.assertIn(CLIENT, book.aborted)

    def test_a_reload_ends_it(self) -> None:
        """T211: when the rule is gone the tunnel is cut; while it is there it stays."""
        book = self.book(going_to(FAKE, 22, RAW))
        book.give(Revised())
        self.assertEqual(book.aborted, [])
        book.terms = make_terms(self.rules[:3], [bearer("key", self.secret, [HOST])])
        book.give(Revised())
        self.assertIn(CLIENT, book.aborted)
        self.assertEqual(book.decisions()[-1].reason, Reason.RULE_REMOVED)


class LifeTests(Case):
    """Reloads and drains before anything is known."""

    def test_drain(self) -> None:
        book = self.book(going_to())
        book.give(Drain())
        self.assertIn(CLIENT, book.closed)

    def test_reload(self) -> None:
        """Before there is a decision a reload changes nothing; later it may end it."""
        book = self.book(going_to())
        book.give(Revised())
        book.client_sends(client_hello(HOST))
        self.assertEqual(len(book.started_tls), 1)
        book.terms = make_terms([])
        book.give(Revised())
        self.assertEqual(book.decisions()[-1].reason, Reason.RULE_REMOVED)

    def test_the_first_bytes_cut_anywhere_T186(self) -> None:
        """However the first bytes are cut, the verdict is the same."""
        for data, reason in (
            (b"SSH-2.0-x\r\n", Reason.PROTOCOL_UNKNOWN),
            (real_hello(None), Reason.NAME_MISSING),
        ):
            for pieces in every_split(data):
                book = self.book(going_to())
                for piece in pieces:
                    book.client_sends(piece)
                self.assert_denied(book, reason)


class LiarTests(Case):
    """T090, T092-T094: every destination with every beginning; the attacker is never dialled."""

    def test_matrix(self) -> None:
        """What is dialled is a name of ours; a real key goes only to its own host over TLS."""
        destinations = [
            going_to(address, port, name)
            for address, port, name in product(
                (ATTACKER, "10.0.0.5", "127.0.0.1", "169.254.169.254", FAKE, "2001:db8::66"),
                (443, 80, 22),
                ("", HOST, BLIND, RAW, "evil.example.test"),
            )
        ]
        names = (None, HOST, BLIND, RAW, "evil.example.test")
        dialled = swapped = 0
        for destination, name, kind in product(destinations, names, ("tls", "http", "raw")):
            book = self.book(destination)
            key = book.placeholder("key")
            fields = b"Host: %s\r\nAuthorization: Bearer %s\r\n\r\n" % (
                (name or ATTACKER).encode(),
                key,
            )
            request = b"GET / HTTP/1.1\r\n" + fields
            if kind == "tls":
                book.client_sends(client_hello(name))
                if book.started_tls:
                    book.give(HandshakeDone())
                    book.client_sends(request)
            else:
                book.client_sends(request if kind == "http" else key)
            for dial in book.dials:
                dialled += 1
                self.assertIn(dial.authority.host, (HOST, BLIND, RAW))
                self.assertEqual(dial.authority.port, destination.authority.port)
            for connection, sent in book.origins.items():
                dial = next(d for d in book.dials if d.connection == connection)
                if self.secret in sent:
                    swapped += 1
                    self.assertEqual((dial.authority, dial.tls), (Authority(HOST, 443), True))
            self.assertNotIn(self.secret, bytes(book.client))
        self.assertGreater(dialled, 30)
        self.assertEqual(swapped, 12)  # six addresses, with and without the right name of ours


class PolicyTests(SynchronousTestCase):
    """Rules for raw TCP among others: file order, and no way around what another rule reads."""

    def connect(self, rules: list[Rule], port: int) -> tuple[Action, str]:
        """Return what is decided about CONNECT to the host at a port, and by which rule."""
        book = Playbook(make_terms(rules))
        target = f"{HOST}:{port}".encode()
        book.client_sends(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target))
        record = book.decisions()[0]
        return record.action, record.rule

    def test_order(self) -> None:
        raw = rule("raw", [HOST], action=Action.TUNNEL, ports=(443, 80, 22))
        allow = rule("allow", [HOST])
        deny = rule("deny", [HOST], action=Action.DENY, ports=(22,))
        part = rule("part", [HOST], action=Action.DENY, ports=(22,), paths=("/x",))
        plain = rule("plain", [HOST], scheme=Scheme.HTTP, ports=(80,))
        self.assertEqual(self.connect([raw], 22), (Action.TUNNEL, "raw"))
        self.assertEqual(self.connect([raw], 23), (Action.DENY, ""))
        self.assertEqual(self.connect([allow, raw], 443), (Action.ALLOW, "allow"))
        self.assertEqual(self.connect([raw, allow], 443), (Action.TUNNEL, "raw"))
        self.assertEqual(self.connect([deny, raw], 22), (Action.DENY, "deny"))
        self.assertEqual(self.connect([part, raw], 22), (Action.DENY, "part"))
        self.assertEqual(self.connect([plain, raw], 80), (Action.DENY, "plain"))
        self.assertEqual(self.connect([plain, raw], 22), (Action.TUNNEL, "raw"))

    def test_a_tunnel_allows_no_request(self) -> None:
        """Plain http to a port that is raw by rule is denied by the explicit proxy."""
        terms = make_terms([rule("raw", [HOST], action=Action.TUNNEL, ports=(80,))])
        book = Playbook(terms)
        book.client_sends(b"GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n" % ((HOST.encode(),) * 2))
        self.assertEqual([one.reason for one in book.decisions()], [Reason.NO_RULE])
        self.assertEqual(book.dials, [])
