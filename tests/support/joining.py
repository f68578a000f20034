"""A runner made by hand: it hands sockets over to a gateway and says what a test wants said."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

SECONDS = 20.0


def listeners(*families: socket.AddressFamily) -> dict[str, socket.socket]:
    """Return listening sockets on loopback by their kind, in the namespace of this thread."""
    made = {}
    for family in families or (socket.AF_INET, socket.AF_INET6):
        six = family == socket.AF_INET6
        host = "::1" if six else "127.0.0.1"
        made["tcp6" if six else "tcp"] = socket.create_server((host, 0), family=family)
    return made


class Runner:
    """One connection to the gateway's socket for sandboxes."""

    def __init__(self, path: str) -> None:
        self.conn = socket.socket(socket.AF_UNIX)
        self.conn.settimeout(SECONDS)
        self.conn.connect(path)
        self._reader = self.conn.makefile("rb")

    def ask(self, line: bytes, handed: Sequence[int] = ()) -> dict[str, Any]:
        """Send one line with descriptors; return the answer, empty at the end of the stream."""
        socket.send_fds(self.conn, [line + b"\n"], list(handed))
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Return the next line."""
        line = self._reader.readline()
        return json.loads(line) if line else {}

    def join(self, handed: Mapping[str, socket.socket], identity: str = "") -> dict[str, Any]:
        """Hand sockets over as a runner does."""
        message = {"version": 1, "identity": identity, "sockets": list(handed)}
        descriptors = [one.fileno() for one in handed.values()]
        return self.ask(json.dumps(message).encode(), descriptors)

    def report(self, **refused: int) -> None:
        """Tell what the packet filter refused."""
        self.conn.sendall(json.dumps({"refused": refused}).encode() + b"\n")

    def ended(self) -> bool:
        """Wait for the gateway to close; whether it did without another word."""
        return self._reader.read() == b""

    def close(self) -> None:
        """End the sandbox."""
        self._reader.close()
        self.conn.close()
