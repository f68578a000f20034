"""Clients that are nobody yet: how many of one source there may be at one time.

They belong to no identity, so no identity's bound holds them; without one of their own, one
source could take every place that the gateway has.
"""

from __future__ import annotations

from collections import Counter

from slapenir.edge.contracts import EdgeLimits
from slapenir.names import source_network


def source_of(host: str, listener: str) -> str:
    """Return what counts as one source; all clients of a UNIX socket are one."""
    return source_network(host) if host else f"unix:{listener}"


class Strangers:
    """At most ``strangers_per_source`` clients of one source that are not known yet."""

    def __init__(self, limits: EdgeLimits) -> None:
        self._limit = limits.strangers_per_source
        self._sources: Counter[str] = Counter()
        self._held: dict[object, str] = {}

    def __len__(self) -> int:
        return len(self._held)

    def crowded(self, source: str) -> bool:
        """Whether one more is one too many."""
        return self._sources[source] >= self._limit if source in self._sources else False

    def hold(self, client: object, source: str) -> None:
        """Count a client until it is released."""
        self._held[client] = source
        self._sources[source] += 1

    def release(self, client: object) -> None:
        """Count a client no more; one that is not counted is passed over."""
        source = self._held.pop(client, None)
        if source is None:
            return
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]
