"""Small clients and servers for tests of packet filters: who arrives, where to, and how fast."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import attrs

SECONDS = 5.0
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class Answer:
    """What came of a probe: what was said, or the name of the error, and how long it took."""

    said: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether there was an error rather than an answer."""
        return self.said.startswith("E") and self.said.isupper()


@contextlib.contextmanager
def user(uid: int) -> Iterator[None]:
    """Let this thread make its sockets as another user, which is what packet filters ask for."""
    before = _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(before)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp(address: str, port: int, seconds: float = SECONDS) -> Answer:
    """Connect and return what the server says first."""
    start = time.monotonic()
    with socket.socket(_family(address), socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        return _asked(client, (address, port), b"", start)


def udp(address: str, port: int, seconds: float = SECONDS) -> Answer:
    """Send a datagram and return the answer to it."""
    start = time.monotonic()
    with socket.socket(_family(address), socket.SOCK_DGRAM) as client:
        client.settimeout(seconds)
        return _asked(client, (address, port), b"hello", start)


def ping(address: str) -> Answer:
    """Send an echo request and return ``pong`` for the answer."""
    start = time.monotonic()
    six = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    with socket.socket(_family(address), socket.SOCK_DGRAM, protocol) as client:
        client.settimeout(SECONDS)
        if six:
            client.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            client.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        request = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 0, 1) + b"pong"
        answer = _asked(client, (address, 0), request, start)
        return attrs.evolve(answer, said=answer.said[-4:] if not answer.failed else answer.said)


def _asked(client: socket.socket, where: tuple[str, int], data: bytes, start: float) -> Answer:
    try:
        client.connect(where)
        if data:
            client.send(data)
        said = client.recv(1000).decode("latin-1") or "EOF"
    except TimeoutError:
        said = "ETIMEDOUT"
    except OSError as error:
        said = errno.errorcode[error.errno or 0]
    return Answer(said, time.monotonic() - start)


class Speaker:
    """A server of both families for TCP and UDP; ``say`` is its first word.

    ``transparent`` makes it one that TPROXY can lead to.  With ``told`` it answers where the client
    was going instead.
    """

    def __init__(self, port: int, say: str, told: bool = False, transparent: bool = False) -> None:
        self.port, self._say, self._told = port, say, told
        self._stream = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self._datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._stop, self._stopping = socket.socketpair()
        for one in (self._stream, self._datagrams):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if transparent:
                one.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
                one.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
            one.bind(("::", port))
        self._datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._stream.listen(16)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._stream, self._datagrams, self._stopping], [], [])
            if self._stopping in ready:
                return
            if self._stream in ready:
                connection, _ = self._stream.accept()
                with connection:
                    said = _destination(connection) if self._told else self._say
                    with contextlib.suppress(OSError):
                        connection.sendall(said.encode())
            if self._datagrams in ready:
                _answer(self._datagrams, self._say.encode())

    def close(self) -> None:
        """Stop."""
        self._stop.send(b"x")
        self._thread.join(SECONDS)
        for one in (self._stream, self._datagrams, self._stop, self._stopping):
            one.close()


def _answer(server: socket.socket, data: bytes) -> None:
    """Answer a datagram from the address that it was sent to."""
    _, found, _, whom = server.recvmsg(1000, 100)
    at = [(level, kind, value[:16] + bytes(4)) for level, kind, value in found]
    with contextlib.suppress(OSError):
        server.sendmsg([data], at, 0, whom)


def _destination(connection: socket.socket) -> str:
    """Return where a connection was going: SO_ORIGINAL_DST, or our own end with TPROXY."""
    four = connection.getpeername()[0].startswith("::ffff:")
    with contextlib.suppress(OSError):
        if four:
            data = connection.getsockopt(socket.IPPROTO_IP, 80, 16)
            port, address = struct.unpack_from("!2xH4s", data)
            return f"{socket.inet_ntop(socket.AF_INET, address)} {port}"
        data = connection.getsockopt(socket.IPPROTO_IPV6, 80, 28)
        return f"{socket.inet_ntop(socket.AF_INET6, data[8:24])} {int.from_bytes(data[2:4])}"
    host, port = connection.getsockname()[:2]
    return f"{host.removeprefix('::ffff:') if four else host} {port}"
