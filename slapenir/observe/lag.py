"""How late the reactor is: a timer that measures its own delay."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

INTERVAL = 0.25


class LagSampler:
    """Call ``observe`` with the lag in seconds, four times a second, between start and stop.

    ``reactor`` runs the timer; ``clock`` measures and must be monotonic.
    """

    __slots__ = ("_call", "_clock", "_due", "_observe", "_reactor")

    def __init__(
        self,
        reactor: IReactorTime,
        clock: Callable[[], float],
        observe: Callable[[float], None],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._observe = observe
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to sample; does nothing when it has begun."""
        if self._call is None:
            self._schedule()

    def stop(self) -> None:
        """Stop sampling."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._due = self._clock() + INTERVAL
        self._call = self._reactor.callLater(INTERVAL, self._sample)

    def _sample(self) -> None:
        self._observe(max(0.0, self._clock() - self._due))
        self._schedule()
