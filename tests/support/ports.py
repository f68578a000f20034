"""Ports for servers of tests: each one is handed out once.

A port that the kernel chooses (``bind`` to 0) and that is closed again may be chosen a second time,
by the next call or for a connection out.  So these come from below the range that the kernel
chooses from, and no two calls in one process return the same.
"""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import ExitStack

FIRST, LAST = 16_384, 32_767
"""Below Linux's ``ip_local_port_range``, which begins at 32768 unless somebody changed it."""

_next = itertools.count(os.getpid())


def free_port() -> int:
    """Return a port that nobody listens on, TCP or UDP, and that was not returned before.

    Raises OSError when there is none.
    """
    size = LAST - FIRST + 1
    for number in itertools.islice(_next, size):
        port = FIRST + number % size
        if _is_free(port):
            return port
    raise OSError(f"no port from {FIRST} to {LAST} is free")


def _is_free(port: int) -> bool:
    with ExitStack() as held:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            probe = held.enter_context(socket.socket(socket.AF_INET, kind))
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                return False
    return True
