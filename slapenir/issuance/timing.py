"""When a certificate is renewed, and when that is tried again."""

from __future__ import annotations

from collections.abc import Callable

LOOK_SECONDS = 60.0
"""How long at most until the wall clock is looked at again."""

_PART = 2 / 3
_JITTER = 0.05  # of the life, earlier
_FIRST_RETRY, _LAST_RETRY = 60.0, 3600.0
_FIRST_WITHOUT, _LAST_WITHOUT = 5.0, 300.0  # where there is none yet, everything waits for it


class Timing:
    """Count down to the next attempt, on two clocks at once.

    ``seconds`` is monotonic, ``now`` Unix time; ``random`` returns numbers from 0 to 1.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._seconds = seconds
        self._now = now
        self._random = random
        self._failures = 0
        self._at = 0.0  # monotonic
        self._wall: float | None = None

    def plan(self, not_before: float, not_after: float) -> None:
        """A certificate came: renew at two thirds of its life, or up to a twentieth earlier.

        It is never renewed at once, so that a CA whose certificates are short or whose clock
        is wrong is not asked without end.
        """
        life = max(not_after - not_before, 1.0)
        part = life * (_PART - _JITTER * self._random())
        least = min(_FIRST_RETRY, life / 100)
        now = self._now()
        wait = max(min(not_before + part - now, part), least)
        self._failures = 0
        self._at = self._seconds() + wait
        self._wall = now + wait

    def retry(self, life: float | None = None) -> float:
        """An attempt failed: return the seconds until the next, about twice as long each time.

        ``life`` is that of the certificate that is to be renewed, None where there is none.
        """
        first, last = _FIRST_WITHOUT, _LAST_WITHOUT
        if life is not None:
            life = max(life, 1.0)
            first, last = min(_FIRST_RETRY, life / 100), min(_LAST_RETRY, life / 20)
        wait = min(first * 2.0**self._failures, last) * (1 - 0.5 * self._random())
        self._failures = min(self._failures + 1, 20)
        self._at = self._seconds() + wait
        self._wall = None  # a clock that is set is no reason to ask a CA that is down more often
        return wait

    def is_old(self, not_before: float, not_after: float) -> bool:
        """Whether two thirds of a life are over."""
        return self._now() >= not_before + (not_after - not_before) * _PART

    def left(self) -> float:
        """Return the seconds until the next attempt; 0 or less when it is time."""
        left = self._at - self._seconds()
        return left if self._wall is None else min(left, self._wall - self._now())

    def look_in(self) -> float:
        """Return the seconds until ``left`` is to be asked again."""
        return min(max(self.left(), 0.0), LOOK_SECONDS)
