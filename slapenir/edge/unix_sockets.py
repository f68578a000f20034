"""UNIX sockets: who connects may hand over descriptors (SCM_RIGHTS), and closing one may wait.

A TCP socket with SO_LINGER makes the close(2) of its last descriptor wait for its peer; the file of
a file system in user space waits for whoever serves it.  Neither may happen in the reactor's
thread.  A descriptor that was received is let go here, and so are those that nobody has received
when the connection is closed, which the kernel would close then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from twisted.internet import unix
from twisted.internet.interfaces import IFileDescriptorReceiver

PATIENCE = 0.1
"""Seconds after which a call that must not wait is interrupted."""
_PASSRIGHTS = 83  # SO_PASSRIGHTS, Linux 6.16
_ABORT = struct.pack("ii", 1, 0)
_DESCRIPTORS = 253  # SCM_MAX_FD
_MESSAGES = 4096
_CLOSERS = 32

_closers = threading.BoundedSemaphore(_CLOSERS)


def let_go(descriptor: int) -> None:
    """Close a descriptor that somebody handed over, without waiting for what it stands for."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        _close_elsewhere(descriptor)
        return
    with socket.socket(fileno=descriptor) as one, interrupted():
        # With a linger time of nothing, close does not wait.  Who still has the socket can change
        # that, but then ours is not the last descriptor, unless it is just now being closed.
        with contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        one.close()


@contextlib.contextmanager
def interrupted(action: Any = None) -> Iterator[None]:
    """Interrupt a system call that waits too long; ``action`` is the handler, by default none."""

    def ring(number: int, frame: FrameType | None) -> None:
        if action is not None:
            action()

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _close_elsewhere(descriptor: int) -> None:
    """Close a file in a thread of its own; where too many of those wait already, never."""
    if not _closers.acquire(blocking=False):
        return

    def close() -> None:
        try:
            os.close(descriptor)
        finally:
            _closers.release()

    threading.Thread(target=close, daemon=True).start()


class WaryServer(unix.Server):
    """A connection of a UNIX socket; only a protocol that asks for descriptors is given any."""

    def _ancillaryLevelSOLSOCKETTypeSCMRIGHTS(self, cmsgData: bytes) -> None:
        protocol: Any = self.protocol
        wanted = IFileDescriptorReceiver.providedBy(protocol)
        for descriptor in struct.unpack(f"{len(cmsgData) // 4}i", cmsgData):
            if wanted:
                protocol.fileDescriptorReceived(descriptor)
            else:
                let_go(descriptor)

    def _closeSocket(self, orderly: bool) -> None:
        _drain(self.socket)
        super()._closeSocket(orderly)  # type: ignore[no-untyped-call]


def _drain(connection: socket.socket) -> None:
    """Receive what waits, and let go of every descriptor that comes along."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)  # no more can be sent
    for _ in range(_MESSAGES):
        try:
            data, found, _, _ = socket.recv_fds(
                connection, 65536, _DESCRIPTORS, socket.MSG_DONTWAIT
            )
        except OSError:
            return
        for descriptor in found:
            let_go(descriptor)
        if not data:
            return


def beware(port: Any, descriptors: bool = False) -> Any:
    """Make the connections of a listening port wary, if it is one of a UNIX socket; return it.

    Without ``descriptors`` nobody can hand any over, where the kernel knows how to refuse that.
    """
    if isinstance(port, unix.Port):
        port.transport = WaryServer
        if not descriptors:
            with contextlib.suppress(OSError):
                port.socket.setsockopt(socket.SOL_SOCKET, _PASSRIGHTS, 0)
    return port
