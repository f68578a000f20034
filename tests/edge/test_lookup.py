"""Names against a real DNS server on loopback, and against the system's resolver."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import dnslib
from dnslib.server import DNSLogger, DNSServer
from twisted.trial.unittest import TestCase

from slapenir.edge import lookup
from slapenir.edge.lookup import MAX_ADDRESSES, DnsLookup, SystemLookup
from tests.edge.rig import REACTOR


class Zone:
    """Answers as dnslib wants them; counts the questions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def resolve(self, request: Any, handler: Any) -> Any:
        name, kind = str(request.q.qname).rstrip("."), dnslib.QTYPE[request.q.qtype]
        self.asked.append((name, kind))
        reply = request.reply()

        def add(owner: str, data: Any) -> None:
            rtype = getattr(dnslib.QTYPE, type(data).__name__)
            reply.add_answer(dnslib.RR(owner, rtype, rdata=data, ttl=0))

        if name == "both.test":
            add(name, dnslib.A("8.8.8.8") if kind == "A" else dnslib.AAAA("2606:4700:4700::1111"))
        elif name == "four.test" and kind == "A":
            add(name, dnslib.A("8.8.8.8"))
        elif name == "deaf.test" and kind == "A":
            add(name, dnslib.A("8.8.8.8"))
        elif name == "deaf.test":
            raise dnslib.DNSError("no answer")
        elif name == "alias.test" and kind == "A":
            add(name, dnslib.CNAME("inner.test"))
            add("inner.test", dnslib.A("10.0.0.1"))
        elif name == "far.test" and kind == "A":
            add(name, dnslib.CNAME("four.test"))
        elif name == "loop.test":
            add(name, dnslib.CNAME("pool.test"))
            add("pool.test", dnslib.CNAME("loop.test"))
        elif name.startswith("chain"):
            add(name, dnslib.CNAME(f"chain{int(name[5:-5]) + 1}.test"))
        elif name == "stuffed.test" and kind == "A":
            add("other.test", dnslib.A("6.6.6.6"))
            add(name, dnslib.A("8.8.8.8"))
        elif name == "many.test" and handler.protocol == "udp":
            reply.header.tc = 1
        elif name == "many.test" and kind == "A":
            for number in range(1000):
                add(name, dnslib.A(f"8.8.{number // 250}.{number % 250 + 1}"))
        elif name == "broken.test":
            reply.header.rcode = dnslib.RCODE.SERVFAIL
        else:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        return reply


class DnsTests(TestCase):
    """T033-T035, T219: what a DNS server may answer."""

    timeout = 20

    def setUp(self) -> None:
        self.zone = Zone()
        for _ in range(20):  # a number that is free for TCP and for UDP
            port = self.serve(0, tcp=True)
            try:
                self.serve(port, tcp=False)
            except OSError:
                continue
            break
        self.lookup = DnsLookup(REACTOR, [("127.0.0.1", port)])

    def serve(self, port: int, *, tcp: bool) -> int:
        quiet = DNSLogger(logf=lambda text: None)
        dns = DNSServer(self.zone, port=port, address="127.0.0.1", tcp=tcp, logger=quiet)
        server = dns.server
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return int(server.server_address[1])

    def tearDown(self) -> None:
        for connection in list(self.lookup._resolver.connections):
            connection.transport.abortConnection()
        for call in REACTOR.getDelayedCalls():
            call.cancel()  # of questions that were given up

    async def failed(self, host: str) -> None:
        with self.assertRaises(LookupError):
            await self.lookup.lookup(host)

    async def test_both_families(self) -> None:
        found = await self.lookup.lookup("both.test")
        self.assertEqual(found, ["8.8.8.8", "2606:4700:4700::1111"])

    async def test_one_family_is_enough(self) -> None:
        self.assertEqual(await self.lookup.lookup("four.test"), ["8.8.8.8"])

    async def test_an_alias_in_the_answer_is_followed(self) -> None:
        """T035: to an internal address, which is then judged like any other."""
        self.assertEqual(await self.lookup.lookup("alias.test"), ["10.0.0.1"])

    async def test_an_alias_without_its_address_is_asked_for(self) -> None:
        self.assertEqual(await self.lookup.lookup("far.test"), ["8.8.8.8"])

    async def test_alias_loops_end(self) -> None:
        """T035."""
        await self.failed("loop.test")
        await self.failed("chain1.test")
        self.assertLess(len(self.zone.asked), 60)

    async def test_records_of_other_names_are_ignored(self) -> None:
        self.assertEqual(await self.lookup.lookup("stuffed.test"), ["8.8.8.8"])

    async def test_a_thousand_records_are_cut(self) -> None:
        """T035: the answer comes over TCP, and no more is taken than can be tried."""
        self.assertEqual(len(await self.lookup.lookup("many.test")), MAX_ADDRESSES)

    async def test_one_family_does_not_wait_for_the_other(self) -> None:
        """T219: a server that drops AAAA questions costs a moment, not a timeout."""
        begun = time.monotonic()
        self.assertEqual(await self.lookup.lookup("deaf.test"), ["8.8.8.8"])
        self.assertLess(time.monotonic() - begun, 0.9)

    async def test_no_such_name_and_a_failing_server(self) -> None:
        """T219."""
        await self.failed("none.test")
        await self.failed("broken.test")


class SystemTests(TestCase):
    """The system's resolver in threads."""

    timeout = 20

    def setUp(self) -> None:
        self.lookup = SystemLookup(REACTOR, 2)
        self.addCleanup(self.lookup.stop)

    async def test_localhost(self) -> None:
        self.assertIn("127.0.0.1", await self.lookup.lookup("localhost"))

    async def test_no_answer(self) -> None:
        with self.assertRaises(LookupError):
            await self.lookup.lookup("no-such-name.invalid")

    async def test_a_thread_that_hangs_holds_up_nobody_else(self) -> None:
        """T199."""
        hang = threading.Event()
        real = socket.getaddrinfo

        def slow(host: str, *rest: Any, **more: Any) -> Any:
            if host == "slow.test":
                hang.wait(10)
                raise socket.gaierror
            return real(host, *rest, **more)

        self.patch(lookup.socket, "getaddrinfo", slow)
        stuck = self.lookup.lookup("slow.test")
        self.addCleanup(hang.set)
        self.assertIn("127.0.0.1", await self.lookup.lookup("localhost"))
        begun = time.monotonic()
        self.lookup.stop()
        self.assertLess(time.monotonic() - begun, 1.0)
        hang.set()
        with self.assertRaises(LookupError):
            await stuck
