"""Hand each event to the sinks that want it: the audit log first, then the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from slapenir.errors import AuditError
from slapenir.events import AuditFailed, Event, InternalError

Handler = Callable[[Any], None]


class Sink(Protocol):
    """Something that events are handed to: a handler for each event class it wants."""

    @property
    def handlers(self) -> Mapping[type, Handler]:
        """Return the handlers by event class; read once."""


class AuditSink(Sink, Protocol):
    """The sink that comes first and that can stop what an event stands for."""

    @property
    def gates(self) -> frozenset[type]:
        """Return the classes whose AuditError goes through to whoever published the event."""


class Publisher:
    """Dispatch events by class.

    A failure of the audit sink stops a gate's event: AuditError reaches the caller, who must not
    go on and who publishes AuditFailed.  For other classes the publisher publishes AuditFailed
    itself.  A failure of any other sink is published as InternalError and goes no further.
    """

    __slots__ = ("_audit", "_gates", "_sinks", "lost")

    def __init__(self, audit: AuditSink, sinks: Iterable[Sink]) -> None:
        self._audit = dict(audit.handlers)
        self._gates = audit.gates
        routes: dict[type, tuple[Handler, ...]] = {}
        for sink in sinks:
            for kind, handler in sink.handlers.items():
                routes[kind] = (*routes.get(kind, ()), handler)
        self._sinks = routes
        self.lost = 0
        """How often a sink failed to take the InternalError about another sink's failure."""

    @property
    def handled(self) -> frozenset[type]:
        """The event classes that at least one sink wants."""
        return frozenset(self._audit) | frozenset(self._sinks)

    def publish(self, event: Event) -> None:
        """Hand ``event`` over; raises AuditError when its record is a gate and failed."""
        kind = type(event)
        record = self._audit.get(kind)
        if record is not None:
            try:
                record(event)
            except AuditError as error:
                if kind in self._gates:
                    raise
                self.publish(AuditFailed(error=str(error)))
        for handler in self._sinks.get(kind, ()):
            try:
                handler(event)
            except Exception as error:
                self._sink_failed(handler, error)

    def _sink_failed(self, handler: Handler, error: Exception) -> None:
        where = getattr(handler, "__module__", "") or "a sink"
        failure = InternalError(where=where, kind=type(error).__name__)
        for other in self._sinks.get(InternalError, ()):
            try:
                other(failure)
            except Exception:
                self.lost += 1
