"""Deadlines that are set once for many requests: none is cut short by an earlier one's timer."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.exchange.commands import SetTimer
from slapenir.exchange.inputs import CLIENT, Timer
from slapenir.names import Outcome, Scheme
from tests.support.playbook import Playbook, make_terms, rule

_GET = b"GET http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class WaitTests(SynchronousTestCase):
    """One kept connection, and a clock that the test moves."""

    def setUp(self) -> None:
        self.book = Playbook(
            make_terms([rule("plain", ["api.example.test"], scheme=Scheme.HTTP, ports=(80,))])
        )
        self.deadlines = self.book.terms.deadlines

    def exchange(self) -> None:
        """Do one request with its response."""
        self.book.client_sends(_GET)
        self.book.origin_sends(_OK)

    def sets(self, timer: Timer) -> int:
        """Return how often a timer was set."""
        found = [c for c in self.book.commands if isinstance(c, SetTimer) and c.timer is timer]
        return len(found)

    def test_set_once(self) -> None:
        """Many exchanges in a row set each of their timers once."""
        for _ in range(20):
            self.exchange()
        for timer in (Timer.RESPONSE, Timer.PROGRESS, Timer.IDLE):
            self.assertEqual(self.sets(timer), 1)

    def test_response_is_given_its_whole_time_T203(self) -> None:
        """A timer that an earlier exchange set leaves a later one its whole time (T203)."""
        self.exchange()
        self.book.now += self.deadlines.response - 1
        self.book.client_sends(_GET)
        self.book.fire(Timer.RESPONSE)  # a second later
        self.assertEqual(len(self.book.outcomes()), 1)
        left = self.book.timers[Timer.RESPONSE] - self.book.now
        self.assertAlmostEqual(left, self.deadlines.response - 1)
        for _ in range(2):
            if len(self.book.outcomes()) == 1:
                self.book.fire(Timer.RESPONSE)
        self.assertEqual(self.book.outcomes()[-1].outcome, Outcome.TIMED_OUT)

    def test_a_dripping_head_T203(self) -> None:
        """A head that comes byte by byte is given one deadline or two, not one a byte (T203)."""
        self.book.client_sends(_GET)
        self.book.origin_sends(b"HTTP/1.1 200")
        for _ in range(2):
            self.book.origin_sends(b" ")
            if Timer.RESPONSE in self.book.timers:
                self.book.fire(Timer.RESPONSE)
        self.assertEqual(self.book.outcomes()[-1].outcome, Outcome.TIMED_OUT)
        self.assertEqual(bytes(self.book.client[9:12]), b"504")

    def test_idle_is_counted_from_the_last_response_T195(self) -> None:
        """An idle connection is closed when its time is over, not when an older one's is (T195)."""
        self.exchange()
        self.book.now += self.deadlines.idle - 5
        self.exchange()
        self.book.fire(Timer.IDLE)  # five seconds later
        self.assertNotIn(CLIENT, self.book.closed)
        left = self.book.timers[Timer.IDLE] - self.book.now
        self.assertAlmostEqual(left, self.deadlines.idle - 5)
        self.book.fire(Timer.IDLE)
        self.assertIn(CLIENT, self.book.closed)

    def test_a_timer_that_fired_during_an_exchange_is_set_again(self) -> None:
        """An idle deadline that passes while a request is under way does not go missing."""
        self.exchange()
        self.book.client_sends(_GET)
        self.book.fire(Timer.IDLE)
        self.book.origin_sends(_OK)
        self.assertEqual(self.book.timers[Timer.IDLE], self.book.now + self.deadlines.idle)
        self.assertNotIn(CLIENT, self.book.closed)
