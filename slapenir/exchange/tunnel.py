"""A passthrough tunnel: bytes both ways, counted, never looked into (RFC 9110, 9.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slapenir.exchange.commands import CloseWrite, SetTimer
from slapenir.exchange.inputs import CLIENT, DialFailed, Dialled, Timer
from slapenir.names import Outcome

if TYPE_CHECKING:
    from slapenir.exchange.connect import ConnectLayer
    from slapenir.exchange.session import Session


class TunnelLayer:
    """Relay until both sides have closed, one fails, or nothing moves for too long."""

    def __init__(
        self, session: Session, connect: ConnectLayer, origin: int, seconds: float
    ) -> None:
        self._session = session
        self._connect = connect
        self.origin = origin
        self._seconds = seconds
        self._sent = 0
        self._received = 0
        self._moved = False
        self._client_done = False
        self._origin_done = False

    def begin(self, received: bytes) -> None:
        """Send the ClientHello that was read and watch for idleness."""
        self._session.out.append(SetTimer(Timer.TUNNEL, self._seconds))
        self.received(received)

    def received(self, data: bytes) -> None:
        """Relay towards the origin."""
        self._moved = True
        self._sent += len(data)
        self._session.send(self.origin, data)

    def origin_received(self, data: bytes) -> None:
        """Relay towards the client."""
        self._moved = True
        self._received += len(data)
        self._session.send(CLIENT, data)

    def client_closed(self, half: bool) -> None:
        """The client closed: pass a half-close on, end on a full one."""
        self._client_done = True
        if half and not self._origin_done:
            self._session.out.append(CloseWrite(self.origin))
        else:
            self._end(Outcome.COMPLETED)

    def origin_closed(self, clean: bool) -> None:
        """The origin closed; what it sent is flushed to the client before the close."""
        self._origin_done = True
        self.origin = 0
        self._end(Outcome.COMPLETED if clean else Outcome.ORIGIN_ABORTED)

    def _end(self, outcome: Outcome, detail: str = "") -> None:
        if self.origin:
            self._session.close_origin(self.origin)
            self.origin = 0
        self._connect.finished(outcome, 200, self._sent, self._received, detail)
        self._session.close_client()

    def timer(self, timer: Timer) -> None:
        """End an idle tunnel."""
        if timer is Timer.TUNNEL:
            if self._moved:
                self._moved = False
                self._session.out.append(SetTimer(Timer.TUNNEL, self._seconds))
            else:
                self._end(Outcome.TIMED_OUT, "the tunnel was idle")

    def dialled(self, result: Dialled) -> None:
        """Cannot happen: the dial is over before a tunnel begins."""

    def dial_failed(self, result: DialFailed) -> None:
        """Cannot happen: the dial is over before a tunnel begins."""

    def handshake_done(self) -> None:
        """Cannot happen: a tunnel's TLS is not ours."""

    def progress(self) -> None:
        """Count a drained buffer as movement."""
        self._moved = True

    def drain(self) -> None:
        """A tunnel lives until it ends or the drain's deadline cuts it."""

    def revised(self) -> None:
        """End at once when the tunnel is no longer allowed, or no longer a blind one."""
        if self._connect.allowed_now():
            return
        if self.origin:
            self._session.abort_origin(self.origin)
            self.origin = 0
        self._connect.finished(Outcome.DENIED, 200, self._sent, self._received, "")
        self._session.abort_client()

    def wants_client(self) -> bool:
        """Whether to read the client."""
        return not self._session.is_full(self.origin)
