"""T045: answers that no honest DNS server gives, byte by byte, over a real socket."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable

from twisted.trial.unittest import TestCase

from slapenir.edge import lookup
from slapenir.edge.lookup import DnsLookup
from tests.edge.rig import REACTOR

RIGHT = socket.inet_aton("8.8.8.8")
WRONG = socket.inet_aton("6.6.6.6")


def question_of(query: bytes) -> bytes:
    """Return the question section of a query."""
    return query[12 : query.index(b"\0", 12) + 5]


def answer(
    query: bytes, address: bytes, *, number: int | None = None, flags: int = 0x8180
) -> bytes:
    """Return a well-formed answer; ``number`` replaces the query's ID."""
    chosen = struct.unpack("!H", query[:2])[0] if number is None else number
    is_a = question_of(query)[-4:-2] == b"\0\1"
    head = struct.pack("!HHHHHH", chosen, flags, 1, int(is_a), 0, 0)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + address if is_a else b""
    return head + question_of(query) + record


def wrong_number_first(query: bytes) -> list[bytes]:
    """A forged answer with another ID, then the honest one."""
    number = struct.unpack("!H", query[:2])[0] ^ 0xFFFF
    return [answer(query, WRONG, number=number), answer(query, RIGHT)]


def pointer_loop(query: bytes) -> list[bytes]:
    """A record whose name is a pointer to itself."""
    head = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
    start = 12 + len(question_of(query))
    return [head + question_of(query) + struct.pack("!H", 0xC000 | start) + b"\0\1\0\1" + bytes(6)]


def pointer_chain(query: bytes) -> list[bytes]:
    """Thousands of pointers, each to the one before (CVE-2026-42304)."""
    head = query[:2] + b"\x81\x80\0\1\x40\0\0\0\0\0"
    out = head + question_of(query)
    at = 12
    while len(out) < 60000:
        here = len(out)
        out += struct.pack("!H", 0xC000 | (at & 0x3FFF)) + b"\0\1\0\1" + bytes(4) + b"\0\4" + WRONG
        at = here
    return [out]


def cut_short(query: bytes) -> list[bytes]:
    """An answer that ends in the middle of its record."""
    return [answer(query, WRONG)[:-3]]


def noise(query: bytes) -> list[bytes]:
    """Bytes that are no message."""
    return [b"", b"\0", query[:2], query[:2] + b"\xff" * 400]


class HostileServerTests(TestCase):
    """Whatever comes, a lookup ends in bounded time, with the honest answer or with none."""

    timeout = 30

    def setUp(self) -> None:
        self.patch(lookup, "_TIMEOUTS", (0.5,))

    def serve(
        self, replies: Callable[[bytes], list[bytes]], *, elsewhere: bool = False
    ) -> DnsLookup:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("127.0.0.2", 0))

        def run() -> None:
            while True:
                try:
                    query, peer = server.recvfrom(4096)
                except OSError:
                    return
                for reply in replies(query):
                    (other if elsewhere else server).sendto(reply, peer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(other.close)
        self.addCleanup(server.close)
        return DnsLookup(REACTOR, [("127.0.0.1", server.getsockname()[1])])

    def tearDown(self) -> None:
        for call in REACTOR.getDelayedCalls():
            call.cancel()  # of questions that were given up

    async def ask(self, server: DnsLookup) -> list[str]:
        """Return the addresses found, none when the lookup failed; bound the CPU it took."""
        started = time.process_time()
        try:
            return await server.lookup("name.test")
        except LookupError:
            return []
        finally:
            self.assertLess(time.process_time() - started, 3.0)

    async def test_honest_T045(self) -> None:
        """Negative control: the well-formed answer is taken."""
        found = await self.ask(self.serve(lambda query: [answer(query, RIGHT)]))
        self.assertEqual(found, ["8.8.8.8"])

    async def test_a_wrong_number_is_not_taken_T045(self) -> None:
        """An answer with another ID is dropped; the honest one behind it counts."""
        self.assertEqual(await self.ask(self.serve(wrong_number_first)), ["8.8.8.8"])

    async def test_malformed_T045(self) -> None:
        """Loops, chains, cuts and noise give no address and no storm."""
        for replies in (pointer_loop, pointer_chain, cut_short, noise):
            self.assertNotIn("6.6.6.6", await self.ask(self.serve(replies)), replies.__name__)

    async def test_another_sender_T045(self) -> None:
        """An answer from another address than the one asked is not taken."""
        replies = self.serve(lambda query: [answer(query, WRONG)], elsewhere=True)
        self.assertEqual(await self.ask(replies), [])
