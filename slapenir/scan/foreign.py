"""Find credentials that are not in the configuration: tokens that others give out, by their form.

Hyperscan is a filter: it reports where a token of a rule, with its edges, ends.  ``re`` then goes
through the few places before it where one may begin, and checksum and entropy judge what it finds.
A rule's tokens may overlap: for each place where one may begin there is one answer.

Cost: clean text at the speed of Hyperscan.  There is no report for text that only begins like a
token.  A report costs some microseconds; no place is looked at twice in a scan, and each for at
most ``longest`` bytes, so the cost is linear.  A detector also looks at the last ``longest`` bytes
of each piece, where every place that begins like a token costs about a microsecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import hyperscan

from slapenir.scan.detect import HeldBack
from slapenir.scan.foreign_rules import Rule
from slapenir.scan.foreign_shapes import CONTEXT, Shape


class ForeignMatch(NamedTuple):
    """Where a token was found: ``data[start:end]``, and the id of its rule."""

    start: int
    end: int
    kind: str


class ForeignEngine:
    """A compiled rule pack.

    Compiling takes about two seconds and touches nothing global: do it in a worker thread.
    Scanning is not thread-safe: use one thread.  ``longest`` is the length of the longest token:
    never is more held back.  ``examined`` counts the places that were looked at singly.
    """

    __slots__ = (
        "_beginnings",
        "_hits",
        "_leads",
        "_reach",
        "_whole",
        "examined",
        "longest",
        "shapes",
    )

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.shapes = tuple(map(Shape, rules))
        self.longest = max((shape.most for shape in self.shapes), default=0)
        self.examined = 0
        self._hits: list[tuple[int, int]] = []
        self._whole = _compile([shape.expression for shape in self.shapes])
        self._leads = _compile([shape.lead for shape in self.shapes])
        self._reach = max((shape.size for shape in self.shapes), default=1) - 1
        self._beginnings: dict[bytes, list[Shape]] = {}
        for shape in self.shapes:
            for beginning in shape.beginnings:
                self._beginnings.setdefault(beginning, []).append(shape)

    def scan(self, data: bytes) -> list[ForeignMatch]:
        """Return every token in ``data``, sorted by start, end and kind."""
        return self.matches(data, 0, len(data))

    def matches(self, data: bytes, base: int, limit: int) -> list[ForeignMatch]:
        """Return the tokens that begin at ``base`` or later and before ``limit``, sorted.

        What stands before ``base``, up to CONTEXT bytes, tells whether one begins there.
        """
        found: list[ForeignMatch] = []
        nexts: dict[int, int] = {}
        for index, end in self._scan(self._whole, data):
            shape = self.shapes[index]
            low = max(nexts.get(index, base), end - shape.most - 1)
            high = min(limit, end - shape.least + 1)
            if low >= high:
                continue
            nexts[index] = high
            for start in shape.starts.finditer(data, low, high - 1 + shape.size):
                self.examined += 1
                stop = shape.match(data, start.start())
                if stop >= 0:
                    found.append(ForeignMatch(start.start(), stop, shape.kind))
        return sorted(found)

    def live(self, data: bytes, base: int) -> int:
        """Return the least place, from ``base`` on, from which all may be the start of a token.

        ``len(data)`` when there is none.  A whole token that ends the data counts: whether its
        edge is one is told by the next byte.
        """
        size = best = len(data)
        low = max(base, size - self.longest)
        cut = max(0, low - CONTEXT)
        places = []
        for index, end in self._scan(self._leads, data[cut:] if cut else data):
            shape = self.shapes[index]
            at = cut + end - shape.size
            if at >= low and size - at <= shape.most:
                places.append((at, index))
        for at, index in sorted(places):
            if self._is_live(self.shapes[index], data, at):
                best = at
                break
        for at in range(max(low, size - self._reach), best):
            for shape in self._beginnings.get(data[at:], ()):
                if self._is_live(shape, data, at):
                    return at
        return best

    def _is_live(self, shape: Shape, data: bytes, at: int) -> bool:
        self.examined += 1
        return shape.is_live(data, at)

    def _scan(self, database: hyperscan.Database | None, data: bytes) -> list[tuple[int, int]]:
        """Return (index, end) of all that a database reports."""
        if database is None:
            return []
        try:
            database.scan(data, self._record)
        finally:
            hits, self._hits = self._hits, []
        return hits

    def _record(self, index: int, _from: int, end: int, _flags: int, _context: object) -> None:
        self._hits.append((index, end))


def _compile(expressions: Sequence[bytes]) -> hyperscan.Database | None:
    if not expressions:
        return None
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=list(expressions),
        ids=list(range(len(expressions))),
        elements=len(expressions),
        flags=[hyperscan.HS_FLAG_DOTALL] * len(expressions),
    )
    return database


class ForeignDetector(HeldBack):
    """Watch one stream and release only what is known to be part of no token.

    ``found`` is the token that begins first, with offsets in the stream: the first of what
    ``scan`` returns for the whole stream, however it is cut.  Once it is set nothing is released
    any more.  It may be set by ``finish``, because the end of the stream is an edge.
    """

    __slots__ = ("_before", "_engine", "found")

    def __init__(self, engine: ForeignEngine) -> None:
        super().__init__()
        self._engine = engine
        self._before = b""  # the last bytes before _held
        self.found: ForeignMatch | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that are now known to be part of no token."""
        if self.found is not None or not data:
            return b""
        window = b"".join((self._before, self._held, data))
        base = len(self._before)
        live = self._engine.live(window, base)
        if self._judge(window, live):
            return b""
        whole = not self._held and live == len(window)
        eased, self._eased = self._eased, max(0, self._eased - (live - base))
        self._released += live - base
        self._before = window[max(0, live - CONTEXT) : live]
        self._held = window[live:]
        return data if whole else window[base + eased : live]

    def finish(self) -> bytes:
        """Return what was held: the stream is over.  Look at ``found`` after it."""
        window = self._before + self._held
        if self.found is not None or self._judge(window, len(window)):
            return b""
        return self._take_rest()

    def _judge(self, window: bytes, limit: int) -> bool:
        """Set ``found`` to the first token that begins before ``limit``; return whether it is."""
        base = len(self._before)
        matches = self._engine.matches(window, base, limit)
        if not matches:
            return False
        shift = self._released - base
        start, end, kind = matches[0]
        self.found = ForeignMatch(start + shift, end + shift, kind)
        self._take_rest()
        return True
