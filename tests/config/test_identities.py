"""[[identity]], the TLS of listeners, [pki]: each key, each mistake, each default."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.build import build_identities, build_policy, may_use
from slapenir.config.checks import notes
from slapenir.config.durations import duration
from slapenir.config.load import parse
from slapenir.config.settings import Settings
from slapenir.errors import ConfigError, ConfigErrors
from slapenir.evidence import CertificateNames, Evidence
from tests.config.base import with_changes

FILE = "/etc/slapenir/slapenir.toml"
DIGEST = "sha256:" + "0a" * 32
BASE = f"""\
[gateway]
state_dir = "state"
audit = "audit"

[pki]
provider = "embedded"
lifetime = "24h"
names = ["gateway.internal", "127.0.0.1"]
enrol = "tcp:8445"
url = "https://gateway.internal:8445"

[[listener]]
endpoint = "tcp:8443"
tls = {{ client_auth = "required", certificate = "tls.pem", key = "tls.key",
        client_ca = "ca.pem", crl = "c.crl" }}

[[listener]]
endpoint = "tcp:8444"
tls = "managed"

[[listener]]
endpoint = "tcp:8445:interface=127.0.0.1"
identify = ["source", "token"]
proxy_protocol = ["10.0.0.5/32"]

[[listener]]
endpoint = "unix:/run/slapenir.sock"
identify = ["unix_uid"]

[[listener]]
endpoint = "tcp:8080:interface=127.0.0.1"
identity = "sandbox"

[[identity]]
name = "agent-1"
groups = ["agents", "night"]
match = [{{ spiffe = "spiffe://example.org/agent/1" }}, {{ dns = "agent-1.internal" }},
         {{ cn = "agent-1" }}, {{ source = "10.99.0.2/32" }}, {{ unix_uid = 1001 }},
         {{ token = "{DIGEST}" }}]

[[identity]]
name = "agent-2"
groups = ["agents"]
match = [{{ source = "10.99.1.0/24" }}, {{ source = "10.99.1.0/25" }}]

[[credential]]
id = "api"
source = "env:API_KEY"
hosts = ["api.example.test"]
groups = ["night"]

