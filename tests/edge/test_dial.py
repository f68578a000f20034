"""Dialling, step by step on a reactor in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, TimeoutError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.dial import Attempt, Dialler
from slapenir.edge.flow import Bystander
from slapenir.edge.origin import OriginFlow
from slapenir.edge.resolver import Resolver
from slapenir.edge.tlscontext import OriginContext
from slapenir.errors import AuditError
from slapenir.events import Decided, Who
from slapenir.exchange.commands import Dial, PoolKey
from slapenir.exchange.inputs import DialFailure
from slapenir.names import Action, Authority, Reason
from slapenir.policy.addresses import parse_allow_private
from tests.edge.rig import FakeLookup, Recorder
from tests.support.pressure import PressureTransport
from tests.support.tls import TestCA

WHO = Who(1, "main", "sandbox", "192.0.2.9:1")
CA = TestCA()


class Asker(Bystander):
    """Writes down what a dial answers."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def dialled(self, attempt: Attempt, flow: OriginFlow) -> None:
        self.answers.append(flow)

    def dial_failed(self, attempt: Attempt, failure: DialFailure) -> None:
        self.answers.append(failure)

    def dial_unrecorded(self, attempt: Attempt, error: AuditError) -> None:
        self.answers.append(error)


class DialCase(SynchronousTestCase):
    """A dialler on a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.recorder = Recorder()
        self.asker = Asker()

    def make(
        self,
        answers: Mapping[str, Sequence[Any]] | None = None,
        allow: Sequence[str] = (),
        **limits: Any,
    ) -> None:
        policy = parse_allow_private(list(allow))
        bounds = EdgeLimits(**{"dial_seconds": 10.0, "resolve_seconds": 5.0, **limits})
        lookup = FakeLookup(answers)
        resolver = Resolver(self.reactor, bounds, lookup, lambda: policy, dict)
        context = OriginContext(CA.write(Path(self.mktemp())))
        self.dialler = Dialler(self.reactor, bounds, self.recorder, resolver, context)

    def dial(self, host: str, tls: bool = False, pool: PoolKey | None = None) -> Attempt:
        command = Dial(1, Authority(host, 443), tls, WHO, 7, pool)
        attempt = Attempt(self.dialler, command, self.asker)
        attempt.start()
        return attempt

    def addresses(self) -> list[str]:
        """Return every address that was dialled."""
        return [client[0] for client in self.reactor.tcpClients]

    def refuse(self, error: Exception | None = None) -> None:
        """Let the newest connection attempt fail."""
        reason = Failure(error or ConnectionRefusedError())
        self.reactor.tcpClients[-1][2].clientConnectionFailed(self.reactor.connectors[-1], reason)

    def accept(self) -> PressureTransport:
        """Let the newest connection attempt succeed."""
        transport = PressureTransport()
        transport.attach(self.reactor.tcpClients[-1][2].buildProtocol(None))
        return transport

    def decided(self) -> list[tuple[str, Action, Reason]]:
        return [(e.address, e.action, e.reason) for e in self.recorder.of(Decided)]


class AddressTests(DialCase):
    """Which addresses are dialled, in which order, and what is recorded before."""

    def test_a_permitted_address_is_recorded_then_dialled(self) -> None:
        self.make({"a.test": [["8.8.8.8"]]})
        self.dial("a.test")
        public = ("8.8.8.8", Action.ALLOW, Reason.ADDRESS_PUBLIC)
        self.assertEqual(self.decided(), [public])
        self.assertEqual(self.addresses(), ["8.8.8.8"])
        self.accept()
        self.assertIsInstance(self.asker.answers[0], OriginFlow)

    def test_a_denied_address_is_recorded_and_never_dialled(self) -> None:
        """T034: also when every permitted one refuses."""
        for answer in (["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"]):
            self.setUp()
            self.make({"a.test": [answer]})
            self.dial("a.test")
            self.refuse()
            self.assertEqual(self.addresses(), ["8.8.8.8"])
            self.assertEqual(self.asker.answers, [DialFailure.REFUSED])
            denied = ("10.0.0.1", Action.DENY, Reason.ADDRESS_SPECIAL)
            self.assertEqual(self.decided()[0], denied)

    def test_only_denied_addresses(self) -> None:
        """T035."""
        self.make({"a.test": [["::1", "169.254.169.254"]]})
        self.dial("a.test")
        self.assertEqual(self.asker.answers, [DialFailure.ADDRESS_DENIED])
        self.assertEqual(self.addresses(), [])
        self.assertEqual(self.dialler.open, 0)

    def test_the_judged_address_is_dialled_and_not_the_name(self) -> None:
        """T033: one resolution per dial; a later answer is never asked for."""
        self.make({"a.test": [["8.8.8.8"], ["127.0.0.1"]]})
        self.dial("a.test")
        self.assertEqual(self.addresses(), ["8.8.8.8"])
        self.refuse()
        self.assertEqual(self.addresses(), ["8.8.8.8"])
        self.dial("a.test")
        self.assertEqual(self.asker.answers[-1], DialFailure.ADDRESS_DENIED)

    def test_the_next_address_is_tried(self) -> None:
        self.make({"a.test": [["8.8.8.8", "8.8.4.4", "2606:4700:4700::1111"]]})
        self.dial("a.test")
        self.refuse()
        self.refuse()
        self.assertEqual(self.addresses(), ["8.8.8.8", "2606:4700:4700::1111", "8.8.4.4"])
        self.accept()
        self.assertIsInstance(self.asker.answers[0], OriginFlow)
        self.assertEqual(len(self.decided()), 3)

    def test_nothing_is_dialled_that_cannot_be_recorded(self) -> None:
        self.make({"a.test": [["8.8.8.8"]]})
        self.recorder.refuse = (Decided,)
        self.dial("a.test")
        self.assertEqual(self.addresses(), [])
        self.assertIsInstance(self.asker.answers[0], AuditError)
        self.assertEqual((self.dialler.open, self.reactor.getDelayedCalls()), (0, []))


class DialLimitTests(DialCase):
    """Deadlines, bounds and cancelling."""

    def test_each_address_gets_its_part_of_the_deadline(self) -> None:
        self.make({"a.test": [["8.8.8.8", "8.8.4.4"]]})
        self.dial("a.test")
        self.assertEqual(self.reactor.tcpClients[0][3], 5.0)
        self.reactor.advance(5)
        self.refuse(TimeoutError())
        self.assertEqual(self.reactor.tcpClients[1][3], 5.0)
        self.refuse(TimeoutError())
        self.assertEqual(self.asker.answers, [DialFailure.TIMED_OUT])

    def test_a_handshake_without_end_times_out(self) -> None:
        """T220: an origin that accepts and says nothing."""
        self.make({"a.test": [["8.8.8.8"]]})
        self.dial("a.test", tls=True)
        transport = self.accept()
        self.reactor.advance(9.9)
        self.assertEqual(self.asker.answers, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.asker.answers, [DialFailure.TIMED_OUT])
        self.assertTrue(transport.aborted)
        transport.finish_abort()
        self.assertEqual((self.dialler.open, self.recorder.gauges()), (0, (0, 0)))

    def test_origin_connections_are_bounded(self) -> None:
        self.make({"a.test": [["8.8.8.8"]]}, origin_connections=2)
        for _ in range(3):
            self.dial("a.test")
        self.assertEqual(self.asker.answers, [DialFailure.LIMIT])
        self.accept().lose(ConnectionRefusedError())
        self.dial("a.test")
        self.assertEqual(len(self.addresses()), 3)

    def test_an_idle_connection_gives_way(self) -> None:
        self.make({"a.test": [["8.8.8.8"]]}, origin_connections=1)
        key = PoolKey("sandbox", Authority("a.test", 443), False, ())
        self.dial("a.test", pool=key)
        transport = self.accept()
        self.dialler.pool.put(self.asker.answers[0])
        self.dial("a.test")
        self.assertTrue(transport.gone)
        self.assertEqual(len(self.addresses()), 2)

    def test_cancelling_at_every_step(self) -> None:
        """T221: nothing stays behind, and nobody is answered."""
        late: Deferred[list[str]] = Deferred()
        self.make({"slow.test": [late], "a.test": [["8.8.8.8"]]})
        self.dial("slow.test").cancel()
        late.callback(["8.8.8.8"])
        self.dial("a.test").cancel()
        self.assertEqual(self.reactor.connectors[-1].stoppedConnecting, True)
        self.refuse()
        attempt = self.dial("a.test", tls=True)
        transport = self.accept()
        attempt.cancel()
        transport.finish_abort()
        self.assertEqual(self.asker.answers, [])
        self.assertEqual((self.dialler.open, self.reactor.getDelayedCalls()), (0, []))

    def test_failures_of_names(self) -> None:
        """T219."""
        late: Deferred[list[str]] = Deferred()
        self.make({"slow.test": [late], "empty.test": [[]]})
        self.dial("none.test")
        self.dial("empty.test")
        self.dial("slow.test")
        self.reactor.advance(6)
        expected = [DialFailure.UNRESOLVABLE, DialFailure.UNRESOLVABLE]
        self.assertEqual(self.asker.answers, [*expected, DialFailure.RESOLVER_TIMEOUT])

    def test_an_origin_that_closes_in_the_handshake(self) -> None:
        """T220."""
        self.make({"a.test": [["8.8.8.8"]]})
        self.dial("a.test", tls=True)
        transport = self.accept()
        transport.lose(ConnectionRefusedError())
        self.assertEqual(self.asker.answers, [DialFailure.TLS_FAILED])
        self.assertEqual((self.dialler.open, self.recorder.gauges()), (0, (0, 0)))
