"""The access log: one JSON line per finished exchange, written in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from slapenir.events import ExchangeFinished
from slapenir.observe.logfile import LogFile
from slapenir.observe.record import Timestamps, exchange_finished

FILE_NAME = "access.jsonl"

FLUSH_SECONDS = 1.0
"""A record waits at most so long."""

FLUSH_BYTES = 65536
"""When this much waits it is written at once, so no more than one record above it is held."""


class AccessLog:
    """Write access records to ``access.jsonl`` in ``directory``.

    ``reactor`` times the flush, ``clock`` gives Unix seconds for the records.  Records that
    cannot be written are dropped and counted in ``dropped``: traffic does not wait for this log.
    """

    def __init__(
        self, directory: str, reactor: IReactorTime, clock: Callable[[], float] = time.time
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._file = LogFile(directory, FILE_NAME, clock)
        self._timestamps = Timestamps()
        self._lines: list[str] = []
        self._held = 0
        self._flush_call: IDelayedCall | None = None
        self.dropped = 0
        self.handlers: Mapping[type, Callable[[Any], None]] = {ExchangeFinished: self.record}

    @property
    def path(self) -> str:
        """The file's path."""
        return self._file.path

    def record(self, event: ExchangeFinished) -> None:
        """Hold the record of one exchange until the next flush; never raises OSError."""
        stamp = self._timestamps.text(self._clock())
        line = f'{{"time":"{stamp}",{exchange_finished(event)}}}\n'
        self._lines.append(line)
        self._held += len(line)
        if self._held >= FLUSH_BYTES:
            self.flush()
        elif self._flush_call is None:
            self._flush_call = self._reactor.callLater(FLUSH_SECONDS, self._flush_due)

    def flush(self) -> None:
        """Write what is held, or drop and count it when that fails."""
        lines, self._lines, self._held = self._lines, [], 0
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None
        if not lines:
            return
        try:
            self._file.append("".join(lines).encode("ascii"))
        except OSError:
            self.dropped += len(lines)

    def reopen(self) -> None:
        """Flush, then close the file, so that the next flush opens it by its name."""
        self.flush()
        self._file.close()

    close = reopen

    def _flush_due(self) -> None:
        self._flush_call = None
        self.flush()
