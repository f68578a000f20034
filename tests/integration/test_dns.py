"""The gateway's DNS for sandboxes, asked by dig and by packets that no resolver sends."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.agent import tunnel
from tests.integration.case import need
from tests.integration.scene import API
from tests.support.certs import ThrowawayCA
from tests.support.gateway import Gateway, Rule
from tests.support.ports import free_port
from tests.wire.test_question import query, raw


class Asking(Gateway):
    """A gateway that would ask one DNS server."""

    upstream = 0

    def toml(self) -> str:
        server = f'[resolver]\nservers = ["127.0.0.1:{self.upstream}"]\n'
        return super().toml().replace("[resolver]\n", server)


class DnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(mode=0o700)
        ca = ThrowawayCA(directory)
        self.port = free_port()
        self.upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.upstream.bind(("127.0.0.1", 0))
        self.addCleanup(self.upstream.close)
        self.gateway = Asking(
            directory,
            [],
            [Rule("api", (API, "*.wild.test"), (443,))],
            {"unused.test": 9},
            ca.ca_file,
            extra=f'[dns]\nendpoint = "127.0.0.1:{self.port}"\n'
            '[[identity]]\nname = "sandbox"\nmatch = [{ source = "127.0.0.1/32" }]\n'
            '[[identity]]\nname = "other"\nmatch = [{ source = "127.0.0.3/32" }]\n'
            f'[[rule]]\nid = "other"\nidentities = ["other"]\nhosts = ["{API}"]\n'
            "[limits]\nnames_per_minute = 1000\n",
        )
        self.gateway.upstream = self.upstream.getsockname()[1]
        self.addCleanup(self.gateway.stop)
        self.gateway.start()

    def dig(self, *words: str, source: str = "127.0.0.1") -> str:
        """Run dig and return what it printed."""
        done = subprocess.run(
            [
                need("dig"), "@127.0.0.1", "-p", str(self.port), "-b", source,
                "+tries=1", "+time=3", *words,
            ],
            capture_output=True,
            text=True,
            timeout=20,
        )  # fmt: skip
        return done.stdout + done.stderr

    def decided(self) -> list[dict[str, Any]]:
        return [one for one in self.gateway.records() if one["event"] == "Decided"]

    def test_dig(self) -> None:
        """Over UDP and TCP, with EDNS and without; denied names do not exist and are recorded."""
        four = self.dig("+short", API, "A").strip()
        self.assertTrue(four.startswith("198.1"), four)
        for more in ("+tcp", "+noedns", "+bufsize=4096", "+nocookie", "+norecurse"):
            self.assertEqual(self.dig("+short", more, API, "A").strip(), four, more)
        six = self.dig("+short", API, "AAAA").strip()
        self.assertTrue(six.startswith("fd00:5a:"), six)
        for kind in ("HTTPS", "SVCB", "MX", "TXT", "ANY"):
            said = self.dig(API, kind)
            self.assertIn("status: NOERROR", said)
            self.assertIn("ANSWER: 0", said)
        self.assertIn("status: NXDOMAIN", self.dig("evil.test"))
        self.assertIn("status: REFUSED", self.dig(API, "-c", "CH"))
        (record,) = self.decided()
        self.assertEqual((record["stage"], record["authority"]), ("name", "evil.test"))
        metrics = self.gateway.admin_get("/metrics")[1]
        wanted = 'slapenir_dns_questions_total{answer="denied",identity="sandbox"} 1.0'
        self.assertIn(wanted, metrics)

    def test_nothing_is_asked_T038(self) -> None:
        """No question of a sandbox causes a packet; a dial of an allowed name does (control)."""
        for name in (API, "evil.test", "a.wild.test", "metadata"):
            self.dig(name)
            self.dig("+tcp", name, "HTTPS")
        self.upstream.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            self.upstream.recv(512)
        self.gateway.hosts = {API: 443}
        with tunnel(self.gateway, API) as inner:
            inner.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % API.encode())
            self.upstream.settimeout(5)
            self.assertIn(b"example", self.upstream.recv(512))

    def test_a_stranger(self) -> None:
        """An address that is nobody's is refused, whatever it asks."""
        self.assertIn("status: REFUSED", self.dig(API, source="127.0.0.2"))
        self.assertIn("status: NOERROR", self.dig(API))

    def test_hostile_T045_T219(self) -> None:
        """Pointer loops, rubbish, half messages, long ones: bounded, no traceback, still there."""
        random_ = random.Random(45)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.settimeout(2)
        udp.connect(("127.0.0.1", self.port))
        chain = b"".join(struct.pack("!H", 0xC00C + 2 * (n + 1)) for n in range(200)) + b"\xc0\x0c"
        hostile = [raw(chain), raw(b"\xc0\x0c"), raw(chain) * 9, b"", b"\0" * 11]
        hostile += [random_.randbytes(random_.randrange(1, 512)) for _ in range(500)]
        hostile += [raw(random_.randbytes(40)) for _ in range(500)]
        began = time.monotonic()
        for packet in hostile:
            udp.send(packet)
        udp.setblocking(False)
        deadline = time.monotonic() + 10
        answered = False
        while not answered and time.monotonic() < deadline:
            try:
                data = udp.recv(4096)
            except BlockingIOError:  # all is read: ask (again, for a full buffer drops datagrams)
                udp.send(query(API.encode()))
                time.sleep(0.05)
                continue
            message = dns.Message()
            message.fromStr(data)
            answered = bool(message.answers)
            self.assertLessEqual(len(data), 512)
        self.assertTrue(answered)
        self.assertLess(time.monotonic() - began, 15)
        for data in (
            b"\xff\xff" + bytes(70000),
            b"\0\x20half",
            b"\0\0" * 50,
            b"\x20\0" + bytes(20),
        ):
            conn = socket.create_connection(("127.0.0.1", self.port), 5)
            conn.settimeout(5)
            try:
                conn.sendall(data)
                conn.shutdown(socket.SHUT_WR)
                while conn.recv(4096):
                    pass
            except OSError:
                pass
            conn.close()
        self.assertIn("status: NOERROR", self.dig("+tcp", API))
        self.assertNotIn("Traceback", self.gateway.log())
        metrics = self.gateway.admin_get("/metrics")[1]
        self.assertIn("slapenir_internal_errors_total 0.0", metrics)

    def test_many_connections(self) -> None:
        """One identity has eight TCP connections; others have theirs, and UDP goes on."""
        held = [socket.create_connection(("127.0.0.1", self.port), 5) for _ in range(20)]
        self.assertIn("status: NOERROR", self.dig(API))
        closed = 0
        for one in held[8:]:
            one.settimeout(2)
            closed += one.recv(1) == b""
        self.assertEqual(closed, 12)
        self.assertIn("status: NOERROR", self.dig("+tcp", API, source="127.0.0.3"))
        for one in held:
            one.close()
        time.sleep(0.2)
        self.assertIn("status: NOERROR", self.dig("+tcp", API))
