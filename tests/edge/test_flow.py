"""Flow against a transport that really pauses its producer."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.flow import Flow
from slapenir.edge.tls import Tls, TlsError
from tests.support.pressure import PressureTransport
from tests.support.tls import TestCA


class Diary:
    """An owner that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def flow_open(self, flow: Flow) -> None:
        self.said.append("open")

    def flow_data(self, flow: Flow, data: bytes) -> None:
        self.said.append(data)

    def flow_secured(self, flow: Flow) -> None:
        self.said.append("secured")

    def flow_insecure(self, flow: Flow, error: TlsError) -> None:
        self.said.append(("insecure", error.reason))

    def flow_half_closed(self, flow: Flow) -> None:
        self.said.append("half closed")

    def flow_closed(self, flow: Flow, clean: bool) -> None:
        self.said.append(("closed", clean))

    def flow_full(self, flow: Flow) -> None:
        self.said.append("full")

    def flow_ready(self, flow: Flow) -> None:
        self.said.append("ready")

    def flow_gone(self, flow: Flow) -> None:
        self.said.append("gone")


class FlowTests(SynchronousTestCase):
    """Pausing, resuming and every kind of end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.diary = Diary()
        self.transport = PressureTransport(mark=100)
        limits = EdgeLimits(close_seconds=5, discard=1000)
        self.flow = Flow(self.clock, limits, self.diary)
        self.transport.attach(self.flow)
        self.diary.said.clear()

    def send(self, data: bytes) -> None:
        self.flow.write(data)
        self.flow.flush()

    def test_writes_of_one_round_leave_as_one(self) -> None:
        self.flow.write(b"a")
        self.flow.write(b"b")
        self.assertEqual(self.transport.buffer, b"")
        self.flow.flush()
        self.assertEqual(self.transport.take(), b"ab")

    def test_full_and_ready_are_said_once_each(self) -> None:
        self.send(b"x" * 101)
        self.send(b"x" * 101)
        self.assertEqual(self.diary.said, ["full"])
        self.transport.take(201)
        self.assertEqual(self.diary.said, ["full"])
        self.transport.take()
        self.assertEqual(self.diary.said, ["full", "ready"])

    def test_below_the_mark_nothing_is_said(self) -> None:
        self.send(b"x" * 100)
        self.transport.take()
        self.assertEqual(self.diary.said, [])

    def test_reading_is_paused_and_resumed_idempotently(self) -> None:
        for reading in (True, False, False, True, True):
            self.flow.set_reading(reading)
        self.assertEqual((self.transport.pauses, self.transport.resumes), (1, 1))

    def test_bytes_that_arrive_after_a_pause_are_delivered(self) -> None:
        self.flow.set_reading(False)
        self.transport.give(b"late")
        self.assertEqual(self.diary.said, [b"late"])

    def test_close_flushes_under_pressure_then_ends(self) -> None:
        self.send(b"x" * 500)
        self.flow.write(b"y" * 10)
        self.flow.close()
        self.assertEqual(self.transport.take(), b"x" * 500 + b"y" * 10)
        self.assertEqual(self.diary.said, ["full", "gone"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_is_cut_when_the_peer_does_not_read(self) -> None:
        """T098: a close never waits for ever."""
        self.send(b"x" * 500)
        self.flow.close()
        self.clock.advance(4.9)
        self.assertFalse(self.transport.aborted)
        self.clock.advance(0.2)
        self.assertTrue(self.transport.aborted)
        self.transport.finish_abort()
        self.assertEqual(self.diary.said[-1], "gone")

    def test_nothing_is_delivered_after_close(self) -> None:
        self.send(b"x")
        self.flow.close()
        self.transport.give(b"more")
        self.send(b"dropped")
        self.assertEqual(self.transport.take(), b"x")
        self.assertEqual(self.diary.said, ["gone"])

    def test_gentle_close_discards_a_bounded_amount(self) -> None:
        self.send(b"answer")
        self.flow.close_gently()
        self.assertEqual(self.transport.calls, ["loseWriteConnection"])
        self.transport.give(b"x" * 1000)
        self.assertFalse(self.transport.aborted)
        self.transport.give(b"x")
        self.assertTrue(self.transport.aborted)

    def test_gentle_close_ends_with_the_peers_fin(self) -> None:
        self.flow.set_reading(False)
        self.send(b"answer")
        self.flow.close_gently()
        self.assertTrue(self.transport.reading)
        self.assertEqual(self.transport.take(), b"answer")
        self.assertTrue(self.transport.fin_sent)
        self.flow.readConnectionLost()
        self.assertEqual(self.transport.calls, ["loseWriteConnection", "loseConnection"])
        self.assertEqual(self.diary.said, ["gone"])

    def test_half_close_of_plain_tcp(self) -> None:
        """T222: after the peer's FIN the other direction still works."""
        self.flow.readConnectionLost()
        self.assertEqual(self.diary.said, ["half closed"])
        self.send(b"still here")
        self.assertEqual(self.transport.take(), b"still here")
        self.flow.set_reading(False)
        self.flow.set_reading(True)
        self.assertEqual(self.transport.resumes, 0)
        self.flow.close()
        self.assertEqual(self.diary.said, ["half closed", "gone"])

    def test_close_write_waits_for_a_full_buffer(self) -> None:
        """The producer is unregistered, or a transport would resume it instead of sending FIN."""
        self.send(b"x" * 500)
        self.flow.close_write()
        self.assertFalse(self.transport.fin_sent)
        self.transport.take()
        self.assertTrue(self.transport.fin_sent)

    def test_reset_is_not_clean(self) -> None:
        self.transport.lose(ConnectionLost())
        self.assertEqual(self.diary.said, [("closed", False), "gone"])

    def test_orderly_end_of_a_transport_without_half_close(self) -> None:
        self.transport.lose(ConnectionDone())
        self.assertEqual(self.diary.said, [("closed", True), "gone"])

    def test_abort_says_only_gone(self) -> None:
        self.send(b"x" * 500)
        self.flow.abort()
        self.transport.finish_abort()
        self.assertEqual(self.diary.said, ["full", "gone"])


