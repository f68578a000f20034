"""The text of the packet filter rules; tests/integration/test_rules.py loads them."""

from __future__ import annotations

import itertools
import re
import subprocess
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import ConfigError
from slapenir.sandbox.rules import Site, Wiring, route_commands
from slapenir.sandbox.rules_iptables import iptables_removal, iptables_rules
from slapenir.sandbox.rules_nft import nft_removal, nft_rules

WIRINGS = (
    Wiring(site=Site.USER, uids=("1001", "2000-2999")),
    Wiring(site=Site.BRIDGE, interfaces=("br-agents", "br.2")),
    Wiring(site=Site.TAP, interfaces=("tap0",)),
    Wiring(site=Site.POD, gateway_uid=1337),
)
ALL = tuple(
    attrs.evolve(one, tproxy=tproxy, dns_port=dns_port)
    for one, tproxy, dns_port in itertools.product(WIRINGS, (False, True), (None, 8053))
)


def lines_of(text: str, chain: str) -> list[str]:
    """Return the rules of a chain of an nft ruleset."""
    found = re.search(rf"^    chain {chain} \{{\n(.*?)^    \}}", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for line in found[1].splitlines()] if found else []


class NftTests(SynchronousTestCase):
    """nft."""

    def test_a_ruleset_replaces_itself_in_one_transaction(self) -> None:
        for wiring in ALL:
            text = nft_rules(attrs.evolve(wiring, name="mine"))
            body = [line for line in text.splitlines() if not line.startswith("#")]
            self.assertEqual(
                body[:3],
                ["table inet mine", "delete table inet mine", "table inet mine {"],
            )
            self.assertTrue(
                nft_removal(attrs.evolve(wiring, name="mine")).startswith(
                    "table inet mine\ndelete table inet mine\n"
                )
            )

    def test_whatever_is_not_named_is_refused(self) -> None:
        """The last rule of the agents' chain refuses, TCP by a reset, the rest by ICMP."""
        for wiring in ALL:
            text = nft_rules(wiring)
            self.assertEqual(lines_of(text, "agents")[-1], "jump agents_refuse")
            self.assertEqual(
                lines_of(text, "agents_refuse"),
                [
                    "meta l4proto tcp counter reject with tcp reset",
                    "counter reject with icmpx admin-prohibited",
                ],
            )
            self.assertNotIn("drop", text)

    def test_the_listeners_own_port_comes_before_what_leads_there(self) -> None:
        for wiring in ALL:
            wiring = attrs.evolve(wiring, port=9000)
            local = wiring.site.is_local
            name = "agents_redirect"
            if wiring.tproxy:
                name = "agents_mark" if local else "agents_divert"
            rules = lines_of(nft_rules(wiring), name)
            own = next(n for n, one in enumerate(rules) if "fib daddr type local" in one)
            leads = [n for n, one in enumerate(rules) if "meta l4proto tcp counter" in one]
            self.assertIn("tcp dport 9000 counter return", rules[own])
            self.assertLess(own, min(leads))
            over_tls = next(n for n, one in enumerate(rules) if "853" in one)
            self.assertLess(over_tls, min(leads))
            self.assertNotIn("8444", nft_rules(wiring))

    def test_dns(self) -> None:
        """Without a port for it nothing about port 53 is let through."""
        for wiring in ALL:
            text = nft_rules(wiring)
            rule = "meta l4proto { tcp, udp } th dport 53 counter redirect to :8053"
            self.assertEqual(wiring.dns_port is not None, rule in text)
            if wiring.dns_port is None:
                self.assertNotIn("udp", text.replace("UDP", ""))

    def test_forwarding_is_refused_both_ways(self) -> None:
        for wiring in ALL:
            rules = lines_of(nft_rules(wiring), "on_forward")
            self.assertEqual(
                "iifname @agents jump agents_refuse" in rules, not wiring.site.is_local
            )
            self.assertEqual(
                "oifname @agents jump agents_refuse" in rules, not wiring.site.is_local
            )

    def test_neighbour_discovery_is_all_of_icmp(self) -> None:
        for wiring in ALL:
            icmp = [line.strip() for line in nft_rules(wiring).splitlines() if "icmpv6" in line]
            wanted = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
            self.assertEqual(icmp, [] if wiring.site is Site.USER else [wanted])

    def test_a_pod_lets_out_the_gateway_and_what_the_kernel_owes(self) -> None:
        """A new connection without a process is not among it."""
        self.assertEqual(
            lines_of(nft_rules(WIRINGS[3]), "on_output"),
            [
                "type filter hook output priority filter",
                "policy accept",
                "meta skuid != 1337 jump agents",
                "meta skuid 1337 accept",
                "ct state established,related accept",
                "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
                "jump agents_refuse",
            ],
        )
        chain = "-A SLAPENIR_FILTER "
        lines = [one for one in iptables_rules(WIRINGS[3]).splitlines() if chain in one]
        self.assertEqual(
            lines,
            [
                f"{chain}-m owner --uid-owner 1337 -j RETURN",
                f"{chain}-m owner --uid-owner 0-4294967294 -j SLAPENIR_AGENTS",
                f"{chain}-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
                f"-6 {chain}-p ipv6-icmp --icmpv6-type neighbour-solicitation -j RETURN",
                f"-6 {chain}-p ipv6-icmp --icmpv6-type neighbour-advertisement -j RETURN",
                f"{chain}-j SLAPENIR_REFUSE",
            ],
        )

    def test_who(self) -> None:
        texts = [nft_rules(wiring) for wiring in WIRINGS]
        self.assertIn("elements = { 1001, 2000-2999 }", texts[0])
        self.assertIn('elements = { "br-agents", "br.2" }', texts[1])
        self.assertIn('elements = { "tap0" }', texts[2])
        self.assertIn("meta skuid != 1337 jump agents", texts[3])

    def test_routes_of_tproxy_are_comments(self) -> None:
        for wiring in ALL:
            text = nft_rules(attrs.evolve(wiring, mark=0x77, route_table=78))
            for command in route_commands(attrs.evolve(wiring, mark=0x77, route_table=78)):
                self.assertEqual(f"#   {command}\n" in text, wiring.tproxy)
            self.assertEqual("0x77" in text, wiring.tproxy)
            bridged = wiring.tproxy and wiring.site is Site.BRIDGE
            self.assertEqual("bridge-nf-call-iptables" in text, bridged)


