"""A loopback port whose connections come out inside a CONNECT, for tools that cannot make one."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.integration.agent import connect

SECONDS = 20.0


class ConnectForwarder:
    """Forward each connection of ``port`` through a proxy on loopback to one authority."""

    def __init__(self, proxy_port: int, authority: str) -> None:
        self._proxy_port = proxy_port
        self._authority = authority
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._proxy_port), SECONDS) as proxy:
            if connect(proxy, self._authority).status != 200:
                return
            other = threading.Thread(target=_pump, args=(proxy, client), daemon=True)
            other.start()
            _pump(client, proxy)
            other.join(SECONDS)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
