"""The admin endpoint over a real socket."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from slapenir.admin import CACHE_SECONDS, MAX_CONNECTIONS, TIMEOUT_SECONDS, admin_factory
from slapenir.observe.metrics import Metrics


def ask(port: int, head: bytes) -> bytes:
    """Send raw bytes and return everything that comes back until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while True:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                return answer
            if not data:
                return answer
            answer += data


def request(method: str, path: str, more: str = "", body: str = "") -> bytes:
    """Return a request that asks for the connection to be closed."""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n{body}".encode()


class AdminTests(unittest.TestCase):
    def setUp(self) -> None:
        self.ready = False
        registry = CollectorRegistry()
        Metrics(registry)
        factory = admin_factory(registry, lambda: self.ready, reactor)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def ask(self, data: bytes) -> Any:
        return deferToThread(ask, self.port, data)

    @inlineCallbacks
    def test_pages(self) -> Any:
        """The three pages answer; every other path is 404, other methods 405 or 501."""
        for method, path, status in (
            ("GET", "/healthz", 200),
            ("GET", "/metrics", 200),
            ("HEAD", "/metrics", 200),
            ("GET", "/metrics?x=1", 200),
            ("GET", "/", 404),
            ("GET", "/metrics/", 404),
            ("GET", "/metrics/x", 404),
            ("GET", "/Metrics", 404),
            ("GET", "/../metrics", 404),
            ("POST", "/metrics", 405),
            ("PUT", "/readyz", 501),
            ("DELETE", "/healthz", 501),
        ):
            answer = yield self.ask(request(method, path))
            head, _, body = answer.partition(b"\r\n\r\n")
            self.assertEqual(head.split(b" ")[1], b"%d" % status, (method, path))
            self.assertEqual(bool(body), method != "HEAD", (method, path))

    @inlineCallbacks
    def test_metrics_are_the_text_format(self) -> Any:
        """The page is the Prometheus text format with its media type."""
        answer = yield self.ask(request("GET", "/metrics"))
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertIn(b"text/plain; version=", head)
        self.assertIn(b"\nslapenir_build_info{", body)

    @inlineCallbacks
    def test_readyz_says_what_is_true_t207(self) -> Any:
        """T207: 503 until the gateway is ready, and again when it is not."""
        for ready, status in ((False, b"503"), (True, b"200"), (False, b"503")):
            self.ready = ready
            answer = yield self.ask(request("GET", "/readyz"))
            self.assertEqual(answer.split(b" ")[1], status)
            alive = yield self.ask(request("GET", "/healthz"))
            self.assertEqual(alive.split(b" ")[1], b"200")

    @inlineCallbacks
    def test_a_body_is_not_read_t223(self) -> Any:
        """T223: a request that announces a body is cut off, however the length is given."""
        for more in ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"):
            answer = yield self.ask(request("POST", "/metrics", more))
            self.assertNotIn(b"slapenir_", answer)
        answer = yield self.ask(request("GET", "/healthz", "Content-Length: 0\r\n"))
        self.assertEqual(answer.split(b" ")[1], b"200")

    @inlineCallbacks
    def test_connections_above_the_bound_are_closed_t223(self) -> Any:
        """T223: with all places taken the next is closed; a place that is given up is free."""

        def crowd() -> tuple[bytes, bytes]:
            held = [
                socket.create_connection(("127.0.0.1", self.port)) for _ in range(MAX_CONNECTIONS)
            ]
            for one in held:
                one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                one.recv(65536)
            refused = ask(self.port, request("GET", "/healthz"))
            for one in held:
                one.close()
            again = b""
            for _ in range(100):
                again = ask(self.port, request("GET", "/healthz"))
                if again:
                    break
            return refused, again

        refused, again = yield deferToThread(crowd)
        self.assertEqual(refused, b"")
        self.assertEqual(again.split(b" ")[1], b"200")


class CountingRegistry(CollectorRegistry):
    """A registry that counts how often it is rendered."""

    renderings = 0

    def collect(self) -> Any:
        """Count, then collect."""
        self.renderings += 1
        return super().collect()


class ScrapeTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = CountingRegistry()
        self.factory = admin_factory(self.registry, lambda: True, self.clock)

    def connect(self) -> tuple[StringTransport, Callable[[bytes], None]]:
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        return transport, protocol.dataReceived

    def test_a_storm_of_scrapes_is_rendered_once_t223(self) -> None:
        """T223: a thousand scrapes within CACHE_SECONDS cost one rendering."""
        transport, send = self.connect()
        for _ in range(1000):
            send(request("GET", "/metrics").replace(b"Connection: close\r\n", b""))
        self.assertEqual(transport.value().count(b"HTTP/1.1 200 OK"), 1000)
        self.assertEqual(self.registry.renderings, 1)
        self.clock.advance(CACHE_SECONDS)
        send(request("GET", "/metrics"))
        self.assertEqual(self.registry.renderings, 2)

    def test_an_idle_connection_is_closed(self) -> None:
        """A client that says nothing is let go after TIMEOUT_SECONDS."""
        transport, _ = self.connect()
        self.clock.advance(TIMEOUT_SECONDS - 1)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(1)
        self.assertTrue(transport.disconnecting)
