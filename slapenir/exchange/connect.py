"""CONNECT: judge it, then look at the ClientHello before anything is trusted (RFC 9110, 9.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slapenir.errors import AuthorityError, RemoteProtocolError
from slapenir.events import Decided, ExchangeFinished
from slapenir.exchange import answers
from slapenir.exchange.admission import malformed
from slapenir.exchange.answers import Answer
from slapenir.exchange.commands import Dial, SetTimer, StartTLS
from slapenir.exchange.http import HttpLayer
from slapenir.exchange.inputs import CLIENT, DialFailed, Dialled, Timer
from slapenir.exchange.outbound import Refusal, scan_head
from slapenir.exchange.tunnel import TunnelLayer
from slapenir.names import Action, Authority, Outcome, Reason, Stage
from slapenir.policy.decide import decide_connect
from slapenir.policy.model import ConnectFacts, Decision
from slapenir.wire.clienthello import ClientHello, ClientHelloReader
from slapenir.wire.messages import RequestHead
from slapenir.wire.sniff import Protocol, sniff
from slapenir.wire.target import parse_connect

if TYPE_CHECKING:
    from slapenir.exchange.session import Session

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
# Fatal TLS alerts in a record of their own (RFC 8446, 6.2).
_ALERT = b"\x15\x03\x01\x00\x02\x02"
_UNRECOGNIZED_NAME = _ALERT + bytes([112])
_NO_APPLICATION_PROTOCOL = _ALERT + bytes([120])
_HANDSHAKE_FAILURE = _ALERT + bytes([40])


class ConnectLayer:
    """One CONNECT, from its head to the layer that follows: intercepted HTTP or a tunnel."""

    def __init__(self, session: Session, rest: bytes) -> None:
        session.exchanges += 1
        self.number = session.exchanges
        self._session = session
        self._terms = session.terms()
        self._started = session.now
        self._rest = rest
        self._reader: ClientHelloReader | None = None
        self._sni: str | None = None
        self._handshaking = False
        self._lingering = False
        self.origin = 0
        self._authority = Authority("", 0)
        self._decision = Decision(Stage.CONNECT, Action.DENY, Reason.PROTOCOL_ERROR)

    def begin(self, head: RequestHead) -> None:
        """Judge the CONNECT and act on it."""
        session, terms = self._session, self._terms
        try:
            self._authority = parse_connect(head.target)
        except (AuthorityError, RemoteProtocolError) as error:
            admission = malformed(terms, "CONNECT", None, error)
            self._record(Refusal(Reason.PROTOCOL_ERROR), detail=error.reason)
            self._refuse(admission.answer())
            return
        self._decision = self._judge()
        # The host is looked at with and without its dots: labels may be pieces of a secret (T039).
        view = b"CONNECT %s\r\n%s\r\n" % (head.target, head.target.replace(b".", b""))
        refusal = scan_head(terms, view + b"".join(b"%s: %s\r\n" % f for f in head.headers))
        if refusal is not None:
            self._authority = Authority("", 0)
            self._decision = Decision(Stage.CONNECT, Action.DENY, refusal.reason)
            self._record(refusal)
            self._refuse(answers.denial(self._decision))
            return
        self._record(None if self._decision.allowed else Refusal(self._decision.reason))
        if not self._decision.allowed:
            self._refuse(answers.denial(self._decision))
        elif self._decision.action is Action.PASSTHROUGH:
            self._dial()
        else:
            session.send(CLIENT, _ESTABLISHED)
            self._await_hello()

    def _judge(self) -> Decision:
        session = self._session
        facts = ConnectFacts(session.who.identity, self._authority)
        return decide_connect(session.terms().policy, facts)

    def allowed_now(self) -> bool:
        """Whether the terms in force would still make this tunnel; when not, that is recorded."""
        action = self._judge().action
        same = self._decision.action
        if action is same or (action is not Action.DENY and same is not Action.PASSTHROUGH):
            return True
        self._record(Refusal(Reason.RULE_REMOVED))
        return False

    def _record(self, refusal: Refusal | None, detail: str = "") -> None:
        decision = self._decision
        self._session.emit(
            Decided(
                who=self._session.who,
                exchange=self.number,
                stage=Stage.CONNECT,
                action=Action.DENY if refusal else decision.action,
                reason=refusal.reason if refusal else decision.reason,
                rule=decision.rule,
                scheme="https",
                authority=self.authority_text,
                method="CONNECT",
                finding=refusal.finding if refusal else None,
                detail=detail,
            )
        )

    @property
    def authority_text(self) -> str:
        """The authority for records; empty where it was malformed or held a secret."""
        return str(self._authority) if self._authority.port else ""

    def finished(
        self, outcome: Outcome, status: int, sent: int = 0, received: int = 0, detail: str = ""
    ) -> None:
        """Record the outcome of the CONNECT itself, or of the tunnel it became."""
        session = self._session
        session.emit(
            ExchangeFinished(
                who=session.who,
                exchange=self.number,
                outcome=outcome,
                rule=self._decision.rule,
                method="CONNECT",
                scheme="https",
                authority=self.authority_text,
                path="",
                status=status,
                request_bytes=sent,
                response_bytes=received,
                seconds=session.now - self._started,
                detail=detail,
            )
        )

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

    # -- passthrough ------------------------------------------------------------------------

    def _dial(self) -> None:
        session = self._session
        session.connections += 1
        self.origin = session.connections
        session.out.append(Dial(self.origin, self._authority, False, session.who, self.number))

    def dialled(self, result: Dialled) -> None:
        """The tunnel's origin is there: say so and wait for the ClientHello."""
        self._session.send(CLIENT, _ESTABLISHED)
        self._await_hello()

    def dial_failed(self, result: DialFailed) -> None:
        """The tunnel's origin is not there: an honest refusal instead of a 200."""
        self.origin = 0
        outcome = Outcome.ORIGIN_UNREACHABLE
        answer = answers.dial_failure(result.failure, self._decision.rule)
        if answer.decision == "deny":
            outcome = Outcome.DENIED
        self._refuse(answer, outcome)

    # -- the ClientHello --------------------------------------------------------------------

    def _await_hello(self) -> None:
        self._reader = ClientHelloReader()
        deadline = self._terms.deadlines.handshake
        self._session.out.append(SetTimer(Timer.HANDSHAKE, deadline))
        if self._rest:
            rest, self._rest = self._rest, b""
            self.received(rest)

    def received(self, data: bytes) -> None:
        """Take bytes of the ClientHello."""
        if self._lingering:
            return
        if self._reader is None or self._handshaking:
            self._rest += data
            return
        first = not self._reader.received
        if first and sniff(data) is not Protocol.TLS and data[:1] != b"\x16":
            self._cut(Reason.NOT_TLS, b"")
            return
        try:
            hello = self._reader.feed(data)
        except RemoteProtocolError as error:
            self._cut(Reason.CLIENT_HELLO_REFUSED, _HANDSHAKE_FAILURE, error.reason)
            return
        if hello is not None:
            self._greeted(hello, self._reader.received)

    def _greeted(self, hello: ClientHello, received: bytes) -> None:
        passthrough = self._decision.action is Action.PASSTHROUGH
        name = hello.server_name
        if name != self._authority.host and (name is not None or passthrough):
            self._cut(Reason.SNI_MISMATCH, _UNRECOGNIZED_NAME)
        elif passthrough and hello.ech:
            self._cut(Reason.CLIENT_HELLO_REFUSED, _HANDSHAKE_FAILURE, "it uses ECH")
        elif passthrough:
            self._session.out.append(SetTimer(Timer.HANDSHAKE, None))
            tunnel = TunnelLayer(self._session, self, self.origin, self._terms.deadlines.tunnel)
            self._session.layer = tunnel
            tunnel.begin(received)
        elif hello.alpn and b"http/1.1" not in hello.alpn:
            self._cut(
                Reason.CLIENT_HELLO_REFUSED, _NO_APPLICATION_PROTOCOL, "it does not offer http/1.1"
            )
        else:
            self._handshaking = True
            self._sni = name
            self._session.out.append(StartTLS(self._authority.host, received))

    def handshake_done(self) -> None:
        """TLS is up: HTTP inside it is pinned to the authority of the CONNECT."""
        session = self._session
        session.out.append(SetTimer(Timer.HANDSHAKE, None))
        self.finished(Outcome.COMPLETED, 200)
        layer = HttpLayer(session, self._authority, self._sni, self)
        session.layer = layer
        layer.begin()

    def _cut(self, reason: Reason, alert: bytes, detail: str = "") -> None:
        """Refuse what came through the tunnel and close it."""
        self._record(Refusal(reason), detail)
        if alert:
            self._session.send(CLIENT, alert)
        self._end(Outcome.DENIED, detail)

    def _end(self, outcome: Outcome, detail: str = "") -> None:
        if self.origin:
            self._session.abort_origin(self.origin)
            self.origin = 0
        self.finished(outcome, 200 if self._reader is not None else 0, detail=detail)
        self._session.close_client()

    # -- everything else --------------------------------------------------------------------

    def client_closed(self, half: bool) -> None:
        """The client went away before the tunnel was up."""
        if not self._lingering:
            self._end(Outcome.CLIENT_ABORTED)
        else:
            self._session.close_client()

    def origin_received(self, data: bytes) -> None:
        """An origin that speaks before the ClientHello is not speaking TLS."""
        self._end(Outcome.ORIGIN_ABORTED, "the origin spoke first")

    def origin_closed(self, clean: bool) -> None:
        """The origin of a tunnel went away."""
        self.origin = 0
        self._end(Outcome.ORIGIN_ABORTED)

    def timer(self, timer: Timer) -> None:
        """A deadline passed."""
        if timer is Timer.CLOSE:
            self._session.close_client()
        elif timer is Timer.HANDSHAKE:
            self._end(Outcome.TIMED_OUT, "no TLS handshake in time")

    def progress(self) -> None:
        """Nothing here waits for progress."""

    def drain(self) -> None:
        """Cut: nothing was exchanged yet."""
        self._end(Outcome.CLIENT_ABORTED, "the gateway stops")

    def revised(self) -> None:
        """Cut when the CONNECT would no longer be allowed."""
        if not self._lingering and not self.allowed_now():
            self._end(Outcome.DENIED)

    def wants_client(self) -> bool:
        """Whether to read the client: not while a dial is under way."""
        return self._reader is not None or self._lingering
