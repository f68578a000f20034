"""Tell systemd when the gateway is ready, reloads badly, or stops (sd_notify(3)).

The protocol is one datagram to the socket that ``NOTIFY_SOCKET`` names.  Without that variable,
that is outside a unit of ``Type=notify``, nothing is sent.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from slapenir.events import GatewayReady, GatewayStopping, Reloaded


class Readiness:
    """Send the state of the gateway to ``address``, the value of NOTIFY_SOCKET, or nowhere."""

    def __init__(self, address: str | None) -> None:
        self._address = address or ""
        self.handlers: Mapping[type, Callable[[Any], None]] = {
            GatewayReady: lambda event: self.send("READY=1\nSTATUS=Ready"),
            GatewayStopping: lambda event: self.send("STOPPING=1\nSTATUS=Draining"),
            Reloaded: self._on_reloaded,
        }

    def send(self, state: str) -> None:
        """Send one state; raises OSError when the socket cannot be reached or would block."""
        if self._address[:1] not in ("/", "@"):
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
            datagrams.setblocking(False)
            datagrams.sendto(state.encode("utf-8"), address)

    def _on_reloaded(self, event: Reloaded) -> None:
        said = "Ready" if not event.error else "Ready, but the last reload failed: see the log"
        self.send(f"STATUS={said}")
