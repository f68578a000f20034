"""What comes before a session knows what it carries: the decision, its records, the ClientHello.

A CONNECT and a redirected connection open differently and go on alike: TLS that is intercepted,
TLS that is passed through, or raw bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slapenir.errors import RemoteProtocolError
from slapenir.events import Decided, ExchangeFinished
from slapenir.exchange.commands import Dial, SetTimer, StartTLS
from slapenir.exchange.http import HttpLayer
from slapenir.exchange.inputs import CLIENT, Timer
from slapenir.exchange.outbound import Refusal
from slapenir.exchange.tunnel import RawLayer, TunnelLayer
from slapenir.names import Action, Authority, Outcome, Reason, Stage
from slapenir.policy.decide import decide_connect
from slapenir.policy.model import ConnectFacts, Decision, Destination
from slapenir.wire.clienthello import ClientHello, ClientHelloReader
from slapenir.wire.sniff import Protocol, sniff

if TYPE_CHECKING:
    from slapenir.exchange.session import Session

# Fatal TLS alerts in a record of their own (RFC 8446, 6.2).
_ALERT = b"\x15\x03\x01\x00\x02\x02"
HANDSHAKE_FAILURE = _ALERT + bytes([40])
ACCESS_DENIED = _ALERT + bytes([49])
UNRECOGNIZED_NAME = _ALERT + bytes([112])
NO_APPLICATION_PROTOCOL = _ALERT + bytes([120])


class Opening:
    """One opening, up to the layer that follows; the base of those for each way in.

    ``destination`` is where a redirected connection was going, None for a CONNECT.  ``method``
    is that of the records.
    """

    method = ""
    tls = False  # whether it is known to be TLS, or has to be
    destination: Destination | None = None

    def __init__(self, session: Session) -> None:
        session.exchanges += 1
        self.number = session.exchanges
        self._session = session
        self._terms = session.terms()
        self._started = session.now
        self._reader: ClientHelloReader | None = None
        self._sni: str | None = None
        self._handshaking = False
        self._rest = b""  # what the client sent that nobody has read yet
        self.origin = 0
        self._authority = Authority("", 0)
        self._decision = Decision(Stage.CONNECT, Action.DENY, Reason.PROTOCOL_ERROR)

    # -- the decision -----------------------------------------------------------------------

    def _judge(self, authority: Authority) -> Decision:
        session = self._session
        facts = ConnectFacts(session.who.identity, authority, self.destination)
        return decide_connect(session.terms().policy, facts)

    def allowed_now(self) -> bool:
        """Whether the terms in force would still open this; when not, that is recorded."""
        action = self._judge(self._authority).action
        same = self._decision.action
        blind = (Action.PASSTHROUGH, Action.TUNNEL)
        if action is same or (action is not Action.DENY and same not in blind):
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
                scheme=self.scheme,
                authority=self.authority_text,
                method=self.method,
                finding=refusal.finding if refusal else None,
                detail=detail,
            )
        )

    def refused(self, refusal: Refusal) -> None:
        """Record that what passes through must not."""
        self._record(refusal)

    @property
    def scheme(self) -> str:
        """The scheme for records; raw TCP has none."""
        return "https" if self.tls and self._decision.action is not Action.TUNNEL else ""

    @property
    def authority_text(self) -> str:
        """The authority for records; empty where it was malformed or held a secret."""
        return str(self._authority) if self._authority.port else ""

    def finished(
        self, outcome: Outcome, status: int, sent: int = 0, received: int = 0, detail: str = ""
    ) -> None:
        """Record the outcome of the opening itself, or of the tunnel it became."""
        session = self._session
        session.emit(
            ExchangeFinished(
                who=session.who,
                exchange=self.number,
                outcome=outcome,
                rule=self._decision.rule,
                method=self.method,
                scheme=self.scheme,
                authority=self.authority_text,
                path="",
                status=status,
                request_bytes=sent,
                response_bytes=received,
                seconds=session.now - self._started,
                detail=detail,
            )
        )

    # -- the ClientHello --------------------------------------------------------------------

    def _await_hello(self) -> None:
        self._reader = ClientHelloReader()
        deadline = self._terms.deadlines.handshake
        self._session.out.append(SetTimer(Timer.HANDSHAKE, deadline))

    def _hello_bytes(self, data: bytes) -> None:
        """Take bytes of the ClientHello."""
        reader = self._reader
        if reader is None or self._handshaking:
            self._rest += data
            return
        if not reader.received and sniff(data) is not Protocol.TLS and data[:1] != b"\x16":
            self._cut(Reason.NOT_TLS, b"")
            return
        try:
            hello = reader.feed(data)
        except RemoteProtocolError as error:
            self._cut(Reason.CLIENT_HELLO_REFUSED, HANDSHAKE_FAILURE, error.reason)
            return
        if hello is not None:
            self._greeted(hello, reader.received)

    def _greeted(self, hello: ClientHello, received: bytes) -> None:
        """Judge a ClientHello; ``received`` is all that the client sent."""
        raise NotImplementedError

    def _intercept(self, hello: ClientHello, received: bytes) -> None:
        """Be the TLS server of what was decided on, unless the client could not use it."""
        if hello.alpn and b"http/1.1" not in hello.alpn:
            self._cut(
                Reason.CLIENT_HELLO_REFUSED, NO_APPLICATION_PROTOCOL, "it does not offer http/1.1"
            )
            return
        self._handshaking = True
        self._sni = hello.server_name
        self._session.out.append(StartTLS(self._authority.host, received))

    def handshake_done(self) -> None:
        """TLS is up: HTTP inside it is pinned to the authority that was decided on."""
        session = self._session
        session.out.append(SetTimer(Timer.HANDSHAKE, None))
        self.finished(Outcome.COMPLETED, 200)
        layer = HttpLayer(session, self._authority, self._sni, self)
        session.layer = layer
        layer.begin()

    # -- what is not read -------------------------------------------------------------------

    def _dial(self) -> None:
        session = self._session
        session.connections += 1
        self.origin = session.connections
        session.out.append(Dial(self.origin, self._authority, False, session.who, self.number))

    def _relay(self, received: bytes) -> None:
        """Become the tunnel; ``received`` is what the client sent already."""
        session, terms = self._session, self._terms
        session.out.append(SetTimer(Timer.HANDSHAKE, None))
        seconds = terms.deadlines.tunnel
        tunnel: TunnelLayer
        if self._decision.action is Action.TUNNEL:
            tunnel = RawLayer(session, self, self.origin, seconds, terms)
        else:
            tunnel = TunnelLayer(session, self, self.origin, seconds)
        session.layer = tunnel
        tunnel.begin(received)

    # -- ends -------------------------------------------------------------------------------

    def _cut(self, reason: Reason, alert: bytes, detail: str = "") -> None:
        """Refuse what the client sent and close."""
        self._cut_for(Refusal(reason), alert, detail)

    def _cut_for(self, refusal: Refusal, alert: bytes, detail: str = "") -> None:
        self._record(refusal, detail)
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

    def origin_received(self, data: bytes) -> None:
        """An origin that speaks before the ClientHello is not speaking TLS."""
        self._end(Outcome.ORIGIN_ABORTED, "the origin spoke first")

    def origin_closed(self, clean: bool) -> None:
        """The origin of a tunnel went away."""
        self.origin = 0
        self._end(Outcome.ORIGIN_ABORTED)

    def progress(self) -> None:
        """Nothing here waits for progress."""

    def drain(self) -> None:
        """Cut: nothing was exchanged yet."""
        self._end(Outcome.CLIENT_ABORTED, "the gateway stops")
