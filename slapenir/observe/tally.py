"""Counts and distributions that are cheap to add to and are turned into metrics at a scrape.

They live in the reactor's thread, so they need no locks.  The client library's own Counter and
Histogram take a lock per bucket, and an environment variable can turn them into files.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

MAX_SERIES = 2000
"""Label combinations kept per metric; further ones are added up under ``other``."""


class Counts:
    """A number per combination of labels."""

    __slots__ = ("_overflow", "values")

    def __init__(self, labels: int) -> None:
        self._overflow = ("other",) * labels
        self.values: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def add(self, labels: tuple[str, ...] = (), amount: float = 1) -> None:
        """Add ``amount`` to the number for ``labels``."""
        values = self.values
        try:
            values[labels] += amount
        except KeyError:
            if len(values) >= MAX_SERIES:
                labels = self._overflow
            values[labels] = values.get(labels, 0) + amount

    def put(self, labels: tuple[str, ...], value: float) -> None:
        """Set the number for ``labels``."""
        if labels not in self.values and len(self.values) >= MAX_SERIES:
            labels = self._overflow
        self.values[labels] = value

    def forget(self, labels: tuple[str, ...]) -> None:
        """Leave the number for ``labels`` out from now on."""
        self.values.pop(labels, None)


class Spread:
    """How many values fell at or below each of ``bounds``, and their sum."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative buckets as ``(upper bound, count)``, ``+Inf`` last."""
        total = 0
        result: list[tuple[str, float]] = []
        names = [repr(float(bound)) for bound in self._bounds]
        for name, count in zip([*names, "+Inf"], self._counts, strict=True):
            total += count
            result.append((name, total))
        return result
