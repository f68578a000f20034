"""Accepting clients on loopback, and what their links share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ServerFactory

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.flow import Bystander, Flow
from slapenir.names import Authority
from slapenir.sidecar.link import Link
from slapenir.sidecar.towards import Towards
from slapenir.sidecar.trouble import Trouble

_BACKLOG = 1024


@attrs.frozen(slots=True)
class Bounds:
    """The bounds of a forwarder; times are seconds.

    ``connect_seconds`` bounds name look-up, connecting and TLS together; ``idle_seconds`` the time
    without a byte either way, and ``half_closed_seconds`` the same once a client said that it will
    send no more.  ``refusals`` is how many clients may be told at one time that there are too many.
    """

    connections: int = 256
    refusals: int = 64
    connect_seconds: float = 10.0
    idle_seconds: float = 3600.0
    half_closed_seconds: float = 60.0


class Forwarder(ServerFactory):
    """Carry each client that connects to ``gateway``, whose certificate must be for ``name``.

    ``towards`` returns the certificate to use for a connection that begins now, or why there is
    none; ``failed`` is told what kept a client from the gateway.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        gateway: Authority,
        name: Authority,
        towards: Callable[[], Towards | Trouble],
        failed: Callable[[Trouble, str], None],
        bounds: Bounds | None = None,
        limits: EdgeLimits | None = None,
    ) -> None:
        self.reactor = reactor
        self.gateway = gateway
        self.name = name
        self.towards = towards
        self.failed = failed
        self.bounds = bounds or Bounds()
        self.limits = limits or EdgeLimits(close_seconds=30.0)
        self._links: set[Link] = set()
        self._refusals = 0
        self._port: IListeningPort | None = None
        self._stopped: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._links)

    @property
    def port(self) -> int:
        """The TCP port that is listened on, 0 before ``listen`` and after ``stop``."""
        return 0 if self._port is None else int(getattr(self._port.getHost(), "port", 0))

    def listen(self, host: str, port: int) -> None:
        """Listen on an address; raises CannotListenError."""
        self._port = self.reactor.listenTCP(port, self, _BACKLOG, host)

    def stop(self, seconds: float) -> Deferred[None]:
        """Listen no more; what is still connected after ``seconds`` is cut.  Fires when all are."""
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        self._deadline = self.reactor.callLater(seconds, self._overdue)
        port, self._port = self._port, None
        closing = maybeDeferred(port.stopListening if port is not None else lambda: None)
        self._check_stopped()
        return closing.addCallback(lambda _: stopped)

    def endpoint(self) -> IStreamClientEndpoint:
        """Return where to connect to; a name is looked up anew by each."""
        host, port, seconds = self.gateway.host, self.gateway.port, self.bounds.connect_seconds
        found: Any
        if not self.gateway.is_ip:
            found = HostnameEndpoint(self.reactor, host, port, seconds)
        elif ":" in host:
            found = TCP6ClientEndpoint(self.reactor, host.strip("[]"), port, seconds)
        else:
            found = TCP4ClientEndpoint(self.reactor, host, port, seconds)
        endpoint: IStreamClientEndpoint = found
        return endpoint

    def buildProtocol(self, addr: IAddress) -> Flow | None:  # type: ignore[override]
        """Return the protocol of one client, or None to close it at once."""
        if self._stopped is not None:
            return None
        if len(self._links) < self.bounds.connections:
            return Link(self).client
        self.failed(Trouble.LIMIT, "")
        if self._refusals >= self.bounds.refusals:
            return None
        return Flow(self.reactor, self.limits, _Refusal(self._refusing))

    # What a Link says.

    def opened(self, link: Link) -> None:
        """Count a client."""
        self._links.add(link)

    def gone(self, link: Link) -> None:
        """Forget a client."""
        self._links.discard(link)
        self._check_stopped()

    def _refusing(self, change: int) -> None:
        self._refusals += change

    def _overdue(self) -> None:
        self._deadline = None
        for link in list(self._links):
            link.abort()
        self._check_stopped()

    def _check_stopped(self) -> None:
        if self._stopped is None or self._links:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self._stopped.called:
            self._stopped.callback(None)


class _Refusal(Bystander):
    """Tell a client that there are too many, then close."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count

    def flow_open(self, flow: Flow) -> None:
        """Answer before anything was read."""
        self._count(1)
        flow.write(Trouble.LIMIT.answer)
        flow.close_gently()

    def flow_gone(self, flow: Flow) -> None:
        """Make room for the next refusal."""
        self._count(-1)
