"""Cases of the threat catalogue that a session answers for, by number."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from slapenir.exchange.inputs import CLIENT
from slapenir.names import Action, Reason, Scheme
from tests.support.playbook import (
    IDENTITY,
    OTHER,
    Playbook,
    basic,
    bearer,
    credential,
    in_body,
    make_terms,
    new_secret,
    rule,
)
from tests.support.splits import every_split

HOST = "api.example.test"
GET = b"GET /v1/x HTTP/1.1\r\nHost: api.example.test\r\n"


class Targets(SynchronousTestCase):
    """1.A: every spelling of a target, through CONNECT and through absolute-form."""

    def setUp(self) -> None:
        hosts = [HOST, "*.allowed.test", "8.8.8.8", "169.254.169.254", "127.0.0.1"]
        self.terms = make_terms(
            [rule("tls", hosts), rule("plain", hosts, scheme=Scheme.HTTP, ports=(80,))]
        )

    def refused(self, target: bytes) -> tuple[bytes, bytes]:
        """Return both answers to a target; assert that nothing was dialled and one record made."""
        answers = []
        for request in (
            b"CONNECT %s:443 HTTP/1.1\r\nHost: x\r\n\r\n" % target,
            b"GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target),
        ):
            book = Playbook(self.terms)
            book.client_sends(request)
            self.assertEqual((book.dials, book.started_tls), ([], []), request)
            self.assertEqual([d.action for d in book.decisions()], [Action.DENY], request)
            self.assertEqual(book.decisions()[0].who.identity, IDENTITY)
            answers.append(bytes(book.client[9:12]))
        return answers[0], answers[1]

    def test_spellings_of_numbers(self) -> None:
        """Integer, hex, octal and short forms of IPv4 are no names (T001, T002, T003, T004)."""
        for target in (
            b"2130706433",
            b"0x7f000001",
            b"0X7F000001",
            b"0x7f.0.0.1",
            b"0x7f.1",
            b"0177.0.0.1",
            b"017700000001",
            b"127.000.000.001",
            b"127.1",
            b"10.1",
            b"127.0.1",
            b"0",
        ):
            for answer in self.refused(target):
                self.assertIn(answer, (b"400", b"403"), target)

    def test_spellings_of_names(self) -> None:
        """Other alphabets, dots, escapes, NUL, spaces are 400 (T005, T020, T022, T023, T024)."""
        for target in (
            "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460".encode(),
            "\uff11\uff12\uff17.0.0.1".encode(),
            "127。0。0。1".encode(),
            "api.example.te\u017ft".encode(),
            b"ex%61mple.test",
            b"api%2eexample.test",
            b"evil.test\x00.allowed.test",
            b"evil.test%00.allowed.test",
            b"a b.allowed.test",
            b"a\tb.allowed.test",
            b"a\x0bb.allowed.test",
            b"a\x7fb.allowed.test",
            b"a\x85b.allowed.test",
        ):
            for answer in self.refused(target):
                self.assertEqual(answer, b"400", target)

    def test_ipv6(self) -> None:
        """Embedded, zoned, bracketed oddities never pass (T006 to T010, T019)."""
        for target in (
            b"[::ffff:127.0.0.1]",
            b"[::ffff:7f00:1]",
            b"[0:0:0:0:0:FFFF:A9FE:A9FE]",
            b"[::127.0.0.1]",
            b"[::ffff:0:127.0.0.1]",
            b"[64:ff9b::a9fe:a9fe]",
            b"[64:ff9b:1::a00:1]",
            b"[2002:a9fe:a9fe::]",
            b"[2001:0:4136:e378::]",
            b"[::1%25eth0]",
            b"[fe80::1%eth0]",
            b"[evil.test]",
            b"[[evil.test]]",
            b"[127.0.0.1]",
        ):
            self.refused(target)

    def test_shapes(self) -> None:
        """Userinfo, labels, ports and lookalikes (T018, T021, T025, T027, T028, T040, T114)."""
        for target in (
            b"api.example.test@evil.test",
            b"a:b@api.example.test",
            b"evil.test",
            b"evil.test.",
            b"a..b",
            b".a.allowed.test",
            b"-a.allowed.test",
            b"*.allowed.test",
            b"x" * 64 + b".allowed.test",
            b".".join([b"a" * 60] * 4) + b".allowed.test",
            b"xn--.allowed.test",
            b"xn--a.allowed.test",
            b"evilallowed.test",
            b"allowed.test",
            b"allowed.test.evil.test",
            b"ex ample",
        ):
            self.refused(target)

    def test_ports(self) -> None:
        """A port is plain digits from 1 to 65535, or there is a 400 (T028)."""
        for port in (
            b"0",
            b"65536",
            b"99999",
            b"-1",
            b"+443",
            b"4_43",
            "٤٤٣".encode(),
            b"",
            b"443:22",
            b"https",
            b"007",
        ):
            book = Playbook(self.terms)
            book.client_sends(b"CONNECT api.example.test:%s HTTP/1.1\r\nHost: x\r\n\r\n" % port)
            self.assertEqual(bytes(book.client[9:12]), b"400", port)
            self.assertEqual(book.dials, [])

    def test_ambiguous_absolute_targets(self) -> None:
        """What could name two hosts is 400, or judged as one (T017, T026)."""
        for target in (
            b"http://evil.test#@api.example.test/",
            b"http://evil.test\\@api.example.test/",
            b"http:///evil",
            b"http:evil.test",
            b"//evil.test/",
        ):
            book = Playbook(self.terms)
            book.client_sends(b"GET %s HTTP/1.1\r\nHost: api.example.test\r\n\r\n" % target)
            self.assertEqual(bytes(book.client[9:12]), b"400", target)
        for target, host in (
            (b"http://evil.test?api.example.test", b"evil.test"),
            (b"http://localhost.evil.test/127.0.0.1", b"localhost.evil.test"),
        ):
            book = Playbook(self.terms)
            book.client_sends(b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, host))
            self.assertIn(bytes(book.client[9:12]), (b"400", b"403"), target)
            self.assertEqual(book.dials, [])

    def test_the_nearest_legitimate_targets_pass(self) -> None:
        """Negative control: case, a trailing dot, wildcards, addresses that a rule names."""
        for target, host in (
            (b"API.Example.TEST:443", HOST),
            (b"api.example.test.:443", HOST),
            (b"sub.allowed.test:443", "sub.allowed.test"),
            (b"a.b.allowed.test:443", "a.b.allowed.test"),
            (b"_dmarc.allowed.test:443", "_dmarc.allowed.test"),
            (b"x" * 63 + b".allowed.test:443", "x" * 63 + ".allowed.test"),
            (b"xn--e1aybc.allowed.test:443", "xn--e1aybc.allowed.test"),
            (b"8.8.8.8:443", "8.8.8.8"),
        ):
            book = Playbook(self.terms)
            book.client_sends(b"CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            self.assertEqual(bytes(book.client[9:12]), b"200", target)
            self.assertEqual(book.decisions()[0].authority, f"{host}:443")

    def test_single_label_T037(self) -> None:
        """A single label is denied unless a rule names it exactly (T037)."""
        for target in (b"metadata", b"kubernetes", b"localhost"):
            self.refused(target)

    def test_secret_in_labels_T039(self) -> None:
        """A secret in the labels of an allowed zone is found, dots or no dots (T038, T039)."""
        secret = b"k" + base64.b32encode(new_secret()).lower().rstrip(b"=")[:40]
        terms = make_terms(
            [
                rule("zone", ["*.allowed.test"]),
                rule("p", ["*.allowed.test"], scheme=Scheme.HTTP, ports=(80,)),
            ],
            [bearer("key", secret, [HOST])],
        )
        pieces = b".".join(secret[i : i + 8] for i in range(0, len(secret), 8))
        for name, found in ((secret, True), (pieces, True), (secret[:20], False)):
            for request in (
                b"CONNECT %s.allowed.test:443 HTTP/1.1\r\nHost: x\r\n\r\n" % name,
                b"GET http://%s.allowed.test/ HTTP/1.1\r\nHost: %s.allowed.test\r\n\r\n"
                % (name, name),
            ):
                book = Playbook(terms)
                book.client_sends(request)
                reasons = [d.reason for d in book.decisions()]
                self.assertEqual(reasons, [Reason.SECRET_IN_REQUEST if found else Reason.RULE])
                if found:
                    self.assertEqual(book.dials, [])
                    self.assertNotIn(name.decode(), repr(book.events))


class Responses(SynchronousTestCase):
    """1.A and 1.D: what an origin may try."""

    def setUp(self) -> None:
        self.secret = new_secret()
        self.terms = make_terms(
            [rule("api", [HOST], credentials=("key",))], [bearer("key", self.secret, [HOST])]
        )

    def ask(self, request: bytes = GET + b"\r\n") -> Playbook:
        """Return a playbook with one request sent on."""
        book = Playbook(self.terms)
        book.intercept()
        book.client_sends(request)
        return book

    def test_redirects_are_not_followed(self) -> None:
        """A redirect goes to the client, with any secret in it overwritten (T041, T169)."""
        book = self.ask()
        location = b"http://169.254.169.254/?k="
        book.origin_sends(
            b"HTTP/1.1 302 Found\r\nLocation: " + location + self.secret + b"\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        self.assertEqual(len(book.dials), 1)
        self.assertIn(b"Location: " + location + book.placeholder("key"), book.client)
        self.assertNotIn(self.secret, book.client)

    def test_alt_svc_T042(self) -> None:
        """Alt-Svc, digests and a forged decision header do not pass (T042, T141)."""
        book = self.ask()
        book.origin_sends(
            b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\nContent-MD5: x\r\nDigest: sha-256=x\r\n'
            b"Repr-Digest: a=:b:\r\nContent-Digest: a=:b:\r\nX-Slapenir-Decision: allow\r\n"
            b'ETag: "e"\r\nContent-Length: 0\r\n\r\n'
        )
        self.assertEqual(
            bytes(book.client), b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\n\r\n'
        )

    def test_lengths_tell_nothing_T143(self) -> None:
        """HEAD and GET of a body with a secret give the same Content-Length (T141, T143)."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.secret)
        got = self.ask()
        got.origin_sends(head + self.secret)
        asked = self.ask(GET.replace(b"GET", b"HEAD") + b"\r\n")
        asked.origin_sends(head)
        self.assertEqual(bytes(asked.client), head)
        self.assertEqual(bytes(got.client), head + got.placeholder("key"))

    def test_two_fields_T140(self) -> None:
        """A secret split over two fields, or two SSE lines, is not joined (T122, T140)."""
        book = self.ask()
        half = len(self.secret) // 2
        body = b"data: " + self.secret[:half] + b"\n\ndata: " + self.secret[half:] + b"\n\n"
        book.origin_sends(
            b"HTTP/1.1 200 OK\r\nX-A: %s\r\nX-B: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (self.secret[:half], self.secret[half:], len(body), body)
        )
        self.assertTrue(book.client.endswith(body))
        self.assertNotIn(self.secret, book.client)

    def test_set_cookie_T084(self) -> None:
        """Repeated fields keep their count, order and casing, secrets aside (T084, T138)."""
        book = self.ask()
        book.origin_sends(
            b"HTTP/1.1 401 Unauthorized\r\nset-cookie: a=1\r\nSet-Cookie: b="
            + self.secret
            + b"\r\n"
            b"SET-COOKIE: c=3\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Bearer\r\n"
            b'ETag: "' + self.secret + b'"\r\nX-' + self.secret + b": \xff" + self.secret + b"\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        shown = book.placeholder("key")
        self.assertEqual(
            bytes(book.client),
            b"HTTP/1.1 401 Unauthorized\r\nset-cookie: a=1\r\nSet-Cookie: b=" + shown + b"\r\n"
            b"SET-COOKIE: c=3\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Bearer\r\n"
            b'ETag: "' + shown + b'"\r\nX-' + shown + b": \xff" + shown + b"\r\n"
            b"Content-Length: 0\r\n\r\n",
        )

    def test_an_empty_coded_body(self) -> None:
        """A coding announced for a body without a byte is no error, in either direction."""
        for framing in (
            b"Content-Length: 0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ):
            book = self.ask(
                b"POST / HTTP/1.1\r\nHost: api.example.test\r\nContent-Encoding: gzip\r\n" + framing
            )
            self.assertTrue(book.origin.endswith(framing.partition(b"\r\n\r\n")[2] or b"\r\n\r\n"))
            book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n" + framing)
            self.assertEqual(bytes(book.client[9:12]), b"200")
            self.assertEqual(dechunk(bytes(book.client)), [b""])
            self.assertEqual(book.released, [1])

    def test_a_secret_in_a_gzip_name_T136(self) -> None:
        """A secret in the plain part of gzip's own header does not pass (T136)."""
        import gzip
        import io

        packed = io.BytesIO()
        with gzip.GzipFile(self.secret.decode(), "wb", fileobj=packed) as file:
            file.write(b"hello")
        coded = packed.getvalue()
        self.assertIn(self.secret, coded)
        book = self.ask()
        book.origin_sends(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s"
            % (len(coded), coded)
        )
        self.assertNotIn(self.secret, book.client)
        body = bytes(book.client).partition(b"\r\n\r\n")[2]
        self.assertEqual(gzip.decompress(body), b"hello")

    def test_a_reload_in_mid_body_T209(self) -> None:
        """A secret that straddles the moment of a reload is still overwritten (T209)."""
        body = b"<" + self.secret + b">"
        for cut in range(len(body)):
            book = self.ask()
            book.origin_sends(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:cut]
            )
            book.terms = make_terms([rule("none", ["other.example.test"])])
            book.origin_sends(body[cut:])
            want = b"<" + self.terms.protections[IDENTITY].placeholders["key"] + b">"
            self.assertTrue(book.client.endswith(want), cut)
            book.client_sends(GET + b"\r\n")
            self.assertEqual(book.decisions()[-1].action, Action.DENY)

    def test_every_framing_and_cut_T119(self) -> None:
        """At every cut of every framing, raw and base64, nothing of the secret passes (T119)."""
        coded = base64.b64encode(b"user:" + self.secret)
        for text in (b"a" + self.secret + b"b", b"a " + coded + b" b"):
            chunked = b"".join(b"%x\r\n%s\r\n" % (1, text[i : i + 1]) for i in range(len(text)))
            for head, body, closes in (
                (b"Content-Length: %d\r\n" % len(text), text, False),
                (b"Transfer-Encoding: chunked\r\n", chunked + b"0\r\n\r\n", False),
                (b"", text, True),
            ):
                for pieces in every_split(body):
                    book = self.ask()
                    book.origin_sends(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
                    for piece in pieces:
                        book.origin_sends(piece)
                    if closes:
                        book.origin_closes()
                    sent = b"".join(dechunk(bytes(book.client)))
                    self.assertEqual(len(sent), len(text))
                    self.assertNotIn(self.secret[3:-3], sent)
                    self.assertNotIn(coded[8:-8], sent)
                    self.assertEqual(sum(s.count for s in book.sanitized()), 1)

    def test_another_identitys_secret_T158(self) -> None:
        """The scan set is every credential, whatever the host and identity (T158)."""
        terms = make_terms(
            [rule("other", ["other.example.test"])], [bearer("key", self.secret, [HOST])]
        )
        book = Playbook(terms)
        book.intercept("other.example.test:443")
        book.client_sends(b"GET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n")
        book.origin_sends(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.secret), self.secret)
        )
        self.assertNotIn(self.secret, book.client)
        self.assertTrue(book.client.endswith(book.placeholder("key")))


