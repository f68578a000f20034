"""The regular expressions of a rule pack: a small subset, read into a tree.

From one tree come the text for Hyperscan and for ``re`` (so that both get the same), the text
that takes every beginning of a match (for what must be held back), and the lengths.

In the subset are literal bytes, ``\\`` before punctuation, ``\\n``, ``\\r`` and ``\\t``, sets in
brackets with ranges and ``^``, groups ``(?:...)``, ``(?i:...)`` and ``(...)``, ``|``, and the
counts ``?``, ``{n}`` and ``{m,n}``.  Everything else is refused, so each expression is bounded.
A set is of bytes, and ``^`` means every other of the 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

GIVEN = 8
"""A byte that is one of at most this many counts as given, not as chosen at random."""

Head = tuple[frozenset[int], ...]
_ESCAPES = {"n": 10, "r": 13, "t": 9}
_SPECIAL = frozenset(".*+^$")


class ExpressionError(ValueError):
    """An expression is not in the subset; the text says what is wrong with it."""


@attrs.frozen
class Chars:
    """One byte out of a set."""

    members: frozenset[int]

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most bytes of a match."""
        return 1, 1

    def text(self) -> bytes:
        """Return the expression as it is given to Hyperscan and to ``re``."""
        spans = [
            b"\\x%02x" % a if a == b else b"\\x%02x-\\x%02x" % (a, b) for a, b in self._spans()
        ]
        return spans[0] if len(self.members) == 1 else b"[%b]" % b"".join(spans)

    def begun(self) -> bytes:
        """Return an expression for every beginning of a match, the empty one and the whole too."""
        return self.text() + b"?"

    def _spans(self) -> Iterator[tuple[int, int]]:
        ordered = sorted(self.members)
        first = last = ordered[0]
        for byte in ordered[1:]:
            if byte != last + 1:
                yield first, last
                first = byte
            last = byte
        yield first, last


@attrs.frozen
class Sequence:
    """One part after another."""

    parts: tuple[Node, ...]

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most bytes of a match."""
        return sum(p.lengths[0] for p in self.parts), sum(p.lengths[1] for p in self.parts)

    def text(self) -> bytes:
        """Return the expression as it is given to Hyperscan and to ``re``."""
        return b"".join(part.text() for part in self.parts)

    def begun(self) -> bytes:
        """Return an expression for every beginning of a match, the empty one and the whole too."""
        begun = b""
        for part in reversed(self.parts):
            begun = b"(?:%b%b|%b)" % (part.text(), begun, part.begun()) if begun else part.begun()
        return begun


@attrs.frozen
class Choice:
    """One of some branches."""

    branches: tuple[Node, ...]

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most bytes of a match."""
        lengths = [branch.lengths for branch in self.branches]
        return min(least for least, _ in lengths), max(most for _, most in lengths)

    def text(self) -> bytes:
        """Return the expression as it is given to Hyperscan and to ``re``."""
        return b"(?:%b)" % b"|".join(branch.text() for branch in self.branches)

    def begun(self) -> bytes:
        """Return an expression for every beginning of a match, the empty one and the whole too."""
        return b"(?:%b)" % b"|".join(branch.begun() for branch in self.branches)


@attrs.frozen
class Repeat:
    """A part from ``least`` to ``most`` times."""

    part: Node
    least: int
    most: int

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most bytes of a match."""
        least, most = self.part.lengths
        return self.least * least, self.most * most

    def text(self) -> bytes:
        """Return the expression as it is given to Hyperscan and to ``re``."""
        return self._counted(self.least, self.most)

    def begun(self) -> bytes:
        """Return an expression for every beginning of a match, the empty one and the whole too."""
        if isinstance(self.part, Chars):
            return self._counted(0, self.most)
        return self._counted(0, self.most - 1) + self.part.begun()

    def _counted(self, least: int, most: int) -> bytes:
        text = self.part.text()
        if not isinstance(self.part, Chars):
            text = b"(?:%b)" % text
        return b"%b{%d,%d}" % (text, least, most)


@attrs.frozen
class Marked:
    """The part whose randomness is judged: the group of ``(...)``."""

    part: Node

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most bytes of a match."""
        return self.part.lengths

    def text(self) -> bytes:
        """Return the expression as it is given to Hyperscan and to ``re``."""
        return b"(%b)" % self.part.text()

    def begun(self) -> bytes:
        """Return an expression for every beginning of a match, the empty one and the whole too."""
        return self.part.begun()


Node = Chars | Sequence | Choice | Repeat | Marked


