"""The smallest session: one origin, bytes relayed both ways, with the interface of the real one."""

from __future__ import annotations

from slapenir.events import Event, Who
from slapenir.exchange.commands import (
    Close,
    CloseWrite,
    Command,
    Dial,
    Emit,
    PoolKey,
    Send,
    StartTLS,
)
from slapenir.exchange.inputs import (
    CLIENT,
    BytesReceived,
    DialFailed,
    Dialled,
    Drain,
    Input,
    Opened,
    PeerClosed,
    WriteFull,
    WriteReady,
)
from slapenir.names import Authority

ORIGIN = 1


class RelaySession:
    """Dial ``authority`` at once and relay until either side ends.

    With ``intercept`` the client's first bytes go into TLS with a leaf for that host.  What was
    received stands in ``inputs``, for tests to look at.
    """

    def __init__(
        self,
        who: Who,
        authority: Authority,
        tls: bool = False,
        intercept: str = "",
        pool: PoolKey | None = None,
        emit: tuple[Event, ...] = (),
    ) -> None:
        self.who = who
        self.authority = authority
        self.tls = tls
        self.intercept = intercept
        self.pool = pool
        self.emit = emit
        self.finished = False
        self.inputs: list[Input] = []
        self.full: set[int] = set()
        self.connected = False
        self.early = b""

    def receive(self, item: Input, now: float) -> list[Command]:
        """Relay."""
        self.inputs.append(item)
        if self.finished:
            return []
        match item:
            case Opened():
                dial = Dial(ORIGIN, self.authority, self.tls, self.who, 1, self.pool)
                return [*(Emit(event) for event in self.emit), dial]
            case BytesReceived(connection, data):
                return self._bytes(connection, data)
            case Dialled():
                self.connected = True
                early, self.early = self.early, b""
                return [Send(ORIGIN, early)] if early else []
            case WriteFull(connection):
                self.full.add(connection)
            case WriteReady(connection):
                self.full.discard(connection)
            case PeerClosed(connection, _, half):
                if half and connection == CLIENT:
                    return [CloseWrite(ORIGIN)] if self.connected else []
                return self._end(connection)
            case DialFailed() | Drain():
                return self._end(ORIGIN)
        return []

    def wants(self, connection: int) -> bool:
        """Whether the other side can take more."""
        if connection == CLIENT:
            return ORIGIN not in self.full and len(self.early) < 65536
        return CLIENT not in self.full

    def _bytes(self, connection: int, data: bytes) -> list[Command]:
        if connection == ORIGIN:
            return [Send(CLIENT, data)]
        if self.intercept:
            host, self.intercept = self.intercept, ""
            return [StartTLS(host, data)]
        if not self.connected:
            self.early += data
            return []
        return [Send(ORIGIN, data)]

    def _end(self, connection: int) -> list[Command]:
        self.finished = True
        out: list[Command] = []
        if connection == CLIENT and self.connected:
            out.append(Close(ORIGIN))
        out.append(Close(CLIENT))
        return out
