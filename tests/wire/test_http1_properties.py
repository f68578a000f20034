"""Properties of the HTTP/1 codec over generated messages, cuts and noise."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import RemoteProtocolError
from slapenir.wire.headers import FORBIDDEN_TRAILERS
from slapenir.wire.http1 import (
    encode_chunk,
    encode_end,
    encode_request_head,
    encode_response_head,
)
from slapenir.wire.messages import (
    BodyChunk,
    EndOfMessage,
    Framing,
    HeaderList,
    Message,
    RequestHead,
    ResponseHead,
    Trailers,
)
from tests.support.splits import every_split, random_split
from tests.wire.decoding import (
    chunked,
    decode_requests,
    decode_response,
    get,
    merged,
    ok,
    post,
)

TOKEN = st.text("abcXYZ019!#$%&'*+.^`|~-", min_size=1, max_size=12).map(str.encode)
VALUE = st.binary(max_size=20).map(
    lambda raw: bytes(c for c in raw if c == 9 or 32 <= c != 127).strip(b" \t")
)
SPECIAL = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"}


@st.composite
def headers(draw: st.DrawFn) -> HeaderList:
    """Headers without the ones that steer the codec."""
    pairs = draw(st.lists(st.tuples(TOKEN, VALUE), max_size=6))
    return [pair for pair in pairs if pair[0].lower() not in SPECIAL | FORBIDDEN_TRAILERS]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Framing, list[bytes], HeaderList, HeaderList]:
    """A framing, the pieces of a body, the header that says so, and trailers."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    framing = draw(st.sampled_from([Framing.LENGTH, Framing.CHUNKED]))
    if framing is Framing.LENGTH:
        length = b"%d" % sum(map(len, pieces))
        return framing, pieces, [(b"Content-Length", length)], []
    return framing, pieces, [(b"Transfer-Encoding", b"chunked")], draw(headers())


def encode_body(framing: Framing, pieces: list[bytes], trailers: HeaderList) -> bytes:
    """Return the body on the wire."""
    return b"".join(encode_chunk(p, framing) for p in pieces) + encode_end(framing, trailers)


def expected_body(pieces: list[bytes], trailers: HeaderList) -> list[Message]:
    """Return the merged messages that a body decodes to."""
    out: list[Message] = [BodyChunk(piece) for piece in pieces]
    if trailers:
        out.append(Trailers(trailers))
    return merged([*out, EndOfMessage()])


class RoundTripTests(SynchronousTestCase):
    """parse(serialise(x)) == x."""

    @settings(max_examples=120, deadline=None)
    @given(headers(), bodies(), st.integers(0, 2**32))
    def test_requests(
        self,
        extra: HeaderList,
        body: tuple[Framing, list[bytes], HeaderList, HeaderList],
        seed: int,
    ) -> None:
        framing, pieces, field, trailers = body
        length = sum(map(len, pieces)) if framing is Framing.LENGTH else 0
        fields = [(b"Host", b"a.example"), *extra, *field]
        head = RequestHead(b"PUT", b"/x?y", fields, framing=framing, length=length)
        raw = encode_request_head(head) + encode_body(framing, pieces, trailers)
        for cut in ([raw], [raw + raw], random_split(raw, random.Random(seed))):
            messages, decoder = decode_requests(cut)
            self.assertIsNone(decoder.error)
            expected = [head, *expected_body(pieces, trailers)]
            self.assertEqual(messages, expected * (2 if cut == [raw + raw] else 1))

    @settings(max_examples=120, deadline=None)
    @given(headers(), bodies(), VALUE, st.sampled_from([200, 206, 404, 500]), st.integers(0, 2**32))
    def test_responses(
        self,
        extra: HeaderList,
        body: tuple[Framing, list[bytes], HeaderList, HeaderList],
        reason: bytes,
        status: int,
        seed: int,
    ) -> None:
        framing, pieces, field, trailers = body
        length = sum(map(len, pieces)) if framing is Framing.LENGTH else 0
        head = ResponseHead(status, reason, [*extra, *field], framing=framing, length=length)
        raw = encode_response_head(head) + encode_body(framing, pieces, trailers)
        for cut in ([raw], random_split(raw, random.Random(seed))):
            messages, decoder = decode_response(cut)
            self.assertIsNone(decoder.error)
            self.assertEqual(messages, [head, *expected_body(pieces, trailers)])
            self.assertTrue(decoder.complete)


