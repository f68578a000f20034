"""Bodies through the running gateway: as they come, byte for byte, in constant memory."""

from __future__ import annotations

import gzip
import hashlib
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.measure import rss_megabytes
from tests.integration.agent import answer, request, tunnel
from tests.integration.scene import API, BEARER, new_secret
from tests.support.certs import ThrowawayCA
from tests.support.gateway import Credential, Gateway, Rule
from tests.support.origin import Origin, Request, Step, ok
from tests.support.traces import traces

MEGA = 1 << 20
MEMORY_MB = 48.0
WAIT_SECONDS = 10.0


class StreamCase(SynchronousTestCase):
    """A gateway of its own in front of an origin that each test scripts."""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        directory.chmod(0o700)
        ca = ThrowawayCA(directory)
        self.secret = new_secret("key-")
        self.script: Callable[[Request], Iterator[Step]] = lambda request: iter([ok()])
        context = ca.server_context(API)
        self.origin = Origin(lambda one: self.script(one), context, at_head=self.at_head)
        self.addCleanup(self.origin.close)
        api = Credential("api", self.secret, (API,), (BEARER,), "DUMMY_API_KEY_1", "API_KEY")
        rule = Rule("api", (API,), (self.origin.port,), ("api",))
        hosts = {API: self.origin.port}
        self.gateway = Gateway(directory, [api], [rule], hosts, ca.ca_file)
        self.gateway.start()
        self.addCleanup(self.gateway.stop)

    at_head = False

    def ask(self, target: str, *lines: str) -> ssl.SSLSocket:
        """Send a GET with the placeholder and return the connection."""
        conn = tunnel(self.gateway, API)
        self.addCleanup(conn.close)
        bearer = "Authorization: Bearer DUMMY_API_KEY_1"
        conn.sendall(request(self.gateway, API, "GET", target, bearer, *lines))
        return conn

    def memory(self) -> float:
        """Return the gateway's resident memory in MB."""
        return rss_megabytes(self.gateway.process.pid)


class TestResponses(StreamCase):
    """From the origin to the client."""

    def test_an_event_arrives_before_the_next_is_sent(self) -> None:
        """Server-Sent Events: the origin goes on only after the client has read what came."""
        told = threading.Event()
        events = [b"data: one\n\n", b"data: two\n\n"]

        def script(asked: Request) -> Iterator[Step]:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            yield head + b"Transfer-Encoding: chunked\r\n\r\n"
            yield b"b\r\n" + events[0] + b"\r\n"
            if told.wait(WAIT_SECONDS):
                yield b"b\r\n" + events[1] + b"\r\n0\r\n\r\n"

        self.script = script
        conn = self.ask("/events")
        response = answer(conn)
        self.assertEqual(response.read(len(events[0])), events[0])
        told.set()
        self.assertEqual(response.read(), events[1])

    def test_a_large_clean_body_is_identical_and_memory_stays(self) -> None:
        """T144: random bytes, by their digest."""
        block = os.urandom(MEGA)
        count = 64

        def script(asked: Request) -> Iterator[Step]:
            yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (count * MEGA)
            for _ in range(count):
                yield block

        self.script = script
        before = self.memory()
        response = answer(self.ask("/large"))
        digest = hashlib.sha256()
        for _ in range(count):
            digest.update(response.read(MEGA))
        self.assertEqual(digest.digest(), hashlib.sha256(block * count).digest())
        self.assertLess(self.memory() - before, MEMORY_MB)

    def test_a_slow_reader_stops_the_origin(self) -> None:
        """T191: the client reads nothing, so the origin soon cannot write."""
        written = 0
        blocked_at = 128

        def script(asked: Request) -> Iterator[Step]:
            nonlocal written
            yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (blocked_at * MEGA)
            for _ in range(blocked_at):
                yield bytes(MEGA)
                written += 1

        self.script = script
        before = self.memory()
        conn = self.ask("/large")
        time.sleep(2.0)
        stopped_at = written
        self.assertLess(stopped_at, blocked_at // 2)
        self.assertLess(self.memory() - before, MEMORY_MB)
        response = answer(conn)
        left = blocked_at * MEGA
        while left:
            left -= len(response.read(min(left, MEGA)))
        self.assertGreater(written, stopped_at)

    def test_a_secret_cut_anywhere_is_overwritten(self) -> None:
        """T119: over records and chunks; the text around it is untouched."""
        raw = self.secret.encode("ascii")

        def script(asked: Request) -> Iterator[Step]:
            yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            for piece in (b"before ", raw[:5], raw[5:6], raw[6:], b" after"):
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
            yield b"0\r\n\r\n"

        self.script = script
        body = answer(self.ask("/cut")).read()
        self.assertEqual(traces(body, self.secret), [])
        self.assertTrue(body.startswith(b"before ") and body.endswith(b" after"), body)

    def test_a_secret_in_gzip_is_overwritten(self) -> None:
        """T134: what the client decodes never held it."""
        text = b"x" * 1000 + self.secret.encode("ascii") + b"y" * 1000
        coded = ok(gzip.compress(text), b"Content-Encoding: gzip")
        self.script = lambda asked: iter([coded])
        response = answer(self.ask("/gzip", "Accept-Encoding: gzip"))
        self.assertEqual(response.status, 200)
        body = response.read()
        if response.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.assertEqual(traces(body, self.secret), [])
        self.assertTrue(body.startswith(b"x" * 1000) and body.endswith(b"y" * 1000))


class TestUploads(StreamCase):
    """From the client to the origin."""

    at_head = True

    def test_a_slow_origin_stops_the_client(self) -> None:
        """T192: the origin reads nothing for a while, so the client soon cannot write."""
        go = threading.Event()

        def script(asked: Request) -> Iterator[Step]:
            go.wait(WAIT_SECONDS)
            yield ok(b"read")

        self.script = script
        before = self.memory()
        conn = tunnel(self.gateway, API)
        self.addCleanup(conn.close)
        total = 64 * MEGA
        head = request(self.gateway, API, "POST", "/up", f"Content-Length: {total}")
        conn.sendall(head)
        conn.settimeout(1.5)
        sent = 0
        block = bytes(MEGA)
        with self.assertRaises(TimeoutError):
            while sent < total:
                conn.sendall(block)
                sent += MEGA
        self.assertLess(sent, total // 2)
        self.assertLess(self.memory() - before, MEMORY_MB)
        go.set()
