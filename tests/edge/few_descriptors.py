"""An edge that echoes, in a process with few file descriptors; prints its port."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

from twisted.internet import reactor, stdio
from twisted.internet.protocol import Protocol

from slapenir.edge.arrival import Listener
from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.dial import Dialler
from slapenir.edge.gateway import Gateway
from slapenir.edge.listen import Clients, start_listening
from slapenir.edge.resolver import Resolver
from slapenir.edge.tlscontext import OriginContext, ServerContexts
from slapenir.exchange.commands import Close, Command, Send
from slapenir.exchange.inputs import CLIENT, BytesReceived, Input, PeerClosed
from slapenir.policy.addresses import parse_allow_private
from tests.edge.rig import FakeLookup, Recorder
from tests.support.tls import TestCA


class Echo:
    """Send everything back."""

    finished = False

    def receive(self, item: Input, now: float) -> list[Command]:
        """Answer bytes with themselves."""
        if isinstance(item, BytesReceived):
            return [Send(CLIENT, item.data)]
        if isinstance(item, PeerClosed):
            self.finished = True
            return [Close(CLIENT)]
        return []

    def wants(self, connection: int) -> bool:
        """Want everything."""
        return True


class UntilEnd(Protocol):
    """Stop when standard input ends."""

    def connectionLost(self, reason: object = None) -> None:
        """Stop."""
        reactor.stop()  # type: ignore[attr-defined]


def main() -> None:
    """Serve until standard input ends."""
    limits, recorder, ca = EdgeLimits(), Recorder(), TestCA()
    with tempfile.TemporaryDirectory() as directory:
        context = OriginContext(ca.write(Path(directory) / "ca.pem"))
    policy = parse_allow_private([])
    resolver = Resolver(reactor, limits, FakeLookup(), lambda: policy, dict)  # type: ignore[arg-type]
    dialler = Dialler(reactor, limits, recorder, resolver, context)
    contexts = ServerContexts(ca.mint, limits)  # type: ignore[arg-type]
    gateway = Gateway(reactor, limits, recorder, dialler, contexts)  # type: ignore[arg-type]
    clients = Clients(gateway, lambda who: Echo())
    listener = Listener("tcp:0:interface=127.0.0.1", "main", "sandbox")

    def listening(port: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        print(port.getHost().port, flush=True)  # type: ignore[attr-defined]

    start_listening(reactor, listener, clients).addCallback(listening)
    stdio.StandardIO(UntilEnd())
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
