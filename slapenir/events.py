"""The closed catalogue of events: what audit, access log, metrics and diagnostics are fed from.

Every event is a frozen value.  None carries a secret, a body or a query string.  docs/events.rst
documents each by its class name; tests/test_structure.py holds code, sinks and page together.
Times are seconds; sizes are bytes.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from slapenir.names import Action, Form, Outcome, Place, Reason, Side, Stage


@attrs.frozen(slots=True)
class Who:
    """Whose connection it is: shared by all events of one client connection.

    ``connection`` is unique within a process, ``peer`` is ``address:port``.
    """

    connection: int
    listener: str
    identity: str
    peer: str


@attrs.frozen(slots=True)
class CredentialUse:
    """One credential put on one surface (``header:authorization``, ``query:key``, ``body``)."""

    credential: str
    surface: str


@attrs.frozen(slots=True)
class Finding:
    """A placeholder or a real secret found where it must not be.

    ``owner`` is the identity a placeholder was made for; empty for a real secret.
    """

    credential: str
    form: Form
    place: Place
    owner: str = ""


@attrs.frozen(slots=True)
class Decided:
    """The policy, or a check that stands beside it, decided: the audit record.

    ``authority`` is ``host:port``; ``path`` has no query and is empty where the head held a
    secret.  ``rule`` is empty where no rule was involved.  ``address`` is set at the address
    stage.  ``finding`` says what was found for HONEYTOKEN and SECRET_IN_REQUEST.  ``detail`` is
    a fixed phrase, such as what made a head malformed.
    """

    who: Who
    exchange: int
    stage: Stage
    action: Action
    reason: Reason
    rule: str = ""
    scheme: str = ""
    authority: str = ""
    method: str = ""
    path: str = ""
    credentials: tuple[CredentialUse, ...] = ()
    finding: Finding | None = None
    address: str = ""
    detail: str = ""


@attrs.frozen(slots=True)
class Swapped:
    """A placeholder in a request body was replaced ``count`` times; recorded before it is sent."""

    who: Who
    exchange: int
    credential: str
    count: int


@attrs.frozen(slots=True)
class Sanitized:
    """A secret was overwritten ``count`` times in a response."""

    who: Who
    exchange: int
    credential: str
    form: Form
    place: Place
    count: int


@attrs.frozen(slots=True)
class ExchangeFinished:
    """One exchange ended: the access record.  ``status`` is what the client was sent, or 0."""

    who: Who
    exchange: int
    outcome: Outcome
    rule: str
    method: str
    scheme: str
    authority: str
    path: str
    status: int
    request_bytes: int
    response_bytes: int
    seconds: float
    detail: str = ""


@attrs.frozen(slots=True)
class ConnectionOpened:
    """A client connected."""

    who: Who


@attrs.frozen(slots=True)
class ConnectionClosed:
    """A client's connection is gone."""

    who: Who


@attrs.frozen(slots=True)
class ConnectionRefused:
    """A client was turned away because ``limit`` was reached."""

    who: Who
    limit: str


@attrs.frozen(slots=True)
class OriginOpened:
    """A connection to an origin was established."""

    authority: str
    address: str


@attrs.frozen(slots=True)
class OriginClosed:
    """A connection to an origin is gone."""

    authority: str
    address: str


@attrs.frozen(slots=True)
class TlsHandshake:
    """A TLS handshake ended; ``error`` is empty when it succeeded."""

    side: Side
    authority: str
    seconds: float
    error: str = ""


@attrs.frozen(slots=True)
class InternalError:
    """An unexpected exception aborted something.  ``kind`` is the exception's class name."""

    where: str
    kind: str


@attrs.frozen(slots=True)
class AuditFailed:
    """An audit record could not be written; what it would have allowed was refused."""

    error: str


@attrs.frozen(slots=True)
class GatewayReady:
    """The gateway accepts connections."""

    version: str
    listeners: tuple[str, ...]


@attrs.frozen(slots=True)
class GatewayStopping:
    """The gateway drains; what is left after ``deadline`` seconds is cut."""

    deadline: float


