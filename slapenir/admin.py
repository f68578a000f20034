"""The admin endpoint: /metrics, /healthz and /readyz, for GET and HEAD, and nothing else.

It is for the operator's side only.  The resolver refuses the gateway's own listeners, this one
among them, so that an agent cannot ask for it through the proxy.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

MAX_CONNECTIONS = 64
"""Connections at one time; further ones are closed at once."""

CACHE_SECONDS = 0.1
"""How long one rendering of the metrics serves every scrape."""

TIMEOUT_SECONDS = 10
"""How long a connection may be idle."""


class _AdminRequest(Request):
    """A request without a body: one that announces a body is cut off before it is read."""

    def gotLength(self, length: int | None) -> None:
        Request.gotLength(self, 0)
        if length != 0 and self.channel is not None:
            self.channel.loseConnection()


class _Page(Resource):
    """A page made anew for each request; ``content`` returns status, media type and body."""

    isLeaf = False

    def __init__(self, content: Callable[[], tuple[int, str, bytes]]) -> None:
        Resource.__init__(self)
        self._content = content

    def render_GET(self, request: HTTPRequest) -> bytes:
        status, media_type, body = self._content()
        request.setResponseCode(status)
        request.setHeader(b"content-type", media_type.encode("ascii"))
        request.setHeader(b"cache-control", b"no-store")
        return body


class _AdminSite(Site):
    """A site that writes no log of its own."""

    noisy = False

    def __init__(self, root: Resource, reactor: IReactorTime) -> None:
        Site.__init__(
            self, root, requestFactory=_AdminRequest, timeout=TIMEOUT_SECONDS, reactor=reactor
        )

    def log(self, request: HTTPRequest) -> None:
        """Write nothing: scrapes are not worth a line each."""


class _Bounded(WrappingFactory[ProtocolWrapper]):
    """Close connections above MAX_CONNECTIONS at once."""

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]

    def buildProtocol(  # type: ignore[override]  # Twisted says: None refuses the connection
        self, addr: IAddress | None
    ) -> ProtocolWrapper | None:
        if len(self.protocols) >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)


class _MetricsText:
    """The registry's text, rendered at most once per CACHE_SECONDS."""

    def __init__(self, registry: CollectorRegistry, reactor: IReactorTime) -> None:
        self._registry = registry
        self._reactor = reactor
        self._made = float("-inf")
        self._text = b""

    def __call__(self) -> tuple[int, str, bytes]:
        now = self._reactor.seconds()
        if not 0 <= now - self._made < CACHE_SECONDS:
            self._text = generate_latest(self._registry)
            self._made = now
        return 200, CONTENT_TYPE_LATEST, self._text


def admin_factory(
    registry: CollectorRegistry, ready: Callable[[], bool], reactor: IReactorTime
) -> WrappingFactory[ProtocolWrapper]:
    """Return the factory to listen with on the admin endpoint.

    ``/healthz`` answers 200 while the process runs; ``/readyz`` 200 when ``ready()`` is true,
    else 503; every other path 404, every other method 405 or 501.
    """

    def health() -> tuple[int, str, bytes]:
        return 200, "text/plain; charset=utf-8", b"ok\n"

    def readiness() -> tuple[int, str, bytes]:
        if ready():
            return 200, "text/plain; charset=utf-8", b"ready\n"
        return 503, "text/plain; charset=utf-8", b"not ready\n"

    root = Resource()
    root.putChild(b"metrics", _Page(_MetricsText(registry, reactor)))
    root.putChild(b"healthz", _Page(health))
    root.putChild(b"readyz", _Page(readiness))
    return _Bounded(_AdminSite(root, reactor))
