"""How often somebody may do something in a minute."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable

WINDOW_SECONDS = 60.0


class Attempts:
    """What happened in the last minute, bounded in total and for each one who did it.

    ``seconds`` is a monotonic clock.  At most ``total`` are remembered, so memory is bounded.
    """

    def __init__(self, seconds: Callable[[], float], total: int, each: int) -> None:
        self._seconds = seconds
        self._total = total
        self._each = each
        self._times: deque[tuple[float, Hashable]] = deque()
        self._counts: Counter[Hashable] = Counter()

    def full(self, who: Hashable) -> bool:
        """Whether one more is one too many, of anybody's or of ``who``'s."""
        self._forget()
        return len(self._times) >= self._total or self._counts[who] >= self._each

    def add(self, who: Hashable) -> None:
        """Count one."""
        self._forget()
        if len(self._times) >= self._total:
            return
        self._times.append((self._seconds(), who))
        self._counts[who] += 1

    def _forget(self) -> None:
        before = self._seconds() - WINDOW_SECONDS
        while self._times and self._times[0][0] <= before:
            _, who = self._times.popleft()
            self._counts[who] -= 1
            if not self._counts[who]:
                del self._counts[who]
