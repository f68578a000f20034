"""How a body may be framed, in both directions: nothing that two parsers could read differently."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.wire.messages import BodyChunk, EndOfMessage, Framing, RequestHead, ResponseHead
from tests.wire.decoding import (
    body_of,
    chunked,
    decode_requests,
    decode_response,
    get,
    ok,
    post,
    request_error,
    request_status,
    response_status,
)

CL = b"Content-Length: 5"
TE = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


class LengthAndCodingTests(SynchronousTestCase):
    """Content-Length, Transfer-Encoding, and both."""

    def test_controls_pass(self) -> None:
        """The nearest legitimate messages pass, or the refusals below would mean nothing."""
        self.assertIsNone(request_status(post(CL, body=b"hello")))
        self.assertIsNone(request_status(chunked(CHUNKS)))
        self.assertIsNone(response_status(ok(CL, body=b"hello")))
        self.assertIsNone(response_status(ok(TE, body=CHUNKS)))
        self.assertIsNone(request_status(post(b"transfer-encoding:\tChunked  ", body=CHUNKS)))

    def test_t046_request_with_both(self) -> None:
        """T046: a request with both fields is refused, in either order."""
        for pair in ((CL, TE), (TE, CL)):
            self.assertEqual(request_status(post(*pair, body=CHUNKS)), 400)

    def test_t047_response_with_both(self) -> None:
        """T047: a response with both fields is refused, also to HEAD."""
        for method in (b"GET", b"HEAD"):
            for pair in ((CL, TE), (TE, CL)):
                self.assertEqual(response_status(ok(*pair, body=CHUNKS), method), 502)

    def test_t048_t049_other_codings(self) -> None:
        """T048 T049: only the one word chunked is a coding here."""
        lists = [
            b"identity, chunked", b"chunked, identity", b",chunked", b"chunked,", b"xchunked",
            b"chunked;q=1", b"gzip, chunked", b"gzip", b"identity", b"", b"\x0bchunked",
            b"\xa0chunked", b'"chunked"', "chun\u212aed".encode(), b"chunked chunked", b"chunke",
        ]  # fmt: skip
        for value in lists:
            line = b"Transfer-Encoding: " + value
            self.assertEqual(request_status(post(line, body=CHUNKS)), 400, value)
            self.assertEqual(response_status(ok(line, body=CHUNKS)), 502, value)

    def test_t048_two_codings(self) -> None:
        """T048: two Transfer-Encoding headers are refused, also when equal."""
        for other in (TE, b"Transfer-Encoding: identity"):
            self.assertEqual(request_status(post(TE, other, body=CHUNKS)), 400)
            self.assertEqual(request_status(post(other, TE, body=CHUNKS)), 400)
            self.assertEqual(response_status(ok(TE, other, body=CHUNKS)), 502)

    def test_t052_coding_on_http10(self) -> None:
        """T052: HTTP/1.0 has no Transfer-Encoding."""
        self.assertEqual(request_status(post(TE, body=CHUNKS, version=b"1.0")), 400)
        self.assertEqual(response_status(ok(TE, body=CHUNKS, version=b"1.0")), 502)
        self.assertIsNone(request_status(post(CL, body=b"hello", version=b"1.0")))

    def test_t053_identity_with_length(self) -> None:
        """T053: identity beside a length is refused."""
        line = b"Transfer-Encoding: identity"
        self.assertEqual(request_status(post(line, CL, body=b"hello")), 400)
        self.assertEqual(response_status(ok(line, CL, body=b"hello")), 502)

    def test_t054_lengths(self) -> None:
        """T054 T056: a length is plain digits, without sign, zero in front, list or overflow."""
        bad = [
            b"+5", b"-5", b"0x5", b"05", b"5_0", "\u0665".encode(), b"1e3", b"", b" ", b"5, 5",
            b"5;5", b"5\x0b", b"5Z", b"18446744073709551621", b"9223372036854775808", b"5" * 5000,
            b"5 5", b"5,", b"00",
        ]  # fmt: skip
        for value in bad:
            line = b"Content-Length: " + value
            self.assertEqual(request_status(post(line, body=b"hello")), 400, value)
            self.assertEqual(response_status(ok(line, body=b"hello")), 502, value)
        for good in (b"0", b"5", b"10", b"9223372036854775807"):
            self.assertIsNone(request_status(post(b"Content-Length: " + good)), good)

    def test_t055_repeated_length(self) -> None:
        """T055: two lengths are refused, equal or not."""
        for other in (CL, b"content-length: 6"):
            self.assertEqual(request_status(post(CL, other, body=b"hello")), 400)
            self.assertEqual(response_status(ok(CL, other, body=b"hello")), 502)

    def test_t067_connect_with_body(self) -> None:
        """T067: CONNECT has no body."""
        head = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n"
        self.assertEqual(request_status(head + CL + b"\r\n\r\nhello"), 400)
        self.assertEqual(request_status(head + TE + b"\r\n\r\n" + CHUNKS), 400)
        self.assertIsNone(request_status(head + b"\r\n"))

    def test_a_request_is_not_delimited_by_close(self) -> None:
        messages, decoder = decode_requests([get() + b"GET"])
        self.assertEqual(messages[1], EndOfMessage())
        self.assertEqual(decoder.buffered, 3)


class ResponseBodyTests(SynchronousTestCase):
    """Where a response ends."""

    def test_t070_messages_without_body(self) -> None:
        """T070: a response to HEAD, a 204 and a 304 end at their head; the rest is noted."""
        for status, method in ((200, b"HEAD"), (204, b"GET"), (304, b"GET")):
            raw = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\nhello" % status
            messages, decoder = decode_response([raw], method)
            self.assertEqual(body_of(messages), b"")
            self.assertTrue(decoder.complete)
            self.assertEqual(decoder.rest, b"hello")
            head = messages[0]
            assert isinstance(head, ResponseHead)
            self.assertIs(head.framing, Framing.NONE)
            self.assertEqual(head.headers, [(b"Content-Length", b"5")])

    def test_t071_second_response(self) -> None:
        """T071: a second response to one request is not decoded; it shows in ``rest``."""
        one = ok(CL, body=b"hello")
        messages, decoder = decode_response([one + one])
        self.assertEqual(body_of(messages), b"hello")
        self.assertEqual(decoder.rest, one)
        decoder.feed(b"more")
        self.assertEqual(decoder.rest, one + b"more")
        clean = decode_response([one])[1]
        self.assertTrue(clean.complete)
        self.assertEqual(clean.rest, b"")

    def test_rest_is_bounded(self) -> None:
        _, decoder = decode_response([ok(CL, body=b"hello" + b"x" * 200_000)])
        self.assertEqual(len(decoder.rest), 65536)

    def test_t072_close_delimited(self) -> None:
        """T072: a body that ends with the connection ends well only when that ends well."""
        messages, decoder = decode_response([ok(body=b"hel"), b"lo"])
        self.assertEqual(body_of(messages), b"hello")
        head = messages[0]
        assert isinstance(head, ResponseHead)
        self.assertIs(head.framing, Framing.CLOSE)
        self.assertFalse(head.keep_alive)
        self.assertFalse(decoder.complete)
        self.assertEqual(decoder.finish(clean=True), [EndOfMessage()])
        self.assertTrue(decoder.complete)
        _, torn = decode_response([ok(body=b"hello")])
        self.assertEqual(torn.finish(clean=False), [])
        assert torn.error is not None
        self.assertEqual(torn.error.status, 502)

    def test_t073_truncated(self) -> None:
        """T073: a response cut short has no EndOfMessage and an error."""
        for raw in (
            b"",
            b"HTTP/1.1 200",
            ok(CL, body=b"hell"),
            ok(TE, body=b"5\r\nhel"),
            ok(TE, body=b"5\r\nhello\r\n"),
            ok(TE, body=b"0\r\n"),
            ok(TE, body=b"0\r\nX: y\r\n"),
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ):
            messages, decoder = decode_response([raw])
            messages += decoder.finish(clean=True)
            self.assertNotIn(EndOfMessage(), messages)
            self.assertFalse(decoder.complete)
            assert decoder.error is not None
            self.assertEqual(decoder.error.status, 502)

    def test_t089_short_request_body(self) -> None:
        """T089: a request whose client leaves inside the body never ends well."""
        for raw in (post(CL, body=b"hell"), chunked(b"5\r\nhello\r\n"), get()[:-2]):
            messages, decoder = decode_requests([raw])
            self.assertEqual(decoder.finish(), [])
            self.assertNotIn(EndOfMessage(), messages)
            self.assertIsNotNone(decoder.error)
        _, decoder = decode_requests([post(CL, body=b"hello")])
        decoder.finish()
        self.assertIsNone(decoder.error)

    def test_t088_http10(self) -> None:
        """T088: HTTP/1.0 keeps the connection only when it says so."""
        for line, keep in ((b"Connection: keep-alive", True), (b"X: y", False)):
            messages, _ = decode_response([ok(CL, line, body=b"hello", version=b"1.0")])
            head = messages[0]
            assert isinstance(head, ResponseHead)
            self.assertEqual((head.version, head.keep_alive), (b"1.0", keep))
            request = decode_requests([get(line, version=b"1.0")])[0][0]
            assert isinstance(request, RequestHead)
            self.assertEqual(request.keep_alive, keep)


class StreamingTests(SynchronousTestCase):
    """Body bytes come out as they come in."""

    def test_t085_head_and_body_apart(self) -> None:
        """T085: the body in the next segment is the body, not a request."""
        raw = post(CL, body=b"hello")
        messages, decoder = decode_requests([raw[:-5], raw[-5:]])
        self.assertEqual(messages[1:], [BodyChunk(b"hello"), EndOfMessage()])
        self.assertTrue(decoder.idle)

    def test_an_event_is_not_held_back(self) -> None:
        _, decoder = decode_response([ok(TE)])
        self.assertEqual(decoder.feed(b"5\r\nhel"), [BodyChunk(b"hel")])
        self.assertEqual(decoder.feed(b"lo\r\n3\r\nabc\r\n"), [BodyChunk(b"loabc")])

    def test_good_messages_before_an_error_are_kept(self) -> None:
        messages, decoder = decode_requests([get() + chunked(b"5\r\nhello\r\nZ\r\n")])
        self.assertEqual(body_of(messages), b"hello")
        self.assertEqual(len(messages), 4)
        self.assertIsNotNone(decoder.error)
        self.assertEqual(decoder.feed(get()), [])
        self.assertIsNotNone(request_error(get() + b"bad\r\n\r\n"))