class IptablesTests(SynchronousTestCase):
    """iptables: a script."""

    def test_sh_reads_it(self) -> None:
        for wiring in ALL:
            for text in (iptables_rules(wiring), iptables_removal(wiring)):
                subprocess.run(["sh", "-n"], input=text, text=True, check=True, timeout=20)

    def test_chains_are_loaded_before_they_are_hooked_and_the_filter_comes_first(self) -> None:
        for wiring in ALL:
            lines = iptables_rules(wiring).splitlines()
            hooks = [line for line in lines if line.startswith("hook ")]
            self.assertTrue(hooks[0].startswith("hook filter "))
            last = max(n for n, line in enumerate(lines) if "-restore " in line)
            self.assertLess(last, lines.index(hooks[0]))
            self.assertTrue(all("--noflush" in one for one in lines if "-restore " in one))
            undone = [one for one in iptables_removal(wiring).splitlines() if "unhook " in one]
            self.assertEqual([f"un{one}" for one in hooks[::-1]], undone)

    def test_every_chain_is_declared_and_short_enough(self) -> None:
        for wiring in ALL:
            text = iptables_rules(attrs.evolve(wiring, name="a" * 16))
            declared = set(re.findall(r"^:(\S+) ", text, re.MULTILINE))
            self.assertEqual(set(re.findall(r"\bA{16}_\w+", text)), declared)
            self.assertLess(max(map(len, declared)), 29)

    def test_whatever_is_not_named_is_refused(self) -> None:
        for wiring in ALL:
            lines = iptables_rules(wiring).splitlines()
            agents = [line for line in lines if "-A SLAPENIR_AGENTS " in line]
            self.assertEqual(agents[-1], "-A SLAPENIR_AGENTS -j SLAPENIR_REFUSE")
            for one in agents[:-1]:
                self.assertTrue(one.endswith("-j ACCEPT"), one)

    def test_who(self) -> None:
        texts = [iptables_rules(wiring) for wiring in WIRINGS]
        for uids in ("1001", "2000-2999"):
            self.assertIn(f"-m owner --uid-owner {uids} -j SLAPENIR_AGENTS\n", texts[0])
        for name in ("br-agents", "br.2"):
            self.assertIn(f"-A SLAPENIR_FILTER -i {name} -j SLAPENIR_AGENTS\n", texts[1])
            self.assertIn(f"-A SLAPENIR_FORWARD -o {name} -j SLAPENIR_REFUSE\n", texts[1])
        self.assertIn("-m owner --uid-owner 1337 -j RETURN\n", texts[3])

    def test_routes_of_tproxy_are_commands(self) -> None:
        for wiring in ALL:
            lines = iptables_rules(wiring).splitlines()
            for command in route_commands(wiring):
                self.assertEqual(command in lines, wiring.tproxy)


