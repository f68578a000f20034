"""The sockets that a sandbox hands over: each is what it is said to be, or none is taken."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any

from slapenir.edge.unix_sockets import let_go

KINDS = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "dns-udp": (socket.AF_INET, socket.SOCK_DGRAM),
    "dns-udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
    "dns-tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "dns-tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
}
"""The sockets that a sandbox may hand over, each once."""


class JoinRefused(Exception):
    """A sandbox cannot be served: why, and what to do about it."""

    def __init__(self, error: str, remedy: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.remedy = remedy


def take(descriptors: Sequence[int], kinds: Sequence[Any]) -> list[tuple[str, socket.socket]]:
    """Return the descriptors as the sockets that ``kinds`` names, in that order.

    The caller closes them.  Raises JoinRefused, with every descriptor closed.
    """
    with contextlib.ExitStack() as undo:
        found: list[socket.socket] = []
        for position, descriptor in enumerate(descriptors):
            try:
                one = socket.socket(fileno=descriptor)
            except OSError:
                for left in descriptors[position:]:
                    undo.callback(let_go, left)
                raise JoinRefused("what was handed over is not a socket") from None
            undo.callback(_let_go, one)
            found.append(one)
        if len(found) != len(kinds) or len({*map(str, kinds)}) != len(kinds) or not kinds:
            raise JoinRefused("not as many sockets were handed over as the line names")
        for kind, one in zip(kinds, found, strict=True):
            _check(kind, one)
        undo.pop_all()
    return list(zip(kinds, found, strict=True))


def _let_go(one: socket.socket) -> None:
    let_go(one.detach())


def _check(kind: Any, one: socket.socket) -> None:
    """Raise JoinRefused unless a socket is what its name says, bound, and listening if TCP."""
    expected = KINDS.get(kind) if type(kind) is str else None
    if expected is None:
        raise JoinRefused("the line names a kind of socket that is not known")
    stream = expected[1] == socket.SOCK_STREAM
    protocol = socket.IPPROTO_TCP if stream else socket.IPPROTO_UDP
    listens = bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    fits = (one.family, one.type & 0xF) == expected and one.proto == protocol
    if not fits or listens is not stream or not one.getsockname()[1]:
        raise JoinRefused(f"the socket for {kind} is not one")
