"""Who asks as fast as it can: the reactor's other sockets have their turn, memory is bounded."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from slapenir.edge.sandbox_dns import SandboxDns
from slapenir.exchange.questions import Code, Reply
from tests.support.ports import free_port
from tests.wire.test_question import query

ASKED = 600
ANSWERS_A_TURN = 60
"""More than a turn of UDP or of one TCP connection has, and far less than ASKED."""


class Nobody:
    """Take what is published."""

    def publish(self, event: object) -> None:
        pass


class Yes:
    """Answer every question, and count."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, _who: object, _question: object, _now: float) -> tuple[Reply, list[Any]]:
        self.asked += 1
        return Reply(Code.NOERROR, "198.18.0.7"), []


class TurnTests(TestCase):
    """UDP and TCP on the real reactor."""

    @inlineCallbacks
    def setUp(self) -> Any:  # type: ignore[override]
        self.names = Yes()
        self.server = SandboxDns(reactor, Nobody(), self.names, lambda host: host)  # type: ignore[arg-type]
        self.port = free_port()
        ports = yield self.server.listen("127.0.0.1", self.port)
        for one in ports:
            self.addCleanup(one.stopListening)

    def turn(self) -> Deferred[None]:
        return deferLater(reactor, 0, lambda: None)  # type: ignore[arg-type]

    @inlineCallbacks
    def most_in_one_turn(self, wanted: int) -> Any:
        """Wait until ``wanted`` are answered; return the most between two turns of a timer."""
        most = 0
        for _ in range(20 * ASKED):
            before = self.names.asked
            yield self.turn()
            most = max(most, self.names.asked - before)
            if self.names.asked >= wanted:
                return most
        self.fail(f"{self.names.asked} of {wanted} were answered")

    @inlineCallbacks
    def test_datagrams(self) -> Any:
        """Hundreds of queries wait; between two few are answered."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect(("127.0.0.1", self.port))
            for _ in range(100):
                one.send(query(b"api.example.test"))
            most = yield self.most_in_one_turn(100)
        self.assertLessEqual(most, ANSWERS_A_TURN)

    @inlineCallbacks
    def test_pipelined(self) -> Any:
        """The same over TCP, and every query is answered in the end."""
        asked = query(b"api.example.test")
        with socket.create_connection(("127.0.0.1", self.port)) as one:
            one.sendall((struct.pack("!H", len(asked)) + asked) * ASKED)
            most = yield self.most_in_one_turn(ASKED)
            one.setblocking(False)
            got = b""
            for _ in range(1000):
                yield self.turn()
                try:
                    got += one.recv(65536)
                except BlockingIOError:
                    continue
                size = 2 + int.from_bytes(got[:2], "big")
                if len(got) == size * ASKED:
                    break
            self.assertEqual(len(got), size * ASKED)
        self.assertLessEqual(most, ANSWERS_A_TURN)

    @inlineCallbacks
    def test_who_does_not_read_is_not_read(self) -> Any:
        """No answer is made that nobody fetches; it goes on when they do."""
        asked = query(b"api.example.test")
        blob = (struct.pack("!H", len(asked)) + asked) * 2000
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", self.port))
        one.setblocking(False)
        sent = quiet = answered = 0
        while quiet < 400:
            try:
                sent += one.send(blob[sent % len(blob) :])
            except BlockingIOError:
                pass
            yield self.turn()
            quiet = quiet + 1 if self.names.asked == answered else 0
            answered = self.names.asked
            self.assertLess(answered, 1_000_000, "it answers without end")
        held = self.names.asked
        for _ in range(200):
            try:
                one.recv(65536)
            except BlockingIOError:
                pass
            yield self.turn()
        self.assertGreater(self.names.asked, held)
        one.close()
        yield deferLater(reactor, 0.05, lambda: None)  # type: ignore[arg-type]
        self.assertEqual(self.server.connections.total(), 0)
