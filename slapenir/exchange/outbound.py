"""The request on its way out: its head injected and scanned, its body scanned and swapped.

Order matters.  What the agent wrote is scanned before anything real is put in, so a real secret
in the request can only be one that the agent has learnt; bytes are released to the origin only
when no live prefix of a pattern is among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from slapenir.credentials.inject import Injection
from slapenir.errors import CodingError, RemoteProtocolError
from slapenir.events import Finding
from slapenir.exchange.forward import request_fields
from slapenir.exchange.terms import EVERYBODY, Terms
from slapenir.names import Authority, Form, Place, Reason, Scheme
from slapenir.scan.codings import Decoder, parse_codings
from slapenir.scan.detect import Detector
from slapenir.scan.engine import Engine, Match
from slapenir.scan.swap import Swapper
from slapenir.wire.headers import values
from slapenir.wire.messages import Framing, HeaderList, RequestHead

# Coded bytes that may wait for decoded text; more than this and the coding is refused.
_LATE_BOUND = 1 << 20


@attrs.frozen(slots=True)
class Refusal:
    """Why a request must not go out."""

    reason: Reason
    finding: Finding | None = None


def finding_for(terms: Terms, match: Match, place: Place, engine: Engine | None = None) -> Refusal:
    """Return the refusal for a pattern that ``engine``, or that for requests, found."""
    pattern = (engine or terms.request).patterns[match.pattern]
    watched = terms.watched[pattern.owner]
    reason = Reason.HONEYTOKEN if watched.identity else Reason.SECRET_IN_REQUEST
    return Refusal(reason, Finding(watched.credential, pattern.form, place, watched.identity))


def scan_head(terms: Terms, view: bytes) -> Refusal | None:
    """Return the refusal for the first pattern in what the agent wrote, or None."""
    matches = terms.request.scan(view)
    return finding_for(terms, matches[0], Place.HEAD) if matches else None


def scan_name(terms: Terms, name: bytes) -> Refusal | None:
    """Return the refusal for the first pattern in a host name as it was sent, or None.

    It is looked at with and without its dots, for labels may be pieces of a secret (T039), and
    without regard to case, for names lose it on their way.
    """
    view = b"%s\r\n%s\r\n" % (name, name.replace(b".", b""))
    for engine in (terms.request, terms.names):
        matches = engine.scan(view)
        if matches:
            return finding_for(terms, matches[0], Place.HEAD, engine)
    return None


def inject_head(
    terms: Terms,
    identity: str,
    head: RequestHead,
    target: bytes,
    authority: Authority,
    scheme: Scheme,
    credentials: tuple[str, ...],
) -> Injection:
    """Return the target and fields to send, with the rule's credentials on their surfaces."""
    fields = request_fields(head.headers, authority, scheme)
    return terms.injector(identity, credentials).inject(target, fields)


