"""Which addresses may be dialled, to the exact boundary."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.names import Action, Reason, Stage
from slapenir.policy.addresses import AddressPolicy, decide_address, parse_allow_private

NOTHING_OPEN = AddressPolicy()
ALL_OPEN = parse_allow_private(
    [
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "fc00::/7",
        "2001:db8::/32",
        "2001:2::/48",
        "3fff::/20",
    ]
)


class AddressCase(SynchronousTestCase):
    """Assertions on decisions."""

    def denied(
        self, policy: AddressPolicy, *addresses: str, reason: Reason = Reason.ADDRESS_SPECIAL
    ) -> None:
        for address in addresses:
            decision = decide_address(policy, address, 443, own=False)
            self.assertEqual((decision.action, decision.reason), (Action.DENY, reason), address)
            self.assertIs(decision.stage, Stage.ADDRESS)

    def allowed(
        self, policy: AddressPolicy, *addresses: str, reason: Reason = Reason.ADDRESS_PUBLIC
    ) -> None:
        for address in addresses:
            decision = decide_address(policy, address, 443, own=False)
            self.assertEqual((decision.action, decision.reason), (Action.ALLOW, reason), address)


class TableTests(AddressCase):
    """Without openings."""

    def test_public_addresses_pass(self) -> None:
        """The negative control: public addresses of both families, mapped ones included."""
        self.allowed(NOTHING_OPEN, "8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111")
        self.allowed(NOTHING_OPEN, "::ffff:8.8.8.8", "2001:200::1", "2a00::1", "223.255.255.255")

    def test_T006_mapped_is_unwrapped(self) -> None:
        """T006: an IPv4-mapped address is judged as what it is."""
        self.denied(NOTHING_OPEN, "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1")
        self.denied(ALL_OPEN, "::ffff:a9fe:a9fe", reason=Reason.ADDRESS_METADATA)
        self.allowed(ALL_OPEN, "::ffff:10.0.0.1", reason=Reason.ADDRESS_PERMITTED)

    def test_T007_compatible_and_translated(self) -> None:
        """T007: IPv4-compatible and -translated forms are refused whatever they hold."""
        for policy in (NOTHING_OPEN, ALL_OPEN):
            self.denied(policy, "::127.0.0.1", "::ffff:0:127.0.0.1", "::8.8.8.8", "::10.0.0.1")
            self.denied(policy, "::ffff:0:8.8.8.8", "::2")

    def test_T008_nat64(self) -> None:
        """T008: both NAT64 prefixes are refused, also around a public address."""
        for policy in (NOTHING_OPEN, ALL_OPEN):
            self.denied(policy, "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "64:ff9b::808:808")

    def test_T009_6to4_teredo_isatap(self) -> None:
        """T009: 6to4, Teredo and ISATAP are refused; their neighbours pass."""
        for policy in (NOTHING_OPEN, ALL_OPEN):
            self.denied(policy, "2002:a9fe:a9fe::", "2002:808:808::1", "2001:0:4136:e378::1")
            self.denied(policy, "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "2606::5efe:10.0.0.1")
            self.denied(policy, "2606::200:5efe:10.0.0.1", "fd12::5efe:7f00:1")
        self.allowed(NOTHING_OPEN, "2003::1", "2001:200::1", "2606::5eff:a00:1")

    def test_T010_zones(self) -> None:
        """T010: an address with a zone is refused, even a public one."""
        self.denied(ALL_OPEN, "fe80::1%eth0", "2606:4700::1%1", "fd12::1%lo")

    def test_T011_unspecified(self) -> None:
        """T011: 0/8 and :: reach this host; 1.0.0.0 does not."""
        self.denied(ALL_OPEN, "0.0.0.0", "::", "0.1.2.3", "0.255.255.255", "::ffff:0.0.0.0")
        self.allowed(NOTHING_OPEN, "1.0.0.0")

    def test_T012_shared_address_space(self) -> None:
        """T012: 100.64/10 to its exact edges."""
        self.denied(NOTHING_OPEN, "100.64.0.0", "100.64.0.1", "100.127.255.254", "100.127.255.255")
        self.allowed(NOTHING_OPEN, "100.63.255.254", "100.63.255.255", "100.128.0.0", "100.128.0.1")

    def test_T014_private_edges(self) -> None:
        """T014: the private ranges, loopback and link-local to their exact edges."""
        self.denied(NOTHING_OPEN, "172.16.0.0", "172.31.255.255", "10.0.0.0", "10.255.255.255")
        self.denied(NOTHING_OPEN, "192.168.0.0", "192.168.255.255", "127.0.0.0", "127.255.255.255")
        self.denied(NOTHING_OPEN, "169.254.0.0", "169.254.255.255")
        self.allowed(NOTHING_OPEN, "172.15.255.255", "172.32.0.1", "172.32.0.0", "9.255.255.255")
        self.allowed(NOTHING_OPEN, "11.0.0.0", "192.167.255.255", "192.169.0.0", "126.255.255.255")
        self.allowed(NOTHING_OPEN, "128.0.0.0", "169.253.255.255", "169.255.0.0")

    def test_T015_other_ranges(self) -> None:
        """T015: multicast, reserved, benchmark, documentation, discard, SRv6 and the like."""
        never = ["224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "192.88.99.1"]
        never += ["192.0.0.1", "192.31.196.1", "192.52.193.1", "192.175.48.1", "ff02::1", "fec0::1"]
        never += [
            "5f00::1",
            "fe80::1",
            "febf::1",
            "100::1",
            "100:0:0:1::1",
            "2001:1::1",
            "2001:20::1",
        ]
        never += ["2620:4f:8000::1", "4000::1", "1fff::1", "f000::1", "fe00::1", "2001:1ff:ffff::1"]
        opened = ["198.18.0.1", "198.19.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.255"]
        opened += ["2001:db8::1", "3fff:fff::1", "fc00::1", "fdff::1", "2001:2:0:ffff::1"]
        self.denied(NOTHING_OPEN, *never, *opened)
        self.denied(ALL_OPEN, *never)
        self.allowed(ALL_OPEN, *opened, reason=Reason.ADDRESS_PERMITTED)
        self.allowed(NOTHING_OPEN, "198.17.255.255", "198.20.0.0", "192.0.1.1", "192.0.3.0")
        self.allowed(NOTHING_OPEN, "2001:db9::1", "3fff:1000::1", "2000::1", "203.0.112.255")

    def test_what_is_no_address_is_denied(self) -> None:
        """The function is total: names, blanks and numbers are refused, not raised."""
        self.denied(
            ALL_OPEN, "", "localhost", "8.8.8.8 ", "2130706433", "127.1", "[::1]", "1.2.3.4\n"
        )

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_mapped_agrees_with_ipv4(self, number: int) -> None:
        """An address and its mapped form always get the same decision."""
        plain = ipaddress.IPv4Address(number)
        mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
        for policy in (NOTHING_OPEN, ALL_OPEN):
            self.assertEqual(
                decide_address(policy, str(plain), 443, False),
                decide_address(policy, str(mapped), 443, False),
            )

    @settings(max_examples=200, deadline=None)
    @given(st.ip_addresses())
    def test_never_looser_than_the_standard_library(
        self, address: ipaddress.IPv4Address | ipaddress.IPv6Address
    ) -> None:
        """What ``ipaddress`` knows as not global is never called public here."""
        decision = decide_address(NOTHING_OPEN, str(address), 443, False)
        if not address.is_global and decision.allowed:
            mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
            self.assertTrue(mapped is not None and mapped.is_global, str(address))


class OpeningTests(AddressCase):
    """With openings."""

    def test_T013_metadata_is_never_opened(self) -> None:
        """T013: metadata addresses are refused with every range open; neighbours pass."""
        metadata = ["169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200"]
        metadata += [
            "192.0.0.192",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ]
        for policy in (NOTHING_OPEN, ALL_OPEN):
            self.denied(policy, *metadata, reason=Reason.ADDRESS_METADATA)
        listed = AddressPolicy(
            tuple(ipaddress.ip_network(address) for address in metadata),
            frozenset((address, 443) for address in metadata),
        )
        self.denied(listed, *metadata, reason=Reason.ADDRESS_METADATA)
        self.allowed(NOTHING_OPEN, "168.63.129.15", "168.63.129.17")
        self.allowed(ALL_OPEN, "100.100.100.201", "fd00:ec2::255", reason=Reason.ADDRESS_PERMITTED)

    def test_a_network_opens_itself_only(self) -> None:
        """The exact edges of an opened network."""
        policy = parse_allow_private(["10.20.0.0/16"])
        self.allowed(policy, "10.20.0.0", "10.20.255.255", reason=Reason.ADDRESS_PERMITTED)
        self.denied(policy, "10.19.255.255", "10.21.0.0", "192.168.0.1", "fc00::1")

    def test_a_network_never_opens_more_than_private_ranges(self) -> None:
        """Even a policy built by hand to hold everything opens no loopback and no link-local."""
        policy = AddressPolicy((ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
        self.denied(policy, "127.0.0.1", "::1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "fe80::1")
        self.denied(policy, "64:ff9b::a00:1", "2002:a00:1::", "::", "255.255.255.255")

    def test_loopback_is_opened_by_endpoint(self) -> None:
        """Address and port both have to fit."""
        policy = parse_allow_private(["127.0.0.1:8081", "[::1]:8081", "10.1.2.3:443"])
        for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(decide_address(policy, address, 8081, False).allowed, address)
            self.assertFalse(decide_address(policy, address, 8082, False).allowed, address)
        self.assertFalse(decide_address(policy, "127.0.0.2", 8081, False).allowed)
        self.allowed(policy, "10.1.2.3", reason=Reason.ADDRESS_PERMITTED)
        self.denied(policy, "10.1.2.4")

    def test_T031_own_listeners_are_never_opened(self) -> None:
        """T031: what the gateway itself answers at is refused, opened or public."""
        policy = parse_allow_private(["127.0.0.1:8081"])
        for address in ("127.0.0.1", "8.8.8.8", "169.254.169.254", "nonsense"):
            decision = decide_address(policy, address, 8081, own=True)
            self.assertIs(decision.reason, Reason.ADDRESS_OWN_LISTENER)
            self.assertFalse(decision.allowed)


class ParseTests(SynchronousTestCase):
    """parse_allow_private."""

    def refused(self, entry: str, words: str) -> None:
        error = self.assertRaises(ValueError, parse_allow_private, ["10.0.0.0/8", entry])
        self.assertIn(words, str(error), entry)
        self.assertIn(repr(entry), str(error))

    def test_T235_networks(self) -> None:
        """T235: host bits, bad or missing prefixes and whole-address-space networks."""
        self.refused("10.0.0.0/", "prefix length from 0 to 32")
        self.refused("10.0.0.0/33", "prefix length from 0 to 32")
        self.refused("fd00::/129", "prefix length from 0 to 128")
        self.refused("10.0.0.1/8", "host bits set; write 10.0.0.0/8")
        self.refused("fd00::1/64", "host bits set; write fd00::/64")
        self.refused("0.0.0.0/0", "every address")
        self.refused("::/0", "every address")
        for prefix in ("255.0.0.0", "0.255.255.255", "-1", "+8", " 8", "٨", "8/8", "1" * 5000):
            self.refused(f"10.0.0.0/{prefix}", "prefix length")
        self.refused("/8", "does not start with an IP address")
        self.refused("localhost/8", "does not start with an IP address")
        self.refused("10.0.0/8", "does not start with an IP address")

    def test_T235_neither_network_nor_endpoint(self) -> None:
        """T235: a bare address, nothing, and names."""
        self.refused("10.0.0.1", "needs a prefix length or a port")
        self.refused("::1", "needs a prefix length or a port")
        self.refused("", "no ADDRESS:PORT")
        self.refused("localhost:80", "has a name")
        self.refused("127.0.0.1:0", "no ADDRESS:PORT")
        self.refused("127.0.0.1:", "no ADDRESS:PORT")
        self.refused("127.1:80", "no ADDRESS:PORT")
        self.refused("127.0.0.1:80 ", "no ADDRESS:PORT")

    def test_ranges_that_are_not_opened(self) -> None:
        """Public, loopback, special, mixed and metadata networks and endpoints."""
        self.refused("8.8.8.0/24", "is public")
        self.refused("8.8.8.8:443", "is public")
        self.refused("2606::/32", "is public")
        self.refused("127.0.0.0/8", "is loopback")
        self.refused("127.0.0.1/32", "is loopback")
        self.refused("::1/128", "is loopback")
        self.refused("169.254.0.0/16", "never opened")
        self.refused("fe80::/10", "never opened")
        self.refused("224.0.0.0/8", "never opened")
        self.refused("0.0.0.0:80", "never opened")
        self.refused("[::]:80", "never opened")
        self.refused("64:ff9b::/96", "never opened")
        self.refused("::ffff:10.0.0.0/104", "never opened")
        self.refused("[::ffff:127.0.0.1]:80", "write 127.0.0.1")
        self.refused("8.0.0.0/5", "reaches beyond")
        self.refused("172.0.0.0/8", "reaches beyond")
        self.refused("2000::/3", "reaches beyond")
        self.refused("f000::/4", "reaches beyond")
        self.refused("100.100.100.200/32", "metadata")
        self.refused("fd00:ec2::254/128", "metadata")
        self.refused("169.254.169.254:80", "metadata")
        self.refused("168.63.129.16:80", "metadata")

    def test_what_is_opened(self) -> None:
        """The negative control."""
        policy = parse_allow_private(
            ["10.20.0.0/16", "192.168.1.5/32", "fd12:3456::/32", "127.0.0.1:8081", "[fd00::1]:80"]
        )
        self.assertEqual(
            [str(network) for network in policy.networks],
            ["10.20.0.0/16", "192.168.1.5/32", "fd12:3456::/32"],
        )
        self.assertEqual(policy.endpoints, {("127.0.0.1", 8081), ("fd00::1", 80)})
        self.assertEqual(parse_allow_private([]), AddressPolicy())
