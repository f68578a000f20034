"""The HTTP side of the enrolment service: TLS, bounds on everything, answers in JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    ITransport,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from twisted.web.http import HTTPFactory, Request
from zope.interface import implementer

from slapenir.issuance.enrol_request import MAX_BODY
from slapenir.names import source_network

MAX_CONNECTIONS = 64
"""Connections at one time.  One more takes the place of the oldest that has asked for nothing yet;
where all have, it is closed at once."""

CONNECTIONS_EACH = 16
"""Connections of one source at one time."""

IDLE_SECONDS = 10
"""How long a connection may be idle, the handshake included."""

TOTAL_SECONDS = 60.0
"""How long a connection may last."""

_TOO_LARGE = b"the body is too large"
Handler = Callable[["EnrolmentRequest"], None]


class EnrolmentRequest(Request):
    """A request whose body is at most MAX_BODY; ``handle`` is told when it is there."""

    handle: Handler

    def __init__(self, channel: Any, handle: Handler) -> None:
        Request.__init__(self, channel)
        self.handle = handle
        self._size = 0
        self._refused = False
        self.over = False

    @property
    def peer(self) -> str:
        """Who asks, as ``address:port``."""
        address = self.client
        host, port = getattr(address, "host", ""), getattr(address, "port", 0)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def source(self) -> str:
        """Where it comes from: an address, or a network that is one host's."""
        return source_network(str(getattr(self.client, "host", "")))

    @property
    def connection(self) -> SSL.Connection:
        """The TLS connection that it came by."""
        transport: Any = self.channel.transport
        found: SSL.Connection = transport.getHandle()
        return found

    def gotLength(self, length: int | None) -> None:
        """Refuse a body that is announced too large before it is read."""
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            self._too_large()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep what fits."""
        self._size += len(data)
        if self._refused or self.content is None:
            return
        if self._size > MAX_BODY:
            self._too_large()
            return
        self.content.write(data)

    def process(self) -> None:
        """Hand a whole request on."""
        self.notifyFinish().addErrback(self._gone)
        if not self._refused:
            self.handle(self)

    def answer(self, status: int, media_type: str, body: bytes, allow: str = "") -> None:
        """Answer once; nothing when the client is gone."""
        if self.over:
            return
        self.over = True
        response: Any = self
        response.setResponseCode(status)
        response.setHeader(b"Content-Type", media_type.encode("ascii"))
        response.setHeader(b"Content-Length", b"%d" % len(body))
        response.setHeader(b"Cache-Control", b"no-store")
        if allow:
            response.setHeader(b"Allow", allow.encode("ascii"))
        response.write(body)
        response.finish()

    def answer_json(self, status: int, members: dict[str, object], allow: str = "") -> None:
        """Answer with a JSON object."""
        self.answer(status, "application/json", encoded(members), allow)

    def _gone(self, failure: Failure) -> None:
        self.over = True

    def _too_large(self) -> None:
        """Answer without waiting for the body's end, which may never come."""
        self._refused = True
        body = encoded({"error": _TOO_LARGE.decode(), "retry": False})
        transport: Any = self.channel.transport
        transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )
        self.channel.loseConnection()


def encoded(members: dict[str, object]) -> bytes:
    """Return a JSON object as the bytes of a body."""
    return json.dumps(members).encode("ascii") + b"\n"


class _Site(HTTPFactory):
    """HTTP/1.1 whose requests all go to one handler; writes no log."""

    noisy = False

    def __init__(self, handle: Handler, reactor: Any) -> None:
        HTTPFactory.__init__(self, timeout=IDLE_SECONDS, reactor=reactor)
        self._handle = handle

    def buildProtocol(self, addr: IAddress) -> IProtocol:  # type: ignore[override]
        channel: Any = HTTPFactory.buildProtocol(self, addr)
        channel.requestFactory = lambda made, queued: EnrolmentRequest(made, self._handle)
        found: IProtocol = channel
        return found

    def log(self, request: Request) -> None:
        """Write nothing: what matters is published as an event."""


class _Timed(ProtocolWrapper):
    """One connection, cut when its time is up."""

    source = ""
    heard = False  # whether it has asked for something: bytes after the handshake
    _deadline: IDelayedCall | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """Start the clock, handshake included."""
        factory = self.factory
        assert isinstance(factory, _Bounded)  # noqa: S101 - what built it
        self._deadline = factory.reactor.callLater(TOTAL_SECONDS, self._overdue)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of a request; from now on nobody else gets this one's place."""
        self.heard = True
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def give_way(self) -> None:
        """Leave for somebody else."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Stop the clock."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def _overdue(self) -> None:
        self._deadline = None
        transport: Any = self.transport
        transport.abortConnection()


class _Bounded(WrappingFactory[ProtocolWrapper]):
    """Keep connections below a bound.  It offers no ALPN of its own, so HTTP/2 stays out."""

    noisy = False
    protocol = _Timed

    def __init__(self, site: HTTPFactory, reactor: Any) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self.reactor = reactor

    def buildProtocol(  # type: ignore[override]  # Twisted says: None refuses the connection
        self, addr: IAddress | None
    ) -> ProtocolWrapper | None:
        held = cast("dict[_Timed, object]", self.protocols)  # the oldest first
        source = source_network(str(getattr(addr, "host", "")))
        if sum(one.source == source for one in held) >= CONNECTIONS_EACH:
            return None
        if len(held) >= MAX_CONNECTIONS:
            oldest = next((one for one in held if not one.heard), None)
            if oldest is None:
                return None
            oldest.give_way()
        made = super().buildProtocol(addr)
        cast("_Timed", made).source = source
        return made


class _Transport(BufferingTLSTransport):
    """TLS where an exception ends this connection and no more."""

    def dataReceived(self, data: bytes) -> None:
        """Take ciphertext; what goes wrong after the handshake is told, before it is the peer's."""
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        except Exception as error:
            factory, transport = self.factory, cast("Any", self)
            assert isinstance(factory, _Secured)  # noqa: S101 - what built it
            if transport.getHandle().get_peer_finished() is not None:
                factory.crashed(error)
            transport.abortConnection()


class _Secured(TLSMemoryBIOFactory):
    """TLS around the site."""

    protocol = _Transport

    def __init__(
        self, creator: _Creator, inner: Any, reactor: Any, crashed: Callable[[Exception], None]
    ) -> None:
        super().__init__(creator, False, inner, reactor)
        self.crashed = crashed

    def buildProtocol(self, addr: IAddress) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]
        inner = self.wrappedFactory.buildProtocol(addr)
        if inner is None:
            return None
        return self.protocol(self, inner)


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    """Connections made by a callable, so that the certificate may change at any time."""

    def __init__(self, connect: Callable[[], SSL.Connection]) -> None:
        self._connect = connect

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection over memory, ready to accept."""
        return self._connect()


def site_factory(
    reactor: Any,
    handle: Handler,
    connect: Callable[[], SSL.Connection],
    crashed: Callable[[Exception], None],
) -> TLSMemoryBIOFactory:
    """Return the factory to listen with: TLS by ``connect``, HTTP/1.1, requests to ``handle``."""
    return _Secured(_Creator(connect), _Bounded(_Site(handle, reactor), reactor), reactor, crashed)
