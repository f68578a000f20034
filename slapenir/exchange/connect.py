"""CONNECT: judge it, then look at the ClientHello before anything is trusted (RFC 9110, 9.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slapenir.errors import AuthorityError, RemoteProtocolError
from slapenir.exchange import answers
from slapenir.exchange.admission import malformed
from slapenir.exchange.answers import Answer
from slapenir.exchange.commands import SetTimer
from slapenir.exchange.inputs import CLIENT, DialFailed, Dialled, Timer
from slapenir.exchange.opening import (
    ACCESS_DENIED,
    HANDSHAKE_FAILURE,
    UNRECOGNIZED_NAME,
    Opening,
)
from slapenir.exchange.outbound import Refusal, scan_head, scan_name
from slapenir.names import Action, Authority, Outcome, Reason, Stage
from slapenir.policy.model import Decision
from slapenir.wire.clienthello import ClientHello
from slapenir.wire.messages import RequestHead
from slapenir.wire.target import parse_connect

if TYPE_CHECKING:
    from slapenir.exchange.session import Session

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class ConnectLayer(Opening):
    """One CONNECT, from its head to the layer that follows: intercepted HTTP or a tunnel."""

    method = "CONNECT"
    tls = True

    def __init__(self, session: Session, rest: bytes) -> None:
        super().__init__(session)
        self._rest = rest
        self._lingering = False

    def begin(self, head: RequestHead) -> None:
        """Judge the CONNECT and act on it."""
        terms = self._terms
        try:
            self._authority = parse_connect(head.target)
        except (AuthorityError, RemoteProtocolError) as error:
            admission = malformed(terms, "CONNECT", None, error)
            self._record(Refusal(Reason.PROTOCOL_ERROR), detail=error.reason)
            self._refuse(admission.answer())
            return
        self._decision = self._judge(self._authority)
        refusal = scan_name(terms, head.target) or scan_head(
            terms, b"".join(b"%s: %s\r\n" % field for field in head.headers)
        )
        if refusal is not None:
            self._authority = Authority("", 0)
            self._decision = Decision(Stage.CONNECT, Action.DENY, refusal.reason)
            self._record(refusal)
            self._refuse(answers.denial(self._decision))
            return
        self._record(None if self._decision.allowed else Refusal(self._decision.reason))
        if not self._decision.allowed:
            self._refuse(answers.denial(self._decision))
        elif self._decision.action is Action.ALLOW:
            self._established()
        else:
            self._dial()

    def _established(self) -> None:
        """Say that the tunnel is there, and read what the client begins with."""
        self._session.send(CLIENT, _ESTABLISHED)
        rest, self._rest = self._rest, b""
        if self._decision.action is Action.TUNNEL:
            self._relay(rest)
            return
        self._await_hello()
        if rest:
            self.received(rest)

    def _refuse(self, answer: Answer, outcome: Outcome = Outcome.DENIED) -> None:
        """Answer and close; the bytes that a client sent ahead are thrown away."""
        if answer.reason == "protocol_error":
            outcome = Outcome.PROTOCOL_ERROR
        self._session.send(CLIENT, answer.encode())
        self.finished(outcome, answer.status)
        if self._rest:
            self._lingering = True
            self._session.out.append(SetTimer(Timer.CLOSE, self._terms.deadlines.close))
        else:
            self._session.close_client()

    def dialled(self, result: Dialled) -> None:
        """The tunnel's origin is there."""
        self._established()

    def dial_failed(self, result: DialFailed) -> None:
        """The tunnel's origin is not there: an honest refusal instead of a 200."""
        self.origin = 0
        outcome = Outcome.ORIGIN_UNREACHABLE
        answer = answers.dial_failure(result.failure, self._decision.rule)
        if answer.decision == "deny":
            outcome = Outcome.DENIED
        self._refuse(answer, outcome)

    def received(self, data: bytes) -> None:
        """Take bytes of the ClientHello."""
        if not self._lingering:
            self._hello_bytes(data)

    def _greeted(self, hello: ClientHello, received: bytes) -> None:
        passthrough = self._decision.action is Action.PASSTHROUGH
        name = hello.server_name
        if name != self._authority.host and (name is not None or passthrough):
            self._cut(Reason.SNI_MISMATCH, UNRECOGNIZED_NAME)
        elif passthrough and (refusal := scan_name(self._terms, hello.sent_name)) is not None:
            self._cut_for(refusal, ACCESS_DENIED)
        elif passthrough and hello.ech:
            self._cut(Reason.CLIENT_HELLO_REFUSED, HANDSHAKE_FAILURE, "it uses ECH")
        elif passthrough:
            self._relay(received)
        else:
            self._intercept(hello, received)

    def client_closed(self, half: bool) -> None:
        """The client went away before the tunnel was up."""
        if not self._lingering:
            self._end(Outcome.CLIENT_ABORTED)
        else:
            self._session.close_client()

    def timer(self, timer: Timer) -> None:
        """A deadline passed."""
        if timer is Timer.CLOSE:
            self._session.close_client()
        elif timer is Timer.HANDSHAKE:
            self._end(Outcome.TIMED_OUT, "no TLS handshake in time")

    def revised(self) -> None:
        """Cut when the CONNECT would no longer be allowed."""
        if not self._lingering and not self.allowed_now():
            self._end(Outcome.DENIED)

    def wants_client(self) -> bool:
        """Whether to read the client: not while a dial is under way."""
        return self._reader is not None or self._lingering
