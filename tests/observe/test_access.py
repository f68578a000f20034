"""The access log: batches, bounds, drops."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial import unittest

from slapenir.observe.access import FLUSH_BYTES, FLUSH_SECONDS, AccessLog
from tests.observe.samples import FakeClock, finished


class AccessLogTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir(mode=0o700, parents=True)
        self.reactor = Clock()
        self.access = AccessLog(str(self.directory), self.reactor, FakeClock())
        self.addCleanup(self.access.close)
        self.path = Path(self.access.path)

    def test_a_record_is_written_within_a_second(self) -> None:
        """Nothing is written before the flush; one timer serves all that waits."""
        self.access.record(finished())
        self.access.record(finished(status=404))
        self.assertFalse(self.path.exists())
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(FLUSH_SECONDS)
        first, second = [json.loads(line) for line in self.path.read_text().splitlines()]
        self.assertEqual((first["event"], first["status"]), ("ExchangeFinished", 200))
        self.assertEqual((first["seconds"], first["outcome"]), (0.25, "completed"))
        self.assertEqual(second["status"], 404)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_full_buffer_is_written_at_once(self) -> None:
        """What is held never exceeds FLUSH_BYTES by more than one record."""
        most = 0
        for _ in range(1000):
            self.access.record(finished())
            most = max(most, self.access._held)
        self.assertLess(most, FLUSH_BYTES)
        self.assertGreater(self.path.stat().st_size, FLUSH_BYTES - 1)
        self.access.flush()
        self.assertEqual(len(self.path.read_text().splitlines()), 1000)

    def test_records_that_cannot_be_written_are_dropped_and_counted_t205(self) -> None:
        """T205: traffic goes on, memory does not grow, the log works again when it can."""
        self.directory.chmod(0o777)
        for _ in range(1000):
            self.access.record(finished())
        self.access.flush()
        self.assertEqual(self.access.dropped, 1000)
        self.assertEqual(self.access._held, 0)
        self.directory.chmod(0o700)
        self.access.record(finished())
        self.access.flush()
        self.assertEqual(len(self.path.read_text().splitlines()), 1)
        self.assertEqual(self.access.dropped, 1000)

    def test_close_writes_what_is_held(self) -> None:
        """An orderly end loses nothing and leaves no timer."""
        self.access.record(finished())
        self.access.close()
        self.assertEqual(len(self.path.read_text().splitlines()), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_reopen_follows_rotation_t214(self) -> None:
        """T214: after a rename and reopen, records go to the new file."""
        self.access.record(finished())
        self.access.flush()
        self.path.rename(self.directory / "old")
        self.access.reopen()
        self.access.record(finished())
        self.access.flush()
        self.assertEqual(len(self.path.read_text().splitlines()), 1)