class TlsFlowTests(SynchronousTestCase):
    """Ends of a connection under TLS."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.diary = Diary()
        self.transport = PressureTransport(mark=70000)
        self.flow = Flow(self.clock, EdgeLimits(), self.diary)
        self.transport.attach(self.flow)
        self.diary.said.clear()
        context = SSL.Context(SSL.TLS_METHOD)
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        self.peer = Tls(connection)
        server = SSL.Connection(TestCA().issue("localhost").server_context(), None)
        server.set_accept_state()
        self.flow.start_tls(Tls(server), self.peer.start())

    def handshake(self) -> None:
        self.transport.give(self.peer.feed(self.transport.take())[1])
        self.peer.feed(self.transport.take())

    def test_bytes_both_ways(self) -> None:
        self.handshake()
        self.transport.give(self.peer.send(b"question"))
        self.flow.write(b"answer")
        self.flow.flush()
        self.assertEqual(self.diary.said, ["secured", b"question"])
        self.assertEqual(self.peer.feed(self.transport.take()), (b"answer", b""))

    def test_an_end_with_close_notify_is_clean(self) -> None:
        """T072, control."""
        self.handshake()
        self.transport.give(self.peer.send(b"all") + self.peer.close())
        self.assertEqual(self.diary.said[1:3], [b"all", ("closed", True)])
        self.peer.feed(self.transport.take())
        self.assertTrue(self.peer.ended)
        self.assertEqual(self.diary.said[3:], ["gone"])

    def test_fin_without_close_notify_is_not_clean(self) -> None:
        """T072: what was cut off must not pass for the whole."""
        self.handshake()
        self.transport.give(self.peer.send(b"part"))
        self.flow.readConnectionLost()
        self.assertEqual(self.diary.said[1:3], [b"part", ("closed", False)])

    def test_reset_without_close_notify_is_not_clean(self) -> None:
        """T072: a transport's orderly end does not make up for a missing close_notify."""
        self.handshake()
        self.transport.lose(ConnectionDone())
        self.assertEqual(self.diary.said[1:], [("closed", False), "gone"])

    def test_garbage_after_the_handshake_is_not_clean(self) -> None:
        self.handshake()
        self.transport.give(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        self.assertEqual(self.diary.said[1:2], [("closed", False)])
        with self.assertRaises(TlsError):
            self.peer.feed(self.transport.take())

    def test_end_during_the_handshake(self) -> None:
        self.flow.readConnectionLost()
        self.assertEqual(self.diary.said, [("insecure", "unexpected eof")])
        self.transport.take()
        self.assertEqual(self.diary.said[1:], ["gone"])

    def test_close_sends_close_notify_and_never_half_closes(self) -> None:
        self.handshake()
        self.flow.close_write()
        self.assertEqual(self.transport.calls, [])
        self.flow.close()
        self.peer.feed(self.transport.take())
        self.assertTrue(self.peer.ended)
        self.assertEqual(self.transport.calls, ["loseConnection"])

    def test_pressure_counts_ciphertext(self) -> None:
        self.handshake()
        self.flow.write(b"x" * 100000)
        self.flow.flush()
        self.assertEqual(self.diary.said[1:], ["full"])
        plain, _ = self.peer.feed(self.transport.take())
        self.assertEqual(plain, b"x" * 100000)
        self.assertEqual(self.diary.said[1:], ["full", "ready"])
