"""What systemd is told, over a real datagram socket."""

from __future__ import annotations

import os
import socket
import tempfile

from twisted.trial import unittest

from slapenir import events
from slapenir.observe.publisher import Publisher
from slapenir.observe.readiness import Readiness
from tests.observe.samples import ONE_OF_EACH
from tests.observe.test_metrics import NoAudit


class ReadinessTests(unittest.SynchronousTestCase):
    def listen(self, address: str) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(server.close)
        server.bind(address)
        server.setblocking(False)
        return server

    def received(self, server: socket.socket) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(server.recv(4096))
            except BlockingIOError:
                return found

    def test_ready_is_said_once_and_in_order_t207(self) -> None:
        """T207: READY=1 is sent on GatewayReady and on nothing else, then STOPPING=1."""
        directory = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, directory)
        path = f"{directory}/s"
        server = self.listen(path)
        self.addCleanup(os.unlink, path)
        publisher = Publisher(NoAudit(), [Readiness(path)])
        for event in ONE_OF_EACH:
            publisher.publish(event)
        publisher.publish(events.Reloaded("bad"))
        self.assertEqual(
            self.received(server),
            [
                b"READY=1\nSTATUS=Ready",
                b"STOPPING=1\nSTATUS=Draining",
                b"STATUS=Ready",
                b"STATUS=Ready, but the last reload failed: see the log",
            ],
        )

    def test_an_abstract_socket(self) -> None:
        """An address that begins with @ is in the abstract name space."""
        name = f"slapenir-test-{os.getpid()}"
        server = self.listen(f"\0{name}")
        Readiness(f"@{name}").send("READY=1")
        self.assertEqual(self.received(server), [b"READY=1"])

    def test_outside_systemd_nothing_happens(self) -> None:
        """No variable, an empty one, or one that is no address: no error."""
        for address in (None, "", "relative"):
            Readiness(address).send("READY=1")

    def test_a_socket_that_is_gone_stops_nothing(self) -> None:
        """The failure is an InternalError of the sink; the event goes on."""
        publisher = Publisher(NoAudit(), [Readiness("/nonexistent/socket")])
        publisher.publish(events.GatewayStopping(1.0))
        self.assertEqual(publisher.lost, 0)
