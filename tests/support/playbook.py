"""A pretended edge for a Session: it runs commands against byte strings and keeps everything.

Nothing is mocked inside the session: policy, scanner, credentials and codecs are the real ones.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from ipaddress import ip_network

from slapenir.credentials.model import BodySurface, Credential, HeaderSurface
from slapenir.credentials.placeholders import mint
from slapenir.events import Decided, Event, ExchangeFinished, Sanitized, Who
from slapenir.exchange.authentication import Authenticator
from slapenir.exchange.commands import (
    Abort,
    Admit,
    Close,
    CloseWrite,
    Command,
    Dial,
    Emit,
    Release,
    Send,
    SetTimer,
    StartTLS,
)
from slapenir.exchange.inputs import (
    CLIENT,
    BytesReceived,
    DialFailed,
    DialFailure,
    Dialled,
    HandshakeDone,
    Input,
    Opened,
    PeerClosed,
    Timer,
    TimerFired,
)
from slapenir.exchange.session import Session
from slapenir.exchange.terms import Bounds, Deadlines, Terms, build_terms
from slapenir.names import Scheme
from slapenir.policy.addresses import AddressPolicy
from slapenir.policy.match import Policy
from slapenir.policy.model import Destination, Rule
from slapenir.secret import Secret
from slapenir.wire.limits import WireLimits

IDENTITY = "sandbox"
OTHER = "other"
KEY = secrets.token_bytes(32)


def new_secret(prefix: str = "sk-") -> bytes:
    """Return a fresh secret of 48 characters or so; tests hold no literal ones."""
    return (prefix + secrets.token_urlsafe(36)).encode()


def bearer(name: str, secret: bytes, hosts: Sequence[str], **more: object) -> Credential:
    """Return a credential for ``Authorization: Bearer``."""
    surfaces = (HeaderSurface(b"authorization", b"Bearer", "present"),)
    return credential(name, secret, hosts, surfaces, **more)


def in_body(name: str, secret: bytes, hosts: Sequence[str], **more: object) -> Credential:
    """Return a credential that is swapped in bodies."""
    return credential(name, secret, hosts, (BodySurface(),), **more)


def credential(
    name: str,
    secret: bytes,
    hosts: Sequence[str],
    surfaces: Sequence[object],
    placeholder: bytes | None = None,
) -> Credential:
    """Return a credential with any surfaces."""
    return Credential(name, Secret(secret), tuple(hosts), tuple(surfaces), placeholder)  # type: ignore[arg-type]


def rule(name: str, hosts: Sequence[str], **more: object) -> Rule:
    """Return a rule for the sandbox identity."""
    return Rule(id=name, identities=(IDENTITY,), hosts=tuple(hosts), **more)  # type: ignore[arg-type]


def make_terms(
    rules: Sequence[Rule],
    credentials: Sequence[Credential] = (),
    *,
    wire: WireLimits | None = None,
    deadlines: Deadlines | None = None,
    bounds: Bounds | None = None,
    identities: Sequence[str] = (IDENTITY, OTHER),
) -> Terms:
    """Return real terms for these rules and credentials."""
    held: dict[str, Mapping[str, bytes]] = {
        identity: {
            c.id: c.placeholder or mint(KEY, c.secret.reveal(), identity, c.id) for c in credentials
        }
        for identity in identities
    }
    return build_terms(
        Policy(tuple(rules), AddressPolicy((ip_network("10.20.0.0/16"),), frozenset())),
        {c.id: c for c in credentials},
        held,
        wire or WireLimits(),
        deadlines or Deadlines(),
        bounds or Bounds(),
    )


class Playbook:
    """Drive one session and record what it did.

    ``client`` and ``origins[n]`` collect the bytes sent to each connection, in order.  Dials are
    answered at once while ``auto_dial``; otherwise they wait in ``dials``.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        auto_dial: bool = True,
        identity: str = IDENTITY,
        authenticator: Authenticator | None = None,
        destination: Destination | None = None,
        redirected: bool = False,
    ) -> None:
        self.terms = terms
        self.who = Who(1, "listener-0", identity, "192.0.2.7:40000")
        redirected = redirected or destination is not None
        self.session = Session(self.who, lambda: self.terms, authenticator, redirected)
        self.admitted: list[Admit] = []
        self.auto_dial = auto_dial
        self.now = 1000.0
        self.client = bytearray()
        self.origins: dict[int, bytearray] = {}
        self.dials: list[Dial] = []
        self.events: list[Event] = []
        self.commands: list[Command] = []
        self.timers: dict[Timer, float] = {}
        self.started_tls: list[StartTLS] = []
        self.released: list[int] = []
        self.aborted: list[int] = []
        self.closed: list[int] = []
        self.give(Opened(destination))

    def give(self, event: Input) -> list[Command]:
        """Feed one input, run its commands, and answer dials when asked to."""
        commands = self.session.receive(event, self.now)
        self.commands += commands
        answers: list[Input] = []
        for command in commands:
            self._run(command, answers)
        for answer in answers:
            self.give(answer)
        return commands

    def _run(self, command: Command, answers: list[Input]) -> None:
        if isinstance(command, Send):
            target = (
                self.client if command.connection == CLIENT else self.origins[command.connection]
            )
            target += command.data
        elif isinstance(command, Emit):
            self.events.append(command.event)
        elif isinstance(command, Dial):
            self.dials.append(command)
            if self.auto_dial:
                self.origins[command.connection] = bytearray()
                answers.append(Dialled(command.connection, "192.0.2.9:443", False))
        elif isinstance(command, SetTimer):
            if command.seconds is None:
                self.timers.pop(command.timer, None)
            else:
                self.timers[command.timer] = self.now + command.seconds
        elif isinstance(command, StartTLS):
            self.started_tls.append(command)
        elif isinstance(command, Admit):
            self.admitted.append(command)
        elif isinstance(command, Release):
            self.released.append(command.connection)
        elif isinstance(command, Abort):
            self.aborted.append(command.connection)
        elif isinstance(command, Close):
            self.closed.append(command.connection)
        else:
            assert isinstance(command, CloseWrite)

    # -- shorthands -------------------------------------------------------------------------

    def client_sends(self, data: bytes) -> None:
        """The client's bytes arrive."""
        self.give(BytesReceived(CLIENT, data))

    def origin_sends(self, data: bytes, connection: int | None = None) -> None:
        """The newest origin's bytes (or a given one's) arrive."""
        self.give(BytesReceived(connection or self.dials[-1].connection, data))

    def origin_closes(self, clean: bool = True) -> None:
        """The newest origin closes."""
        self.give(PeerClosed(self.dials[-1].connection, clean))

    def client_closes(self, *, half: bool = False) -> None:
        """The client closes."""
        self.give(PeerClosed(CLIENT, True, half))

    def dial_succeeds(self) -> None:
        """Answer the newest dial."""
        dial = self.dials[-1]
        self.origins[dial.connection] = bytearray()
        self.give(Dialled(dial.connection, "192.0.2.9:443", False))

    def dial_fails(self, failure: DialFailure) -> None:
        """Fail the newest dial."""
        self.give(DialFailed(self.dials[-1].connection, failure))

    def fire(self, timer: Timer) -> None:
        """Let a deadline pass; it must be set."""
        self.now = self.timers.pop(timer)
        self.give(TimerFired(timer))

    def intercept(
        self, authority: str = "api.example.test:443", hello: bytes | None = None
    ) -> None:
        """Bring the session to HTTP inside an intercepted tunnel."""
        from tests.support.hello import client_hello

        host = authority.rpartition(":")[0]
        self.client_sends(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % ((authority.encode(),) * 2))
        assert b"200" in self.client[:20], bytes(self.client)
        self.client_sends(hello or client_hello(host))
        assert self.started_tls, self.events
        self.give(HandshakeDone())
        self.client.clear()
        self.events.clear()

    @property
    def origin(self) -> bytes:
        """What the newest origin was sent."""
        return bytes(self.origins[self.dials[-1].connection])

    def decisions(self) -> list[Decided]:
        """Every audit record of a decision so far."""
        return [e for e in self.events if isinstance(e, Decided)]

    def outcomes(self) -> list[ExchangeFinished]:
        """Every access record so far."""
        return [e for e in self.events if isinstance(e, ExchangeFinished)]

    def sanitized(self) -> list[Sanitized]:
        """Every redaction so far."""
        return [e for e in self.events if isinstance(e, Sanitized)]

    def placeholder(self, name: str, identity: str = IDENTITY) -> bytes:
        """Return an identity's placeholder for a credential."""
        return self.terms.protections[identity].placeholders[name]


def basic(user: bytes, password: bytes) -> bytes:
    """Return the value of a Basic Authorization header."""
    return b"Basic " + base64.b64encode(user + b":" + password)


__all__ = ["IDENTITY", "KEY", "OTHER", "Playbook", "Scheme", "basic", "bearer", "in_body"]
