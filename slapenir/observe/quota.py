"""At most so many of something per second, so that a flood cannot fill a log."""

from __future__ import annotations

from collections.abc import Callable


class Quota:
    """Let ``per_second`` things through in each second of ``clock`` and count the others."""

    __slots__ = ("_clock", "_left_out", "_per_second", "_second", "_taken")

    def __init__(self, per_second: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._clock = clock
        self._second = -1
        self._taken = 0
        self._left_out = 0

    def take(self) -> int | None:
        """Return None to leave this one out, else how many were left out since the last one."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._taken = 0
        if self._taken >= self._per_second:
            self._left_out += 1
            return None
        self._taken += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
