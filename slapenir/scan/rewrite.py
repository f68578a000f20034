"""Overwrite secrets in a stream, at the same length, wherever it is cut.

What a stream becomes depends on its bytes alone, not on the pieces they came in:

1. Of all matches the leftmost is taken, of those at one place the longest, and so on after its
   end.  A taken match becomes its replacement.  The part of any other match that reaches beyond
   the taken one is overwritten with that match's fill, so no rest of a secret stays.
2. A replacement may, with what stands beside it, spell another pattern.  Where the output so far
   would end in a pattern, its last byte is changed to one that completes none.  So nothing is
   found in the output: rewriting it again changes nothing.

What may still become a match is held back, and nothing else is; nothing is released by time.
"""

from __future__ import annotations

from collections.abc import Sequence

from slapenir.errors import SlapenirError
from slapenir.names import Form
from slapenir.scan.engine import Engine, Match
from slapenir.scan.forms import Pattern

_FILLERS = b"X0x1A*z-" + bytes(range(0x21, 0x7F)) + bytes(range(256))
_BLOCK = 1024


class Redactions:
    """What each pattern of an engine is overwritten with.  Immutable.

    ``replacements`` has one entry for each pattern, of the pattern's length.  One in which some
    pattern is found is not used: the pattern's fill, else a run of one byte, stands in.  Raises
    ValueError when the lengths differ or when there is no such byte.
    """

    __slots__ = ("engine", "fills", "replacements")

    def __init__(self, engine: Engine, replacements: Sequence[bytes]) -> None:
        patterns = engine.patterns
        if [len(r) for r in replacements] != [len(p.data) for p in patterns]:
            raise ValueError("a replacement has not the length of its pattern")
        self.engine = engine
        self.replacements = tuple(
            _harmless(engine, p, r) for p, r in zip(patterns, replacements, strict=True)
        )
        self.fills = tuple(_harmless(engine, p, p.fill) for p in patterns)


def _harmless(engine: Engine, pattern: Pattern, wanted: bytes) -> bytes:
    """Return ``wanted``, or something else of its length, in which no pattern is found."""
    if not engine.scan(wanted):
        return wanted
    if not engine.scan(pattern.fill):
        return pattern.fill
    for byte in _FILLERS:
        if byte not in pattern.data and not engine.scan(run := bytes([byte]) * len(wanted)):
            return run
    raise ValueError("no byte can overwrite a pattern without spelling another")


class Rewriter:
    """Rewrite one stream.

    ``hits`` counts by owner and form what was overwritten: taken matches, and others that
    reached beyond a taken one.
    """

    __slots__ = (
        "_covered",
        "_engine",
        "_held",
        "_overlay",
        "_redactions",
        "_seam",
        "hits",
    )

    def __init__(self, redactions: Redactions) -> None:
        self._redactions = redactions
        self._engine = redactions.engine
        self._seam = _Seam(redactions.engine)
        self._held = b""
        self._overlay = b""  # what matches that began earlier made of self._held's beginning
        self._covered = 0  # how far into self._held the last taken match reaches
        self.hits: dict[tuple[int, Form], int] = {}

    @property
    def held(self) -> int:
        """How many bytes are held back: less than the engine's ``longest``."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream and return all that can be released.

        The same object comes back when nothing is found, held before or held now.
        """
        if not data:
            return data
        window = self._held + data if self._held else data
        found = self._engine.scan(window)
        cut = self._engine.live_prefix(window)
        if not found and cut == len(window) and not self._held and not self._seam.tail:
            return data
        return self._advance(window, found, cut)

    def finish(self) -> bytes:
        """Return what was held: the stream is over."""
        if not self._held:
            return b""
        return self._advance(self._held, self._engine.scan(self._held), len(self._held))

    def _advance(self, window: bytes, found: list[Match], cut: int) -> bytes:
        """Overwrite the matches that start before ``cut`` and release everything before it.

        They are all known: one that starts there and is not complete would be held.
        """
        self._held = window[cut:]
        reach = len(self._overlay)
        if not found and not reach:
            return self._seam.pass_on(window[:cut], False)
        buffer = bytearray(window)
        buffer[:reach] = self._overlay
        for match in sorted(found, key=_leftmost_longest):
            if match.start >= cut:
                break
            if self._overwrite(buffer, match):
                reach = max(reach, match.end)
        self._overlay = bytes(buffer[cut:reach])
        self._covered = max(0, self._covered - cut)
        return self._seam.pass_on(bytes(buffer[:cut]), reach > 0)

    def _overwrite(self, buffer: bytearray, match: Match) -> bool:
        """Overwrite what is not yet; return whether there was any of it."""
        start, end, index = match
        if start >= self._covered:
            buffer[start:end] = self._redactions.replacements[index]
            self._covered = end
        elif end > self._covered:
            covered = self._covered
            buffer[covered:end] = self._redactions.fills[index][covered - start :]
        else:
            return False
        pattern = self._engine.patterns[index]
        key = (pattern.owner, pattern.form)
        self.hits[key] = self.hits.get(key, 0) + 1
        return True


def _leftmost_longest(match: Match) -> tuple[int, int, int]:
    return match.start, -match.end, match.pattern


class _Seam:
    """Where what was overwritten meets its neighbours: the second of the two rules above.

    A pattern in the output must contain an overwritten byte, so output is scanned only as long
    as ``tail``, its longest suffix that starts a pattern, or what follows may have one.
    """

    __slots__ = ("_dirty", "_engine", "tail")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._dirty = False
        self.tail = b""

    def pass_on(self, data: bytes, changed: bool) -> bytes:
        """Return ``data`` with every pattern that it completes broken."""
        self._dirty = changed or (self._dirty and bool(self.tail))
        if self._dirty:
            data = self._mend(data)
        whole = self.tail + data if self.tail else data
        self.tail = whole[self._engine.live_prefix(whole) :]
        return data

    def _mend(self, data: bytes) -> bytes:
        """Go through the matches by their ends, in blocks so that a rescan stays short."""
        buffer = bytearray(self.tail + data)
        done = len(self.tail)
        while done < len(buffer):
            limit = min(done + _BLOCK, len(buffer))
            while done < limit:
                start = max(0, done + 1 - self._engine.longest)
                found = self._engine.scan(bytes(buffer[start:limit]))
                ends = [start + match.end for match in found if start + match.end > done]
                done = min(ends, default=limit)
                if ends:
                    self._break(buffer, done - 1)
        return bytes(buffer[len(self.tail) :])

    def _break(self, buffer: bytearray, at: int) -> None:
        """Change the byte at ``at`` to the first one that completes no pattern."""
        before = bytes(buffer[max(0, at + 1 - self._engine.longest) : at])
        for byte in _FILLERS:
            found = self._engine.scan(before + bytes([byte]))
            if byte != buffer[at] and all(match.end <= len(before) for match in found):
                buffer[at] = byte
                return
        raise SlapenirError("no byte can stand where a secret was overwritten")


def rewrite_whole(redactions: Redactions, data: bytes) -> tuple[bytes, dict[tuple[int, Form], int]]:
    """Return ``data`` rewritten as a stream of its own, and the hits; itself when clean."""
    if not redactions.engine.scan(data):
        return data, {}
    rewriter = Rewriter(redactions)
    return rewriter.feed(data) + rewriter.finish(), rewriter.hits
