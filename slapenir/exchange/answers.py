"""Responses that the gateway makes itself: refusals and failures, in JSON an agent can read.

None quotes what the agent sent, so no error page can carry a secret.
"""

from __future__ import annotations

import json

import attrs

from slapenir.exchange.inputs import DialFailure
from slapenir.names import Reason
from slapenir.policy.model import Decision

_PHRASES = {
    400: b"Bad Request",
    403: b"Forbidden",
    407: b"Proxy Authentication Required",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}

_CHALLENGE = b'Proxy-Authenticate: Basic realm="slapenir"\r\nProxy-Authenticate: Bearer\r\n'

_DENIALS: dict[Reason, tuple[int, str]] = {
    Reason.IDENTITY_UNKNOWN: (403, "Nothing that this client showed is that of an identity."),
    Reason.IDENTITY_AMBIGUOUS: (403, "What this client showed is that of more than one identity."),
    Reason.IDENTITY_CHANGED: (403, "The connection belongs to another identity."),
    Reason.IDENTITY_REQUIRED: (407, "The proxy asks for the token of an identity."),
    Reason.TOKEN_REFUSED: (407, "The token is not that of an identity."),
    Reason.CERTIFICATE_REFUSED: (403, "The client certificate is not one of an agent."),
    Reason.CERTIFICATE_REVOKED: (403, "The client certificate was revoked."),
    Reason.CERTIFICATE_EXPIRED: (403, "The client certificate has expired."),
    Reason.REVOCATION_UNKNOWN: (403, "Whether the client certificate is revoked is not known."),
    Reason.NO_RULE: (403, "No rule allows this request."),
    Reason.DENY_RULE: (403, "A rule denies this request."),
    Reason.AUTHORITY_MISMATCH: (421, "The request names more than one authority."),
    Reason.SNI_MISMATCH: (421, "The TLS server name is not the host that was asked for."),
    Reason.SCHEME_MISMATCH: (400, "The scheme does not fit the tunnel."),
    Reason.METHOD_REFUSED: (403, "This method is never forwarded."),
    Reason.PATH_REFUSED: (400, "The path cannot be judged as it is written."),
    Reason.ADDRESS_SPECIAL: (403, "The host resolves to an address that is not public."),
    Reason.ADDRESS_METADATA: (403, "The host resolves to a metadata address."),
    Reason.ADDRESS_OWN_LISTENER: (403, "The host resolves to this gateway itself."),
    Reason.HONEYTOKEN: (403, "A placeholder was used where no rule lets it be swapped."),
    Reason.SECRET_IN_REQUEST: (403, "The request would carry a real secret out."),
    Reason.UPGRADE_UNSUPPORTED: (501, "Upgrade is not supported: WebSocket and HTTP/2 are not."),
    Reason.CODING_UNSUPPORTED: (415, "The content coding cannot be scanned."),
    Reason.LIMIT: (503, "A limit of the gateway is reached."),
    Reason.BODY_TOO_LARGE: (413, "The request body is larger than the configured bound."),
}

_DIAL: dict[DialFailure, tuple[int, str, bool]] = {
    DialFailure.ADDRESS_DENIED: (403, "The host resolves to no permitted address.", False),
    DialFailure.UNRESOLVABLE: (502, "The host name does not resolve.", True),
    DialFailure.RESOLVER_TIMEOUT: (504, "The host name did not resolve in time.", True),
    DialFailure.REFUSED: (502, "The origin refused the connection.", True),
    DialFailure.TIMED_OUT: (504, "The origin did not answer in time.", True),
    DialFailure.TLS_UNTRUSTED: (502, "The origin's certificate is not trusted.", False),
    DialFailure.TLS_FAILED: (502, "TLS with the origin failed.", True),
    DialFailure.LIMIT: (
        503,
        "A limit on origin connections or on names looked up is reached.",
        True,
    ),
    DialFailure.INTERNAL: (502, "The gateway failed.", True),
}


@attrs.frozen(slots=True)
class Answer:
    """A response of our own: status, the decision word, why, and whether a retry can help."""

    status: int
    decision: str
    reason: str
    message: str
    rule: str = ""
    retry: bool = False

    def encode(self, *, head_only: bool = False, keep_alive: bool = False) -> bytes:
        """Return the response bytes; ``head_only`` leaves the body out (HEAD)."""
        body = (
            json.dumps(
                {
                    "decision": self.decision,
                    "rule": self.rule or None,
                    "reason": self.reason,
                    "retry": self.retry,
                    "message": self.message,
                }
            )
            + "\n"
        ).encode("ascii")
        head = (
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"X-Slapenir-Decision: %s\r\nCache-Control: no-store\r\n%bConnection: %s\r\n\r\n"
        ) % (
            self.status,
            _PHRASES.get(self.status, b"Error"),
            len(body),
            f"{self.decision}; reason={self.reason}".encode("ascii"),
            _CHALLENGE if self.status == 407 else b"",
            b"keep-alive" if keep_alive else b"close",
        )
        return head if head_only else head + body


def denial(decision: Decision) -> Answer:
    """Return the answer for a decision that refuses."""
    status, message = _DENIALS.get(decision.reason, (403, "The request is refused."))
    return Answer(status, "deny", decision.reason.value, message, decision.rule)


def malformed(reason: str, status: int) -> Answer:
    """Return the answer for a request that broke the protocol; ``reason`` is a fixed phrase."""
    return Answer(status, "error", "protocol_error", f"The request cannot be used: {reason}.")


def dial_failure(failure: DialFailure, rule: str) -> Answer:
    """Return the answer for an origin that could not be reached."""
    status, message, retry = _DIAL[failure]
    decision = "deny" if failure is DialFailure.ADDRESS_DENIED else "error"
    return Answer(status, decision, failure.value, message, rule, retry)


def origin_failure(reason: str, rule: str) -> Answer:
    """Return the 502 for a response that cannot be used; ``reason`` is a fixed phrase."""
    message = f"The origin's response cannot be used: {reason}."
    return Answer(502, "error", "origin_protocol_error", message, rule, True)


def timed_out(waiting_for: str, rule: str, status: int) -> Answer:
    """Return the 408 or 504 for a wait that took too long."""
    return Answer(status, "error", "timed_out", f"Timed out waiting for {waiting_for}.", rule, True)
