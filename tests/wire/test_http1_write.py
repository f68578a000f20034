"""Writing heads and bodies: exactly one framing, everything else as it was."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import LocalProtocolError
from slapenir.wire.http1 import (
    encode_chunk,
    encode_end,
    encode_informational,
    encode_request_head,
    encode_response_head,
)
from slapenir.wire.messages import (
    Framing,
    HeaderList,
    InformationalHead,
    RequestHead,
    ResponseHead,
)


def request(headers: HeaderList, framing: Framing = Framing.NONE, length: int = 0) -> bytes:
    """Return the header lines written for a request."""
    head = RequestHead(b"POST", b"/", headers, framing=framing, length=length)
    raw = encode_request_head(head)
    start = b"POST / HTTP/1.1\r\n"
    assert raw.startswith(start) and raw.endswith(b"\r\n\r\n"), raw
    return raw[len(start) : -4]


def response(headers: HeaderList, framing: Framing, length: int = 0, status: int = 200) -> bytes:
    """Return the header lines written for a response."""
    raw = encode_response_head(ResponseHead(status, b"", headers, framing=framing, length=length))
    start = b"HTTP/1.1 %d \r\n" % status
    assert raw.startswith(start) and raw.endswith(b"\r\n"), raw
    return raw[len(start) : -2]


class FramingTests(SynchronousTestCase):
    """Which framing field is written."""

    both: HeaderList = [
        (b"content-LENGTH", b"5"),
        (b"A", b"b"),
        (b"Transfer-encoding", b"Chunked"),
        (b"Content-Length", b"6"),
    ]

    def test_one_framing(self) -> None:
        self.assertEqual(request(self.both), b"A: b")
        self.assertEqual(request(self.both, Framing.LENGTH, 5), b"content-LENGTH: 5\r\nA: b")
        self.assertEqual(request(self.both, Framing.LENGTH, 6), b"A: b\r\nContent-Length: 6")
        self.assertEqual(request(self.both, Framing.LENGTH, 7), b"A: b\r\nContent-Length: 7")
        self.assertEqual(request(self.both, Framing.CHUNKED), b"A: b\r\nTransfer-encoding: Chunked")
        self.assertEqual(
            request([(b"A", b"b")], Framing.CHUNKED), b"A: b\r\nTransfer-Encoding: chunked"
        )
        self.assertEqual(request([(b"Content-Length", b"5")] * 2, Framing.LENGTH, 5).count(b"5"), 1)
        self.assertEqual(response(self.both, Framing.CLOSE), b"A: b\r\n")

    def test_a_length_that_describes(self) -> None:
        """HEAD and 304 keep a Content-Length; 204 and 1xx have none."""
        self.assertEqual(response(self.both, Framing.NONE), b"content-LENGTH: 5\r\nA: b\r\n")
        self.assertEqual(response([(b"Content-Length", b"x")], Framing.NONE, status=304), b"")
        self.assertEqual(response(self.both, Framing.NONE, status=204), b"A: b\r\n")
        early = encode_informational(InformationalHead(103, b"Early", self.both))
        self.assertEqual(early, b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n")

    def test_a_request_needs_a_length(self) -> None:
        self.assertRaises(LocalProtocolError, request, [], Framing.CLOSE)

    def test_t084_headers_stay_apart(self) -> None:
        """T084: three Set-Cookie are three, in order and casing."""
        headers = [(b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"X", b""), (b"Set-Cookie", b"c")]
        self.assertEqual(
            response(headers, Framing.CLOSE),
            b"Set-Cookie: a\r\nset-cookie: b\r\nX: \r\nSet-Cookie: c\r\n",
        )


class BodyTests(SynchronousTestCase):
    """Body bytes and their end."""

    def test_chunks(self) -> None:
        self.assertEqual(encode_chunk(b"x" * 26, Framing.CHUNKED), b"1a\r\n" + b"x" * 26 + b"\r\n")
        self.assertEqual(encode_chunk(b"", Framing.CHUNKED), b"")
        self.assertEqual(encode_chunk(b"ab", Framing.LENGTH), b"ab")
        self.assertEqual(encode_chunk(b"ab", Framing.CLOSE), b"ab")
        self.assertRaises(LocalProtocolError, encode_chunk, b"ab", Framing.NONE)

    def test_ends(self) -> None:
        trailers = [(b"A", b"b"), (b"C", b"")]
        self.assertEqual(encode_end(Framing.CHUNKED, []), b"0\r\n\r\n")
        self.assertEqual(encode_end(Framing.CHUNKED, trailers), b"0\r\nA: b\r\nC: \r\n\r\n")
        for framing in (Framing.NONE, Framing.LENGTH, Framing.CLOSE):
            self.assertEqual(encode_end(framing, trailers), b"")


class RefusalTests(SynchronousTestCase):
    """T058: what must not be in a head is never written."""

    def test_t058_controls(self) -> None:
        """T058: CR, LF, NUL and other controls in any part are our bug, not the peer's."""
        for bad in (b"a\rb", b"a\nb", b"a\r\nb", b"a\x00b", b"\x0b", b"a\r\n", b"\x7f"):
            for head in (
                RequestHead(b"GET", b"/", [(b"X", bad)]),
                RequestHead(b"GET", b"/", [(b"X" + bad, b"y")]),
                RequestHead(b"GET", b"/" + bad, []),
                RequestHead(b"GET" + bad, b"/", []),
            ):
                self.assertRaises(LocalProtocolError, encode_request_head, head)
            answer = ResponseHead(200, bad, [])
            self.assertRaises(LocalProtocolError, encode_response_head, answer)
            answer = ResponseHead(200, b"", [(b"X", bad)])
            self.assertRaises(LocalProtocolError, encode_response_head, answer)
            early = InformationalHead(103, b"", [(b"X", bad)])
            self.assertRaises(LocalProtocolError, encode_informational, early)
            self.assertRaises(LocalProtocolError, encode_end, Framing.CHUNKED, [(b"X", bad)])
        encode_request_head(RequestHead(b"GET", b"/", [(b"X", b"a\tb \xe9")]))

    def test_names_and_lines(self) -> None:
        for name in (b"", b"X:", b"X Y", b"X\xe9"):
            head = RequestHead(b"GET", b"/", [(name, b"y")])
            self.assertRaises(LocalProtocolError, encode_request_head, head)
        for method, target in ((b"GET", b""), (b"GET", b"/a b"), (b"G T", b"/")):
            head = RequestHead(method, target, [])
            self.assertRaises(LocalProtocolError, encode_request_head, head)
