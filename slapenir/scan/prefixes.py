"""The hold-back question: may the end of what has arrived be the start of a pattern?

Asked once for every piece of every body, so the usual answer must be cheap.  A suffix shorter
than six bytes is looked up in a set.  A longer one must end in six bytes that occur in some
pattern: a table of hashes says no to nearly all text.  Only when it says yes is the tail
searched for the patterns' first six bytes, and each place found compared with the sorted
patterns.

Cost: under a microsecond when the table says no.  Else one scan of at most the longest pattern
and one comparison for each place that starts like a pattern, up to the first that is one; the
worst case (a pattern of one repeated byte, a tail that nearly repeats it) is one comparison a
byte of the tail.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Protocol

import hyperscan

from slapenir.scan.literals import SHORTEST_LITERAL, compile_literals

_GRAM = SHORTEST_LITERAL


class Literal(Protocol):
    """What is asked of a pattern."""

    @property
    def data(self) -> bytes:
        """The bytes to match."""

    @property
    def caseless(self) -> bool:
        """Whether ASCII case is ignored."""


class LivePrefixes:
    """Know every proper prefix of a set of patterns.  Not thread-safe once in use."""

    __slots__ = (
        "_cased",
        "_caseless",
        "_database",
        "_found",
        "_grams",
        "_longest",
        "_mask",
        "_pairs",
        "_short",
        "_window",
    )

    def __init__(self, patterns: Sequence[Literal]) -> None:
        self._longest = max((len(p.data) for p in patterns), default=0)
        self._cased = sorted({p.data for p in patterns if not p.caseless})
        self._caseless = sorted({p.data.lower() for p in patterns if p.caseless})
        self._short = frozenset(
            prefix
            for pattern in patterns
            for size in range(1, min(_GRAM, len(pattern.data)))
            for prefix in _cases(pattern.data[:size], pattern.caseless)
        )
        self._pairs = frozenset(p[-2:] for p in self._short if len(p) > 1)
        long = [p for p in patterns if len(p.data) > _GRAM]
        self._mask, self._grams = _gram_table([p.data.lower() for p in long])
        starts = sorted({(_start(p), p.caseless) for p in long})
        self._database = compile_literals(starts) if starts else None
        self._window = b""
        self._found = -1

    def find(self, data: bytes) -> int:
        """Return the least ``i`` where ``data[i:]`` is the start, not the whole, of a pattern.

        ``len(data)`` when there is none: nothing need be held back.
        """
        size = len(data)
        if self._grams[hash(data[-_GRAM:].lower()) & self._mask]:
            at = self._find_long(data)
            if at >= 0:
                return at
        short = self._short
        if data[-2:] in self._pairs:
            for length in range(min(_GRAM - 1, size), 1, -1):
                if data[-length:] in short:
                    return size - length
        if data[-1:] in short:
            return size - 1
        return size

    def _find_long(self, data: bytes) -> int:
        """Return where a live suffix of at least six bytes starts, or -1."""
        if self._database is None or len(data) < _GRAM:
            return -1
        skipped = max(0, len(data) - self._longest + 1)
        window = data[skipped:] if skipped else data
        if self._is_live(window):
            return skipped
        self._window, self._found = window, -1
        try:
            self._database.scan(window, self._judge)
        except hyperscan.ScanTerminated:
            if self._found < 0:
                raise
        finally:
            self._window = b""
        return skipped + self._found if self._found >= 0 else -1

    def _judge(self, _id: int, _from: int, end: int, _flags: int, _context: object) -> bool:
        """Stop at the first place from which everything to the end is live.

        Matches come in the order of their ends, and all are six bytes long.
        """
        if self._is_live(self._window[end - _GRAM :]):
            self._found = end - _GRAM
            return True
        return False

    def _is_live(self, suffix: bytes) -> bool:
        """Whether ``suffix`` is a proper prefix of a pattern.

        Of the sorted patterns greater than ``suffix`` those that start with it come first.
        """
        at = bisect_right(self._cased, suffix)
        if at < len(self._cased) and self._cased[at].startswith(suffix):
            return True
        lowered = suffix.lower()
        at = bisect_right(self._caseless, lowered)
        return at < len(self._caseless) and self._caseless[at].startswith(lowered)


def _start(pattern: Literal) -> bytes:
    """Return a pattern's first six bytes, in lower case when case is ignored."""
    start = pattern.data[:_GRAM]
    return start.lower() if pattern.caseless else start


def _cases(data: bytes, caseless: bool) -> Iterable[bytes]:
    """Return ``data``, or every upper and lower case of it when ``caseless``."""
    if not caseless:
        return (data,)
    letters = ({c, c ^ 0x20} if chr(c).isalpha() and c < 128 else {c} for c in data)
    return map(bytes, product(*letters))


def _gram_table(texts: Sequence[bytes]) -> tuple[int, bytes]:
    """Return a mask and a table with 1 at the hash of every six bytes inside a proper prefix.

    The table has at least eight places for each, so that at most one in eight is a false alarm.
    """
    grams = {hash(text[at : at + _GRAM]) for text in texts for at in range(len(text) - _GRAM)}
    size = 1 << max(10, (8 * len(grams)).bit_length())
    table = bytearray(size)
    for gram in grams:
        table[gram & (size - 1)] = 1
    return size - 1, bytes(table)
