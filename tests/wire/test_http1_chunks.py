"""The chunked coding, strictly, and its trailers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.wire.messages import EndOfMessage, Trailers
from tests.support.splits import every_split
from tests.wire.decoding import (
    body_of,
    chunked,
    decode_requests,
    decode_response,
    ok,
    request_status,
    response_status,
)

TE = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"


class SizeLineTests(SynchronousTestCase):
    """What may stand before a chunk's data."""

    def refuse(self, body: bytes) -> None:
        """Assert that both directions refuse this body, whole and byte by byte."""
        self.assertEqual(request_status(chunked(body)), 400, body[:40])
        self.assertEqual(response_status(ok(TE, body=body)), 502, body[:40])
        if len(body) < 100:
            raw = chunked(body)
            error = decode_requests(raw[i : i + 1] for i in range(len(raw)))[1].error
            self.assertIsNotNone(error, body)

    def test_t060_sizes(self) -> None:
        """T060: a size is one to fifteen hex digits and nothing else."""
        for size in (b"0x5", b"+5", b"-5", b"-0x0", b"5_0", b" 5", b"5 ", b"", b"0_2e", b"5\t",
                     b"f" * 17, b"f" * 16, b"0" * 1_000_000, b"g", b"5,5", b"5\x00"):  # fmt: skip
            self.refuse(size + b"\r\nhello\r\n" + END)
        for size in (b"5", b"05", b"00000005", b"000000000000005"):
            messages, decoder = decode_requests([chunked(size + b"\r\nhello\r\n" + END)])
            self.assertIsNone(decoder.error)
            self.assertEqual(body_of(messages), b"hello")

    def test_t061_extensions(self) -> None:
        """T061: extensions are dropped; LF, CR and controls in them are refused."""
        for line in (b"5;a=\nb\r\n", b"5\r\r;x\r\n", b"5;a\rb\r\n", b"5;a\x00\r\n", b"5;a\n",
                     b"5\n", b"5 ;a\r\n"):  # fmt: skip
            self.refuse(line + b"hello\r\n" + END)
        messages, decoder = decode_requests([chunked(b'5;a=b;c="d e"\r\nhello\r\n0;x\r\n\r\n')])
        self.assertIsNone(decoder.error)
        self.assertEqual(messages[1:], [*messages[1:2], EndOfMessage()])
        self.assertEqual(body_of(messages), b"hello")

    def test_t061_overhead_is_capped(self) -> None:
        """T061: one long extension and many short ones both hit the bound; plain chunks never."""
        self.refuse(b"5;" + b"a" * 5000 + b"\r\nhello\r\n" + END)
        self.refuse(b"5;" + b"a" * 5000)
        self.refuse(b"1;ab\r\nx\r\n" * 2000 + END)
        self.refuse(b"000000000001\r\nx\r\n" * 2000 + END)
        messages, decoder = decode_response([ok(TE, body=b"1\r\nx\r\n" * 100_000 + END)])
        self.assertIsNone(decoder.error)
        self.assertEqual(len(body_of(messages)), 100_000)
        self.assertIsNone(request_status(chunked(b"1;ab\r\nx\r\n" * 1000 + END)))

    def test_t062_after_the_data(self) -> None:
        """T062: CRLF and nothing else follows a chunk's data."""
        for after in (b"XX", b"\n", b"\rX", b"", b"\r\r\n", b"X\r\n", b"\n\r"):
            self.refuse(b"5\r\nhello" + after + b"3\r\nabc\r\n" + END)


class TrailerTests(SynchronousTestCase):
    """Trailer fields after the last chunk."""

    def trailers(self, section: bytes) -> list[tuple[bytes, bytes]] | None:
        """Return the trailers decoded from the section, or None for an error."""
        messages, decoder = decode_requests([chunked(b"5\r\nhello\r\n0\r\n" + section)])
        if decoder.error is not None:
            return None
        self.assertEqual(messages[-1], EndOfMessage())
        return [pair for m in messages if isinstance(m, Trailers) for pair in m.headers]

    def test_t063_forbidden_fields_are_dropped(self) -> None:
        """T063: framing, routing, authentication and control fields do not come out."""
        names = (
            b"Content-Length", b"Host", b"Authorization", b"Transfer-Encoding", b"SET-COOKIE",
            b"Content_Length", b"content-encoding", b"Content-Type", b"Content-Range", b"Trailer",
            b"Cache-Control", b"Connection", b"Proxy-Authorization", b"Cookie",
        )  # fmt: skip
        lines = b"".join(b"%b: 5\r\n" % name for name in names)
        self.assertEqual(self.trailers(lines + b"Grpc-Status: 0\r\n\r\n"), [(b"Grpc-Status", b"0")])
        self.assertEqual(self.trailers(lines + b"\r\n"), [])
        _, response = decode_response([ok(TE, body=b"0\r\n" + lines + b"\r\n")])
        self.assertTrue(response.complete)

    def test_t063_malformed(self) -> None:
        """T063: bare LF, folding, controls and bad names are refused."""
        for section in (b"X: a\nY: b\r\n\r\n", b"X: a\r\n b\r\n\r\n", b"X : a\r\n\r\n",
                        b": a\r\n\r\n", b"nocolon\r\n\r\n", b"X: a\x00\r\n\r\n", b"X: a\rb\r\n\r\n",
                        b"\n", b"X: a\n\n", b" X: a\r\n\r\n"):  # fmt: skip
            self.assertIsNone(self.trailers(section), section)
        self.assertEqual(self.trailers(b"X: a \r\nY:b\r\n\r\n"), [(b"X", b"a"), (b"Y", b"b")])

    def test_t063_bounds(self) -> None:
        """T063: ten thousand trailers, or one long one, are refused; 64 pass."""
        self.assertIsNone(self.trailers(b"X: a\r\n" * 10_000 + b"\r\n"))
        self.assertIsNone(self.trailers(b"X: a\r\n" * 65 + b"\r\n"))
        self.assertIsNone(self.trailers(b"X: " + b"a" * 17_000))
        self.assertIsNone(self.trailers(b"X: " + b"a" * 17_000 + b"\r\n\r\n"))
        self.assertEqual(len(self.trailers(b"X: a\r\n" * 64 + b"\r\n") or []), 64)
        self.assertEqual(len(self.trailers(b"X: " + b"a" * 16_000 + b"\r\n\r\n") or []), 1)

    def test_every_split(self) -> None:
        raw = chunked(b"5;x\r\nhello\r\n3\r\nabc\r\n0\r\nX: a\r\nHost: b\r\nY: c\r\n\r\n")
        expected = decode_requests([raw])[0]
        self.assertEqual(expected[2], Trailers([(b"X", b"a"), (b"Y", b"c")]))
        for pieces in every_split(raw):
            messages, decoder = decode_requests(pieces)
            self.assertEqual(messages, expected)
            self.assertTrue(decoder.idle)