class RequestBody:
    """A request body in transit.

    ``feed`` and ``finish`` return the bytes that may be sent now.  After each call ``refusal``
    says whether the request must be stopped instead; nothing is released from then on.
    ``framing`` and ``length`` are those to send with: a swap of another length needs chunks.
    Raises CodingError from the constructor when the body's coding cannot be scanned.
    """

    def __init__(
        self,
        terms: Terms,
        identity: str,
        head: RequestHead,
        credentials: tuple[str, ...],
        swaps: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self._terms = terms
        self._identity = identity
        self.refusal: Refusal | None = None
        self.framing, self.length = head.framing, head.length
        codings = parse_codings(values(head.headers, b"content-encoding"))
        self._decoder = Decoder(codings, None, terms.bounds.coding_ratio) if codings else None
        self._swapper: Swapper | None = None
        self._names = [c for c in credentials if terms.has_body_surface(c)]
        self._told: dict[int, int] = {}
        ignored: frozenset[int] = frozenset()
        if swaps and not codings:
            self._swapper = Swapper(swaps)
            ignored = terms.body_placeholders(identity, credentials)
            if head.framing is Framing.LENGTH and any(len(a) != len(b) for a, b in swaps):
                self.framing, self.length = Framing.CHUNKED, 0
        self._detector = Detector(terms.request, ignored)
        self._coded = Detector(terms.request, frozenset())
        self._bound = terms.bounds.request_body
        self._late = b""
        self._undecided = 0
        self.received = 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the body, return what may be sent."""
        self.received += len(data)
        if self._bound and self.received > self._bound:
            self.refusal = Refusal(Reason.BODY_TOO_LARGE)
            return b""
        if self._decoder is None:
            return self._plain(self._detector.feed(data))
        return self._coded_feed(self._decoder, data)

    def finish(self) -> bytes:
        """End the body; return what was still held."""
        if self._decoder is None:
            return self._plain(self._detector.finish(), last=True)
        try:
            if self.received:
                self._decoder.finish()
        except CodingError:
            self.refusal = self.refusal or Refusal(Reason.CODING_UNSUPPORTED)
        self._detector.finish()
        out = self._coded.finish()
        self._look(self._detector)
        self._look(self._coded)
        return b"" if self.refusal else self._late + out

    def take_swapped(self) -> list[tuple[str, int]]:
        """Return each credential swapped in since the last call, and how often."""
        swapped = self._swapper.swapped if self._swapper else {}
        if swapped == self._told:
            return []
        fresh = [(self._names[i], n - self._told.get(i, 0)) for i, n in swapped.items()]
        self._told = dict(swapped)
        return [(name, count) for name, count in fresh if count]

    def _plain(self, cleared: bytes, *, last: bool = False) -> bytes:
        self._look(self._detector)
        if self.refusal:
            return b""
        swapper = self._swapper
        if swapper is None:
            return cleared
        try:
            out = swapper.feed(cleared)
            out = out + swapper.finish() if last else out
        except RemoteProtocolError:
            self.refusal = Refusal(Reason.BODY_TOO_LARGE)
            return b""
        if swapper.stray is not None:
            self.refusal = self._stray(self._names[swapper.stray])
            return b""
        return out

    def _stray(self, name: str) -> Refusal:
        """Return the refusal for a placeholder that is a part of another word, and not swapped."""
        owner = EVERYBODY if self._terms.credentials[name].placeholder else self._identity
        return Refusal(Reason.HONEYTOKEN, Finding(name, Form.RAW, Place.BODY, owner))

    # A coded body goes out as it came, at least one feed late: a feed's bytes may go when a later
    # feed gave decoded text, all of it clean, with no live prefix held.
    def _coded_feed(self, decoder: Decoder, data: bytes) -> bytes:
        cleared = self._coded.feed(data)
        produced = False
        try:
            for piece in decoder.feed(data):
                produced = True
                self._undecided += len(piece) - len(self._detector.feed(piece))
                if self._detector.found:
                    break
        except CodingError:
            self.refusal = Refusal(Reason.CODING_UNSUPPORTED)
        self._look(self._detector)
        self._look(self._coded)
        if self.refusal:
            return b""
        out = b""
        if produced and self._undecided == 0:
            out, self._late = self._late, b""
        self._late += cleared
        if len(self._late) > _LATE_BOUND:
            self.refusal = Refusal(Reason.CODING_UNSUPPORTED)
        return out

    def _look(self, detector: Detector) -> None:
        if detector.found is not None and self.refusal is None:
            self.refusal = finding_for(self._terms, detector.found, Place.BODY)


def scan_trailers(terms: Terms, trailers: HeaderList) -> Refusal | None:
    """Return the refusal for a pattern in trailer fields, or None."""
    text = b"".join(b"%s: %s\r\n" % field for field in trailers)
    matches = terms.request.scan(text)
    return finding_for(terms, matches[0], Place.TRAILERS) if matches else None
