"""The answers to http-01 challenges (RFC 8555, 8.3), served while an order is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import NoResource, Resource
from twisted.web.server import Request, Site

MAX_CONNECTIONS = 64
"""Connections at one time; further ones are closed at once."""

SECONDS = 10.0
"""How long a connection may take in all."""

_PATH = (b".well-known", b"acme-challenge")


class Challenges:
    """Answer with what ``answers`` has at the time, by token, to whoever asks."""

    def __init__(self, reactor: Any, answers: Mapping[str, str]) -> None:
        self._reactor = reactor
        root, known = Resource(), Resource()
        root.putChild(_PATH[0], known)
        known.putChild(_PATH[1], _Tokens(answers))
        self._factory = _Bounded(_Site(root, reactor), reactor)
        self._port: IListeningPort | None = None

    def listen(self, endpoint: str) -> Deferred[None]:
        """Listen on a Twisted endpoint; errbacks CannotListenError, or ValueError for the text."""

        def listening(port: IListeningPort) -> None:
            self._port = port

        opened = maybeDeferred(serverFromString, self._reactor, endpoint)
        return opened.addCallback(lambda found: found.listen(self._factory)).addCallback(listening)

    def close(self) -> Deferred[Any]:
        """Listen no more and cut what is open."""
        for open_one in list(self._factory.protocols):
            open_one.cut()
        port, self._port = self._port, None
        return maybeDeferred(lambda: None if port is None else port.stopListening())


class _Request(Request):
    """A request without a body, the only one of its connection.

    A CA that kept the connection would ask it about its next order, too.
    """

    def process(self) -> None:
        self.setHeader(b"connection", b"close")  # type: ignore[no-untyped-call]
        if self.channel is not None:
            self.channel.persistent = False
        Request.process(self)

    def gotLength(self, length: int | None) -> None:
        Request.gotLength(self, 0)
        if length != 0 and self.channel is not None:
            self.channel.loseConnection()


class _Site(Site):
    noisy = False

    def __init__(self, root: Resource, reactor: Any) -> None:
        Site.__init__(self, root, requestFactory=_Request, timeout=int(SECONDS), reactor=reactor)

    def log(self, request: HTTPRequest) -> None:
        """Write nothing."""


class _Timed(ProtocolWrapper):
    """A connection that ends in time, however slowly it talks."""

    factory: Any

    def connectionMade(self) -> None:
        self._late = self.factory.reactor.callLater(SECONDS, self.cut)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._late.active():
            self._late.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def cut(self) -> None:
        """Reset it."""
        transport: Any = self.transport
        transport.abortConnection()


class _Bounded(WrappingFactory[_Timed]):
    """Close connections above MAX_CONNECTIONS at once."""

    noisy = False
    protocol = _Timed

    def __init__(self, site: Site, reactor: Any) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self.reactor = reactor

    def buildProtocol(  # type: ignore[override]  # Twisted says: None refuses the connection
        self, addr: IAddress | None
    ) -> _Timed | None:
        if len(self.protocols) >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)


class _Tokens(Resource):
    """Where tokens are; whatever is below it is one page."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        Resource.__init__(self)
        self._answers = answers

    def getChild(self, path: bytes, request: Request) -> Resource:
        found = self._answers.get(path.decode("ascii", "replace"))
        return NoResource() if found is None else _Answer(found)


class _Answer(Resource):
    isLeaf = True

    def __init__(self, text: str) -> None:
        Resource.__init__(self)
        self._text = text

    def render_GET(self, request: HTTPRequest) -> bytes:
        request.setHeader(b"content-type", b"application/octet-stream")
        return self._text.encode("ascii")
