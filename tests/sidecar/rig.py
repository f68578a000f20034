"""A sidecar's forwarder between a plain client and a TLS gateway of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.doorway import ClientAuth, Doorway, Material
from slapenir.edge.tls import Tls
from slapenir.names import Authority
from slapenir.sidecar.forwarder import Bounds, Forwarder
from slapenir.sidecar.towards import Towards
from slapenir.sidecar.trouble import Trouble
from tests.edge.rig import Peer, TlsPeer
from tests.support.tls import CLIENT_AUTH, Identity, TestCA

REACTOR: Any = reactor
NAME = Authority("gateway.example.test", 0)


def towards(identity: Identity, *roots: TestCA) -> Towards:
    """Return what a sidecar uses that has this certificate and trusts these CAs."""
    chain = (identity.certificate, *identity.chain)
    certificates = tuple(one.certificate for one in roots)
    return Towards(chain, identity.key, certificates, identity.expiry)


class GatewayEnd(TlsPeer):
    """The gateway in a test; ``raw`` counts the plaintext bytes of the client."""

    def __init__(self, connection: SSL.Connection, on_data: Callable[..., None] | None) -> None:
        super().__init__(Tls(connection), EdgeLimits(close_seconds=1.0))
        self.on_data = on_data

    @property
    def serial(self) -> int | None:
        """The serial number of the certificate that the sidecar showed."""
        connection: Any = self.flow.tls.connection if self.flow.tls else None
        shown = connection.get_peer_certificate(as_cryptography=True) if connection else None
        return shown.serial_number if shown is not None else None


class SidecarTestCase(TestCase):
    """A CA, a gateway behind it, and a forwarder towards it."""

    timeout = 60

    def setUp(self) -> None:
        self.ca = TestCA()
        self.agent = self.ca.issue("agent-1.example.test", usage=(CLIENT_AUTH,))
        self.current: Towards | Trouble = towards(self.agent, self.ca)
        self.failures: list[tuple[Trouble, str]] = []
        self.ends: list[GatewayEnd] = []
        self.forwarders: list[Forwarder] = []

    async def tearDown(self) -> None:
        for forwarder in self.forwarders:
            await forwarder.stop(0.05)
        for end in self.ends:
            end.flow.abort()
        await self.until(lambda: all(end.gone for end in self.ends))

    def doorway(self, identity: Identity | None = None, auth: str = "required") -> Doorway:
        """Return the TLS of a gateway with a certificate; it trusts the CA for clients."""
        shown = identity or self.ca.issue("gateway.example.test")
        chain = (shown.certificate, *shown.chain)
        anchors = (self.ca.certificate,) if auth != "none" else ()
        return Doorway(Material(chain, shown.key, ClientAuth(auth), anchors))

    def gateway(
        self,
        connect: Callable[[], SSL.Connection],
        on_data: Callable[[Any, bytes], None] | None = None,
    ) -> int:
        """Listen as a gateway; return the port."""
        ends = self.ends

        class Serve(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                end = GatewayEnd(connect(), on_data)
                ends.append(end)
                return end.flow

        port: IListeningPort = REACTOR.listenTCP(0, Serve(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def forwarder(
        self, port: int, host: str = "127.0.0.1", name: Authority = NAME, **bounds: float
    ) -> Forwarder:
        """Start a forwarder towards a port."""
        forwarder = Forwarder(
            REACTOR,
            Authority(host, port),
            name,
            lambda: self.current,
            lambda trouble, detail: self.failures.append((trouble, detail)),
            Bounds(**bounds),
            EdgeLimits(close_seconds=1.0),
        )
        forwarder.listen("127.0.0.1", 0)
        self.forwarders.append(forwarder)
        return forwarder

    async def client(self, forwarder: Forwarder, data: bytes = b"") -> Any:
        """Connect as a client and send."""
        peer = Peer()

        class Connect(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                return peer

            def doStart(self) -> None:
                """Nothing."""

            doStop = doStart
            startedConnecting = clientConnectionLost = lambda *_: None

        REACTOR.connectTCP("127.0.0.1", forwarder.port, Connect())
        await peer.opened
        if data:
            peer.transport.write(data)
        return peer

    async def answer(self, forwarder: Forwarder, data: bytes = b"GET / HTTP/1.1\r\n\r\n") -> bytes:
        """Send and return everything that comes until the end."""
        peer = await self.client(forwarder, data)
        await peer.ended
        return peer.data

    async def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Wait for a condition; fail when it takes too long."""
        end = REACTOR.seconds() + seconds
        while not condition():
            if REACTOR.seconds() > end:
                self.fail("it took too long")
            await deferLater(REACTOR, 0.005)


def echo(end: TlsPeer, data: bytes) -> None:
    """Send back what came."""
    end.flow.write(data)


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of bytes."""
    found = hashes.Hash(hashes.SHA256())
    found.update(data)
    return found.finalize()
