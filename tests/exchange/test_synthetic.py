"""Addresses that stand for names: stable, apart for each identity, bounded."""

from __future__ import annotations

import secrets
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.exchange.synthetic import SyntheticAddresses

FOUR, SIX = ip_network("198.18.0.0/24"), ip_network("fd00:5a::/112")
KEY = secrets.token_bytes(32)


class SyntheticTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        """One address a family for a name, known to its identity only, and after a restart."""
        table = SyntheticAddresses([FOUR, SIX], 60, KEY)
        four = table.address_of("a", "x.test", 4)
        six = table.address_of("a", "x.test", 6)
        assert four is not None
        assert six is not None
        self.assertIn(ip_address(four), FOUR)
        self.assertIn(ip_address(six), SIX)
        for address in (four, six, f"::ffff:{four}"):
            self.assertEqual(table.name_of("a", address), "x.test")
            self.assertIsNone(table.name_of("b", address))
        self.assertEqual(table.address_of("a", "x.test", 4), four)
        self.assertNotEqual(table.address_of("b", "x.test", 4), four)
        again = SyntheticAddresses([FOUR, SIX], 60, KEY)
        self.assertEqual(again.address_of("a", "x.test", 6), six)
        other = SyntheticAddresses([SIX], 60, secrets.token_bytes(32))
        self.assertNotEqual(other.address_of("a", "x.test", 6), six)
        self.assertIsNone(other.address_of("a", "x.test", 4))
        self.assertIsNone(table.name_of("a", "203.0.113.1"))

    def test_covers(self) -> None:
        table = SyntheticAddresses([FOUR, SIX], 60, KEY)
        for address, inside in (("198.18.0.9", True), ("198.18.1.0", False), ("fd00:5a::1", True)):
            self.assertEqual(table.covers(address), inside)

    def test_the_oldest_is_forgotten(self) -> None:
        """Of one identity's names the last used stay; another's are not touched."""
        table = SyntheticAddresses([FOUR], 3, KEY)
        first = table.address_of("a", "n0", 4)
        others = table.address_of("b", "n0", 4)
        assert first is not None
        assert others is not None
        for number in range(1, 3):
            table.address_of("a", f"n{number}", 4)
        self.assertEqual(table.name_of("a", first), "n0")  # used: n1 is the oldest now
        second = table.address_of("a", "n1", 4)
        assert second is not None
        table.address_of("a", "n2", 4)
        table.address_of("a", "n3", 4)
        self.assertIsNone(table.name_of("a", first))
        self.assertEqual(table.name_of("a", second), "n1")
        self.assertEqual(table.name_of("b", others), "n0")

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 90)), max_size=300))
    def test_never_two_for_one(self, asked: list[tuple[str, int]]) -> None:
        """An address stands for one name at a time, and what is kept stays bounded."""
        table = SyntheticAddresses([FOUR], 30, KEY)
        for identity, number in asked:
            address = table.address_of(identity, f"n{number}", 4)
            assert address is not None
            self.assertNotIn(address, ("198.18.0.0", "198.18.0.255"))
            self.assertEqual(table.name_of(identity, address), f"n{number}")
            self.assertEqual(table.address_of(identity, f"n{number}", 4), address)
        self.assertLessEqual(len(table._owners), 60)
