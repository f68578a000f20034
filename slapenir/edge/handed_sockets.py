"""Sockets that somebody else has, too: they must never make the reactor wait.

Whether a socket blocks is a flag of its open file, which goes along when a descriptor is handed
over.  Whoever handed it over can clear the flag, take what the reactor was told of, and so have it
wait for ever.  Datagrams are read and written with MSG_DONTWAIT.  For accept there is no such flag,
so O_NONBLOCK is set before each one, and an alarm ends one that waits all the same.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from slapenir.edge.unix_sockets import interrupted

_NO_LINGER = bytes(8)


class Waited(BlockingIOError):
    """An accept had to be ended by the alarm: somebody plays with the socket."""


def _waited() -> None:
    raise Waited(errno.EAGAIN, "the socket made us wait")


class HandedListener(socket.socket):
    """A listening socket; ``suspicious`` is called when it had to be kept from waiting."""

    suspicious: Callable[[], None]

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; raises BlockingIOError where there is none."""
        os.set_blocking(self.fileno(), False)
        try:
            with interrupted(_waited):
                accepted = super().accept()
        except Waited:
            self.suspicious()
            raise
        # Who made the listener chose whether its connections wait when they are closed.
        accepted[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        return accepted


class HandedDatagrams(socket.socket):
    """A UDP socket."""

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """Read a datagram; raises BlockingIOError where there is none."""
        return super().recvfrom(bufsize, flags | socket.MSG_DONTWAIT)

    def sendto(self, data: Any, address: Any) -> int:  # type: ignore[override]
        """Send a datagram; raises BlockingIOError where there is no room."""
        return super().sendto(data, socket.MSG_DONTWAIT, address)


def take_over(port: Any, kind: type[socket.socket]) -> Any:
    """Put a socket of a class of ours into a port of Twisted's that was adopted; return it."""
    made = kind(fileno=port.socket.detach())
    port.socket = made
    port.fileno = made.fileno
    return made
