"""What counts as one source of connections."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.names import source_network


class SourceTests(SynchronousTestCase):
    def test_networks(self) -> None:
        """An IPv4 address however it is written, and the /64 that one host has of IPv6."""
        for host, source in (
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", ""),
        ):
            self.assertEqual(source_network(host), source)
