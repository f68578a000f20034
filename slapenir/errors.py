"""Errors that say who is to blame."""

from __future__ import annotations


class SlapenirError(Exception):
    """The base of every error that this package raises on purpose."""


class RemoteProtocolError(SlapenirError):
    """The peer broke the protocol.

    ``reason`` is a fixed phrase that never quotes the peer's bytes, so it may be logged and sent
    back.  ``status`` is the HTTP status that a proxy should answer with where it still can: 400,
    413, 414, 417, 431, 501 or 505 for a client's mistake, 502 for an origin's.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class LocalProtocolError(SlapenirError):
    """Our own code asked a codec for something the protocol forbids: a bug."""


class AuthorityError(RemoteProtocolError):
    """A host or port is not one that can be judged (RFC 9110, 4.2)."""


class ConfigError(SlapenirError):
    """The configuration cannot be used.

    ``path`` is where in the file (``$.rule[2].hosts``), ``remedy`` what to do about it.
    """

    def __init__(self, message: str, path: str = "$", remedy: str = "", file: str = "") -> None:
        self.message, self.path, self.remedy, self.file = message, path, remedy, file
        where = f"{file}: {path}" if file else path
        super().__init__(f"{where}: {message}" + (f" ({remedy})" if remedy else ""))


class ConfigErrors(ConfigError):
    """Every problem found in one configuration, in the order they were found."""

    def __init__(self, errors: list[ConfigError]) -> None:
        self.errors = errors
        SlapenirError.__init__(self, "\n".join(str(e) for e in errors))
        first = errors[0]
        self.message, self.path = first.message, first.path
        self.remedy, self.file = first.remedy, first.file


class CodingError(SlapenirError):
    """A content coding could not be decoded: unknown, corrupt, truncated or a bomb."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AuditError(SlapenirError):
    """An audit record could not be written, so what it would allow must not happen."""


class PkiError(SlapenirError):
    """A certificate or key cannot be used, and why."""


class TokenError(PkiError):
    """An enrolment token is no good: unknown, used, expired or damaged."""


class NotInForceError(PkiError):
    """The certificate that was to be replaced is revoked, or not one of the CA's any more."""


class SandboxError(SlapenirError):
    """A sandbox cannot be made or kept: ``error`` says why, ``remedy`` what to do about it."""

    def __init__(self, error: str, remedy: str = "") -> None:
        super().__init__(error + (f" ({remedy})" if remedy else ""))
        self.error, self.remedy = error, remedy
