"""Find every pattern in a block of bytes.

Hyperscan in block mode, not in streaming mode: who scans a stream keeps back the longest suffix
that may still become a match (``live_prefix``) and scans it again with what comes next.  A match
across a cut begins in that suffix, so none is missed; state is only those bytes.

Cost: clean text at gigabytes a second whatever the patterns are.  Each match costs a call into
Python (0.3 microseconds), so patterns that overlap themselves (one byte repeated) cost that for
each byte of an input made of the same byte, once for each such pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from slapenir.scan.forms import Pattern
from slapenir.scan.literals import compile_literals
from slapenir.scan.prefixes import LivePrefixes

LITERAL = 256
"""Of a longer pattern only the last this many bytes are given to Hyperscan."""


class Match(NamedTuple):
    """Where a pattern was found: ``data[start:end]``, and the pattern's index."""

    start: int
    end: int
    pattern: int


class Engine:
    """Compiled patterns, scanned for all at once.

    Compiling takes about half a second for a hundred secrets and touches nothing global: do it
    in a worker thread.  Scanning is not thread-safe (one scratch space): use one thread, the
    reactor's.  ``seconds`` is the time spent in ``scan`` so far.  ``longest`` is the length of
    the longest pattern: never is as much held back.  Raises what ``compile_literals`` does.
    """

    __slots__ = (
        "_database",
        "_hits",
        "_long",
        "_prefixes",
        "live_prefix",
        "longest",
        "patterns",
        "seconds",
    )

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self.longest = max((len(p.data) for p in self.patterns), default=0)
        self.seconds = 0.0
        self._long = frozenset(i for i, p in enumerate(self.patterns) if len(p.data) > LITERAL)
        self._hits: list[tuple[int, int]] = []
        literals = [(p.data[-LITERAL:], p.caseless) for p in self.patterns]
        self._database = compile_literals(literals) if literals else None
        self._prefixes = LivePrefixes(self.patterns)
        self.live_prefix = self._prefixes.find

    def scan(self, data: bytes) -> list[Match]:
        """Return every match in ``data``, overlapping ones too, in no promised order."""
        if self._database is None:
            return []
        began = perf_counter()
        try:
            self._database.scan(data, self._record)
        except BaseException:
            self._hits = []
            raise
        self.seconds += perf_counter() - began
        if not self._hits:
            return []
        hits, self._hits = self._hits, []
        return [match for hit in hits if (match := self._match(data, hit)) is not None]

    def _record(self, pattern: int, _from: int, end: int, _flags: int, _context: object) -> None:
        self._hits.append((pattern, end))

    def _match(self, data: bytes, hit: tuple[int, int]) -> Match | None:
        """Return the match that a hit stands for; None when a long pattern's rest differs."""
        index, end = hit
        pattern = self.patterns[index]
        start = end - len(pattern.data)
        if index in self._long:
            if start < 0:
                return None
            text = data[start:end]
            if text != pattern.data and not (
                pattern.caseless and text.lower() == pattern.data.lower()
            ):
                return None
        return Match(start, end, index)
