"""Connections to origins, and the pool of those that wait for their next request."""

from __future__ import annotations

import select
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.flow import Bystander, Flow, Owner
from slapenir.exchange.commands import PoolKey


class OriginFlow(Flow):
    """A connection to an origin at ``address``; ``key`` says whose requests it may carry.

    ``generation`` is the pool's from when the address was asked for: see OriginPool.
    ``opened`` and ``closed`` are called once each, whoever owns it at that time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: EdgeLimits,
        owner: Owner,
        authority: str,
        address: str,
        key: PoolKey | None,
        opened: Callable[[OriginFlow], None],
        closed: Callable[[OriginFlow], None],
    ) -> None:
        super().__init__(clock, limits, owner)
        self.authority = authority
        self.address = address
        self.key = key
        self.generation = 0
        self._opened = opened
        self._closed = closed
        self._poll: select.poll | None = None

    @property
    def usable(self) -> bool:
        """Whether both directions still work and nothing waits, to be sent or to be read."""
        tls = self.tls
        return super().usable and not (tls is not None and tls.busy)

    def connectionMade(self) -> None:
        """Count it before its owner hears of it."""
        self._opened(self)
        super().connectionMade()

    def connection_gone(self) -> None:
        """Count it after its owner heard of it."""
        super().connection_gone()
        self._closed(self)

    def quiet(self) -> bool:
        """Whether the peer has neither sent anything since the last response nor closed.

        Looks at the socket: what the reactor has not read yet would be taken for the next
        response.
        """
        if not self.usable:
            return False
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(self.transport.getHandle(), select.POLLIN)
        return not poll.poll(0)


class OriginPool(Bystander):
    """Idle origin connections, bounded per key and in total, last in first out.

    The owner of its Flows: an idle connection that says anything or ends is dropped.  ``close``
    begins a new ``generation``; a connection of an earlier one is not kept when it comes back,
    for its address was judged by a policy that may be gone.
    """

    def __init__(self, clock: IReactorTime, limits: EdgeLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._idle: dict[PoolKey, list[OriginFlow]] = {}
        self._since: dict[OriginFlow, float] = {}  # oldest first
        self._sweep: IDelayedCall | None = None
        self.generation = 0

    def __len__(self) -> int:
        return len(self._since)

    def take(self, key: PoolKey) -> OriginFlow | None:
        """Return the most recently idle connection of this key that still works, or None."""
        flows = self._idle.get(key)
        while flows:
            flow = flows.pop()
            since = self._since.pop(flow)
            if not flows:
                del self._idle[key]
            fresh = self._clock.seconds() - since < self._limits.origin_idle_seconds
            if fresh and flow.quiet():
                return flow
            flow.close()
        return None

    def put(self, flow: OriginFlow) -> None:
        """Keep a connection whose response is complete; close it when it cannot be kept."""
        flow.owner = self
        key = flow.key
        if key is None or not flow.usable or flow.generation != self.generation:
            flow.close()
            return
        flows = self._idle.setdefault(key, [])
        if len(flows) >= self._limits.origin_idle_per_key:
            self.drop(flows[0])
            flows = self._idle.setdefault(key, flows)
        elif len(self._since) >= self._limits.origin_idle_total:
            self.drop_oldest()
            flows = self._idle.setdefault(key, flows)
        flows.append(flow)
        self._since[flow] = self._clock.seconds()
        flow.set_reading(True)
        if self._sweep is None:
            self._sweep = self._clock.callLater(self._limits.origin_idle_seconds, self._swept)

    def drop(self, flow: OriginFlow) -> None:
        """Close an idle connection."""
        self._forget(flow)
        flow.close()

    def drop_oldest(self) -> bool:
        """Close the connection that is idle for longest; return whether there was one."""
        for flow in self._since:
            self.drop(flow)
            return True
        return False

    def close(self) -> None:
        """Close every idle connection, and those in use once they come back."""
        self.generation += 1
        while self.drop_oldest():
            continue
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _forget(self, flow: OriginFlow) -> None:
        if self._since.pop(flow, None) is None or flow.key is None:
            return
        flows = self._idle[flow.key]
        flows.remove(flow)
        if not flows:
            del self._idle[flow.key]

    def _swept(self) -> None:
        """Close what is idle for too long; look again when the next may be."""
        self._sweep = None
        limit = self._limits.origin_idle_seconds
        now = self._clock.seconds()
        for flow, since in list(self._since.items()):
            if now - since < limit:
                self._sweep = self._clock.callLater(limit - (now - since), self._swept)
                return
            self.drop(flow)

    # What an idle Flow says.

    def flow_data(self, flow: Flow, data: bytes) -> None:
        """Drop a connection that answers what nobody asked."""
        self._dismiss(flow)

    def flow_half_closed(self, flow: Flow) -> None:
        """Drop a connection whose peer closed."""
        self._dismiss(flow)

    def flow_closed(self, flow: Flow, clean: bool) -> None:
        """Forget a connection that is gone."""
        self._dismiss(flow)

    def flow_gone(self, flow: Flow) -> None:
        """Forget a connection that is gone."""
        if isinstance(flow, OriginFlow):
            self._forget(flow)

    def _dismiss(self, flow: Flow) -> None:
        if isinstance(flow, OriginFlow):
            self.drop(flow)
