"""The packet filter rules in real network namespaces: nft and iptables, REDIRECT and TPROXY.

Outside is a third namespace, where servers answer at addresses that agents dial.  Without the rules
the agents reach all of them; with the rules they reach the gateway only, and at once.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from slapenir.sandbox.rules import Site, Wiring, route_commands
from slapenir.sandbox.rules_iptables import iptables_removal, iptables_rules
from slapenir.sandbox.rules_nft import nft_removal, nft_rules
from tests.integration.case import need
from tests.support.netns import Namespace, command, join, need_namespaces
from tests.support.probes import Answer, Speaker, ping, tcp, udp, user

PORT, DNS_PORT, OTHER_PORT = 8444, 8053, 8080
FOUR, SIX = "203.0.113.10", "2001:db8::10"
AGENT, OTHER_AGENT, GATEWAY, BYSTANDER = 1001, 2005, 1337, 3000
FAST = 1.0
_MPTCP = 262
TOOLS = ("nft", "iptables")


def write_sysctl(name: str, value: str) -> None:
    """Set one of this namespace's parameters."""
    with open(f"/proc/sys/net/{name}", "w") as file:
        file.write(value)


class World:
    """Where the gateway is, cabled to the outside and, on the other side, to a sandbox."""

    def __init__(self, undo: Callable[..., object], tproxy: bool = False) -> None:
        self._undo = undo
        self._tproxy = tproxy
        self._spaces: list[Namespace] = []
        self.gateway, self.outside = self._space(), self._space()
        join(self.gateway, self.outside, 2)
        self.outside.ip("addr", "add", f"{FOUR}/32", "dev", "lo")
        self.outside.ip("-6", "addr", "add", f"{SIX}/128", "dev", "lo", "nodad")
        with self.outside.inside():
            for port in (PORT, 53, 443, 853, 9999):
                self._undo(Speaker(port, "outside").close)

    def _space(self) -> Namespace:
        space = Namespace()
        self._undo(space.remove)
        self._spaces.append(space)
        with space.inside():
            write_sysctl("ipv4/ip_forward", "1")
            write_sysctl("ipv6/conf/all/forwarding", "1")
            write_sysctl("ipv4/ping_group_range", "0 100000")
            # No waiting until an address is known to be nobody else's.
            write_sysctl("ipv6/conf/default/accept_dad", "0")
            # With TPROXY a bridge may not hand its packets to the filter itself.
            for tables in ("iptables", "ip6tables"):
                with contextlib.suppress(FileNotFoundError):
                    write_sysctl(f"bridge/bridge-nf-call-{tables}", "0" if self._tproxy else "1")
            # A kernel sends few errors a second to one peer; here each of them is looked at.
            write_sysctl("ipv4/icmp_ratelimit", "0")
            write_sysctl("ipv6/icmp/ratelimit", "0")
        return space

    def add_sandbox(self, bridge: str) -> Namespace:
        """Cable a sandbox to the gateway, by way of a bridge where it has a name."""
        sandbox = self._space()
        _, link = join(sandbox, self.gateway, 1)
        if bridge:
            self.gateway.ip("link", "add", bridge, "type", "bridge")
            self.gateway.ip("addr", "flush", "dev", link)
            self.gateway.ip("link", "set", link, "master", bridge)
            self.gateway.ip("addr", "add", "10.99.1.1/24", "dev", bridge)
            self.gateway.ip("-6", "addr", "add", "fd99:1::1/64", "dev", bridge, "nodad")
            self.gateway.ip("link", "set", bridge, "up")
        self.outside.ip("route", "add", "10.99.1.0/24", "via", "10.99.2.2")
        self.outside.ip("-6", "route", "add", "fd99:1::/64", "via", "fd99:2::2")
        return sandbox

    def speak(self, tproxy: bool, uid: int = 0) -> None:
        """Start what stands for the gateway: transparent listener, DNS, and another service."""
        with self.gateway.inside(), user(uid):
            self._undo(Speaker(PORT, "", told=True, transparent=tproxy).close)
            self._undo(Speaker(DNS_PORT, "dns").close)
            self._undo(Speaker(OTHER_PORT, "admin").close)

    def load(self, tool: str, wiring: Wiring) -> None:
        """Load rules as the page says; neighbours have to be found anew afterwards."""
        with self.gateway.inside():
            self._load(tool, wiring)
        for space in self._spaces:
            space.ip("neigh", "flush", "all")

    def _load(self, tool: str, wiring: Wiring) -> None:
        if tool == "iptables":
            command("sh", text=iptables_rules(wiring))
        else:
            if wiring.tproxy:
                for one in route_commands(wiring):
                    command("sh", "-c", one)
            command("nft", "-c", "-f", "-", text=nft_rules(wiring))
            command("nft", "-f", "-", text=nft_rules(wiring))

    def unload(self, tool: str, wiring: Wiring) -> None:
        """Remove them."""
        with self.gateway.inside():
            if tool == "iptables":
                command("sh", text=iptables_removal(wiring))
            else:
                command("nft", "-f", "-", text=nft_removal(wiring))


