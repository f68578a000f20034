"""What is compiled from one rule: how its tokens are found, judged, and seen coming."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from math import prod

from slapenir.scan.checksums import CHECKS, entropy
from slapenir.scan.expressions import Chars, Head, chosen, endings, heads
from slapenir.scan.foreign_rules import Rule

CONTEXT = 6
"""How many bytes before a token decide whether it begins there."""

_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_JOINING = frozenset(b"-+/=")
_INNER = frozenset(b"-.")
_HEX = rb"[0-9A-Fa-f]"
# After these a token begins although they end in what may be a part of a word: escapes of JSON
# and of programming languages, and percent-encoding.
_ESCAPES = (rb"\\[bfnrt]", rb"%%%b{2}" % _HEX, rb"\\x%b{2}" % _HEX, rb"\\u%b{4}" % _HEX)
_HEAD, _MOST_SPELLINGS = 12, 300


class Shape:
    """A rule made ready.

    ``expression`` and ``lead`` are for Hyperscan: a whole token with its edges, reported where it
    or the byte after it ends, and the first ``size`` bytes of one.  ``starts`` finds by ``re`` the
    places where such first bytes are; ``beginnings`` are the beginnings shorter than them.
    """

    __slots__ = (
        "_begun",
        "_check",
        "_entropy",
        "_whole",
        "beginnings",
        "expression",
        "kind",
        "lead",
        "least",
        "most",
        "size",
        "starts",
    )

    def __init__(self, rule: Rule) -> None:
        tree = rule.tree
        self.kind = rule.id
        self.least, self.most = tree.lengths
        self._entropy = rule.entropy
        self._check = CHECKS.get(rule.check)
        inside = _WORD | (chosen(tree) & _INNER)
        after = _WORD | (endings(tree) & _JOINING)
        before, looking = (b"", b"") if rule.edges == "none" else _left(inside)
        behind, ahead = _right(after) if rule.edges == "both" else (b"", b"")
        text = tree.text()
        self.expression = before + text + behind
        found = _heads(rule)
        self.size = len(next(iter(found)))
        lead = b"(?:%b)" % b"|".join(sorted(b"".join(Chars(c).text() for c in h) for h in found))
        self.lead = lead
        self.beginnings = frozenset(_spelled(found, self.size - 1))
        self.starts = re.compile(b"(?=%b)%b" % (lead, looking))
        self._whole = re.compile(looking + text + ahead)
        self._begun = re.compile(looking + tree.begun() + rb"\Z")

    def match(self, data: bytes, at: int) -> int:
        """Return where the genuine token that begins at ``at`` ends, or -1."""
        found = self._whole.match(data, at)
        if found is None:
            return -1
        part = found[found.re.groups and 1]
        if self._entropy and entropy(part) < self._entropy:
            return -1
        if self._check is not None and not self._check(found[0], part):
            return -1
        return found.end()

    def is_live(self, data: bytes, at: int) -> bool:
        """Whether from ``at`` to the end is the beginning of a token, or one whose edge is open."""
        return self._begun.match(data, at) is not None


def _left(inside: frozenset[int]) -> tuple[bytes, bytes]:
    """Return for Hyperscan and for ``re`` what must stand before a token."""
    outside = Chars(frozenset(range(256)) - inside).text()
    choices = (outside, *_ESCAPES)
    looking = b"|".join(b"(?<=%b)" % choice for choice in choices)
    return b"(?:^|%b)" % b"|".join(choices), b"(?:^|%b)" % looking


def _right(after: frozenset[int]) -> tuple[bytes, bytes]:
    """Return for Hyperscan and for ``re`` what must stand after a token."""
    text = Chars(frozenset(range(256)) - after).text()
    return b"(?:%b|\\z)" % text, b"(?!%b)" % Chars(after).text()


def _heads(rule: Rule) -> set[Head]:
    """Return the first bytes of a rule's tokens, as many as can be spelled out without excess."""
    for size in range(_HEAD, 3, -1):
        found = heads(rule.tree, size)
        if sum(prod(map(len, head[:-1])) for head in found) <= _MOST_SPELLINGS:
            return found
    return heads(rule.tree, 3)


def _spelled(found: set[Head], most: int) -> Iterator[bytes]:
    """Yield every beginning of up to ``most`` bytes."""
    for size in range(1, most + 1):
        for head in {head[:size] for head in found}:
            yield from map(bytes, product(*head))
