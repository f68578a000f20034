"""What is built from checked settings."""

from __future__ import annotations

import os
import secrets

import attrs
from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.build import (
    build_policy,
    build_wire_limits,
    may_use,
    placeholder_for,
    placeholders_by_identity,
    resolver_servers,
    static_hosts,
    variable_of,
)
from slapenir.config.checks import notes
from slapenir.config.limits import Limits
from slapenir.config.load import parse
from slapenir.config.settings import CredentialSettings, Settings
from slapenir.credentials.model import Credential
from slapenir.names import Action, Authority, Scheme
from slapenir.policy.addresses import decide_address
from slapenir.policy.decide import decide_connect, decide_request
from slapenir.policy.model import ConnectFacts, RequestFacts
from slapenir.secret import Secret
from slapenir.wire.limits import WireLimits
from tests.config.base import with_changes


def settings_of(*changes: tuple[str, str]) -> Settings:
    """Return the base configuration after some changes."""
    return parse(with_changes(*changes), "/etc/slapenir.toml")


class PolicyTests(SynchronousTestCase):
    """The policy that rules become."""

    def decide(self, settings: Settings, url: str, identity: str = "sandbox") -> Action:
        scheme, _, host = url.partition("://")
        kind = Scheme(scheme)
        authority = Authority(host, kind.port)
        facts = RequestFacts(
            identity=identity,
            scheme=kind,
            authority=authority,
            host=authority,
            method="GET",
            path="/v1/x",
            tunnel=authority if kind is Scheme.HTTPS else None,
        )
        return decide_request(build_policy(settings), facts).action

    def test_rules(self) -> None:
        """A rule allows what it names, for whom it names, and gives its credentials."""
        settings = settings_of()
        self.assertEqual(self.decide(settings, "https://api.openai.com"), Action.ALLOW)
        self.assertEqual(self.decide(settings, "https://a.b.openai.com"), Action.ALLOW)
        self.assertEqual(self.decide(settings, "https://openai.com"), Action.DENY)
        self.assertEqual(self.decide(settings, "https://api.openai.com", "other"), Action.DENY)
        policy = build_policy(settings)
        self.assertEqual(policy.rules[0].credentials, ("openai",))
        self.assertEqual(policy.rules[0].ports, (443,))

    def test_t238_without_scheme_and_port(self) -> None:
        """T238: a rule that says neither is for https on 443 only."""
        self.assertEqual(self.decide(settings_of(), "http://api.openai.com"), Action.DENY)
        facts = ConnectFacts("sandbox", Authority("api.openai.com", 8443))
        self.assertEqual(decide_connect(build_policy(settings_of()), facts).action, Action.DENY)
        http = settings_of(('credentials = ["openai"]', 'scheme = "http"'))
        self.assertEqual(self.decide(http, "http://api.openai.com"), Action.ALLOW)
        self.assertEqual(build_policy(http).rules[0].ports, (80,))

    def test_t240_no_rules(self) -> None:
        """T240: without a rule everything is denied, and check says so."""
        settings = attrs.evolve(settings_of(), rules=())
        self.assertEqual(self.decide(settings, "https://api.openai.com"), Action.DENY)
        self.assertTrue(any("everything is denied" in note for note in notes(settings)))

    def test_t018_canonical(self) -> None:
        """T018: case and a trailing dot in the file make no other host."""
        settings = settings_of(('"api.openai.com", "*', '"API.openai.com.", "*'))
        self.assertEqual(self.decide(settings, "https://api.openai.com"), Action.ALLOW)
        self.assertEqual(build_policy(settings).rules[0].hosts[0], "api.openai.com")

    def test_addresses(self) -> None:
        """allow_private opens what it names, and a port beside it stays closed."""
        addresses = build_policy(settings_of()).addresses
        self.assertTrue(decide_address(addresses, "10.20.0.5", 443, False).allowed)
        self.assertFalse(decide_address(addresses, "10.21.0.5", 443, False).allowed)
        self.assertTrue(decide_address(addresses, "127.0.0.1", 8081, False).allowed)
        self.assertFalse(decide_address(addresses, "127.0.0.1", 8080, False).allowed)


class OtherTests(SynchronousTestCase):
    """Limits, names, placeholders."""

    def test_wire_limits(self) -> None:
        """The defaults agree with the codec's own, and each bound goes where it belongs."""
        self.assertEqual(build_wire_limits(Limits()), WireLimits())
        names = [field.name for field in attrs.fields(WireLimits)]
        distinct = {
            name: 1000 + number
            for number, name in enumerate(
                f"{n}_bytes" if n == "chunk_overhead" else n for n in names
            )
        }
        built = build_wire_limits(Limits(**distinct))  # type: ignore[arg-type]
        self.assertEqual(list(attrs.astuple(built)), list(range(1000, 1000 + len(names))))

    def test_resolver(self) -> None:
        """Servers get port 53 when they say none; static names are canonical."""
        settings = settings_of(
            ("[resolver]", '[resolver]\nservers = ["192.0.2.53", "[::1]:5353"]'),
            ("llm.internal", "LLM.Internal."),
        )
        self.assertEqual(
            resolver_servers(settings), (Authority("192.0.2.53", 53), Authority("::1", 5353))
        )
        self.assertEqual(static_hosts(settings), {"llm.internal": ("10.20.0.5",)})

    def test_variables(self) -> None:
        """What is said, else the env: source, else the id."""

        def named(identifier: str, source: str, variable: str | None = None) -> str:
            return variable_of(
                CredentialSettings(id=identifier, source=source, hosts=("a",), variable=variable)
            )

        self.assertEqual(named("a", "env:SOME_KEY", "MINE"), "MINE")
        self.assertEqual(named("a", "env:SOME_KEY"), "SOME_KEY")
        self.assertEqual(named("my-api.v2", "file:/x"), "MY_API_V2_API_KEY")
        self.assertEqual(named("2nd", "systemd:x"), "_2ND_API_KEY")

    def test_may_use(self) -> None:
        """Only an allow rule for that identity, or for all, lets it use a credential."""
        settings = settings_of()
        self.assertTrue(may_use(settings, "sandbox", "openai"))
        self.assertFalse(may_use(settings, "other", "openai"))
        self.assertFalse(may_use(settings, "sandbox", "other"))
        self.assertTrue(may_use(settings_of(('["sandbox"]', '["*"]')), "other", "openai"))

    def test_placeholders(self) -> None:
        """The operator's is everyone's; a minted one is one identity's, and stays the same."""
        key, value = os.urandom(32), secrets.token_hex(20).encode()
        chosen = Credential("a", Secret(value), ("a.example",), (), b"DUMMY_OPENAI")
        minted = Credential("b", Secret(value), ("a.example",), ())
        table = placeholders_by_identity(key, (chosen, minted), ("x", "y"))
        self.assertEqual(table["x"]["a"], b"DUMMY_OPENAI")
        self.assertEqual(table["y"]["a"], b"DUMMY_OPENAI")
        self.assertNotEqual(table["x"]["b"], table["y"]["b"])
        self.assertEqual(table["x"]["b"], placeholder_for(key, minted, "x"))
        self.assertEqual(len(table["x"]["b"]), len(value))
        self.assertNotEqual(placeholder_for(os.urandom(32), minted, "x"), table["x"]["b"])

    def test_notes(self) -> None:
        """What loads and is yet odd is noted: an unused credential, an unknown identity."""
        found = notes(settings_of(('identities = ["sandbox"]', 'identities = ["sandobx"]')))
        self.assertEqual(len(found), 2)
        self.assertIn("credential other is in no rule", found[0])
        self.assertIn("sandobx", found[1])
