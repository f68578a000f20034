"""The floor to compare with: a bare Twisted relay that intercepts TLS and does nothing else.

It accepts CONNECT, terminates the client's TLS with one prepared leaf, opens TLS to the origin
(verified) and moves bytes both ways with backpressure: no HTTP parsing, no policy, no scan, no
log.  One origin connection per client connection.  Run as a process:
``python -m bench.relay PORT CERT KEY ORIGIN_HOST ORIGIN_PORT CA_FILE``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import epollreactor, protocol, ssl
from twisted.internet.interfaces import IOpenSSLContextFactory, ITransport
from zope.interface import implementer


class OriginSide(protocol.Protocol):
    """The connection to the origin; ``peer`` is the client's side."""

    transport: Any

    def __init__(self, peer: ClientSide) -> None:
        self.peer = peer

    def connectionMade(self) -> None:
        """Start TLS and let the client begin."""
        self.transport.setTcpNoDelay(True)
        self.transport.startTLS(self.peer.factory.origin_options)
        self.peer.origin_ready(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Hand bytes to the client."""
        self.peer.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        """Close the client's side too."""
        self.peer.transport.loseConnection()


class ClientSide(protocol.Protocol):
    """The client's connection: CONNECT first, bytes after."""

    transport: Any
    factory: RelayFactory

    def __init__(self, factory: RelayFactory) -> None:
        self.factory = factory
        self.head = b""
        self.origin: Any = None

    def connectionMade(self) -> None:
        """Send small writes at once."""
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        """Collect the CONNECT, then hand bytes to the origin."""
        if self.origin is not None:
            self.origin.write(data)
            return
        self.head += data
        if self.head.endswith(b"\r\n\r\n"):
            self.transport.pauseProducing()
            connector = protocol.ClientFactory.forProtocol(lambda: OriginSide(self))
            connector.noisy = False
            self.factory.reactor.connectTCP("127.0.0.1", self.factory.origin_port, connector)

    def origin_ready(self, transport: ITransport) -> None:
        """Answer the CONNECT, start TLS towards the client, tie the two sides together."""
        self.origin = transport
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.transport.startTLS(self.factory.client_options)
        self.transport.registerProducer(self.origin, True)
        self.origin.registerProducer(self.transport, True)
        self.transport.resumeProducing()

    def connectionLost(self, reason: Any = None) -> None:
        """Close the origin's side too."""
        if self.origin is not None:
            self.origin.loseConnection()


class RelayFactory(protocol.ServerFactory):
    """What all connections share: the reactor and two TLS configurations."""

    noisy = False

    def __init__(self, reactor: Any, options: tuple[Any, Any], origin_port: int) -> None:
        self.reactor = reactor
        self.client_options, self.origin_options = options
        self.origin_port = origin_port

    def buildProtocol(self, addr: Any) -> Any:
        """Return the protocol of a new client."""
        return ClientSide(self)


@implementer(IOpenSSLContextFactory)
class _Leaf:
    """A context factory for startTLS on the client's side."""

    def __init__(self, cert: str, key: str) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate_file(cert)
        self._context.use_privatekey_file(key)

    def getContext(self) -> SSL.Context:
        """Return the one context."""
        return self._context


def main(argv: list[str]) -> None:
    """Listen and run until killed."""
    port, cert, key, origin_host, origin_port, ca_file = argv
    epollreactor.install()
    from twisted.internet import reactor  # Twisted's startTLS aggregates writes on the global one

    authority = ssl.Certificate.loadPEM(Path(ca_file).read_bytes())
    roots = ssl.trustRootFromCertificates([authority])
    verified = ssl.optionsForClientTLS(origin_host, trustRoot=roots)
    factory = RelayFactory(reactor, (_Leaf(cert, key), verified), int(origin_port))
    reactor.listenTCP(int(port), factory, backlog=512, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