class RulesCase(SynchronousTestCase):
    """Questions that are asked of every wiring."""

    world: World

    def setUp(self) -> None:
        need_namespaces(*TOOLS)
        self.world = World(self.addCleanup)

    def assert_said(self, answer: Answer, said: str) -> None:
        self.assertEqual(answer.said, said)

    def assert_refused(self, answer: Answer) -> None:
        """It failed, and not by a timeout."""
        self.assertTrue(answer.failed, answer.said)
        self.assertNotEqual(answer.said, "ETIMEDOUT")
        self.assertLess(answer.seconds, FAST)

    def assert_open(self) -> None:
        """The control: without rules all of it gets through."""
        for address in (FOUR, SIX):
            ping(address)  # a cable that was just put in may lose the first packet
            for port in (443, 853, 9999):
                self.assert_said(tcp(address, port), "outside")
                self.assert_said(udp(address, port), "outside")
            self.assert_said(udp(address, 53), "outside")
            self.assert_said(ping(address), "pong")

    def assert_closed(self, dns: bool = True) -> None:
        """TCP to anywhere arrives at the listener, DNS at the DNS, and nothing else anywhere."""
        for address in (FOUR, SIX):
            for port in (443, 9999, PORT, *(() if dns else (53,))):
                self.assert_said(tcp(address, port), f"{address} {port}")
            for port in (443, 853, 9999):
                self.assert_refused(udp(address, port))
            self.assert_refused(tcp(address, 853))
            self.assert_refused(ping(address))
            if dns:
                self.assert_said(udp(address, 53), "dns")
                self.assert_said(tcp(address, 53), "dns")
            else:
                self.assert_refused(udp(address, 53))

    def assert_gateway_closed(self, *addresses: str) -> None:
        """Of the gateway's own addresses only the DNS answers; a service is a destination."""
        for address in addresses:
            self.assert_refused(tcp(address, PORT))
            self.assert_refused(udp(address, OTHER_PORT))
            self.assert_said(tcp(address, OTHER_PORT), f"{address} {OTHER_PORT}")


def each(*flags: bool) -> Iterator[tuple[str, bool]]:
    """Yield every tool with every flag."""
    for tool in TOOLS:
        for flag in flags:
            yield tool, flag


