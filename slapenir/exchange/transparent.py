"""A connection that the kernel redirected here: find its name, then go on as after a CONNECT.

The client does not know of the gateway and names nobody to it.  Where it was going is known, but
that address is believed for nothing: a name comes from the gateway's own DNS, from the ClientHello
or from the Host field, and what that name resolves to for the gateway is dialled.  Without a name
or with a protocol that is neither TLS nor HTTP/1.1 nothing is let through, unless a rule for raw
TCP names the destination.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from slapenir.exchange.commands import SetTimer
from slapenir.exchange.http import HttpLayer
from slapenir.exchange.inputs import CLIENT, DialFailed, DialFailure, Dialled, Timer
from slapenir.exchange.opening import (
    ACCESS_DENIED,
    HANDSHAKE_FAILURE,
    UNRECOGNIZED_NAME,
    Opening,
)
from slapenir.exchange.outbound import Refusal, scan_name
from slapenir.names import Action, Authority, Outcome, Reason, Stage
from slapenir.policy.model import Decision, Destination
from slapenir.wire.clienthello import ClientHello
from slapenir.wire.sniff import Protocol, sniff

if TYPE_CHECKING:
    from slapenir.exchange.session import Session

_VERSION = re.compile(rb" HTTP/[0-9]")
_NOWHERE = Decision(Stage.CONNECT, Action.DENY, Reason.ADDRESS_OWN_LISTENER)


class TransparentLayer(Opening):
    """One redirected connection, from its first byte to the layer that follows."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._half = False

    def begin(self, destination: Destination | None) -> None:
        """Take where the connection was going; None when it is gone already."""
        if destination is None:
            self._abort(Outcome.CLIENT_ABORTED)
            return
        if destination.own:
            self._decision = _NOWHERE
            self._record(Refusal(Reason.ADDRESS_OWN_LISTENER), "nothing was redirected")
            self._abort(Outcome.DENIED)
            return
        self.destination = destination
        self._authority = destination.named
        decision = self._judge(self._authority)
        session = self._session
        if decision.action is Action.TUNNEL:
            self._decision = decision
            self._record(None)
            self._dial()
        else:
            session.out.append(SetTimer(Timer.HEAD, self._terms.deadlines.head))

    # -- what the client begins with --------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take bytes until it is known what they are."""
        if self._reader is not None or self.origin:
            self._hello_bytes(data)
            return
        self._rest += data
        protocol = sniff(self._rest)
        if protocol is Protocol.HTTP:
            protocol = self._first_line()
        if protocol is Protocol.INCOMPLETE:
            return
        rest, self._rest = self._rest, b""
        if protocol is Protocol.TLS:
            self.tls = True
            self._session.out.append(SetTimer(Timer.HEAD, None))
            self._await_hello()
            self._hello_bytes(rest)
        elif protocol is Protocol.HTTP:
            session = self._session
            session.exchanges -= 1  # the requests are the exchanges, not their connection
            layer = HttpLayer(session, None, None, destination=self.destination)
            session.layer = layer
            layer.received(rest)
        else:
            self._cut(Reason.PROTOCOL_UNKNOWN, b"", "neither TLS nor HTTP/1.1")

    def _first_line(self) -> Protocol:
        """Look for the version in what may be a request line: ``EHLO x`` begins like one."""
        line, end, _ = self._rest.lstrip(b"\r\n").partition(b"\n")
        if not end:
            too_long = len(line) > self._terms.wire.head_bytes
            return Protocol.HTTP if too_long else Protocol.INCOMPLETE  # then it is told so
        return Protocol.HTTP if _VERSION.search(line) else Protocol.UNKNOWN

    def _greeted(self, hello: ClientHello, received: bytes) -> None:
        name = hello.server_name
        if name is None:
            self._cut(Reason.NAME_MISSING, UNRECOGNIZED_NAME, "the ClientHello has no name")
            return
        authority = Authority(name, self._authority.port)
        decision = self._judge(authority)
        refusal = scan_name(self._terms, hello.sent_name)
        if refusal is not None:
            self._authority = Authority("", 0)
            self._decision = Decision(Stage.CONNECT, Action.DENY, refusal.reason)
            self._deny(refusal, ACCESS_DENIED)
            return
        self._authority, self._decision = authority, decision
        if not decision.allowed:
            mismatch = decision.reason is Reason.SNI_MISMATCH
            self._deny(Refusal(decision.reason), UNRECOGNIZED_NAME if mismatch else ACCESS_DENIED)
            return
        if decision.action is Action.PASSTHROUGH and hello.ech:
            self._cut(Reason.CLIENT_HELLO_REFUSED, HANDSHAKE_FAILURE, "it uses ECH")
            return
        self._record(None)
        if decision.action is Action.ALLOW:
            self._intercept(hello, received)
        else:
            self._handshaking = True
            self._rest = received
            self._dial()

    # -- a passthrough or a tunnel ----------------------------------------------------------

    def dialled(self, result: Dialled) -> None:
        """The origin is there: relay what was kept and what comes."""
        rest, self._rest = self._rest, b""
        self._relay(rest)
        if self._half:
            self._session.layer.client_closed(half=True)

    def dial_failed(self, result: DialFailed) -> None:
        """The origin is not there: TLS is told by an alert, anything else by a reset."""
        self.origin = 0
        denied = result.failure is DialFailure.ADDRESS_DENIED
        outcome = Outcome.DENIED if denied else Outcome.ORIGIN_UNREACHABLE
        if self._decision.action is Action.TUNNEL:
            self._abort(outcome)
            return
        self._session.send(CLIENT, ACCESS_DENIED if denied else HANDSHAKE_FAILURE)
        self._end(outcome)

    # -- ends -------------------------------------------------------------------------------

    def _deny(self, refusal: Refusal, alert: bytes) -> None:
        self._record(refusal)
        self._session.send(CLIENT, alert)
        self._end(Outcome.DENIED)

    def _abort(self, outcome: Outcome) -> None:
        self.finished(outcome, 0)
        self._session.abort_client()

    def client_closed(self, half: bool) -> None:
        """The client went away, or sends no more while the origin is dialled."""
        if half and self.origin:
            self._half = True
        else:
            self._end(Outcome.CLIENT_ABORTED)

    def timer(self, timer: Timer) -> None:
        """A deadline passed."""
        if timer is Timer.HEAD:
            self._cut(Reason.NAME_MISSING, b"", "nothing to tell it by came in time")
        elif timer is Timer.HANDSHAKE:
            self._end(Outcome.TIMED_OUT, "no TLS handshake in time")

    def revised(self) -> None:
        """Cut when what was decided would be decided differently."""
        if self._decision.allowed and not self.allowed_now():
            self._end(Outcome.DENIED)

    def wants_client(self) -> bool:
        """Whether to read the client: not while a dial is under way."""
        return not self.origin
