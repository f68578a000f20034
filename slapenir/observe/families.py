"""The catalogue of metrics: docs/metrics.rst documents each of these and no others."""

from __future__ import annotations

import attrs

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SIZE = tuple(4**n for n in range(4, 17))


@attrs.frozen(slots=True)
class Family:
    """One metric: its name, what it is, its labels, and for a histogram its bounds."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


REQUESTS = Family(
    "slapenir_proxy_http_requests_total",
    "counter",
    "Exchanges that ended.",
    ("method", "status", "rule", "identity"),
)
DURATION = Family(
    "slapenir_proxy_http_request_duration_seconds",
    "histogram",
    "Seconds from the request head to the end of the exchange.",
    bounds=_LATENCY,
)
REQUEST_SIZE = Family(
    "slapenir_proxy_http_request_size_bytes",
    "histogram",
    "Bytes of request bodies.",
    bounds=_SIZE,
)
RESPONSE_SIZE = Family(
    "slapenir_proxy_http_response_size_bytes",
    "histogram",
    "Bytes of response bodies.",
    bounds=_SIZE,
)
SANITIZED = Family(
    "slapenir_secrets_sanitized_total",
    "counter",
    "Secrets overwritten in responses.",
    ("credential", "form", "place", "identity"),
)
INJECTED = Family(
    "slapenir_credentials_injected_total",
    "counter",
    "Placeholders replaced by their credential in requests.",
    ("credential", "identity"),
)
HONEYTOKENS = Family(
    "slapenir_honeytokens_total",
    "counter",
    "Placeholders seen where no rule lets them be swapped.",
    ("identity",),
)
DECISIONS = Family(
    "slapenir_policy_decisions_total",
    "counter",
    "Decisions.",
    ("stage", "action", "rule", "identity"),
)
ACTIVE = Family(
    "slapenir_active_connections",
    "gauge",
    "Connections that are open.",
    ("side",),
)
IDENTITY_CONNECTIONS = Family(
    "slapenir_identity_connections",
    "gauge",
    "Client connections that are open and known to be an identity's.",
    ("identity",),
)
IDENTITY_REFUSALS = Family(
    "slapenir_identity_refusals_total",
    "counter",
    "Clients that were nobody, or were not any more who they had been.",
    ("listener", "reason"),
)
REFUSED = Family(
    "slapenir_connections_refused_total",
    "counter",
    "Connections turned away because of a limit.",
    ("limit",),
)
HANDSHAKES = Family(
    "slapenir_tls_handshake_duration_seconds",
    "histogram",
    "Seconds that completed TLS handshakes took.",
    ("side",),
    _LATENCY,
)
HANDSHAKE_FAILURES = Family(
    "slapenir_tls_handshake_failures_total",
    "counter",
    "TLS handshakes that failed.",
    ("side",),
)
CERT_EXPIRY = Family(
    "slapenir_cert_expiry_timestamp_seconds",
    "gauge",
    "When a certificate expires, in Unix seconds.",
    ("cert",),
)
CERT_RENEWALS = Family(
    "slapenir_cert_renewals_total",
    "counter",
    "Attempts to renew a certificate that the gateway looks after.",
    ("cert", "outcome"),
)
CERTIFICATES_ISSUED = Family(
    "slapenir_certificates_issued_total",
    "counter",
    "Certificates that the embedded CA signed for agents.",
    ("identity", "how"),
)
ENROLMENTS_REFUSED = Family(
    "slapenir_enrolments_refused_total",
    "counter",
    "Requests for a certificate that were refused.",
)
REVOKED = Family(
    "slapenir_revoked_certificates",
    "gauge",
    "Certificates in the revocation lists in force.",
    ("listener",),
)
REVOCATION_NEXT_UPDATE = Family(
    "slapenir_revocation_next_update_timestamp_seconds",
    "gauge",
    "When the first of the revocation lists in force ends, in Unix seconds.",
    ("listener",),
)
REVOCATION_FAILURES = Family(
    "slapenir_revocation_failures_total",
    "counter",
    "Revocation lists that could not be read.",
    ("listener",),
)
NAMES_ASKED = Family(
    "slapenir_dns_questions_total",
    "counter",
    "Questions that sandboxes asked the gateway's DNS.",
    ("identity", "answer"),
)
SANDBOXES = Family(
    "slapenir_sandboxes",
    "gauge",
    "Sandboxes of this host that are served.",
    ("identity",),
)
TRAFFIC_REFUSED = Family(
    "slapenir_sandbox_refused_packets_total",
    "counter",
    "Packets that sandboxes' packet filters refused.",
    ("identity", "kind"),
)
SCAN_SECONDS = Family(
    "slapenir_scan_seconds_total",
    "counter",
    "Seconds spent looking for secrets.",
)
REACTOR_LAG = Family(
    "slapenir_reactor_lag_seconds",
    "histogram",
    "How late a timer fired, sampled four times a second.",
    bounds=_LATENCY[:13],
)
INTERNAL_ERRORS = Family(
    "slapenir_internal_errors_total",
    "counter",
    "Unexpected exceptions.",
)
AUDIT_FAILURES = Family(
    "slapenir_audit_failures_total",
    "counter",
    "Audit records that could not be written.",
)
ACCESS_DROPPED = Family(
    "slapenir_access_log_dropped_total",
    "counter",
    "Access records that could not be written.",
)
BUILD_INFO = Family(
    "slapenir_build_info",
    "gauge",
    "Always 1; the labels say what runs.",
    ("version", "python"),
)

FAMILIES: tuple[Family, ...] = (
    REQUESTS,
    DURATION,
    REQUEST_SIZE,
    RESPONSE_SIZE,
    SANITIZED,
    INJECTED,
    HONEYTOKENS,
    DECISIONS,
    ACTIVE,
    IDENTITY_CONNECTIONS,
    IDENTITY_REFUSALS,
    REFUSED,
    HANDSHAKES,
    HANDSHAKE_FAILURES,
    CERT_EXPIRY,
    CERT_RENEWALS,
    CERTIFICATES_ISSUED,
    ENROLMENTS_REFUSED,
    REVOKED,
    REVOCATION_NEXT_UPDATE,
    REVOCATION_FAILURES,
    NAMES_ASKED,
    SANDBOXES,
    TRAFFIC_REFUSED,
    SCAN_SECONDS,
    REACTOR_LAG,
    INTERNAL_ERRORS,
    AUDIT_FAILURES,
    ACCESS_DROPPED,
    BUILD_INFO,
)
