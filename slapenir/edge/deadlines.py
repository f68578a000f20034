"""The deadlines of one session on one delayed call."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from slapenir.exchange.inputs import Timer


class Deadlines:
    """Set, replace and clear deadlines cheaply.

    A request sets and clears several, so setting one only writes a number: the one delayed call
    is moved only when a deadline is earlier than it, and is set again when it comes too early.
    ``fire`` is called with each timer whose time has come.
    """

    __slots__ = ("_at", "_call", "_clock", "_fire", "_scheduled")

    def __init__(self, clock: IReactorTime, fire: Callable[[Timer], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._at: dict[Timer, float] = {}
        self._call: IDelayedCall | None = None
        self._scheduled = 0.0

    def set(self, timer: Timer, seconds: float | None) -> None:
        """Set a deadline ``seconds`` from now, replacing the same timer; None clears it."""
        if seconds is None:
            self._at.pop(timer, None)
            return
        at = self._clock.seconds() + seconds
        self._at[timer] = at
        if self._call is None:
            self._schedule(at)
        elif at < self._scheduled:
            self._call.cancel()
            self._schedule(at)

    def clear(self) -> None:
        """Clear every deadline."""
        self._at.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self, at: float) -> None:
        self._scheduled = at
        self._call = self._clock.callLater(max(at - self._clock.seconds(), 0.0), self._due)

    def _due(self) -> None:
        self._call = None
        now = self._clock.seconds()
        due = [timer for timer, at in self._at.items() if at <= now]
        for timer in due:
            # An earlier one may have cleared or moved it.
            if self._at.get(timer, now + 1.0) <= now:
                del self._at[timer]
                self._fire(timer)
        if self._at and self._call is None:
            self._schedule(min(self._at.values()))
