"""The recording origin: what it was sent is kept to the byte, what it sends is as scripted."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.certs import ThrowawayCA
from tests.support.origin import Close, Origin, Pause, Request, Reset, Step, chunked, ok

HOST = "origin.example.test"


def talk(origin: Origin, data: bytes, reads: int = 1) -> list[bytes]:
    """Send bytes to a plain origin and return what each of some reads gave."""
    with socket.create_connection(("127.0.0.1", origin.port), 5.0) as conn:
        conn.sendall(data)
        return [conn.recv(65536) for _ in range(reads)]


class TestOrigin(SynchronousTestCase):
    """Plain and TLS."""

    def test_records_every_byte_and_keeps_the_connection(self) -> None:
        raw = b"GET /a HTTP/1.1\r\nhost: x\r\nX-Two:  b \r\n\r\n"
        post = b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        post += b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
        with Origin(lambda request: [ok(request.body)]) as origin:
            with socket.create_connection(("127.0.0.1", origin.port), 5.0) as conn:
                conn.sendall(raw)
                self.assertEqual(conn.recv(65536), ok(b""))
                conn.sendall(post)
                self.assertEqual(conn.recv(65536), ok(b"abcde"))
            self.assertEqual(origin.received(), raw + post)
            first, second = origin.requests
            self.assertEqual((first.raw, second.raw), (raw, post))
            self.assertEqual(first.headers, ((b"host", b"x"), (b"X-Two", b"b")))
            self.assertEqual((second.body, second.header(b"HOST")), (b"abcde", b"x"))

    def test_writes_are_segments(self) -> None:
        steps: list[Step] = [b"HTTP/1.1 200 OK\r\n", b"Content-", Pause(0.01), b"Length: 0\r\n\r\n"]
        with Origin(lambda request: steps) as origin:
            reads = talk(origin, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", reads=3)
        self.assertEqual(reads, [step for step in steps if isinstance(step, bytes)])

    def test_chunked_close_and_reset(self) -> None:
        def respond(request: Request) -> list[Step]:
            if request.target == b"/reset":
                return [b"HTTP/1.1 200 OK\r\n", Reset()]
            return [*chunked([b"one", b"two"]), Close()]

        with Origin(respond) as origin:
            reads = talk(origin, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", reads=5)
            self.assertEqual(b"".join(reads), b"".join(_bytes(chunked([b"one", b"two"]))))
            self.assertEqual(reads[-1], b"")
            with self.assertRaises(ConnectionResetError):
                talk(origin, b"GET /reset HTTP/1.1\r\nHost: x\r\n\r\n", reads=2)

    def test_answers_at_the_head_when_asked(self) -> None:
        with Origin(lambda request: [ok(b"early")], at_head=True) as origin:
            with socket.create_connection(("127.0.0.1", origin.port), 5.0) as conn:
                conn.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
                self.assertEqual(conn.recv(65536), ok(b"early"))
                conn.sendall(b"abc")
            self.assertTrue(origin.connections[0].closed.wait(5.0))
            self.assertEqual(origin.requests[0].body, b"abc")

    def test_tls_with_its_name(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        ca = ThrowawayCA(directory)
        trust = ssl.create_default_context(cafile=str(ca.ca_file))
        with (
            Origin(lambda request: [ok(b"secret"), Close()], ca.server_context(HOST)) as origin,
            socket.create_connection(("127.0.0.1", origin.port), 5.0) as raw,
            trust.wrap_socket(raw, server_hostname=HOST) as conn,
        ):
            conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(conn.recv(65536), ok(b"secret"))
            self.assertEqual(conn.recv(65536), b"")
            self.assertEqual(origin.connections[0].sni, HOST)


def _bytes(steps: list[Step]) -> list[bytes]:
    return [step for step in steps if isinstance(step, bytes)]
