"""The response of one exchange, as it passes from the origin to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slapenir.errors import RemoteProtocolError
from slapenir.events import Sanitized
from slapenir.exchange.forward import response_fields
from slapenir.exchange.inbound import (
    Body,
    HeldBody,
    Hits,
    PlainBody,
    body_for,
    redact_fields,
    redact_head,
)
from slapenir.exchange.inputs import CLIENT
from slapenir.names import Place
from slapenir.scan.engine import Engine
from slapenir.scan.rewrite import Redactions
from slapenir.wire.http1 import (
    ResponseDecoder,
    encode_chunk,
    encode_end,
    encode_informational,
    encode_response_head,
)
from slapenir.wire.http1_response import parse_response_head
from slapenir.wire.messages import (
    BodyChunk,
    EndOfMessage,
    Framing,
    HeaderList,
    InformationalHead,
    Message,
    ResponseHead,
    Trailers,
)

if TYPE_CHECKING:
    from slapenir.exchange.exchange import Exchange


# Stands for the body until the head has come; decoders give no chunk before a head.
_NO_BODY = PlainBody(Redactions(Engine([]), []))
_CLOSE = Framing.CLOSE
_STREAMED = (Framing.CHUNKED, Framing.CLOSE)
_NO_HEAD = ResponseHead(0, b"", [])


class Reply:
    """Decode, redact and send on; raises RemoteProtocolError and CodingError for a bad origin."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._session = exchange.session
        terms = exchange.terms
        self._redactions = terms.protections[exchange.session.who.identity].redactions
        self._decoder = ResponseDecoder(exchange.head.method, terms.wire)
        self._head = _NO_HEAD
        self._body: Body = _NO_BODY
        self._trailers: HeaderList = []
        self._continued = False
        self.begun = False

    def feed(self, data: bytes) -> None:
        """Take bytes from the origin."""
        decoder = self._decoder
        for message in decoder.feed(data):
            if type(message) is BodyChunk:
                self._chunk(message.data)
            else:
                self._message(message)
        if decoder.error is not None:
            self._check()

    def closed(self, clean: bool) -> None:
        """Take the end of the origin's stream."""
        for message in self._decoder.finish(clean):
            self._message(message)
        self._check()
        if not self._exchange.response_done:
            raise RemoteProtocolError("it closed before the response was complete", 502)

    def _check(self) -> None:
        error = self._decoder.error
        if error is not None and not self._exchange.response_done:
            raise error

    def _message(self, message: Message) -> None:
        kind = type(message)
        if kind is BodyChunk:
            self._chunk(message.data)  # type: ignore[union-attr]
        elif kind is ResponseHead:
            self._begin(message)  # type: ignore[arg-type]
        elif kind is EndOfMessage:
            self._end()
        elif kind is InformationalHead:
            self._informational(message)  # type: ignore[arg-type]
        elif kind is Trailers:
            self._trailers = message.headers  # type: ignore[union-attr]

    def _informational(self, head: InformationalHead) -> None:
        request = self._exchange.head
        if request.version != b"1.1":
            return
        if head.status == 100:
            if not request.expect_continue or self._continued:
                return
            self._continued = True
        head.headers = response_fields(head.headers)
        data, hits = redact_head(self._redactions, encode_informational(head))
        self._count(hits, Place.HEAD)
        self._session.send(CLIENT, data)

    def _begin(self, head: ResponseHead) -> None:
        self._head = head
        exchange = self._exchange
        head.headers = response_fields(head.headers)
        self._body = body_for(exchange.terms, self._redactions, head)
        exchange.responding()
        if not isinstance(self._body, HeldBody):
            self._send_head(head)

    def _send_head(self, head: ResponseHead) -> None:
        """Send the head with the framing that this client understands."""
        exchange = self._exchange
        if head.framing in _STREAMED:
            modern = exchange.head.version == b"1.1"
            head.framing = Framing.CHUNKED if modern else Framing.CLOSE
        if head.framing is _CLOSE or self._session.draining:
            exchange.keep_alive = False
        if not exchange.keep_alive:
            head.headers.append((b"Connection", b"close"))
        elif exchange.head.version == b"1.0":
            head.headers.append((b"Connection", b"keep-alive"))
        data, hits = redact_head(self._redactions, encode_response_head(head))
        if hits:
            self._check_framing(head, data)
            self._count(hits, Place.HEAD)
        exchange.status = head.status
        self.begun = True
        self._session.send(CLIENT, data)

    def _check_framing(self, head: ResponseHead, data: bytes) -> None:
        """Refuse a head that was overwritten where it frames the body: a secret can be a number."""
        exchange = self._exchange
        seen = parse_response_head(data, exchange.head.method, exchange.terms.wire)
        meant = (head.status, head.framing, head.length)
        if not isinstance(seen, ResponseHead) or (seen.status, seen.framing, seen.length) != meant:
            raise RemoteProtocolError("its framing cannot be told from a secret", 502)

    def _chunk(self, data: bytes) -> None:
        clean = self._body.feed(data)
        if clean:
            self._send_body(clean)

    def _send_body(self, data: bytes) -> None:
        self._exchange.response_bytes += len(data)
        self._session.send(CLIENT, encode_chunk(data, self._head.framing))

    def _end(self) -> None:
        head, body, exchange = self._head, self._body, self._exchange
        tail = body.finish()
        if isinstance(body, HeldBody):
            if body.changed:
                head.length = len(tail)
            self._send_head(head)
        if tail:
            self._send_body(tail)
        if body.hits:
            self._count(body.hits, Place.BODY)
        trailers: HeaderList = []
        if self._trailers and head.framing is Framing.CHUNKED:
            trailers, hits = redact_fields(self._redactions, response_fields(self._trailers))
            self._count(hits, Place.TRAILERS)
        end = encode_end(head.framing, trailers)
        if end:
            self._session.send(CLIENT, end)
        decoder = self._decoder
        exchange.responded(head, head.keep_alive and not decoder.rest and decoder.error is None)

    def _count(self, hits: Hits, place: Place) -> None:
        exchange = self._exchange
        for (owner, form), count in hits.items():
            credential = exchange.terms.secrets[owner]
            self._session.emit(
                Sanitized(self._session.who, exchange.number, credential, form, place, count)
            )
