"""The publisher: audit first, gates, and sinks that fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.trial import unittest

from slapenir import events
from slapenir.errors import AuditError
from slapenir.observe.publisher import Publisher
from tests.observe.samples import ONE_OF_EACH, decided, finished


class ListAudit:
    """An audit sink that keeps what it is given, or fails with ``error``."""

    gates = frozenset({events.Decided})

    def __init__(self, seen: list[tuple[str, Any]]) -> None:
        self.seen = seen
        self.error: Exception | None = None
        self.handlers: Mapping[type, Callable[[Any], None]] = {
            events.Decided: self.take,
            events.Reloaded: self.take,
        }

    def take(self, event: Any) -> None:
        if self.error is not None:
            raise self.error
        self.seen.append(("audit", event))


class ListSink:
    """A sink that keeps every event, or fails on those in ``fails``."""

    def __init__(self, name: str, seen: list[tuple[str, Any]], fails: tuple[type, ...] = ()):
        self.name = name
        self.seen = seen
        self.fails = fails
        self.handlers: Mapping[type, Callable[[Any], None]] = {
            type(event): self.take for event in ONE_OF_EACH
        }

    def take(self, event: Any) -> None:
        if isinstance(event, self.fails):
            raise ValueError("sink-failure-text")
        self.seen.append((self.name, event))


class PublisherTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.audit = ListAudit(self.seen)

    def test_the_audit_log_comes_first(self) -> None:
        """The record is made before any other sink hears of the event, then sinks in order."""
        publisher = Publisher(self.audit, [ListSink("a", self.seen), ListSink("b", self.seen)])
        publisher.publish(decided())
        self.assertEqual([name for name, _ in self.seen], ["audit", "a", "b"])

    def test_a_failed_gate_stops_the_event(self) -> None:
        """AuditError reaches the caller and no sink counts what did not happen."""
        publisher = Publisher(self.audit, [ListSink("a", self.seen)])
        self.audit.error = AuditError("no space")
        with self.assertRaises(AuditError):
            publisher.publish(decided())
        self.assertEqual(self.seen, [])
        self.audit.error = None
        publisher.publish(decided())
        self.assertEqual(len(self.seen), 2)

    def test_a_failed_record_of_what_happened_anyway(self) -> None:
        """Where nothing can be stopped the failure becomes AuditFailed and the event goes on."""
        publisher = Publisher(self.audit, [ListSink("a", self.seen)])
        self.audit.error = AuditError("no space")
        publisher.publish(events.Reloaded())
        self.assertEqual(
            [event for _, event in self.seen], [events.AuditFailed("no space"), events.Reloaded()]
        )

    def test_a_bug_in_the_audit_log_is_not_swallowed(self) -> None:
        """Any exception of the audit sink stops what would have been allowed."""
        publisher = Publisher(self.audit, [])
        self.audit.error = ZeroDivisionError()
        with self.assertRaises(ZeroDivisionError):
            publisher.publish(decided())

    def test_another_sinks_failure_goes_no_further(self) -> None:
        """It becomes one InternalError without the exception's text; other sinks are served."""
        broken = ListSink("broken", self.seen, fails=(events.ExchangeFinished,))
        publisher = Publisher(self.audit, [broken, ListSink("b", self.seen)])
        publisher.publish(finished())
        failure = events.InternalError("tests.observe.test_publisher", "ValueError")
        self.assertEqual(self.seen, [("broken", failure), ("b", failure), ("b", finished())])
        self.assertNotIn("sink-failure-text", repr(self.seen))

    def test_a_sink_that_fails_at_everything(self) -> None:
        """A sink that cannot even take the InternalError is counted in ``lost``."""
        publisher = Publisher(self.audit, [ListSink("x", self.seen, fails=(object,))])
        publisher.publish(finished())
        self.assertEqual(publisher.lost, 1)

    def test_what_is_handled(self) -> None:
        """The publisher knows which classes have a sink."""
        self.assertEqual(
            Publisher(self.audit, []).handled, frozenset({events.Decided, events.Reloaded})
        )
