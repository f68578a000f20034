"""Stop a stream in which something is found that must not leave."""

from __future__ import annotations

from slapenir.scan.engine import Engine, Match


class Detector:
    """Watch one stream and release only what is cleared.

    ``ignored`` are indexes of patterns that are allowed here.  ``found`` is the first other
    match, by its end, with offsets in the stream; once it is set nothing is released any more.
    """

    __slots__ = ("_engine", "_held", "_ignored", "_released", "found")

    def __init__(self, engine: Engine, ignored: frozenset[int] = frozenset()) -> None:
        self._engine = engine
        self._ignored = ignored
        self._held = b""
        self._released = 0
        self.found: Match | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that are now known to be part of no match."""
        if self.found is not None or not data:
            return b""
        window = self._held + data if self._held else data
        matches = self._engine.scan(window)
        if matches and self._judge(matches):
            return b""
        cut = self._engine.live_prefix(window)
        if cut == len(window):
            self._held = b""
            self._released += cut
            return window
        self._held = window[cut:]
        self._released += cut
        return window[:cut]

    def finish(self) -> bytes:
        """Return what was held: the stream is over.  Matches in it were found when fed."""
        held, self._held = self._held, b""
        return b"" if self.found is not None else held

    def _judge(self, matches: list[Match]) -> bool:
        """Set ``found`` to the first match that is not ignored; return whether there is one."""
        wrong = [match for match in matches if match.pattern not in self._ignored]
        if not wrong:
            return False
        start, end, pattern = min(wrong, key=lambda m: (m.end, m.start, m.pattern))
        self.found = Match(start + self._released, end + self._released, pattern)
        self._held = b""
        return True