@attrs.frozen(slots=True)
class Reloaded:
    """A reload was asked for.  With ``error`` set the old configuration stays in force."""

    error: str = ""


@attrs.frozen(slots=True)
class CertificateLoaded:
    """A certificate is in use; ``not_after`` is its expiry in Unix seconds.

    ``looked_after`` says that it is renewed by itself.
    """

    certificate: str
    not_after: float
    looked_after: bool = False


@attrs.frozen(slots=True)
class ClientIdentified:
    """It is known whose a client is.

    ``way`` is what showed it: ``certificate``, ``source``, ``unix_uid``, ``token`` or ``listener``.
    ``serial`` (hex) and ``not_after`` are those of its certificate, empty and 0 without one.
    """

    who: Who
    way: str
    serial: str = ""
    not_after: float = 0.0


@attrs.frozen(slots=True)
class CertificateRenewed:
    """A certificate that the gateway looks after was replaced; nothing was dropped for it.

    ``certificate`` is the label of its expiry gauge, ``not_after`` the new one's expiry.
    """

    certificate: str
    not_after: float


@attrs.frozen(slots=True)
class CertificateRetired:
    """A certificate is in use no more, and none took its place: its gauge goes."""

    certificate: str


@attrs.frozen(slots=True)
class RenewalFailed:
    """A certificate could not be renewed; the old one is used, and it is tried again.

    ``error`` is a phrase, ``retry_seconds`` the wait, ``not_after`` when the one in use ends.
    """

    certificate: str
    error: str
    retry_seconds: float
    not_after: float


@attrs.frozen(slots=True)
class CertificateIssued:
    """The embedded CA signed a certificate for an agent, by ``how``: ``token`` or ``renewal``.

    ``serial`` is in hex; ``peer`` who asked.
    """

    identity: str
    serial: str
    not_after: float
    how: str
    peer: str


@attrs.frozen(slots=True)
class EnrolmentRefused:
    """Somebody asked for a certificate and got none; ``reason`` is a fixed phrase."""

    reason: str
    peer: str


@attrs.frozen(slots=True)
class RevocationsLoaded:
    """What a listener's CAs revoked was read again; with ``error`` set, or past ``next_update``,
    certificates are refused where the listener requires a list."""

    listener: str
    count: int
    next_update: float
    error: str = ""


@attrs.frozen(slots=True)
class NameAsked:
    """A sandbox asked the gateway's DNS for a name.

    ``answer`` is ``address``, ``empty`` (the name has none of that type), ``denied``,
    ``malformed``, ``refused`` or ``limit``.
    """

    who: Who
    answer: str


@attrs.frozen(slots=True)
class SandboxJoined:
    """A sandbox of this host handed over its sockets; ``uid`` is the user who runs it."""

    identity: str
    uid: int
    sockets: tuple[str, ...]


@attrs.frozen(slots=True)
class SandboxLeft:
    """A sandbox is served no more; ``reason`` is a fixed phrase."""

    identity: str
    uid: int
    reason: str


@attrs.frozen(slots=True)
class TrafficRefused:
    """What a sandbox's packet filter refused since it last said so.

    ``kind`` is one of REFUSED_TRAFFIC.
    """

    identity: str
    kind: str
    packets: int


Event: TypeAlias = (
    Decided
    | Swapped
    | Sanitized
    | ExchangeFinished
    | ConnectionOpened
    | ConnectionClosed
    | ConnectionRefused
    | OriginOpened
    | OriginClosed
    | TlsHandshake
    | InternalError
    | AuditFailed
    | GatewayReady
    | GatewayStopping
    | Reloaded
    | CertificateLoaded
    | ClientIdentified
    | CertificateRenewed
    | CertificateRetired
    | RenewalFailed
    | CertificateIssued
    | EnrolmentRefused
    | RevocationsLoaded
    | NameAsked
    | SandboxJoined
    | SandboxLeft
    | TrafficRefused
)
