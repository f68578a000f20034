"""What certificates are to say, by the configuration: identities, the gateway, the CA's domains."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.identities import (
    ca_addresses,
    ca_domains,
    pki_of,
    wanted_for,
    wanted_server,
)
from slapenir.config.load import parse
from slapenir.config.settings import Settings
from slapenir.errors import ConfigError
from slapenir.pki.held import Wanted
from tests.config.base import with_changes

BASE = """\
[gateway]
state_dir = "state"
audit = "audit"

[pki]
lifetime = "2h"
names = ["gateway.internal", "127.0.0.1", "fd00::1", "gw.example.net"]

[[listener]]
endpoint = "tcp:8443"
tls = "managed"

[[identity]]
name = "all"
match = [{ dns = "all.internal" }, { spiffe = "spiffe://example.org/all" }, { cn = "All of it" },
         { dns = "all.example.com" }, { source = "10.0.0.1/32" }]

[[identity]]
name = "common"
match = [{ cn = "Common.Example" }]

[[identity]]
name = "plain"
match = [{ cn = "Agent v1.0, the first" }]

[[identity]]
name = "by-address"
match = [{ source = "10.0.0.2/32" }, { unix_uid = 1001 }]
"""


def settings(*changes: tuple[str, str]) -> Settings:
    """Return the configuration after some changes."""
    return parse(with_changes(*changes, text=BASE), "/etc/slapenir/slapenir.toml")


class WantedTests(SynchronousTestCase):
    """Every name comes from the configuration."""

    def refuses(self, path: str, phrase: str, name: str, *changes: tuple[str, str]) -> None:
        with self.assertRaises(ConfigError) as caught:
            wanted_for(settings(*changes), name)
        self.assertEqual(caught.exception.path, path)
        self.assertIn(phrase, str(caught.exception))

    def test_an_identity(self) -> None:
        self.assertEqual(
            wanted_for(settings(), "all"),
            Wanted(
                "All of it",
                ("spiffe://example.org/all",),
                ("all.internal", "all.example.com"),
                lifetime=7200.0,
            ),
        )
        common = Wanted("Common.Example", lifetime=60.0)
        self.assertEqual(wanted_for(settings(), "common", 60.0), common)

    def test_who_has_no_certificate(self) -> None:
        self.refuses("$.identity", "known: all, common, plain, by-address", "nobody")
        self.refuses("$.identity[3].match", "spiffe, dns or cn", "by-address")
        twice = ('{ cn = "All of it" }', '{ cn = "All of it" }, { cn = "Twice" }')
        self.refuses("$.identity[0].match", "more than one", "all", twice)

    def test_the_gateway(self) -> None:
        self.assertEqual(
            wanted_server(settings()),
            Wanted(
                "",
                (),
                ("gateway.internal", "gw.example.net"),
                ("127.0.0.1", "fd00::1"),
                True,
                7200.0,
            ),
        )
        names = 'names = ["gateway.internal", "127.0.0.1", "fd00::1", "gw.example.net"]'
        unmanaged = ('tls = "managed"', 'identity = "all"')
        with self.assertRaises(ConfigError) as caught:
            wanted_server(settings(unmanaged, (names, "")))
        self.assertEqual(caught.exception.path, "$.pki.names")

    def test_domains(self) -> None:
        """Those that are named, each once, in lower case; a CN only where it looks like a host."""
        self.assertEqual(
            ca_domains(settings()),
            (
                "gateway.internal",
                "gw.example.net",
                "all.internal",
                "all.example.com",
                "example.org",
                "common.example",
            ),
        )
        listed = ('lifetime = "2h"', 'lifetime = "2h"\ndomains = ["internal", "example.org"]')
        self.assertEqual(ca_domains(settings(listed)), ("internal", "example.org"))
        self.assertEqual(ca_addresses(settings()), ("127.0.0.1", "fd00::1"))

    def test_another_provider(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            pki_of(settings(), "acme")
        self.assertEqual(caught.exception.path, "$.pki")
        self.assertEqual(pki_of(settings()).lifetime, "2h")
