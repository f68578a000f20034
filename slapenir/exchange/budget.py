"""How many different names one identity may ask for: what it asks, it tells.

Under an allowed wildcard an agent chooses the labels, and every new name that is looked up tells
them to whoever runs the zone.  The budget does not close that channel; it makes it narrow (T039).
"""

from __future__ import annotations

_WINDOW = 60.0


class NameBudget:
    """At most ``limit`` different names an identity within any minute.

    A name that was asked for within the last minute is free.  Identities come from the
    configuration, so what is kept is bounded by their number times the limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[str, dict[str, float]] = {}

    def knows(self, identity: str, host: str, now: float) -> bool:
        """Whether ``host`` was taken for ``identity`` within the last minute."""
        last = self._seen.get(identity, {}).get(host)
        return last is not None and now - last < _WINDOW

    def take(self, identity: str, host: str, now: float) -> bool:
        """Whether ``host`` may be asked for by ``identity`` at monotonic time ``now``."""
        seen = self._seen.setdefault(identity, {})
        if host not in seen and len(seen) >= self._limit:
            for name in [name for name, last in seen.items() if now - last >= _WINDOW]:
                del seen[name]
            if len(seen) >= self._limit:
                return False
        seen[host] = now
        return True


class Told:
    """What was told already: each thing once a minute, of each identity ``limit`` at most."""

    def __init__(self, limit: int) -> None:
        self._budget = NameBudget(limit)

    def fresh(self, identity: str, what: str, now: float) -> bool:
        """Whether to tell it at monotonic time ``now``; then it is told."""
        known = self._budget.knows(identity, what, now)
        return not known and self._budget.take(identity, what, now)
