"""Descriptors that a local user hands over to make the gateway wait when it closes them."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.scene import API
from tests.support.certs import ThrowawayCA
from tests.support.gateway import Gateway, Rule

LINGER = 20
"""Seconds that a close of the socket may take; the test ends before."""


def lingering() -> tuple[socket.socket, socket.socket, socket.socket]:
    """Return a TCP socket with bytes that nobody reads and SO_LINGER, its listener and its peer."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    one = socket.create_connection(listener.getsockname())
    peer, _ = listener.accept()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
    one.setblocking(False)
    try:
        while True:
            one.send(bytes(65536))
    except BlockingIOError:
        return one, listener, peer


class HandedOverTests(SynchronousTestCase):
    """The socket where sandboxes join, and a listener that takes no descriptors."""

    def setUp(self) -> None:
        # A socket's path has at most 107 bytes.
        made = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
        self.directory = Path(made.stdout.strip())
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.directory)], check=False)
        ca = ThrowawayCA(self.directory)
        self.paths = {name: str(self.directory / name) for name in ("join", "proxy")}
        place = self.directory / "gateway"
        place.mkdir(mode=0o700)
        self.gateway = Gateway(
            place,
            [],
            [Rule("api", (API,), (443,))],
            {API: 443},
            ca.ca_file,
            extra=f'[sandboxes]\nendpoint = "unix:{self.paths["join"]}:mode=600"\n'
            f'[[listener]]\nendpoint = "unix:{self.paths["proxy"]}:mode=600"\n'
            'mode = "explicit"\nidentity = "sandbox"\n'
            f'[[identity]]\nname = "other"\nmatch = [{{ unix_uid = {os.getuid() + 1} }}]\n',
        )
        self.addCleanup(self.gateway.stop)
        self.gateway.start()

    def hand_over(self, path: str, data: bytes, one: socket.socket) -> socket.socket:
        """Send bytes with a descriptor; return the connection, ours of the descriptor closed."""
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.connect(path)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno()]))]
        try:
            connection.sendmsg([data], rights)
        except PermissionError:  # a kernel that can refuse descriptors does
            connection.sendall(data)
        threading.Thread(target=one.close, daemon=True).start()  # which waits if it is the last
        return connection

    def assert_alive(self, what: str) -> None:
        """The gateway answers at once: ten times within a second and a half."""
        began = time.monotonic()
        for _ in range(10):
            self.assertEqual(self.gateway.admin_get("/healthz")[0], 200)
        self.assertLess(time.monotonic() - began, 1.5, what)

    def test_sockets_that_linger(self) -> None:
        """Refused, surplus, with half a line, and with a connection that ends unread."""
        line = json.dumps({"version": 1, "identity": "sandbox", "sockets": ["tcp"]}).encode()
        wrong = json.dumps({"version": 1, "identity": "nobody", "sockets": ["tcp"]}).encode()
        for name, data, ends in (
            ("join", line + b"\n", False),
            ("join", wrong + b"\n", False),
            ("join", b"not JSON\n", False),
            ("join", b'{"half', True),
            ("proxy", b"GET / HTTP/1.1\r\n", True),
            ("proxy", b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", False),
            ("proxy", bytes(200_000), False),
        ):
            one, listener, peer = lingering()
            connection = self.hand_over(self.paths[name], data, one)
            if ends:
                connection.close()
            self.assert_alive(f"{name} {data[:20]!r}")
            listener.close()
            peer.close()

    def test_descriptors_that_nobody_received(self) -> None:
        """A connection that is turned away unread: the kernel does not close what waits in it."""
        for _ in range(8):  # as many of one user as may wait
            waiting = socket.socket(socket.AF_UNIX)
            self.addCleanup(waiting.close)
            waiting.connect(self.paths["join"])
        self.assert_alive("eight wait")
        process = self.gateway.process
        one, listener, peer = lingering()
        process.send_signal(signal.SIGSTOP)
        try:
            self.hand_over(self.paths["join"], b"{", one)
            time.sleep(0.2)
        finally:
            process.send_signal(signal.SIGCONT)
        self.assert_alive("turned away")
        listener.close()
        peer.close()

    def test_a_file_that_is_no_socket(self) -> None:
        """It is refused and closed, and a runner that hands over what it should is served."""
        reader, writer = os.pipe()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(self.paths["join"])
        line = json.dumps({"version": 1, "identity": "sandbox", "sockets": ["tcp"]}).encode()
        socket.send_fds(connection, [line + b"\n"], [writer])
        self.assertIn(b"is not a socket", connection.recv(4096))
        os.close(writer)
        os.set_blocking(reader, True)
        self.assertEqual(os.read(reader, 1), b"", "the gateway still has its end")
        os.close(reader)
        connection.close()
        again = socket.socket(socket.AF_UNIX)
        self.addCleanup(again.close)
        again.settimeout(5)
        again.connect(self.paths["join"])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.send_fds(again, [line + b"\n"], [listener.fileno()])
            self.assertIn(b'"ok": true', again.recv(65536))
