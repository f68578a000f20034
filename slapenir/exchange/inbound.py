"""The response on its way back: head, body and trailers with every known secret overwritten.

An identity-coded body is overwritten in place, so its length never changes.  A coded body is
decoded, overwritten and coded again.  One with a small Content-Length is first checked whole: if
it is clean it goes on byte for byte as the origin sent it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from slapenir.errors import CodingError
from slapenir.exchange.terms import Terms
from slapenir.names import Form
from slapenir.scan.codings import Decoder, Encoder, parse_codings
from slapenir.scan.rewrite import Redactions, Rewriter, rewrite_whole
from slapenir.wire.headers import first, values
from slapenir.wire.messages import Framing, HeaderList, ResponseHead

Hits = Mapping[tuple[int, Form], int]

# Decoded bytes a single response may expand to before the ratio is all that bounds it: none.
_NO_BOUND = None


def redact_head(redactions: Redactions, encoded: bytes) -> tuple[bytes, Hits]:
    """Overwrite secrets in an encoded head; same length, so its lines stay lines."""
    return rewrite_whole(redactions, encoded)


def redact_fields(redactions: Redactions, fields: HeaderList) -> tuple[HeaderList, Hits]:
    """Overwrite secrets in trailer fields, name and value together."""
    text, hits = rewrite_whole(redactions, b"\n".join(b"%s: %s" % field for field in fields))
    if not hits:
        return fields, hits
    out: HeaderList = []
    for line in text.split(b"\n"):
        name, _, value = line.partition(b": ")
        out.append((name, value))
    return out, hits


class PlainBody(Rewriter):
    """An identity-coded body: ``feed`` and ``finish`` give bytes of the same total length."""

    __slots__ = ()


class CodedBody:
    """A coded body, decoded, overwritten and coded again; raises CodingError.

    A body without a byte stays one: origins announce a coding for empty bodies, too.
    """

    def __init__(self, terms: Terms, redactions: Redactions, codings: tuple[str, ...]) -> None:
        self._rewriter = Rewriter(redactions)
        self._decoder = Decoder(codings, _NO_BOUND, terms.bounds.coding_ratio)
        self._encoder = Encoder(codings)
        self._empty = True

    def feed(self, data: bytes) -> bytes:
        """Take coded bytes, return coded bytes; what was decoded is not held back."""
        self._empty = False
        return b"".join(
            self._encoder.feed(clean)
            for piece in self._decoder.feed(data)
            if (clean := self._rewriter.feed(piece))
        )

    def finish(self) -> bytes:
        """End the body; a truncated coding raises CodingError."""
        if self._empty:
            return b""
        self._decoder.finish()
        tail = self._rewriter.finish()
        out = self._encoder.feed(tail) if tail else b""
        return out + self._encoder.finish()

    @property
    def hits(self) -> Hits:
        """How often each form of each secret was overwritten."""
        return self._rewriter.hits


class HeldBody:
    """A small coded body of known length, checked whole before any of it goes on.

    ``feed`` returns nothing; ``finish`` returns the whole body, the origin's own bytes when
    neither they nor the decoded text held a secret, and sets ``changed`` otherwise.
    """

    def __init__(self, terms: Terms, redactions: Redactions, codings: tuple[str, ...]) -> None:
        self._again = partial(CodedBody, terms, redactions, codings)
        self._decoder = Decoder(codings, _NO_BOUND, terms.bounds.coding_ratio)
        self._decoded = Rewriter(redactions)
        self._raw = Rewriter(redactions)
        self._original: list[bytes] = []
        self.changed = False

    def feed(self, data: bytes) -> bytes:
        """Take coded bytes; nothing is given out yet."""
        self._original.append(data)
        self._raw.feed(data)
        for piece in self._decoder.feed(data):
            self._decoded.feed(piece)
        return b""

    def finish(self) -> bytes:
        """Return the body to send; raises CodingError when the coding is broken."""
        if not self._original:
            return b""
        self._decoder.finish()
        self._decoded.finish()
        self._raw.finish()
        self.changed = bool(self.hits)
        original = b"".join(self._original)
        if not self.changed:
            return original
        coded = self._again()
        return coded.feed(original) + coded.finish()

    @property
    def hits(self) -> Hits:
        """How often each form of each secret was found."""
        return self._decoded.hits or self._raw.hits


Body = PlainBody | CodedBody | HeldBody


def body_for(terms: Terms, redactions: Redactions, head: ResponseHead) -> Body:
    """Return the transform for a response's body.

    Sets ``head.framing`` and drops its length where the body will be coded again.  Raises
    CodingError for an unknown coding and for a partial response.
    """
    names = [name.lower() for name, _ in head.headers]
    if head.status == 206 or b"content-range" in names:
        refuse_partial(head)
    if b"content-encoding" not in names:
        return PlainBody(redactions)
    codings = parse_codings(values(head.headers, b"content-encoding"))
    if not codings or head.framing is Framing.NONE:
        return PlainBody(redactions)
    if head.framing is Framing.LENGTH and head.length <= terms.bounds.coding_hold:
        return HeldBody(terms, redactions, codings)
    if head.framing is Framing.LENGTH:
        head.framing, head.length = Framing.CHUNKED, 0
    return CodedBody(terms, redactions, codings)


def refuse_partial(head: ResponseHead) -> None:
    """Refuse a 206: Range was not forwarded, and halves of a secret cannot be recognised.

    Raises CodingError, which becomes a 502 (T142).
    """
    if head.status == 206 or (head.status != 416 and first(head.headers, b"content-range")):
        raise CodingError("a partial response to a request without Range")
