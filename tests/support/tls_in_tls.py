"""A client's TLS connection inside another one: the standard library has that for memory only."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class ProxyRefused(ConnectionError):
    """The proxy answered a CONNECT with something else than 200, or not at all."""


class TlsInTls:
    """TLS with ``host`` over ``outer``, with the calls of a socket that tests and bench use."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, host: str) -> None:
        self._outer = outer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        self._do(self._tls.do_handshake)

    def _do(self, call: Callable[..., T], *arguments: Any) -> T:
        while True:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                data = self._outer.recv(65536)
                if not data:
                    raise ConnectionError("the connection ended") from None
                self._in.write(data)
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if self._out.pending:
            self._outer.sendall(self._out.read())

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of ``data``."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._do(self._tls.write, rest) :]

    def recv(self, size: int) -> bytes:
        """Return at least one byte and at most ``size``; raises ConnectionError at the end."""
        return self._do(self._tls.read, size)

    def recv_into(self, buffer: bytearray, size: int) -> int:
        """Read at most ``size`` bytes into ``buffer``; return how many."""
        return self._do(self._tls.read, size, buffer)

    def close(self) -> None:
        """Close the TCP connection."""
        self._outer.close()

    def __enter__(self) -> TlsInTls:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def proxy_tls(
    port: int, name: str, ca_file: Path | str, certificate: Path | str, key: Path | str
) -> ssl.SSLSocket:
    """Return TLS to a proxy on loopback, with a client certificate."""
    context = ssl.create_default_context(cafile=str(ca_file))
    context.load_cert_chain(str(certificate), str(key))
    raw = socket.create_connection(("127.0.0.1", port), 60.0)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw, server_hostname=name)


def tunnel_through(outer: ssl.SSLSocket, authority: str, context: ssl.SSLContext) -> TlsInTls:
    """CONNECT through a proxy and shake hands with the origin; raises ProxyRefused."""
    outer.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        more = outer.recv(4096)
        if not more:
            raise ProxyRefused(f"the proxy closed after {head!r}")
        head += more
    if not head.startswith(b"HTTP/1.1 200"):
        raise ProxyRefused(head.decode("latin-1"))
    return TlsInTls(outer, context, authority.rpartition(":")[0])