def parse(text: str) -> Node:
    """Return the tree of an expression; raises ExpressionError when it is not in the subset."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._folded = False

    def whole(self) -> Node:
        tree = self._choice()
        if self._at < len(self._text):
            raise ExpressionError("a ) closes nothing")
        return tree

    def _choice(self) -> Node:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _sequence(self) -> Node:
        parts = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._counted(self._atom()))
        if not parts:
            raise ExpressionError("a branch is empty")
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _counted(self, part: Node) -> Node:
        if self._take("?"):
            return Repeat(part, 0, 1)
        if not self._take("{"):
            return part
        end = self._text.find("}", self._at)
        least, comma, most = self._text[self._at : max(end, 0)].partition(",")
        if not least.isdecimal() or (comma and not most.isdecimal()):
            raise ExpressionError("a count is written {n} or {m,n}")
        self._at = end + 1
        count = Repeat(part, int(least), int(most or least))
        if not 0 < count.most >= count.least:
            raise ExpressionError("a count allows nothing")
        return count

    def _atom(self) -> Node:
        byte = self._next()
        if byte == "(":
            return self._group()
        if byte == "[":
            return self._set()
        if byte in _SPECIAL or byte in "?{}":
            raise ExpressionError(f"{byte} is not in the subset: escape it, or count with {{m,n}}")
        return Chars(self._fold(frozenset((self._byte(byte),))))

    def _group(self) -> Node:
        marked = not self._take("?")
        folded = self._folded
        if not marked:
            self._folded = self._take("i") or folded
            if not self._take(":"):
                raise ExpressionError("a group is written (...), (?:...) or (?i:...)")
        inner = self._choice()
        self._folded = folded
        if not self._take(")"):
            raise ExpressionError("a group is not closed")
        return Marked(inner) if marked else inner

    def _set(self) -> Node:
        others = self._take("^")
        members: set[int] = set()
        while not self._take("]"):
            first = self._byte(self._next())
            last = first
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                last = self._byte(self._next())
            members.update(range(first, last + 1))
        chosen = self._fold(frozenset(members))
        chosen = frozenset(range(256)) - chosen if others else chosen
        if not chosen:
            raise ExpressionError("a set is empty")
        return Chars(chosen)

    def _byte(self, char: str) -> int:
        if char == "\\":
            char = self._next()
            if char in _ESCAPES:
                return _ESCAPES[char]
            if char.isalnum():
                raise ExpressionError(f"\\{char} is not in the subset")
        if not " " <= char <= "~":
            raise ExpressionError("only printable ASCII is written as it is")
        return ord(char)

    def _fold(self, members: frozenset[int]) -> frozenset[int]:
        if not self._folded:
            return members
        letters = {m ^ 0x20 for m in members if chr(m).isascii() and chr(m).isalpha()}
        return members | letters

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, char: str) -> bool:
        taken = self._peek() == char
        self._at += taken
        return taken

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise ExpressionError("it ends too early")
        self._at += 1
        return char


def heads(node: Node, size: int) -> set[Head]:
    """Return how matches begin: ``size`` sets of bytes, fewer where a match is shorter."""
    if isinstance(node, Chars):
        return {(node.members,)}
    if isinstance(node, Marked):
        return heads(node.part, size)
    if isinstance(node, Choice):
        return {head for branch in node.branches for head in heads(branch, size)}
    if isinstance(node, Sequence):
        found: set[Head] = {()}
        for part in node.parts:
            found = _longer(found, part, size)
        return found
    return _repeated(node, size)


def _repeated(node: Repeat, size: int) -> set[Head]:
    found: set[Head] = {()}
    taken: set[Head] = {()} if node.least == 0 else set()
    for count in range(1, node.most + 1):
        found = _longer(found, node.part, size)
        taken |= found if count >= node.least else set()
        if all(len(head) == size for head in found):
            return taken | found
    return taken


def _longer(found: Iterable[Head], part: Node, size: int) -> set[Head]:
    return {
        head + tail
        for head in found
        for tail in (heads(part, size - len(head)) if len(head) < size else ((),))
    }


def given(node: Node) -> int:
    """Return the longest run of given bytes in a row that every match has."""
    return _given(node)[1]


def _given(node: Node) -> tuple[int, int]:
    """Return how many bytes it is when all are given, else 0; and the longest run."""
    if isinstance(node, Chars):
        return (1, 1) if len(node.members) <= GIVEN else (0, 0)
    if isinstance(node, Marked):
        return _given(node.part)
    if isinstance(node, Repeat):
        size, inner = _given(node.part)
        return (0, 0) if node.least == 0 else (size * node.least, max(inner, size * node.least))
    if isinstance(node, Choice):
        branches = [_given(branch) for branch in node.branches]
        return min(size for size, _ in branches), min(inner for _, inner in branches)
    run = longest = 0
    whole = True
    for part in node.parts:
        size, inner = _given(part)
        run = run + size if size else 0
        whole = whole and size > 0
        longest = max(longest, inner, run)
    return (run if whole else 0), longest


def chosen(node: Node) -> frozenset[int]:
    """Return every byte that may stand where a byte is not given."""
    if isinstance(node, Chars):
        return node.members if len(node.members) > GIVEN else frozenset()
    if isinstance(node, Marked | Repeat):
        return chosen(node.part)
    parts = node.parts if isinstance(node, Sequence) else node.branches
    return frozenset().union(*map(chosen, parts))


def endings(node: Node) -> frozenset[int]:
    """Return every byte that a match may end with."""
    if isinstance(node, Chars):
        return node.members
    if isinstance(node, Marked | Repeat):
        return endings(node.part)
    if isinstance(node, Choice):
        return frozenset().union(*map(endings, node.branches))
    last: frozenset[int] = frozenset()
    for part in reversed(node.parts):
        last |= endings(part)
        if part.lengths[0]:
            return last
    return last