class Injection(SynchronousTestCase):
    """1.E: what an agent may try with its placeholders."""

    def setUp(self) -> None:
        self.secret = new_secret()

    def test_stale_placeholder_T174(self) -> None:
        """A placeholder of another gateway's key is not forwarded on its surface (T174)."""
        book = Playbook(
            make_terms(
                [rule("api", [HOST], credentials=("key",))], [bearer("key", self.secret, [HOST])]
            )
        )
        book.intercept()
        stale = new_secret()
        book.client_sends(GET + b"Authorization: Bearer " + stale + b"\r\n\r\n")
        self.assertNotIn(stale, book.origin)

    def test_body_injection_is_off_T168(self) -> None:
        """Without a body surface a placeholder in a body is refused, with one swapped (T168)."""
        for make, allowed in ((bearer, False), (in_body, True)):
            book = Playbook(
                make_terms(
                    [rule("api", [HOST], credentials=("key",))], [make("key", self.secret, [HOST])]
                )
            )
            book.intercept()
            body = book.placeholder("key")
            book.client_sends(
                b"POST / HTTP/1.1\r\nHost: api.example.test\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            self.assertEqual(self.secret in book.origin, allowed)
            self.assertNotIn(body, book.origin)

    def test_encoded_placeholders_T173(self) -> None:
        """An encoded placeholder is never swapped; it is refused (T173)."""
        for encode in (
            lambda p: b"".join(b"%%%02x" % c for c in p),
            lambda p: b"".join(b"\\u%04x" % c for c in p),
            lambda p: p.decode().encode("utf-16-le"),
            lambda p: base64.b64encode(b"ab" + p),
        ):
            book = Playbook(
                make_terms(
                    [rule("api", [HOST], credentials=("key",))],
                    [in_body("key", self.secret, [HOST])],
                )
            )
            book.intercept()
            body = encode(book.placeholder("key"))
            book.client_sends(
                b"POST / HTTP/1.1\r\nHost: api.example.test\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            self.assertEqual(book.decisions()[-1].reason, Reason.HONEYTOKEN)
            self.assertNotIn(self.secret, book.origin)

    def test_basic_T171(self) -> None:
        """Basic is decoded, the password swapped, and encoded again (T124, T171)."""
        from slapenir.credentials.model import BasicSurface

        book = Playbook(
            make_terms(
                [rule("git", [HOST], credentials=("key",))],
                [credential("key", self.secret, [HOST], [BasicSurface("password")])],
            )
        )
        book.intercept()
        book.client_sends(
            GET + b"Authorization: " + basic(b"x", book.placeholder("key")) + b"\r\n\r\n"
        )
        self.assertIn(b"Authorization: " + basic(b"x", self.secret) + b"\r\n", book.origin)
        echo = basic(b"x", self.secret)
        book.origin_sends(b"HTTP/1.1 200 OK\r\nX-Echo: " + echo + b"\r\nContent-Length: 0\r\n\r\n")
        self.assertNotIn(echo[10:-4], book.client)
        theirs = Playbook(book.terms)
        theirs.intercept()
        theirs.client_sends(
            GET + b"Authorization: " + basic(b"x", theirs.placeholder("key", OTHER)) + b"\r\n\r\n"
        )
        self.assertEqual(theirs.decisions()[-1].reason, Reason.HONEYTOKEN)

    def test_connection_cannot_strip_T082(self) -> None:
        """Connection cannot name away the field that carries the credential (T082)."""
        book = Playbook(
            make_terms(
                [rule("api", [HOST], credentials=("key",))], [bearer("key", self.secret, [HOST])]
            )
        )
        book.intercept()
        book.client_sends(
            GET + b"Connection: authorization, x-api-key\r\nX-Api-Key: 1\r\n"
            b"Authorization: Bearer " + book.placeholder("key") + b"\r\n\r\n"
        )
        self.assertIn(b"Authorization: Bearer " + self.secret, book.origin)
        self.assertNotIn(b"Api-Key", book.origin)

    def test_pool_keys_T118(self) -> None:
        """Origin connections are shared only within one identity and credential set (T118)."""
        keys = []
        for identity in (IDENTITY, OTHER):
            terms = make_terms(
                [
                    rule("api", [HOST], credentials=("key",), paths=("/v1/*",)),
                    rule("rest", [HOST]),
                ],
                [bearer("key", self.secret, [HOST])],
            )
            book = Playbook(terms, identity=identity)
            if identity == OTHER:
                book.client_sends(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertEqual(bytes(book.client[9:12]), b"403")
                continue
            book.intercept()
            book.client_sends(GET + b"\r\n")
            book.origin_sends(b"HTTP/1.1 204 No Content\r\n\r\n")
            book.client_sends(GET.replace(b"/v1/x", b"/open") + b"\r\n")
            keys = [dial.pool for dial in book.dials]
        self.assertEqual(len(set(keys)), 2)
        self.assertEqual({key.credentials for key in keys}, {("key",), ()})

    def test_a_rule_with_more_hosts_T162(self) -> None:
        """A credential goes to its own hosts only, also where its rule names more (T162)."""
        terms = make_terms(
            [rule("api", [HOST, "*.example.test"], credentials=("key",))],
            [bearer("key", self.secret, [HOST])],
        )
        for host, swapped in ((HOST, True), ("evil.example.test", False)):
            book = Playbook(terms)
            book.intercept(f"{host}:443")
            book.client_sends(
                b"GET / HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n"
                % (host.encode(), book.placeholder("key"))
            )
            self.assertEqual(bool(book.dials), swapped)
            if swapped:
                self.assertIn(self.secret, book.origin)
            else:
                self.assertEqual(book.decisions()[-1].reason, Reason.HONEYTOKEN)

    def test_a_denied_path_is_no_honeytoken(self) -> None:
        """A placeholder in its own place, on a path that no rule allows, is a plain denial."""
        terms = make_terms(
            [rule("api", [HOST], credentials=("key",), paths=("/v1/*",))],
            [bearer("key", self.secret, [HOST])],
        )
        for field, reason in (("Authorization", Reason.NO_RULE), ("X-Other", Reason.HONEYTOKEN)):
            book = Playbook(terms)
            book.intercept()
            book.client_sends(
                b"GET /admin HTTP/1.1\r\nHost: api.example.test\r\n%s: Bearer %s\r\n\r\n"
                % (field.encode(), book.placeholder("key"))
            )
            self.assertEqual(book.dials, [])
            self.assertEqual([d.reason for d in book.decisions()], [reason])
            self.assertEqual(book.decisions()[0].credentials, ())

    def test_shared_placeholder(self) -> None:
        """An operator's placeholder works in bodies for every identity that a rule names."""
        from slapenir.policy.model import Rule

        terms = make_terms(
            [Rule(id="api", identities=("*",), hosts=(HOST,), credentials=("key",))],
            [in_body("key", self.secret, [HOST], placeholder=b"DUMMY_KEY")],
        )
        for identity in (IDENTITY, OTHER):
            book = Playbook(terms, identity=identity)
            book.intercept()
            book.client_sends(
                b"POST / HTTP/1.1\r\nHost: api.example.test\r\nContent-Length: 9\r\n\r\nDUMMY_KEY"
            )
            self.assertIn(self.secret, book.origin)

    def test_client_rst_T221(self) -> None:
        """A client that goes away at any step takes its origin connection with it (T116, T221)."""
        for auto in (False, True):
            for steps in range(3):
                book = Playbook(make_terms([rule("api", [HOST])]), auto_dial=auto)
                book.intercept()
                if steps:
                    book.client_sends(GET + b"\r\n")
                if steps == 2 and auto:
                    book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
                book.client_closes()
                self.assertEqual(book.aborted, [1] if steps else [])
                self.assertIn(CLIENT, book.closed)


def dechunk(response: bytes) -> list[bytes]:
    """Return the pieces of a response's body, chunked or not."""
    head, _, body = response.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return [body]
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        pieces.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return pieces
