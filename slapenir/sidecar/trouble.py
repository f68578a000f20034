"""Why the sidecar cannot bring a client to the gateway, in words an agent can read."""

from __future__ import annotations

from enum import Enum

from slapenir.exchange.answers import Answer


class Trouble(Enum):
    """What is wrong; the value is the reason in the answer, in the log and in the metric."""

    NOT_ENROLLED = "not_enrolled"
    EXPIRED = "certificate_expired"
    UNREACHABLE = "gateway_unreachable"
    UNTRUSTED = "gateway_untrusted"
    REFUSED = "certificate_refused"
    CLOSED = "gateway_closed"
    LIMIT = "limit"
    INTERNAL = "internal"

    @property
    def answer(self) -> bytes:
        """The response to a client that waits for one."""
        status, message, retry = _ANSWERS[self]
        return Answer(status, "error", self.value, message, retry=retry).encode()


_ANSWERS = {
    Trouble.NOT_ENROLLED: (503, "The sidecar has no certificate yet. Its log says why.", True),
    Trouble.EXPIRED: (503, "The sidecar's certificate has expired. Its log says why.", True),
    Trouble.UNREACHABLE: (502, "The sidecar cannot reach the gateway.", True),
    Trouble.UNTRUSTED: (
        502,
        "The gateway's certificate is not trusted by the sidecar. Nothing was sent.",
        False,
    ),
    Trouble.REFUSED: (502, "The gateway refused the sidecar's certificate.", False),
    Trouble.CLOSED: (502, "The gateway closed the connection without an answer.", False),
    Trouble.LIMIT: (503, "The sidecar has too many connections. Try again later.", True),
    Trouble.INTERNAL: (502, "The sidecar failed.", True),
}
