"""``slapenir rules``: options, and what is read from a configuration."""

from __future__ import annotations

from slapenir.sandbox.rules import Site, Wiring
from slapenir.sandbox.rules_iptables import iptables_removal, iptables_rules
from slapenir.sandbox.rules_nft import nft_removal, nft_rules
from tests.test_cli import CommandCase, run

LISTENER = (
    '[[listener]]\nname = "{}"\nendpoint = "{}"\nmode = "transparent"\nidentity = "sandbox"\n'
)
USER = ("--for", "user", "--uid", "1001")


class RulesTests(CommandCase):
    """The command prints what the pure functions return."""

    def listen(self, *endpoints: str) -> None:
        """Add transparent listeners, called t0, t1 and so on."""
        tables = [LISTENER.format(f"t{n}", one) for n, one in enumerate(endpoints)]
        self.change(("[resolver]", "\n".join([*tables, "[resolver]"])))

    def test_options(self) -> None:
        uids = ("--uid", "1001", "--uid", "2000-2999")
        wiring = Wiring(
            site=Site.USER,
            uids=("1001", "2000-2999"),
            port=9000,
            dns_port=5300,
            tproxy=True,
            mark=0x77,
            route_table=78,
            name="mine",
        )
        more = ("--port", "9000", "--dns-port", "5300", "--tproxy", "--mark", "0x77")
        more = ("--for", "user", *uids, *more, "--route-table", "78", "--name", "mine")
        self.assertEqual(self.good("rules", "nft", *more), nft_rules(wiring))
        self.assertEqual(self.good("rules", "iptables", *more), iptables_rules(wiring))
        self.assertEqual(self.good("rules", "nft", *more, "--remove"), nft_removal(wiring))
        removal = self.good("rules", "iptables", *more, "--remove")
        self.assertEqual(removal, iptables_removal(wiring))

    def test_places(self) -> None:
        pod = Wiring(site=Site.POD, gateway_uid=1337)
        shown = self.good("rules", "nft", "--for", "pod", "--gateway-uid", "1337")
        self.assertEqual(shown, nft_rules(pod))
        for site in (Site.BRIDGE, Site.TAP):
            given = ("--for", site.value, "--interface", "x0", "--interface", "x1")
            wiring = Wiring(site=site, interfaces=("x0", "x1"))
            self.assertEqual(self.good("rules", "nft", *given), nft_rules(wiring))

    def test_mistakes(self) -> None:
        self.assertIn("--uid: is missing", self.bad("rules", "nft", "--for", "user"))
        wrong = ("rules", "nft", *USER, "--port", "70000")
        self.assertIn("--port: is not between 1 and 65535", self.bad(*wrong))
        for words in (("pf", *USER), ("nft",), ("nft", *USER, "--mark", "x")):
            self.assertEqual(run("rules", *words).code, 2)

    def test_help_says_what_each_tool_prints(self) -> None:
        text = " ".join(self.good("rules", "--help").split())
        self.assertIn("iptables prints a script for sh", text)
        self.assertIn("nft prints a ruleset for nft -f", text)

    def test_the_port_is_that_of_the_configured_listener(self) -> None:
        self.listen("tcp:9001")
        shown = self.good("rules", "nft", *USER, "--config", self.file)
        self.assertEqual(shown, nft_rules(Wiring(site=Site.USER, uids=("1001",), port=9001)))
        shown = self.good("rules", "nft", *USER, "--config", self.file, "--port", "9002")
        self.assertIn(":9002", shown)

    def test_which_listener(self) -> None:
        asked = ("rules", "nft", *USER, "--config", self.file)
        self.assertIn("there is none", self.bad(*asked))
        self.listen("tcp:9001", "tcp:9002", "systemd:domain=INET:index=0")
        self.assertIn("known: t0, t1, t2", self.bad(*asked))
        self.assertIn("known: t0, t1, t2", self.bad(*asked, "--listener", "listener-1"))
        self.assertIn(":9002", self.good(*asked, "--listener", "t1"))
        self.assertIn("give --port", self.bad(*asked, "--listener", "t2"))
        self.assertIn("needs --config", self.bad("rules", "nft", *USER, "--listener", "t1"))

    def test_a_listener_where_nothing_would_arrive(self) -> None:
        """REDIRECT leads to loopback, or to the address of the interface."""
        self.listen("tcp:9001:interface=127.0.0.1", "tcp:9002:interface=10.0.0.1")
        bridge = ("--for", "bridge", "--interface", "br0")
        for who, listener, fine in (
            (USER, "t0", True),
            (USER, "t1", False),
            (bridge, "t0", False),
            (bridge, "t1", True),
            ((*bridge, "--tproxy"), "t0", True),
        ):
            asked = ("rules", "nft", *who, "--config", self.file, "--listener", listener)
            if fine:
                self.good(*asked)
            else:
                self.assertIn("is not where", self.bad(*asked))

    def test_the_dns_of_the_configuration(self) -> None:
        """Where it is led to; elsewhere DNS is refused, which is said."""
        self.listen("tcp:9001")
        asked = ("rules", "nft", *USER, "--config", self.file)
        self.assertNotIn("redirect to :53", self.good(*asked))
        self.change(
            ("[resolver]", '[dns]\nendpoint = "127.0.0.1:5300"\nidentity = "sandbox"\n\n[resolver]')
        )
        self.assertIn("th dport 53 counter redirect to :5300", self.good(*asked))
        self.assertIn("redirect to :54\n", self.good(*asked, "--dns-port", "54"))
        bridge = ("--for", "bridge", "--interface", "br0")
        result = run("rules", "nft", *bridge, "--config", self.file)
        self.assertIn("note: DNS is refused: 127.0.0.1", result.err)
        self.assertNotIn("5300", result.out)
