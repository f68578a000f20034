"""The log for people: what an operator should notice, through twisted.logger.

Lines are fixed texts with a few fields.  Every field is quoted as a JSON string, so nothing that
came from a peer can start a line of its own or colour a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger, LogLevel

from slapenir.events import (
    AuditFailed,
    CertificateIssued,
    CertificateLoaded,
    CertificateRenewed,
    CertificateRetired,
    ConnectionRefused,
    Decided,
    EnrolmentRefused,
    GatewayReady,
    GatewayStopping,
    InternalError,
    Reloaded,
    RenewalFailed,
    RevocationsLoaded,
    SandboxJoined,
    SandboxLeft,
    TlsHandshake,
    TrafficRefused,
)
from slapenir.names import Reason, Stage
from slapenir.observe.quota import Quota
from slapenir.observe.record import quote

LINES_PER_SECOND = 10
"""Lines per second and event class; the next one says how many were left out."""

EXPIRY_WARNING = 30 * 86400
"""Seconds before a certificate's end at which loading it is worth a warning."""

_ALARMS = (Reason.HONEYTOKEN, Reason.SECRET_IN_REQUEST, Reason.SECRET_IN_RESPONSE)


class Diagnostics:
    """Log events with ``logger``; ``clock`` gives Unix seconds."""

    def __init__(self, logger: Logger, clock: Callable[[], float] = time.time) -> None:
        self._logger = logger
        self._clock = clock
        self.handlers: Mapping[type, Callable[[Any], None]] = {
            Decided: self._on_decided,
            ConnectionRefused: self._on_refused,
            TlsHandshake: self._on_handshake,
            InternalError: self._on_internal_error,
            AuditFailed: self._on_audit_failed,
            GatewayReady: self._on_ready,
            GatewayStopping: self._on_stopping,
            Reloaded: self._on_reloaded,
            CertificateLoaded: self._on_certificate,
            CertificateRenewed: self._on_renewed,
            CertificateRetired: self._on_retired,
            RenewalFailed: self._on_not_renewed,
            CertificateIssued: self._on_issued,
            EnrolmentRefused: self._on_not_enrolled,
            RevocationsLoaded: self._on_revocations,
            SandboxJoined: self._on_joined,
            SandboxLeft: self._on_left,
            TrafficRefused: self._on_traffic,
        }
        self._quotas = {kind: Quota(LINES_PER_SECOND, clock) for kind in self.handlers}

    def _log(self, event: Any, level: Any, text: str, **fields: object) -> None:
        left_out = self._quotas[type(event)].take()
        if left_out is None:
            return
        if left_out:
            text += " ({left_out} more like it were left out)"
            fields["left_out"] = left_out
        shown = {key: quote(v) if isinstance(v, str) else v for key, v in fields.items()}
        self._logger.emit(level, text, **shown)

    def _on_decided(self, event: Decided) -> None:
        found = event.finding
        if event.stage is Stage.IDENTIFY:
            self._on_nobody(event)
            return
        if found is None or event.reason not in _ALARMS:
            return
        kind = "placeholder" if event.reason is Reason.HONEYTOKEN else "secret"
        self._log(
            event,
            LogLevel.warn,
            "Denied: the {kind} of credential {credential} was in the {place} of a {message} "
            "of identity {identity} and {authority}",
            kind=kind,
            message="response" if event.reason is Reason.SECRET_IN_RESPONSE else "request",
            credential=found.credential,
            place=found.place.value,
            identity=event.who.identity,
            authority=event.authority,
        )

    def _on_nobody(self, event: Decided) -> None:
        who = event.who
        text = "Refused {peer} on {listener}: {reason} {detail}"
        if who.identity:
            text = "Cut {peer} on {listener}, which was {identity}: {reason}"
        fields = {"listener": who.listener, "identity": who.identity, "detail": event.detail}
        self._log(event, LogLevel.warn, text, peer=who.peer, reason=event.reason.value, **fields)

    def _on_refused(self, event: ConnectionRefused) -> None:
        text = "Refused a connection from {peer} on {listener}: limit {limit} is reached"
        who = event.who
        fields = {"peer": who.peer, "listener": who.listener, "limit": event.limit}
        self._log(event, LogLevel.warn, text, **fields)

    def _on_handshake(self, event: TlsHandshake) -> None:
        if event.error:
            text = "TLS handshake on the {side} side for {authority} failed: {error}"
            fields = {"authority": event.authority, "error": event.error}
            self._log(event, LogLevel.info, text, side=event.side.value, **fields)

    def _on_internal_error(self, event: InternalError) -> None:
        text = "Unexpected {kind} in {where}; what it was doing was aborted"
        self._log(event, LogLevel.error, text, kind=event.kind, where=event.where)

    def _on_audit_failed(self, event: AuditFailed) -> None:
        text = "An audit record could not be written, requests are refused: {error}"
        self._log(event, LogLevel.critical, text, error=event.error)

    def _on_ready(self, event: GatewayReady) -> None:
        text = "SLAPENIR {version} is ready on {listeners}"
        listeners = ", ".join(event.listeners)
        self._log(event, LogLevel.info, text, version=event.version, listeners=listeners)

    def _on_stopping(self, event: GatewayStopping) -> None:
        text = "Stopping; connections that are left in {deadline} seconds are cut"
        self._log(event, LogLevel.info, text, deadline=event.deadline)

    def _on_reloaded(self, event: Reloaded) -> None:
        if event.error:
            text = "Reload failed, the old configuration stays in force: {error}"
            self._log(event, LogLevel.critical, text, error=event.error)
        else:
            self._log(event, LogLevel.info, "Reloaded the configuration")

    def _on_retired(self, event: CertificateRetired) -> None:
        text = "Certificate {certificate} is not used any more"
        self._log(event, LogLevel.info, text, certificate=event.certificate)

    def _on_renewed(self, event: CertificateRenewed) -> None:
        days = (event.not_after - self._clock()) / 86400
        text = "Renewed certificate {certificate}; the new one ends in {days:.2f} days"
        self._log(event, LogLevel.info, text, certificate=event.certificate, days=days)

    def _on_not_renewed(self, event: RenewalFailed) -> None:
        text = "Certificate {certificate} was not renewed: {error}; next try in {seconds:.0f} s"
        fields = {"certificate": event.certificate, "error": event.error}
        self._log(event, LogLevel.error, text, seconds=event.retry_seconds, **fields)

    def _on_issued(self, event: CertificateIssued) -> None:
        text = "Issued a certificate to {identity} at {peer}, by {how}"
        fields = {"identity": event.identity, "peer": event.peer, "how": event.how}
        self._log(event, LogLevel.info, text, **fields)

    def _on_not_enrolled(self, event: EnrolmentRefused) -> None:
        text = "Refused a certificate to {peer}: {reason}"
        self._log(event, LogLevel.warn, text, peer=event.peer, reason=event.reason)

    def _on_revocations(self, event: RevocationsLoaded) -> None:
        if event.error:
            text = "The revocation list of {listener} cannot be used: {error}"
            fields = {"listener": event.listener, "error": event.error}
            self._log(event, LogLevel.critical, text, **fields)
        else:
            text = "The revocation list of {listener} names {count} certificates"
            self._log(event, LogLevel.info, text, listener=event.listener, count=event.count)

    def _on_joined(self, event: SandboxJoined) -> None:
        text = "A sandbox of {identity} joined, run by user {uid}"
        self._log(event, LogLevel.info, text, identity=event.identity, uid=event.uid)

    def _on_left(self, event: SandboxLeft) -> None:
        text = "A sandbox of {identity} is served no more: {reason}"
        self._log(event, LogLevel.info, text, identity=event.identity, reason=event.reason)

    def _on_traffic(self, event: TrafficRefused) -> None:
        text = "The sandbox of {identity} was refused {packets} packets ({kind})"
        fields = {"identity": event.identity, "kind": event.kind}
        self._log(event, LogLevel.warn, text, packets=event.packets, **fields)

    def _on_certificate(self, event: CertificateLoaded) -> None:
        days = (event.not_after - self._clock()) / 86400
        soon = days * 86400 < EXPIRY_WARNING and not event.looked_after
        level = LogLevel.warn if soon else LogLevel.info
        text = "Certificate {certificate} ends in {days:.1f} days"
        self._log(event, level, text, certificate=event.certificate, days=days)
