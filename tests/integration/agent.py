"""A hand-made agent: raw bytes to the gateway, so that a test decides each of them."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPResponse

from tests.support.gateway import Gateway

SECONDS = 20.0


def dial(gateway: Gateway) -> socket.socket:
    """Return a connection to the gateway's explicit listener."""
    conn = socket.create_connection(("127.0.0.1", gateway.port), SECONDS)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def connect(conn: socket.socket, authority: str) -> HTTPResponse:
    """Ask for a tunnel and return the answer's head; the body of a refusal can be read."""
    conn.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    return answer(conn, "CONNECT")


def answer(conn: socket.socket, method: str = "GET") -> HTTPResponse:
    """Read the head of the next answer."""
    response = HTTPResponse(_NoReadAhead(conn), method=method)  # type: ignore[arg-type]
    response.begin()
    return response


def tunnel(gateway: Gateway, host: str) -> ssl.SSLSocket:
    """Return TLS to an origin through the gateway, trusting only the gateway's CA."""
    conn = dial(gateway)
    authority = f"{host}:{gateway.hosts[host]}"
    status = connect(conn, authority).status
    if status != 200:
        raise ConnectionError(f"CONNECT was answered {status}")
    trust = ssl.create_default_context(cafile=str(gateway.ca_file))
    return trust.wrap_socket(conn, server_hostname=host)


def request(gateway: Gateway, host: str, method: str, target: str, *lines: str) -> bytes:
    """Return a request head for this host with extra header lines."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}:{gateway.hosts[host]}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("ascii")


class _NoReadAhead:
    """Lets HTTPResponse read a socket without taking bytes that belong to what follows."""

    def __init__(self, conn: socket.socket) -> None:
        self._conn = conn

    def makefile(self, mode: str) -> object:
        """Return an unbuffered reader with readline."""
        return _Unbuffered(self._conn)


class _Unbuffered:
    def __init__(self, conn: socket.socket) -> None:
        self._conn = conn

    def readline(self, limit: int = 65537) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n") and len(line) < limit:
            byte = self._conn.recv(1)
            if not byte:
                break
            line += byte
        return bytes(line)

    def read(self, count: int = -1) -> bytes:
        data = bytearray()
        while count < 0 or len(data) < count:
            more = self._conn.recv(65536 if count < 0 else count - len(data))
            if not more:
                break
            data += more
        return bytes(data)

    def read1(self, count: int = 65536) -> bytes:
        return self._conn.recv(count)

    def readinto(self, buffer: memoryview) -> int:
        return self._conn.recv_into(buffer)

    def peek(self, count: int = 0) -> bytes:
        return b""

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """The test closes the socket."""
