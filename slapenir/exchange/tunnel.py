"""Tunnels: bytes both ways, counted (RFC 9110, 9.3.6).

A passthrough is TLS that nobody here can read.  A tunnel for raw TCP is scanned in both directions
and nothing is ever put in; what is found ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slapenir.events import Finding
from slapenir.exchange.commands import CloseWrite, SetTimer
from slapenir.exchange.inputs import CLIENT, DialFailed, Dialled, Timer
from slapenir.exchange.outbound import Refusal, finding_for
from slapenir.exchange.terms import Terms
from slapenir.names import Outcome, Place, Reason
from slapenir.scan.detect import Detector

if TYPE_CHECKING:
    from slapenir.exchange.opening import Opening
    from slapenir.exchange.session import Session

# Seconds of silence after which a short beginning of a pattern is let go, and how long it may be.
# Whoever waits for those bytes would wait for ever: in a protocol that takes turns the last bytes
# of a message may happen to begin a secret.
_QUIET = 0.1
_LET_GO = 4


class TunnelLayer:
    """Relay until both sides have closed, one fails, or nothing moves for too long."""

    def __init__(self, session: Session, opening: Opening, origin: int, seconds: float) -> None:
        self._session = session
        self._opening = opening
        self.origin = origin
        self._seconds = seconds
        self._sent = 0
        self._received = 0
        self._moved = False
        self._client_done = False
        self._origin_done = False

    def begin(self, received: bytes) -> None:
        """Send what the client sent already and watch for idleness."""
        self._session.out.append(SetTimer(Timer.TUNNEL, self._seconds))
        if received:
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
        self._opening.finished(outcome, 200, self._sent, self._received, detail)
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
        if not self._opening.allowed_now():
            self._cut()

    def _cut(self) -> None:
        if self.origin:
            self._session.abort_origin(self.origin)
            self.origin = 0
        self._opening.finished(Outcome.DENIED, 200, self._sent, self._received, "")
        self._session.abort_client()

    def wants_client(self) -> bool:
        """Whether to read the client."""
        return not self._session.is_full(self.origin)


class RawLayer(TunnelLayer):
    """A tunnel for raw TCP: it ends when a secret or a placeholder is about to pass.

    What may still become one is held back.  At most ``_LET_GO`` bytes of it are let go when
    nothing else comes; the scan goes on over them.
    """

    def __init__(
        self, session: Session, opening: Opening, origin: int, seconds: float, terms: Terms
    ) -> None:
        super().__init__(session, opening, origin, seconds)
        self._terms = terms
        self._up = Detector(terms.request)
        self._down = Detector(terms.response)

    def received(self, data: bytes) -> None:
        """Relay towards the origin what is cleared."""
        cleared = self._up.feed(data)
        if not self._judge():
            return
        if cleared:
            super().received(cleared)
        self._watch(self._up)

    def origin_received(self, data: bytes) -> None:
        """Relay towards the client what is cleared."""
        cleared = self._down.feed(data)
        if not self._judge():
            return
        if cleared:
            super().origin_received(cleared)
        self._watch(self._down)

    def revised(self) -> None:
        """End at once when the tunnel is no longer allowed; else look for what is in force now."""
        if not self._opening.allowed_now():
            self._cut()
            return
        terms = self._session.terms()
        if terms is self._terms:
            return
        self._terms = terms
        up, down = self._up.renew(terms.request), self._down.renew(terms.response)
        if not self._judge():
            return
        if up and self.origin:
            super().received(up)
        if down:
            super().origin_received(down)

    def _judge(self) -> bool:
        """Stop for what was found; return whether nothing was."""
        up, down = self._up.found, self._down.found
        if up is not None:
            self._stop(finding_for(self._terms, up, Place.BODY))
        elif down is not None:
            pattern = self._terms.response.patterns[down.pattern]
            found = Finding(self._terms.secrets[pattern.owner], pattern.form, Place.BODY)
            self._stop(Refusal(Reason.SECRET_IN_RESPONSE, found))
        return up is None and down is None

    def _watch(self, detector: Detector) -> None:
        self._moved = True
        if detector.waits:
            self._session.ensure_timer(Timer.QUIET, _QUIET)

    def _stop(self, refusal: Refusal) -> None:
        self._opening.refused(refusal)
        self._cut()

    def timer(self, timer: Timer) -> None:
        """Let short beginnings go when it is quiet; end an idle tunnel."""
        if timer is not Timer.QUIET:
            super().timer(timer)
            return
        up, down = self._up.ease(_LET_GO), self._down.ease(_LET_GO)
        if up and self.origin:
            super().received(up)
        if down:
            super().origin_received(down)

    def client_closed(self, half: bool) -> None:
        """Let go of what was held: it became nothing."""
        rest = self._up.finish()
        if rest and self.origin:
            super().received(rest)
        super().client_closed(half)

    def origin_closed(self, clean: bool) -> None:
        """Let go of what was held, then end."""
        rest = self._down.finish()
        if rest:
            super().origin_received(rest)
        super().origin_closed(clean)