class InterfaceTests(RulesCase):
    """Agents behind an interface: a bridge, and a link as a virtual machine's tap is one."""

    def check(self, tool: str, wiring: Wiring, bridge: str = "") -> Namespace:
        """Ask everything without the rules, with them, and when they are gone again."""
        sandbox = self.world.add_sandbox(bridge)
        self.world.speak(wiring.tproxy)
        with sandbox.inside():
            self.assert_open()
            self.assert_said(tcp("10.99.1.1", OTHER_PORT), "admin")
            self.addCleanup(Speaker(7000, "agent").close)
        with self.world.outside.inside():
            self.assert_said(tcp("10.99.1.2", 7000), "agent")
        self.world.load(tool, wiring)
        with sandbox.inside():
            self.assert_closed()
            self.assert_gateway_closed("10.99.1.1", "fd99:1::1", "10.99.2.2", "fd99:2::2")
            self.assert_said(udp("10.99.1.1", DNS_PORT), "dns")
            self.assert_said(udp("fd99:1::1", DNS_PORT), "dns")
        with self.world.outside.inside():
            for address in ("10.99.1.2", "fd99:1::2"):
                self.assert_refused(tcp(address, 7000))
                self.assert_refused(udp(address, 7000))
        return sandbox

    def test_bridge_T228(self) -> None:
        wiring = Wiring(site=Site.BRIDGE, interfaces=("br-agents",), dns_port=DNS_PORT)
        self.check("nft", wiring, "br-agents")

    def test_bridge_iptables(self) -> None:
        wiring = Wiring(site=Site.BRIDGE, interfaces=("br-agents",), dns_port=DNS_PORT)
        self.check("iptables", wiring, "br-agents")

    def test_bridge_tproxy(self) -> None:
        self.world = World(self.addCleanup, tproxy=True)
        wiring = Wiring(site=Site.BRIDGE, interfaces=("br-a",), dns_port=DNS_PORT, tproxy=True)
        self.check("nft", wiring, "br-a")

    def test_bridge_tproxy_iptables(self) -> None:
        self.world = World(self.addCleanup, tproxy=True)
        wiring = Wiring(site=Site.BRIDGE, interfaces=("br-a",), dns_port=DNS_PORT, tproxy=True)
        self.check("iptables", wiring, "br-a")

    def test_tap_and_loading_twice_and_removal(self) -> None:
        """Two interfaces, one of which is not there; all is as before without rules."""
        for tool in TOOLS:
            self.world = World(self.addCleanup)
            wiring = Wiring(site=Site.TAP, interfaces=("tap7", "slb1"), dns_port=DNS_PORT)
            sandbox = self.check(tool, wiring)
            self.world.load(tool, wiring)
            with sandbox.inside():
                self.assert_closed()
            self.world.unload(tool, wiring)
            self.world.unload(tool, wiring)
            with sandbox.inside():
                self.assert_open()


