"""What a head may look like, in both directions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import (
    EndOfMessage,
    InformationalHead,
    RequestHead,
    ResponseHead,
)
from tests.wire.decoding import (
    HOST,
    chunked,
    decode_requests,
    decode_response,
    get,
    ok,
    post,
    request_status,
    response_status,
    targets,
)


def status_of_start(line: bytes) -> int | None:
    """Return the error status of a request with this request line."""
    return request_status(line + b"\r\n" + HOST + b"\r\n")


class HeaderLineTests(SynchronousTestCase):
    """Header lines that other parsers disagree on."""

    def refuse(self, line: bytes) -> None:
        """Assert that both directions refuse a head with this line."""
        self.assertEqual(request_status(get(line)), 400, line)
        self.assertEqual(response_status(ok(line, b"Content-Length: 0")), 502, line)

    def test_control_passes(self) -> None:
        for line in (b"X: y", b"X:y", b"X:", b"x_foo: y", b"X: a\tb", b"X: caf\xe9", b"X: a,b;c=:"):
            self.assertIsNone(request_status(get(line)), line)
            self.assertIsNone(response_status(ok(line, b"Content-Length: 0")), line)

    def test_t050_t051_folding(self) -> None:
        """T050 T051: a folded line, or one that starts with whitespace, is refused."""
        for line in (
            b"Transfer-Encoding:\r\n chunked",
            b"X: a\r\n b",
            b"X: a\r\n\tb",
            b"X: a\r\n ",
        ):
            self.refuse(line)
        self.assertEqual(request_status(b"GET / HTTP/1.1\r\n Host: a\r\n" + HOST + b"\r\n"), 400)
        self.assertEqual(request_status(b"GET / HTTP/1.1\r\n\tX: a\r\n" + HOST + b"\r\n"), 400)

    def test_t057_names(self) -> None:
        """T057: space before the colon, names that are no token, and imitations."""
        for line in (b"Content-Length : 5", b"Content-Length\x85: 5", b"Content_Length: 5",
                     b"nocolon", b": x", b":", b"X y: z", b'X": y', b"Transfer_Encoding: a",
                     b"Content\x00Length: 5", b"content_length: 0"):  # fmt: skip
            self.refuse(line)
        self.assertEqual(request_status(get(b"Host: b_c.example", host=b"")), None)

    def test_t057_other_underscores(self) -> None:
        """T057: names that a CGI-like server would merge with ours are refused, others pass."""
        self.refuse(b"Proxy_Authorization: x")
        self.assertIsNone(request_status(get(b"Authorization_: x")))
        self.assertIsNone(request_status(get(b"X_Authorization: y")))

    def test_t058_controls(self) -> None:
        """T058: NUL, bare CR, bare LF and other controls, both directions."""
        for value in (
            b"a\x00b",
            b"a\rb",
            b"a\nb",
            b"a\nb: c",
            b"\x0b",
            b"a\x7f",
            b"\x1b[0m",
            b"\r",
        ):
            self.refuse(b"X: " + value)

    def test_t059_bare_lf_message(self) -> None:
        """T059: a message with bare LF is refused at once, also before its end is seen."""
        self.assertEqual(request_status(get().replace(b"\r\n", b"\n")), 400)
        self.assertEqual(request_status(b"GET / HTTP/1.1\nHost: a"), 400)
        self.assertEqual(response_status(ok(b"X: y").replace(b"\r\n", b"\n")), 502)
        self.assertEqual(response_status(b"HTTP/1.1 200 OK\n"), 502)

    def test_t074_host(self) -> None:
        """T074: exactly one Host that is a host and port."""
        bad = (b"", b"a.example, b.example", b"u@a.example", b"u:p@a.example", b"a/../b", b"a\x00b",
               b"a b", b"a.example:", b"a.example:0", b"[::1", b"a..b", b"0x7f.1", b"*.a.example",
               b"a.example:80:80", b"a.example?x", b"\xe9.example")  # fmt: skip
        for value in bad:
            self.assertEqual(request_status(get(host=b"Host: " + value + b"\r\n")), 400, value)
        self.assertEqual(request_status(get(host=b"")), 400)
        self.assertEqual(request_status(get(HOST[:-2])), 400)
        self.assertEqual(request_status(get(b"host: other.example")), 400)
        for good in (b"a.example", b"a.example:8443", b"[::1]:80", b"192.0.2.1", b"A.Example."):
            self.assertIsNone(request_status(get(host=b"Host: " + good + b"\r\n")), good)
        self.assertIsNone(request_status(get(host=b"", version=b"1.0")))

    def test_t084_order_and_casing(self) -> None:
        """T084: repeated headers stay apart, in order, with their casing."""
        lines = (b"Set-Cookie: a", b"sEt-cookie: b", b"X-y: 1", b"Set-Cookie: c",
                 b"WWW-Authenticate: A", b"WWW-Authenticate: B")  # fmt: skip
        head = decode_response([ok(*lines)])[0][0]
        assert isinstance(head, ResponseHead)
        self.assertEqual([n + b": " + v for n, v in head.headers], list(lines))


class RequestLineTests(SynchronousTestCase):
    """Methods, targets and versions."""

    def test_t079_methods_and_versions(self) -> None:
        """T079: methods are upper-case tokens, versions 1.0 and 1.1."""
        for method in (b"get", b"Get", b"G@T", b"A" * 1000, b"", b"G\xe9T"):
            self.assertEqual(status_of_start(method + b" / HTTP/1.1"), 400, method)
        self.assertEqual(status_of_start(b"FOO / HTTP/1.1"), 501)
        for version in (b"HTTP/1.2", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/3", b"HTTP/2"):
            self.assertEqual(status_of_start(b"GET / " + version), 505, version)
        self.assertEqual(status_of_start(b"PRI * HTTP/2.0"), 505)
        self.assertEqual(request_status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505)
        for line in (b"GET /", b"GET / HTTP/1.1\x0b", b"GET / http/1.1", b"GET /  HTTP/1.1",
                     b"GET  / HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET\t/ HTTP/1.1",
                     b"GET / HTTP/01.1", b"GET / HTTP/1.1.1", b"GET / ICE/1.1", b"GET  HTTP/1.1",
                     b"GET /\xe9 HTTP/1.1"):  # fmt: skip
            self.assertEqual(status_of_start(line), 400, line)
        for method in (b"GET", b"POST", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND", b"M-SEARCH"):
            self.assertIsNone(status_of_start(method + b" / HTTP/1.1"), method)

    def test_t087_empty_lines(self) -> None:
        """T087: one empty line before a request passes, two do not; also between requests."""
        self.assertIsNone(request_status(b"\r\n" + get()))
        self.assertEqual(request_status(b"\r\n\r\n" + get()), 400)
        self.assertIsNone(request_status(get() + b"\r\n" + get()))
        self.assertEqual(request_status(get() + b"\r\n\r\n" + get()), 400)
        self.assertEqual(
            decode_requests([b"\r", b"\n", b"\r", b"\n", get()])[1].error is None, False
        )
        _, decoder = decode_requests([get(), b"\r\n"])
        self.assertTrue(decoder.idle)
        for garbage in (b"\n", b"\r\r\n", b"x\r\n\r\n", b" \r\n"):
            self.assertEqual(request_status(get() + garbage + get()), 400, garbage)
        self.assertEqual(response_status(b"\r\n" + ok()), 502)

    def test_t068_expectations(self) -> None:
        """T068: 100-continue is noted, anything else is 417."""
        head = decode_requests([post(b"Expect: 100-Continue", b"Content-Length: 5")])[0][0]
        assert isinstance(head, RequestHead)
        self.assertTrue(head.expect_continue)
        for line in (b"Expect: x", b"Expect: 100-continue, x", b"Expect:"):
            self.assertEqual(request_status(post(line, b"Content-Length: 5")), 417)
        old = decode_requests([get(b"Expect: 100-continue", version=b"1.0")])[0][0]
        assert isinstance(old, RequestHead)
        self.assertFalse(old.expect_continue)

    def test_t081_upgrade_is_noted_and_swallows_nothing(self) -> None:
        """T081: an Upgrade request keeps its framing, and what follows it is a request."""
        first = post(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"Content-Length: 5")
        messages, decoder = decode_requests([first + b"hello" + get()])
        self.assertIsNone(decoder.error)
        head = messages[0]
        assert isinstance(head, RequestHead)
        self.assertTrue(head.upgrade)
        self.assertEqual(targets(messages), [b"/v1", b"/"])
        plain = decode_requests([get(b"Upgrade: h2c")])[0][0]
        assert isinstance(plain, RequestHead)
        self.assertFalse(plain.upgrade)


class BoundTests(SynchronousTestCase):
    """T083: sizes and counts, both directions."""

    def test_t083_head_bytes(self) -> None:
        """T083: 64 KiB of head and no more, whole or still incomplete."""
        for size, status in ((17_000, None), (60_000, None), (66_000, 431), (1_000_000, 431)):
            line = b"X: " + b"a" * size
            self.assertEqual(request_status(get(line)), status, size)
            self.assertEqual(response_status(ok(line)), status and 502, size)
            self.assertEqual(request_status(get(line)[:-2]), status, size)

    def test_t083_count(self) -> None:
        """T083: 256 headers and no more."""
        self.assertIsNone(request_status(get(*[b"X: y"] * 255)))
        for count in (256, 501, 20_000):
            self.assertEqual(request_status(get(*[b"X: y"] * count)), 431)
        self.assertIsNone(response_status(ok(*[b"X: y"] * 256)))
        self.assertEqual(response_status(ok(*[b"X: y"] * 257)), 502)

    def test_t083_target(self) -> None:
        """T083: a target over 16 KiB is 414, complete or not."""
        self.assertIsNone(status_of_start(b"GET /" + b"a" * 16_000 + b" HTTP/1.1"))
        self.assertEqual(status_of_start(b"GET /" + b"a" * 17_000 + b" HTTP/1.1"), 414)
        self.assertEqual(request_status(b"GET /" + b"a" * 17_000), 414)
        self.assertEqual(request_status(b"GET /" + b"a" * 1_000_000), 414)

    def test_limits_are_the_callers(self) -> None:
        small = WireLimits(head_bytes=100, header_count=2, target_bytes=10)
        self.assertIsNone(request_status(get(), small))
        self.assertEqual(request_status(get(b"A: b", b"C: d"), small), 431)
        self.assertEqual(request_status(get(b"A: " + b"b" * 100), small), 431)


class SequenceTests(SynchronousTestCase):
    """Several messages on one connection."""

    def test_t064_pipelined(self) -> None:
        """T064: three requests in one segment are three requests, in order."""
        raw = get() + get().replace(b"/ ", b"/denied ") + get(host=b"Host: other.example\r\n")
        messages, decoder = decode_requests([raw])
        self.assertEqual(targets(messages), [b"/", b"/denied", b"/"])
        self.assertEqual(messages[1::2], [EndOfMessage()] * 3)
        self.assertTrue(decoder.idle)

    def test_t064_pipelined_bound(self) -> None:
        """T064: 64 in one segment pass; the 65th is an error after the first 64."""
        self.assertIsNone(request_status(get() * 64))
        messages, decoder = decode_requests([get() * 65])
        self.assertEqual(len(targets(messages)), 64)
        self.assertIsNotNone(decoder.error)

    def test_t065_after_close(self) -> None:
        """T065: nothing after ``Connection: close`` or after an error is decoded."""
        messages, decoder = decode_requests([get(b"Connection: close") + get(), get()])
        self.assertEqual(targets(messages), [b"/"])
        self.assertIsNone(decoder.error)
        self.assertFalse(decoder.idle)
        messages, decoder = decode_requests([get() + get(b"bad") + get(), get()])
        self.assertEqual(targets(messages), [b"/"])
        self.assertIsNotNone(decoder.error)
        self.assertEqual(len(targets(decode_requests([get(b"Connection: x"), get()])[0])), 2)

    def test_t066_after_connect(self) -> None:
        """T066: bytes after a CONNECT head are kept and never decoded."""
        head = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
        tail = b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"
        messages, decoder = decode_requests([head + tail, b"\n\x00"])
        self.assertEqual(targets(messages), [b"a.example:443"])
        self.assertEqual(decoder.rest, tail + b"\n\x00")
        self.assertIsNone(decoder.error)
        for _ in range(3):
            decoder.feed(b"x" * 65536)
        self.assertIsNotNone(decoder.error)

    def test_t069_informational(self) -> None:
        """T069: 16 heads of 1xx pass, more do not; 101 never."""
        early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        messages, decoder = decode_response([early * 16 + ok(b"Content-Length: 0")])
        self.assertTrue(decoder.complete)
        self.assertEqual(messages[0], InformationalHead(103, b"Early Hints", [(b"Link", b"</a>")]))
        self.assertEqual(response_status(early * 17 + ok()), 502)
        self.assertEqual(response_status(early * 1000), 502)
        self.assertEqual(
            response_status(b"HTTP/1.1 101 X\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n"), 502
        )
        self.assertIsNone(response_status(b"HTTP/1.1 100 Continue\r\n\r\n" + ok()))

    def test_a_long_head_in_two_parts_then_a_short_one(self) -> None:
        long = get(b"X: " + b"a" * 500)
        messages, decoder = decode_requests([long[:400], long[400:], get()])
        self.assertEqual(targets(messages), [b"/", b"/"])
        self.assertTrue(decoder.idle)

    def test_idle_and_buffered(self) -> None:
        _, decoder = decode_requests([])
        self.assertTrue(decoder.idle)
        decoder.feed(b"GET /")
        self.assertFalse(decoder.idle)
        self.assertEqual(decoder.buffered, 5)
        decoder.feed(get()[5:])
        self.assertTrue(decoder.idle)
        self.assertEqual(decoder.buffered, 0)
        decoder.feed(chunked(b"5\r\nhe"))
        self.assertFalse(decoder.idle)


class StatusLineTests(SynchronousTestCase):
    """Status lines."""

    def test_good(self) -> None:
        for line, status, reason in (
            (b"HTTP/1.1 200 OK", 200, b"OK"),
            (b"HTTP/1.1 200", 200, b""),
            (b"HTTP/1.1 200 ", 200, b""),
            (b"HTTP/1.0 404 Not \xe9", 404, b"Not \xe9"),
            (b"HTTP/1.1 999 x", 999, b"x"),
        ):
            head = decode_response([line + b"\r\n\r\n"])[0][0]
            assert isinstance(head, ResponseHead)
            self.assertEqual((head.status, head.reason), (status, reason))

    def test_bad(self) -> None:
        for line in (b"HTTP/1.2 200 OK", b"HTTP/2 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 20 OK",
                     b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 X", b"ICY 200 OK", b"http/1.1 200 OK",
                     b"HTTP/1.1 +20 X", b"HTTP/1.1 200\tOK", b"HTTP/0.9 200 X", b"2"):  # fmt: skip
            self.assertEqual(response_status(line + b"\r\n\r\n"), 502, line)
        self.assertEqual(response_status(b"\x16\x03\x01"), 502)
        self.assertEqual(response_status(b"SSH-2.0-x\r\n"), 502)
        self.assertIsNone(response_status(b"HTTP"))
