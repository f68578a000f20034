"""The answers to http-01 challenges (RFC 8555, 8.3), served while an order is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import NoResource, Resource
from twisted.web.server import Request, Site

_PATH = (b".well-known", b"acme-challenge")
_SECONDS = 10


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
        Site.__init__(self, root, requestFactory=_Request, timeout=_SECONDS, reactor=reactor)

    def log(self, request: HTTPRequest) -> None:
        """Write nothing."""


def serve(reactor: Any, endpoint: str, answers: Mapping[str, str]) -> Deferred[IListeningPort]:
    """Listen and answer with what ``answers`` has then, by token; the caller stops listening."""
    root, known = Resource(), Resource()
    root.putChild(_PATH[0], known)
    known.putChild(_PATH[1], _Leaf(answers))
    site = _Site(root, reactor)
    opened = maybeDeferred(serverFromString, reactor, endpoint)
    return opened.addCallback(lambda found: found.listen(site))


class _Leaf(Resource):
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
