"""The audit log: one JSON line per decision, written before what it allows happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from slapenir.errors import AuditError
from slapenir.events import (
    CertificateIssued,
    ClientIdentified,
    ConnectionRefused,
    Decided,
    EnrolmentRefused,
    GatewayReady,
    SandboxJoined,
    Sanitized,
    Swapped,
    TrafficRefused,
)
from slapenir.names import Stage
from slapenir.observe.logfile import LogFile
from slapenir.observe.quota import Quota
from slapenir.observe.record import AUDITED, Timestamps

FILE_NAME = "audit.jsonl"

REFUSALS_PER_SECOND = 10
"""Records per second of refused connections, refused enrolments, refused traffic, and of clients
that are nobody; the next one says how many were left out."""

_ANY_RATE = (ConnectionRefused, EnrolmentRefused, TrafficRefused)


class AuditLog:
    """Write audit records to ``audit.jsonl`` in ``directory``.

    ``clock`` gives Unix seconds.  Each record is one ``write`` of one line: ``time`` (RFC 3339,
    UTC), ``sequence`` (counts the records since the process began; a gap means a record that
    failed), ``event`` and the event's fields.  Nothing is buffered; what survives a power cut is
    up to the file system, what survives the death of the process is everything.
    """

    gates: frozenset[type] = frozenset(
        {
            Decided,
            Swapped,
            Sanitized,
            GatewayReady,
            ClientIdentified,
            CertificateIssued,
            SandboxJoined,
        }
    )
    """Events that must not take effect when their record cannot be written."""

    def __init__(self, directory: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = LogFile(directory, FILE_NAME, clock)
        self._timestamps = Timestamps()
        self._sequence = 0
        self.handlers: Mapping[type, Callable[[Any], None]] = {
            **{kind: self._handler(fields) for kind, fields in AUDITED.items()},
            **{kind: self._bounded(kind) for kind in _ANY_RATE},
            Decided: self._decided(),
        }

    @property
    def path(self) -> str:
        """The file's path."""
        return self._file.path

    def open(self) -> None:
        """Open the file now, so that a wrong path is found at start; raises AuditError."""
        try:
            self._file.open()
        except OSError as error:
            raise self._failure(error) from None

    reopen = open

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        self._file.close()

    def record(self, event: Any) -> None:
        """Write the record of one event; raises AuditError, or KeyError if it has no record."""
        self.handlers[type(event)](event)

    def _handler(self, fields: Callable[[Any], str]) -> Callable[[Any], None]:
        def handle(event: Any) -> None:
            self._write(fields(event))

        return handle

    def _bounded(self, kind: type) -> Callable[[Any], None]:
        """Return what records events that a client can make at any rate."""
        quota = Quota(REFUSALS_PER_SECOND, self._clock)

        def handle(event: Any) -> None:
            left_out = quota.take()
            if left_out is not None:
                self._write(f'{AUDITED[kind](event)},"left_out":{left_out}')

        return handle

    def _decided(self) -> Callable[[Any], None]:
        """Return what records decisions: every one about an identity, strangers' to a quota."""
        strangers = Quota(REFUSALS_PER_SECOND, self._clock)
        fields = AUDITED[Decided]

        def handle(event: Any) -> None:
            left_out: int | None = 0
            if event.stage is Stage.IDENTIFY and not event.who.identity:
                left_out = strangers.take()
            if left_out is not None:
                more = f',"left_out":{left_out}' if left_out else ""
                self._write(fields(event) + more)

        return handle

    def _write(self, fields: str) -> None:
        self._sequence += 1
        stamp = self._timestamps.text(self._clock())
        line = f'{{"time":"{stamp}","sequence":{self._sequence},{fields}}}\n'
        try:
            self._file.append(line.encode("ascii"))
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> AuditError:
        return AuditError(f"{self._file.path}: {error.strerror or type(error).__name__}")