class WiringTests(SynchronousTestCase):
    """What makes no sense is refused with the option's name; nothing of it gets into a text."""

    def assert_refused(self, option: str, base: Wiring, **changes: Any) -> None:
        with self.assertRaises(ConfigError) as caught:
            attrs.evolve(base, **changes)
        self.assertEqual(caught.exception.path, option)

    def test_each_place_has_its_option(self) -> None:
        user, bridge, _, pod = WIRINGS
        self.assert_refused("--uid", user, uids=())
        self.assert_refused("--interface", bridge, interfaces=())
        self.assert_refused("--gateway-uid", pod, gateway_uid=None)
        self.assert_refused("--interface", user, interfaces=("br0",))
        self.assert_refused("--uid", pod, uids=("1001",))
        self.assert_refused("--gateway-uid", bridge, gateway_uid=5)

    def test_user_ids(self) -> None:
        user, pod = WIRINGS[0], WIRINGS[3]
        wrong = (
            "",
            "x",
            "-1",
            "0",
            "0-5",
            "9-8",
            "4294967295",
            "1 }",
            "1;",
            "1-2-3",
            "\u0661",
            "1\n",
        )
        for text in wrong:
            self.assert_refused("--uid", user, uids=("1001", text))
        attrs.evolve(user, uids=("1-4294967294",))
        for number in (0, -1, 4294967295):
            self.assert_refused("--gateway-uid", pod, gateway_uid=number)

    def test_interfaces(self) -> None:
        wrong = ("", "lo", "a" * 16, 'a"b', "a b", "-j", "a;b", "$(x)", "a/b", "..", "br\n", "\xe4")
        for name in wrong:
            self.assert_refused("--interface", WIRINGS[1], interfaces=("br0", name))
        attrs.evolve(WIRINGS[1], interfaces=("a" * 15, "eth0.7", "br-a_b"))

    def test_numbers_and_names(self) -> None:
        base = WIRINGS[0]
        for port in (0, -1, 65536, 53, 853):
            self.assert_refused("--port", base, port=port)
        self.assert_refused("--port", base, port=9000, dns_port=9000)
        self.assert_refused("--dns-port", base, dns_port=0)
        self.assert_refused("--mark", base, mark=0)
        self.assert_refused("--route-table", base, route_table=1 << 32)
        for name in ("", "A", "1a", "a b", "a" * 17, "a-b", "a;b"):
            self.assert_refused("--name", base, name=name)
        attrs.evolve(base, port=65535, dns_port=53, mark=0xFFFFFFFF, name="a_1")
