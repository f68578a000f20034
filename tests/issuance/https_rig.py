"""A TLS server of a test's own that keeps what it is told and answers what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from slapenir.edge.tls import Tls
from slapenir.issuance.provider import IssuanceError
from tests.edge.rig import TlsPeer
from tests.support.tls import Identity, TestCA

REACTOR: Any = reactor
HOST = "localhost"


class Server:
    """One TLS server.  ``heard`` is the plaintext of every connection, ``taken`` counts them."""

    def __init__(self, shown: Identity | SSL.Context, answer: Callable[[bytes], bytes]) -> None:
        self.context = shown.server_context() if isinstance(shown, Identity) else shown
        self.answer = answer
        self.heard = b""
        self.ends: list[TlsPeer] = []
        server = self

        class Serve(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                connection = SSL.Connection(server.context, None)
                connection.set_accept_state()
                end = TlsPeer(Tls(connection))
                end.on_data = server.on_data
                server.ends.append(end)
                return end.flow

        self.port = REACTOR.listenTCP(0, Serve(), interface="127.0.0.1")
        self.url = f"https://{HOST}:{self.port.getHost().port}"

    def on_data(self, end: TlsPeer, data: bytes) -> None:
        """Keep it, and answer once when the request is there."""
        self.heard += data
        head, found, body = end.data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if found and len(body) >= length:
            end.on_data = None
            answer = self.answer(end.data)
            if answer:
                end.flow.write(answer)
                end.flow.flush()
                end.flow.close()

    def shown(self) -> x509.Certificate | None:
        """Return the client's certificate of the last connection."""
        tls: Any = self.ends[-1].flow.tls
        found: x509.Certificate | None = tls.connection.get_peer_certificate(as_cryptography=True)
        return found


class HttpsTestCase(TestCase):
    """A CA and servers."""

    timeout = 60

    def setUp(self) -> None:
        self.ca = TestCA("Pinned root")
        self.servers: list[Server] = []

    async def tearDown(self) -> None:
        for server in self.servers:
            await maybeDeferred(server.port.stopListening)
            for end in server.ends:
                end.flow.abort()
        await self.until(lambda: all(end.gone for server in self.servers for end in server.ends))

    def serve(
        self, answer: Callable[[bytes], bytes] | bytes, shown: Identity | SSL.Context | None = None
    ) -> Server:
        """Start a server, by default with a good certificate."""
        given = answer if callable(answer) else (lambda _: answer)
        server = Server(shown or self.ca.issue(HOST), given)
        self.servers.append(server)
        return server

    async def fails(self, asked: Any, words: str) -> None:
        """See that something fails with a phrase."""
        with self.assertRaises(IssuanceError) as caught:
            await asked
        self.assertRegex(str(caught.exception), words)

    async def until(self, condition: Any, seconds: float = 10.0) -> None:
        """Wait for a condition; fail when it takes too long."""
        end = REACTOR.seconds() + seconds
        while not condition():
            if REACTOR.seconds() > end:
                self.fail("it took too long")
            await deferLater(REACTOR, 0.005)


class Silent(Protocol):
    """A server that accepts and says nothing."""

    open: list[Silent] = []

    def connectionMade(self) -> None:
        self.open.append(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.open.remove(self)


def ok(body: bytes, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    """Return a response."""
    head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n" % (status, len(body), more)
    return head + body