CONVERSATION = (
    b"\r\n"
    + get(b"Connection: keep-alive")
    + post(b"Content-Length: 5", body=b"hello")
    + chunked(b"3;x=y\r\nabc\r\n00002\r\nde\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n")
    + b"\r\n"
    + post(b"Upgrade: h2c", b"Connection: upgrade", b"Content-Length: 2", body=b"\r\n")
    + get(b"Connection: close")
    + b"ignored"
)


class SplitTests(SynchronousTestCase):
    """T086: how bytes are cut changes nothing."""

    def test_t086_every_split_of_requests(self) -> None:
        """T086: a conversation of five requests."""
        expected, decoder = decode_requests([CONVERSATION])
        self.assertIsNone(decoder.error)
        self.assertEqual(sum(isinstance(m, EndOfMessage) for m in expected), 5)
        for pieces in every_split(CONVERSATION):
            messages, decoder = decode_requests(pieces)
            self.assertEqual(messages, expected)
            self.assertIsNone(decoder.error)

    def test_t086_every_split_of_responses(self) -> None:
        """T086: informational heads, each framing, bytes behind the end."""
        te = b"Transfer-Encoding: chunked"
        early = b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n"
        for raw in (
            early + ok(te, body=b"3\r\nabc\r\n2;q\r\nde\r\n0\r\nX: 1\r\n\r\nmore"),
            ok(b"Content-Length: 5", body=b"hellomore"),
            ok(body=b"to the end"),
        ):
            expected, whole = decode_response([raw])
            for pieces in every_split(raw):
                messages, decoder = decode_response(pieces)
                self.assertEqual(messages, expected)
                self.assertEqual((decoder.error, decoder.rest), (None, whole.rest))

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_t086_damaged_bytes_give_one_verdict(self, data: st.DataObject) -> None:
        """T086: a conversation with one byte changed has the same messages for any cut."""
        raw = bytearray(CONVERSATION)
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.sampled_from(b"\r\n :;,0a\x00\x7f\xff\t") | st.integers(0, 255))
        expected, whole = decode_requests([bytes(raw)])
        source = random.Random(data.draw(st.integers(0, 2**32)))
        each = [bytes(raw[i : i + 1]) for i in range(len(raw))]
        for pieces in (random_split(bytes(raw), source), each):
            messages, decoder = decode_requests(pieces)
            self.assertEqual(messages, expected)
            self.assertEqual(decoder.error is None, whole.error is None)
            self.assertEqual(decoder.idle, whole.idle)


FRAGMENTS = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.0\r\n", b"HTTP/1.1 200 OK\r\n", b"Host: a\r\n",
     b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\n", b"\r", b"3\r\n",
     b"abc", b"0\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"Connection: close\r\n", b": ", b"\x00",
     b"CONNECT a:1 HTTP/1.1\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n", b"X: y\r\n"]
)  # fmt: skip


class NoiseTests(SynchronousTestCase):
    """Nothing but a RemoteProtocolError comes of any bytes, and only in ``error``."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12), st.booleans())
    def test_arbitrary_bytes(self, pieces: list[bytes], clean: bool) -> None:
        messages, requests = decode_requests(pieces)
        again, joined = decode_requests([b"".join(pieces)])
        self.assertEqual(messages, again)
        self.assertEqual(requests.error is None, joined.error is None)
        self.assertEqual(requests.finish(), [])
        _, responses = decode_response(pieces)
        responses.finish(clean)
        for error, least in ((requests.error, 400), (responses.error, 502)):
            if error is not None:
                self.assertIsInstance(error, RemoteProtocolError)
                self.assertTrue(least <= error.status <= 505)
