"""Stop a stream in which something is found that must not leave."""

from __future__ import annotations

from slapenir.scan.engine import Engine, Match


class HeldBack:
    """What of a stream is held back until it is known what it becomes; for those who watch one."""

    __slots__ = ("_eased", "_held", "_released")

    def __init__(self) -> None:
        self._held = b""
        self._eased = 0  # how many bytes of _held were let go and are only kept to be scanned
        self._released = 0  # how many bytes came before _held

    @property
    def waits(self) -> bool:
        """Whether bytes are held back that have not been let go."""
        return len(self._held) > self._eased

    def ease(self, most: int) -> bytes:
        """Let go of what is held, if that is at most ``most`` bytes; it is still scanned.

        What is longer stays: by chance nothing gets that far into a pattern.
        """
        if len(self._held) > most:
            return b""
        eased, self._eased = self._eased, len(self._held)
        return self._held[eased:]

    def _take_rest(self) -> bytes:
        """Hold nothing any more; return what had not been let go."""
        held, self._held = self._held[self._eased :], b""
        self._eased = 0
        return held


class Detector(HeldBack):
    """Watch one stream and release only what is cleared.

    ``ignored`` are indexes of patterns that are allowed here.  ``found`` is the first other
    match, by its end, with offsets in the stream; once it is set nothing is released any more.
    """

    __slots__ = ("_engine", "_ignored", "found")

    def __init__(self, engine: Engine, ignored: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self._engine = engine
        self._ignored = ignored
        self.found: Match | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that are now known to be part of no match."""
        if self.found is not None or not data:
            return b""
        return self._advance(self._held + data if self._held else data)

    def renew(self, engine: Engine) -> bytes:
        """Go on with other patterns, of which none is ignored; return what need not be held now."""
        self._engine, self._ignored = engine, frozenset()
        if self.found is not None or not self._held:
            return b""
        return self._advance(self._held)

    def _advance(self, window: bytes) -> bytes:
        matches = self._engine.scan(window)
        if matches and self._judge(matches):
            return b""
        cut = self._engine.live_prefix(window)
        eased, self._eased = self._eased, max(0, self._eased - cut)
        self._released += cut
        if cut == len(window):
            self._held = b""
            return window[eased:] if eased else window
        self._held = window[cut:]
        return window[eased:cut]

    def finish(self) -> bytes:
        """Return what was held: the stream is over.  Matches in it were found when fed."""
        return self._take_rest()

    def _judge(self, matches: list[Match]) -> bool:
        """Set ``found`` to the first match that is not ignored; return whether there is one."""
        wrong = [match for match in matches if match.pattern not in self._ignored]
        if not wrong:
            return False
        start, end, pattern = min(wrong, key=lambda m: (m.end, m.start, m.pattern))
        self.found = Match(start + self._released, end + self._released, pattern)
        self._take_rest()
        return True
