"""Sockets that their giver plays with: nothing of ours waits for them."""

from __future__ import annotations

import os
import socket
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.handed_sockets import HandedDatagrams, HandedListener


class HandedTests(SynchronousTestCase):
    def listener(self) -> tuple[HandedListener, socket.socket, list[int]]:
        """Return ours, the giver's, and what was suspected."""
        theirs = socket.create_server(("127.0.0.1", 0))
        ours = HandedListener(fileno=os.dup(theirs.fileno()))
        suspected: list[int] = []
        ours.suspicious = lambda: suspected.append(1)
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        return ours, theirs, suspected

    def test_accept(self) -> None:
        """A connection is taken; without one it says so at once, though the flag was cleared."""
        ours, theirs, suspected = self.listener()
        client = socket.create_connection(theirs.getsockname())
        ours.accept()[0].close()
        os.set_blocking(theirs.fileno(), True)
        began = time.monotonic()
        with self.assertRaises(BlockingIOError):
            ours.accept()
        self.assertLess(time.monotonic() - began, 0.05)
        self.assertEqual(suspected, [])
        client.close()

    def test_an_accept_that_waits(self) -> None:
        """The flag is cleared for ever, faster than it can be set: the alarm ends the wait."""
        ours, theirs, suspected = self.listener()
        done = threading.Event()

        def clear() -> None:
            while not done.is_set():
                os.set_blocking(theirs.fileno(), True)

        thread = threading.Thread(target=clear, daemon=True)
        thread.start()
        try:
            began = time.monotonic()
            for _ in range(2000):
                with self.assertRaises(BlockingIOError):
                    ours.accept()
                if suspected or time.monotonic() - began > 5:
                    break
            self.assertLess(time.monotonic() - began, 8)
        finally:
            done.set()
            thread.join()

    def test_datagrams(self) -> None:
        theirs = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        theirs.bind(("127.0.0.1", 0))
        ours = HandedDatagrams(fileno=os.dup(theirs.fileno()))
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        os.set_blocking(theirs.fileno(), True)
        with self.assertRaises(BlockingIOError):
            ours.recvfrom(100)
        ours.sendto(b"x", theirs.getsockname())
        self.assertEqual(ours.recvfrom(100)[0], b"x")