class LocalTests(RulesCase):
    """Agents and the gateway in one network namespace."""

    OWN: ClassVar = ("127.0.0.1", "::1", "10.99.2.2", "fd99:2::2")

    def check(self, tool: str, wiring: Wiring, agent: int, free: int) -> None:
        """Ask everything as an agent and as somebody whom the rules are not for."""
        self.world.speak(wiring.tproxy, uid=GATEWAY)
        dns = wiring.dns_port is not None
        with self.world.gateway.inside(), user(agent):
            self.assert_open()
            self.addCleanup(Speaker(7000, "agent").close)
        with self.world.outside.inside():
            self.assert_said(tcp("10.99.2.2", 7000), "agent")
        self.world.load(tool, wiring)
        with self.world.gateway.inside():
            with user(agent):
                self.assert_closed(dns)
                self.assert_gateway_closed(*self.OWN)
                if dns:
                    self.assert_said(udp("127.0.0.1", DNS_PORT), "dns")
                    self.assert_said(udp("::1", DNS_PORT), "dns")
            with user(free):
                self.assert_open()
        with self.world.outside.inside():
            # What an agent serves is a way out as well: its answers are not let out.
            self.assertTrue(tcp("10.99.2.2", 7000, seconds=0.3).failed)
            self.assertTrue(udp("10.99.2.2", 7000, seconds=0.3).failed)
            self.assert_said(tcp("10.99.2.2", OTHER_PORT), "admin")

    def test_user_T228(self) -> None:
        for tool, tproxy in each(False, True):
            self.world = World(self.addCleanup)
            wiring = Wiring(
                site=Site.USER, uids=("1001", "2000-2999"), dns_port=DNS_PORT, tproxy=tproxy
            )
            self.check(tool, wiring, AGENT, BYSTANDER)
            with self.world.gateway.inside(), user(OTHER_AGENT):
                self.assert_closed()

    def test_user_without_dns(self) -> None:
        for tool in TOOLS:
            self.world = World(self.addCleanup)
            self.check(tool, Wiring(site=Site.USER, uids=("1001",)), AGENT, 1002)

    def test_pod_T228(self) -> None:
        """Root too is an agent there; the gateway's own connections are not led back to it."""
        for tool, tproxy in each(False, True):
            self.world = World(self.addCleanup)
            wiring = Wiring(site=Site.POD, gateway_uid=GATEWAY, dns_port=DNS_PORT, tproxy=tproxy)
            self.check(tool, wiring, 0, GATEWAY)

    def test_a_process(self) -> None:
        """curl as another user, not only a socket."""
        curl = [need("curl"), "-sS", "--http0.9", "--max-time", "5", f"http://{FOUR}:9999/"]
        self.world.speak(False, uid=GATEWAY)
        self.world.load("nft", Wiring(site=Site.USER, uids=("1001",)))
        with self.world.gateway.inside():
            for uid, said in ((AGENT, f"{FOUR} 9999".encode()), (BYSTANDER, b"outside")):
                ran = subprocess.run(
                    curl, capture_output=True, user=uid, group=uid, extra_groups=[], timeout=20
                )
                self.assertIn(said, ran.stdout + ran.stderr)

    def test_multipath_tcp(self) -> None:
        """A socket of MPTCP, which the kernel makes others for, is led to the listener as well."""
        wirings = (
            Wiring(site=Site.USER, uids=("1001",)),
            Wiring(site=Site.POD, gateway_uid=GATEWAY),
        )
        for wiring in wirings:
            for tool in TOOLS:
                self.world = World(self.addCleanup)
                self.world.speak(False, uid=GATEWAY)
                self.world.load(tool, wiring)
                with self.world.gateway.inside(), user(AGENT):
                    try:
                        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, _MPTCP)
                    except OSError:
                        raise SkipTest("this kernel has no MPTCP") from None
                    with client:
                        client.settimeout(5)
                        client.connect((FOUR, 443))
                        self.assertEqual(client.recv(100), f"{FOUR} 443".encode())

    def test_what_was_open_before_is_cut(self) -> None:
        """A connection that an agent made before the rules were loaded does not outlive them."""
        for tool in TOOLS:
            self.world = World(self.addCleanup)
            with self.world.gateway.inside(), user(AGENT):
                peer = socket.create_server(("127.0.0.1", 0))
                client = socket.socket()
                client.connect(peer.getsockname())
            self.addCleanup(peer.close)
            self.addCleanup(client.close)
            server, _ = peer.accept()
            self.addCleanup(server.close)
            client.sendall(b"before")
            self.assertEqual(server.recv(100), b"before")
            self.world.load(tool, Wiring(site=Site.USER, uids=("1001",)))
            start = time.monotonic()
            server.settimeout(0.3)
            with contextlib.suppress(OSError):
                client.sendall(b"after")
            with self.assertRaises(OSError):
                self.assertNotIn(b"after", server.recv(100))
                raise OSError
            self.assertLess(time.monotonic() - start, FAST)


class CounterTests(RulesCase):
    """What was refused can be counted."""

    def test_counters(self) -> None:
        wiring = Wiring(site=Site.USER, uids=("1001",), name="mine")
        self.world.speak(False, uid=GATEWAY)
        self.world.load("nft", wiring)
        with self.world.gateway.inside():
            with user(AGENT):
                udp(FOUR, 443)
                tcp("127.0.0.1", PORT)
            listed = command("nft", "list", "table", "inet", "mine")
        for rule in ("reject with icmpx", "reject with tcp reset"):
            self.assertRegex(listed, rf"counter packets 1 bytes \d+ {re.escape(rule)}")
