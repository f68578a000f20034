"""An origin for tests: HTTP/1.1 over TCP or TLS in threads, scripted to the byte, recording.

``Origin(respond)`` hands each request to ``respond`` and plays the steps it returns: ``bytes``
are written as they are, one write (over TLS, one record) each; ``Pause`` waits; ``Close`` and
``Reset`` end the connection, with FIN or RST.  Without either the connection is kept.  What came
in is kept byte for byte: ``connections[n].received`` is everything a connection carried.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeAlias

import attrs

SEGMENT_GAP = 0.01
"""Seconds between two writes, so that the peer reads them one by one."""
HANDSHAKE_SECONDS = 10.0
READ_SECONDS = 30.0


@attrs.frozen
class Pause:
    """Wait this many seconds."""

    seconds: float


@attrs.frozen
class Close:
    """Close in an orderly way (close_notify over TLS), then FIN."""


@attrs.frozen
class Reset:
    """Drop the connection with RST."""


Step: TypeAlias = bytes | Pause | Close | Reset


@attrs.frozen
class Request:
    """One request as it came: ``raw`` is its head and its body with all framing."""

    method: bytes
    target: bytes
    version: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    raw: bytes
    connection: int

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, any case, None when absent."""
        return next(iter(self.all_headers(name)), None)

    def all_headers(self, name: bytes) -> list[bytes]:
        """Return every value of a header, any case, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


Respond: TypeAlias = Callable[[Request], Iterable[Step]]


@attrs.define
class Connection:
    """One accepted connection; ``received`` is all plaintext bytes, ``closed`` set at its end.

    ``error`` says why it ended when it was not the peer's orderly close.
    """

    number: int
    received: bytearray = attrs.field(factory=bytearray)
    closed: threading.Event = attrs.field(factory=threading.Event)
    sni: str | None = None
    error: str = ""


def ok(body: bytes = b"ok", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole response with Content-Length."""
    lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"", b""]
    return b"\r\n".join(lines) + body


def chunked(chunks: Iterable[bytes], *headers: bytes) -> list[Step]:
    """Return the steps of a chunked response, each chunk a write of its own."""
    lines = [b"HTTP/1.1 200 OK", *headers, b"Transfer-Encoding: chunked", b"", b""]
    steps: list[Step] = [b"\r\n".join(lines)]
    steps += [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return [*steps, b"0\r\n\r\n"]


class Origin:
    """A listening origin on 127.0.0.1; use as a context manager, or call ``close()``.

    ``tls`` is a server context, None for plain HTTP.  ``at_head`` calls ``respond`` when the head
    is complete, with an empty body; the body is read after the steps were played.
    """

    def __init__(
        self,
        respond: Respond,
        tls: ssl.SSLContext | None = None,
        at_head: bool = False,
        address: str = "127.0.0.1",
    ) -> None:
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self._respond = respond
        self._tls = tls
        self._at_head = at_head
        self._lock = threading.Lock()
        self._sockets: dict[int, socket.socket] = {}
        self._closing = False
        self._listener = socket.create_server((address, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        if tls is not None:
            tls.sni_callback = _note_server_name
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and drop every connection."""
        self._closing = True
        # shutdown wakes the thread in accept(), which close() alone does not
        _quietly(lambda: self._listener.shutdown(socket.SHUT_RDWR))
        self._listener.close()
        with self._lock:
            for conn in list(self._sockets.values()):
                _quietly(lambda conn=conn: conn.shutdown(socket.SHUT_RDWR))  # type: ignore[misc]

    def received(self) -> bytes:
        """Return the bytes of all connections, one after the other."""
        return b"".join(bytes(one.received) for one in self.connections)

    def _accept(self) -> None:
        while not self._closing:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                connection = Connection(len(self.connections))
                self.connections.append(connection)
                self._sockets[connection.number] = raw
            threading.Thread(target=self._run, args=(connection, raw), daemon=True).start()

    def _run(self, connection: Connection, raw: socket.socket) -> None:
        conn = raw
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.settimeout(HANDSHAKE_SECONDS)
            if self._tls is not None:
                conn = wrapped = self._tls.wrap_socket(raw, server_side=True)
                connection.sni = getattr(wrapped, "server_name_seen", None)
                with self._lock:
                    self._sockets[connection.number] = conn
            conn.settimeout(READ_SECONDS)
            self._serve(connection, _Reader(conn, connection.received))
        except _Ended as ended:
            connection.error = str(ended)
        except (OSError, ValueError) as error:
            connection.error = f"{type(error).__name__}: {error}"
        finally:
            with self._lock:
                del self._sockets[connection.number]
            conn.close()
            connection.closed.set()

    def _serve(self, connection: Connection, reader: _Reader) -> None:
        while True:
            start = reader.position
            head = reader.until(b"\r\n\r\n")
            first, *lines = head[:-4].split(b"\r\n")
            method, target, version = first.split(b" ", 2)
            headers = tuple(_field(line) for line in lines)
            if self._at_head:
                early = Request(method, target, version, headers, b"", head, connection.number)
                _play(reader.conn, self._respond(early))
            body = _read_body(reader, headers)
            raw = bytes(connection.received[start : reader.position])
            request = Request(method, target, version, headers, body, raw, connection.number)
            self.requests.append(request)
            if not self._at_head:
                _play(reader.conn, self._respond(request))


class _Ended(Exception):
    """The script or the peer ended the connection; the text is empty for an orderly end."""


class _Reader:
    """Reads a connection into ``received`` and hands out what was not handed out before."""

    def __init__(self, conn: socket.socket, received: bytearray) -> None:
        self.conn = conn
        self.position = 0
        self._received = received

    def _more(self) -> None:
        data = self.conn.recv(65536)
        if not data:
            idle = self.position == len(self._received)
            raise _Ended("" if idle else "the peer closed inside a request")
        self._received += data

    def until(self, mark: bytes) -> bytes:
        """Return the bytes up to and with ``mark``."""
        while (end := self._received.find(mark, self.position)) < 0:
            self._more()
        return self.take(end + len(mark) - self.position)

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        while len(self._received) - self.position < count:
            self._more()
        data = bytes(self._received[self.position : self.position + count])
        self.position += count
        return data


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


def _read_body(reader: _Reader, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    fields = {name.lower(): value for name, value in headers}
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b""
        while True:
            size = int(reader.until(b"\r\n").partition(b";")[0], 16)
            if size == 0:
                break
            body += reader.take(size)
            reader.take(2)
        while reader.until(b"\r\n") != b"\r\n":
            continue
        return body
    return reader.take(int(fields.get(b"content-length", b"0")))


def _play(conn: socket.socket, steps: Iterable[Step]) -> None:
    first = True
    for step in steps:
        if isinstance(step, bytes):
            if not first:
                time.sleep(SEGMENT_GAP)
            conn.sendall(step)
            first = False
        elif isinstance(step, Pause):
            time.sleep(step.seconds)
        elif isinstance(step, Close):
            if isinstance(conn, ssl.SSLSocket):
                conn.settimeout(1.0)
                _quietly(conn.unwrap)
            _quietly(lambda: conn.shutdown(socket.SHUT_WR))
            raise _Ended("")
        else:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Ended("")


def _note_server_name(
    conn: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
) -> None:
    conn.server_name_seen = name  # type: ignore[union-attr]


def _quietly(call: Callable[[], object]) -> None:
    """Call and let a socket that is already gone be gone."""
    try:
        call()
    except (OSError, ValueError):
        return