[[rule]]
id = "api"
groups = ["agents"]
identities = ["sandbox"]
hosts = ["api.example.test"]
credentials = ["api"]
"""


def problems(*changes: tuple[str, str]) -> list[ConfigError]:
    """Return what is wrong after some changes."""
    try:
        parse(with_changes(*changes, text=BASE), FILE)
    except ConfigErrors as found:
        return found.errors
    return []


class IdentityCase(SynchronousTestCase):
    def accepts(self, *changes: tuple[str, str]) -> Settings:
        self.assertEqual([str(one) for one in problems(*changes)], [])
        return parse(with_changes(*changes, text=BASE), FILE)

    def refuses(self, path: str, text: str, *changes: tuple[str, str]) -> None:
        """Exactly one problem, at this place, saying this and what to do."""
        found = problems(*changes)
        self.assertEqual([one.path for one in found], [path], [str(one) for one in found])
        self.assertIn(text, f"{found[0].message} {found[0].remedy}")


class IdentityTests(IdentityCase):
    """Who is who."""

    def test_base(self) -> None:
        settings = self.accepts()
        self.assertEqual(settings.identities, ("sandbox", "agent-1", "agent-2"))
        tls = settings.listeners[0].tls
        assert tls is not None
        self.assertEqual(tls.certificate, "/etc/slapenir/tls.pem")
        self.assertEqual(tls.crl, "/etc/slapenir/c.crl")
        self.assertTrue(tls.crl_required)
        assert settings.listeners[1].tls is not None
        self.assertTrue(settings.listeners[1].tls.managed)
        table = build_identities(settings)
        for evidence in (
            Evidence(CertificateNames(("spiffe://example.org/agent/1",))),
            Evidence(CertificateNames((), ("agent-1.internal",))),
            Evidence(CertificateNames((), (), ("agent-1",))),
            Evidence(source="10.99.0.2"),
            Evidence(unix_uid=1001),
            Evidence(token=DIGEST),
        ):
            self.assertEqual(table.identify(evidence).name, "agent-1", evidence)
        self.assertEqual(table.identify(Evidence(source="10.99.1.7")).name, "agent-2")

    def test_groups(self) -> None:
        """A rule for a group is one for its members; a credential may be narrowed further."""
        settings = self.accepts()
        (rule,) = build_policy(settings).rules
        self.assertEqual(rule.identities, ("sandbox", "agent-1", "agent-2"))
        self.assertTrue(may_use(settings, "agent-1", "api"))
        self.assertFalse(may_use(settings, "agent-2", "api"))
        self.assertFalse(may_use(settings, "sandbox", "api"))
        wide = self.accepts(('groups = ["night"]\n', ""))
        self.assertTrue(may_use(wide, "agent-2", "api"))
        for change, path in (
            (('groups = ["agents"]\nidentities', 'groups = ["agent"]\nidentities'), "rule[0]"),
            (('groups = ["night"]\n', 'groups = ["nihgt"]\n'), "credential[0]"),
        ):
            self.refuses(f"$.{path}.groups[0]", "no identity is in a group", change)
        nobody = ('groups = ["agents"]\nidentities = ["sandbox"]\n', "")
        self.refuses("$.rule[0].identities", "say for whom", nobody)

    def test_match(self) -> None:
        """T235 and others: each kind has one form."""
        spiffe = '{ spiffe = "spiffe://example.org/agent/1" }'
        for bad, text in (
            ('{ spiffe = "https://example.org/x" }', "not a SPIFFE ID"),
            ('{ spiffe = "spiffe://Example.org/x" }', "not a SPIFFE ID"),
            ('{ spiffe = "spiffe://example.org/" }', "not a SPIFFE ID"),
            ('{ spiffe = "spiffe://example.org" }', "not a SPIFFE ID"),
            ('{ spiffe = "spiffe://example.org/a/../b" }', "not a SPIFFE ID"),
            ('{ spiffe = "spiffe://example.org:8080/x" }', "not a SPIFFE ID"),
            ('{ dns = "*.internal" }', "DNS"),
            ('{ dns = "10.0.0.1" }', "IP address"),
            ('{ dns = "Agent.internal" }', "canonical"),
            ('{ cn = "" }', "common name"),
            ('{ cn = "a\\u0000b" }', "common name"),
            ('{ source = "10.99.0.2" }', "prefix length"),
            ('{ source = "10.99.0.2/" }', "prefix length"),
            ('{ source = "10.99.0.2/33" }', "prefix length"),
            ('{ source = "10.99.0.2/24" }', "host bits"),
            ('{ source = "x/24" }', "IP address"),
            ('{ source = "::ffff:10.0.0.0/104" }', "IPv4"),
            ("{ unix_uid = -1 }", "user id"),
            ("{ unix_uid = 4294967295 }", "user id"),
            ('{ token = "secret" }', "digest"),
            (f'{{ token = "{DIGEST.upper()}" }}', "digest"),
            ("{ }", "exactly one"),
            ('{ cn = "a", dns = "b" }', "exactly one"),
        ):
            found = problems((spiffe, bad))
            self.assertEqual(len(found), 1, (bad, [str(one) for one in found]))
            self.assertTrue(found[0].path.startswith("$.identity[0].match[0]"), found[0].path)
            self.assertIn(text, f"{found[0].message} {found[0].remedy}")

    def test_nobody_is_two(self) -> None:
        """What would name two identities is found when the file is read."""
        two = '{ source = "10.99.1.0/24" }'
        self.refuses(
            "$.identity[1].match[0].cn", "that of agent-1 too", (two, '{ cn = "agent-1" }')
        )
        self.refuses(
            "$.identity[1].match[0].source",
            "overlaps 10.99.0.2/32",
            (two, '{ source = "10.99.0.0/16" }'),
        )
        self.accepts((two, '{ dns = "agent-1" }'))
        self.refuses("$.identity[1].name", "earlier", ('name = "agent-2"', 'name = "agent-1"'))

    def test_ways(self) -> None:
        """A listener says how its clients are known, by what it can see."""
        unix = 'endpoint = "unix:/run/slapenir.sock"\nidentify = ["unix_uid"]'
        plain = 'identify = ["source", "token"]'
        where = "$.listener[2].identify"
        self.refuses("$.listener[2]", "does not say who", (plain, ""))
        self.refuses(where, "every client is one", (plain, plain + '\nidentity = "x"'))
        self.refuses(where + "[0]", "not a way", (plain, 'identify = ["cookie"]'))
        self.refuses(where + "[1]", "twice", (plain, 'identify = ["token", "token"]'))
        self.refuses(where + "[0]", "needs tls", (plain, 'identify = ["certificate"]'))
        self.refuses(where + "[0]", "unix:", (plain, 'identify = ["unix_uid"]'))
        source = (unix, unix.replace("unix_uid", "source"))
        self.refuses("$.listener[3].identify[0]", "says nothing", source)
        self.assertEqual(problems((plain, "identify = []"))[0].message, "is an empty list")
        for bad in ("10.0.0.5", "10.0.0.5/31", "0.0.0.0/0", "x"):
            change = ('"10.0.0.5/32"', f'"{bad}"')
            self.assertEqual(
                [one.path for one in problems(change)], ["$.listener[2].proxy_protocol[0]"], bad
            )

    def test_notes(self) -> None:
        """What is allowed and yet odd is said by check."""
        said = notes(self.accepts((', crl = "c.crl"', "")))
        self.assertIn(
            "listener listener-1 has no crl: a stolen certificate works until it ends", said
        )
        self.assertIn("listener listener-3: tokens are sent in clear text", said)
        said = notes(self.accepts((", { unix_uid = 1001 }", "")))
        self.assertIn("listener listener-4: no identity has a match by unix_uid", said)


class TlsTests(IdentityCase):
    """Certificates of listeners and where they come from."""

    def test_listener_tls(self) -> None:
        path = "$.listener[0].tls"
        self.refuses(path + ".certificate", "missing", ('certificate = "tls.pem", ', ""))
        self.refuses(path + ".key", "missing", ('key = "tls.key",', ""))
        self.refuses(path + ".client_ca", "missing", ('client_ca = "ca.pem", ', ""))
        auth = 'client_auth = "required", '
        self.refuses(path + ".client_auth", "not a choice", (auth, 'client_auth = "yes", '))
        found = problems((auth, 'client_auth = "none", '))
        self.assertEqual([one.path for one in found], ["$.listener[0]", path + ".client_ca"])
        self.accepts(('"c.crl"', '"https://crl.internal/agents.crl"'))
        self.refuses(path + ".crl", "URL", ('"c.crl"', '"ftp://crl.internal/x"'))
        self.refuses(
            "$.listener[1].tls", "no [pki]", (BASE[BASE.index("[pki]") : BASE.index("[[")], "")
        )
        self.refuses("$.pki.names", "missing", ('names = ["gateway.internal", "127.0.0.1"]\n', ""))
        self.assertIn("must be a table", problems(('tls = "managed"', 'tls = "manged"'))[0].message)
        self.assertIn(
            "unknown key", problems(('client_ca = "ca.pem"', 'clientca = "ca.pem"'))[0].message
        )

    def test_pki(self) -> None:
        provider = 'provider = "embedded"'
        self.refuses("$.pki.provider", "one of", (provider, 'provider = "vault"'))
        self.refuses("$.pki.url", "missing", ('url = "https://gateway.internal:8445"\n', ""))
        self.refuses("$.pki.url", "https", ('url = "https://', 'url = "http://'))
        for bad in ("24", "h", "0h", "1w", "-1h", "1.5h", "2m", "24 h", "9999d"):
            self.assertEqual(
                [one.path for one in problems(('lifetime = "24h"', f'lifetime = "{bad}"'))],
                ["$.pki.lifetime"],
                bad,
            )
        self.refuses(
            "$.pki.names[0]", "lower case", ('"gateway.internal", ', '"Gateway.internal", ')
        )
        self.refuses(
            "$.pki.root_fingerprint",
            "not for",
            (provider, f'{provider}\nroot_fingerprint = "{"0" * 64}"'),
        )
        found = problems((provider, 'provider = "step-ca"'))
        self.assertEqual(
            [one.path for one in found],
            ["$.pki.root_fingerprint", "$.pki.provisioner", "$.pki.provisioner_key", "$.pki.enrol"],
        )
        self.refuses(
            "$.gateway.ca", "per-identity", ('audit = "audit"', 'audit = "audit"\nca = "each"')
        )
        self.accepts(('audit = "audit"', 'audit = "audit"\nca = "per-identity"'))

    def test_durations(self) -> None:
        for text, seconds in (("90s", 90), ("15m", 900), ("24h", 86400), ("7d", 604800)):
            self.assertEqual(duration(text), seconds)
        for text in ("", "1", "s", "01h", "1h30m", "\u0661h", "1H"):
            self.assertRaises(ValueError, duration, text)
