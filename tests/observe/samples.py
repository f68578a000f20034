"""One event of each class, and a clock that a test moves."""

from __future__ import annotations

from typing import Any

from slapenir import events
from slapenir.names import Action, Form, Outcome, Place, Reason, Side, Stage

WHO = events.Who(7, "listener-1", "sandbox", "127.0.0.1:50000")


def decided(**changes: Any) -> events.Decided:
    """Return an allowed request with one credential, with ``changes``."""
    fields: dict[str, Any] = {
        "who": WHO,
        "exchange": 3,
        "stage": Stage.REQUEST,
        "action": Action.ALLOW,
        "reason": Reason.RULE,
        "rule": "llm",
        "scheme": "https",
        "authority": "api.example.test:443",
        "method": "POST",
        "path": "/v1/chat",
        "credentials": (events.CredentialUse("llm", "header:authorization"),),
    }
    return events.Decided(**{**fields, **changes})


def finished(**changes: Any) -> events.ExchangeFinished:
    """Return a completed exchange, with ``changes``."""
    fields: dict[str, Any] = {
        "who": WHO,
        "exchange": 3,
        "outcome": Outcome.COMPLETED,
        "rule": "llm",
        "method": "POST",
        "scheme": "https",
        "authority": "api.example.test:443",
        "path": "/v1/chat",
        "status": 200,
        "request_bytes": 100,
        "response_bytes": 5000,
        "seconds": 0.25,
    }
    return events.ExchangeFinished(**{**fields, **changes})


HONEYTOKEN = decided(
    action=Action.DENY,
    reason=Reason.HONEYTOKEN,
    credentials=(),
    finding=events.Finding("llm", Form.RAW, Place.HEAD, "sandbox"),
)

ONE_OF_EACH: tuple[events.Event, ...] = (
    decided(),
    events.Swapped(WHO, 3, "llm", 2),
    events.Sanitized(WHO, 3, "llm", Form.BASE64, Place.BODY, 2),
    finished(),
    events.ConnectionOpened(WHO),
    events.ConnectionClosed(WHO),
    events.ConnectionRefused(WHO, "connections"),
    events.OriginOpened("api.example.test:443", "192.0.2.1"),
    events.OriginClosed("api.example.test:443", "192.0.2.1"),
    events.TlsHandshake(Side.CLIENT, "api.example.test:443", 0.01),
    events.InternalError("edge.client", "ValueError"),
    events.AuditFailed("disk full"),
    events.GatewayReady("0.1.0", ("tcp:8080",)),
    events.GatewayStopping(30.0),
    events.Reloaded(),
    events.CertificateLoaded("ca", 2_000_000_000.0),
    events.ClientIdentified(WHO, "certificate", "7f3a", 2_000_000_000.0),
    events.CertificateRenewed("managed", 2_000_000_000.0),
    events.CertificateRetired("identity-root-2"),
    events.RenewalFailed("managed", "the CA cannot be reached", 60.0, 2_000_000_000.0),
    events.CertificateIssued("agent-1", "7f3a", 2_000_000_000.0, "token", "127.0.0.1:50000"),
    events.EnrolmentRefused("the token is not known", "127.0.0.1:50000"),
    events.NameAsked(WHO, "address"),
    events.SandboxJoined("sandbox", 1000, ("tcp", "tcp6")),
    events.SandboxLeft("sandbox", 1000, "its runner is gone"),
    events.TrafficRefused("sandbox", "udp443", 3),
    events.RevocationsLoaded("listener-1", 3, 2_000_000_000.0),
)


class FakeClock:
    """Seconds that stand still until ``now`` is set."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
