"""What is refused at load: each with its place in the file, beside what is not."""

from __future__ import annotations

import os
import re
import tomllib

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.identity_checks import ways_of
from slapenir.config.limits import Limits
from slapenir.config.load import load, parse
from slapenir.config.settings import Dns, Pki, Settings
from slapenir.errors import ConfigError, ConfigErrors
from slapenir.names import Action, Scheme
from tests.config.base import BASE, with_changes, write_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILE = "/etc/slapenir/slapenir.toml"
RULE_HOSTS = 'hosts = ["api.openai.com", "*.openai.com"]'
CREDENTIAL_HOSTS = 'hosts = ["api.openai.com"]\ninject'
BLIND_HOSTS = 'hosts = ["pinned.example", "*.pinned.example"]'
INJECT = 'inject = [{ header = "Authorization", scheme = "Bearer" }]'


def problems(*changes: tuple[str, str]) -> list[ConfigError]:
    """Return what is wrong with the base configuration after some changes."""
    try:
        parse(with_changes(*changes), FILE)
    except ConfigErrors as found:
        return found.errors
    return []


class LoadTests(SynchronousTestCase):
    """The base configuration and one change at a time."""

    def refuses(self, path: str, text: str, *changes: tuple[str, str]) -> None:
        """Exactly one problem, at this place, saying this; the file is always named."""
        found = problems(*changes)
        self.assertEqual([one.path for one in found], [path], str(found))
        self.assertIn(text, f"{found[0].message} {found[0].remedy}")
        self.assertTrue(str(found[0]).startswith(f"{FILE}: {path}: "))

    def accepts(self, *changes: tuple[str, str]) -> Settings:
        """The change is fine; the settings come back."""
        return parse(with_changes(*changes), FILE)

    def test_base(self) -> None:
        """The base configuration means what it says, with defaults where it is silent."""
        found = self.accepts()
        self.assertEqual(found.file, FILE)
        self.assertEqual(found.gateway.state_dir, "/etc/slapenir/state")
        self.assertEqual(found.gateway.ca_bundle, "/etc/slapenir/slapenir-ca.pem")
        self.assertEqual(found.gateway.admin, "tcp:9464:interface=127.0.0.1")
        self.assertEqual(found.listeners[0].name, "listener-1")
        self.assertEqual(found.identities, ("sandbox",))
        self.assertEqual(found.resolver.hosts, {"llm.internal": ("10.20.0.5",)})
        self.assertEqual(found.limits, Limits())
        self.assertEqual(found.rules[0].scheme, Scheme.HTTPS)
        self.assertEqual(found.rules[1].action, Action.PASSTHROUGH)
        self.assertIsNone(found.rules[0].ports)

    def test_unknown_and_missing_keys(self) -> None:
        """An unknown key names its neighbour; a missing one says that it is missing."""
        self.refuses("$.listener[0].mdoe", "did you mean mode", ("mode =", "mdoe ="))
        self.refuses(
            "$.rule[0].host",
            "did you mean hosts",
            ('id = "openai"\nide', 'host = "a"\nid = "openai"\nide'),
        )
        self.refuses("$.colour", "unknown key", ("[gateway]", "colour = 1\n[gateway]"))
        self.refuses("$.file", "unknown key", ("[gateway]", 'file = "x"\n[gateway]'))
        self.refuses("$.gateway.audit", "is missing", ('audit = "audit"\n', ""))
        self.refuses("$.rule[0].identities", "is missing", ('identities = ["sandbox"]\n', ""))
        self.refuses("$.credential[0].source", "is missing", ('source = "env:OPENAI_API_KEY"', ""))

    def test_t164_t240_missing_hosts_allow_nothing(self) -> None:
        """T164, T240: a rule or a credential without hosts is an error, never every host."""
        self.refuses("$.rule[0].hosts", "is missing", (RULE_HOSTS + "\n", ""))
        self.refuses("$.credential[0].hosts", "is missing", ('hosts = ["api.openai.com"]\n', ""))

    def test_t164_empty_lists(self) -> None:
        """T164: an empty list is refused wherever it stands; leaving the key out is not."""
        for path, old, new in (
            ("$.rule[0].hosts", RULE_HOSTS, "hosts = []"),
            ("$.rule[0].methods", 'methods = ["GET", "POST"]', "methods = []"),
            ("$.rule[0].paths", 'paths = ["/v1/*"]', "paths = []"),
            ("$.rule[0].identities", 'identities = ["sandbox"]', "identities = []"),
            ("$.rule[0].credentials", 'credentials = ["openai"]', "credentials = []"),
            ("$.rule[0].ports", 'action = "allow"', "ports = []"),
            ("$.credential[0].inject", INJECT, "inject = []"),
            (
                "$.resolver.allow_private",
                'allow_private = ["10.20.0.0/16", "127.0.0.1:8081"]',
                "allow_private = []",
            ),
            ("$.resolver.hosts.llm.internal", '["10.20.0.5"]', "[]"),
        ):
            self.assertIn(path, [one.path for one in problems((old, new))])
        for old in ('methods = ["GET", "POST"]\n', 'paths = ["/v1/*"]\n', INJECT):
            self.accepts((old, ""))
        listener = BASE[BASE.index("[[listener]]") : BASE.index("[resolver]")]
        self.assertIn("$.listener", [one.path for one in problems((listener, ""))])

    def test_types(self) -> None:
        """A value of another type is refused, even one that Python would convert."""
        for path, old, new in (
            ("$.gateway.audit", 'audit = "audit"', "audit = 3"),
            ("$.gateway.access_log", 'audit = "audit"', 'audit = "audit"\naccess_log = "no"'),
            ("$.limits.connections", "connections = 1000", 'connections = "1000"'),
            ("$.limits.connections", "connections = 1000", "connections = true"),
            ("$.limits.connections", "connections = 1000", "connections = 10.5"),
            ("$.limits.dial_seconds", "connections = 1000", 'dial_seconds = "5"'),
            ("$.rule[0].hosts", RULE_HOSTS, 'hosts = "api.openai.com"'),
            ("$.rule[0].hosts[0]", RULE_HOSTS, "hosts = [7]"),
            ("$.rule[0].ports[0]", 'action = "allow"', 'ports = ["443"]'),
            ("$.rule[0].scheme", 'action = "allow"', 'scheme = "ftp"'),
            ("$.rule[0].action", 'action = "allow"', 'action = "permit"'),
            ("$.resolver.hosts", '{ "llm.internal" = ["10.20.0.5"] }', "5"),
            ("$.limits", "[limits]\nconnections = 1000", "[[limits]]"),
            ("$.credential[0].inject[0]", INJECT, 'inject = ["Authorization"]'),
        ):
            self.assertEqual([one.path for one in problems((old, new))], [path], new)
        self.assertEqual(
            self.accepts(("connections = 1000", "dial_seconds = 7")).limits.dial_seconds, 7.0
        )

    def test_every_problem_at_once(self) -> None:
        """All problems of a file are in one error, in the order of the checks."""
        found = problems(
            ('identity = "sandbox"', 'identity = ""'),
            ("connections = 1000", "connections = 0"),
            (RULE_HOSTS, 'hosts = ["*", "api.openai.com"]'),
        )
        self.assertEqual(
            [one.path for one in found],
            ["$.limits.connections", "$.limits.connections_per_identity", "$.listener[0]",
             "$.rule[0].hosts[0]"],
        )  # fmt: skip

    def test_t117_passthrough_beside_a_credential(self) -> None:
        """T117: a passthrough host that a credential is for is refused, wildcards either way."""
        for passthrough, credential in (
            ("api.openai.com", "api.openai.com"),
            ("API.OpenAI.com.", "api.openai.com"),
            ("*.openai.com", "api.openai.com"),
            ("*.com", "api.openai.com"),
            ("a.b.openai.com", "*.openai.com"),
            ("*.b.openai.com", "*.openai.com"),
            ("*.openai.com", "*.b.openai.com"),
        ):
            changes = (
                (BLIND_HOSTS, f'hosts = ["pinned.example", "{passthrough}"]'),
                (CREDENTIAL_HOSTS, f'hosts = ["{credential}"]\ninject'),
            )
            with self.subTest(passthrough, credential=credential):
                self.refuses("$.rule[1].hosts[1]", "uninspected", *changes)
        for passthrough, credential in (
            ("openai.com", "*.openai.com"),
            ("notopenai.com", "*.openai.com"),
            ("*.api.openai.com", "api.openai.com"),
            ("*.xopenai.com", "*.openai.com"),
        ):
            self.accepts(
                (BLIND_HOSTS, f'hosts = ["pinned.example", "{passthrough}"]'),
                (CREDENTIAL_HOSTS, f'hosts = ["{credential}"]\ninject'),
            )

    def test_t117_passthrough_says_only_what_it_can_hold(self) -> None:
        """T117: no credentials, methods, paths or plain http in a passthrough."""
        tail = 'action = "passthrough"'
        for key, line in (
            ("methods", 'methods = ["GET"]'),
            ("paths", 'paths = ["/x"]'),
            ("scheme", 'scheme = "http"'),
        ):
            self.refuses(f"$.rule[1].{key}", "", (tail, f"{line}\n{tail}"))
        paths = [one.path for one in problems((tail, f'credentials = ["openai"]\n{tail}'))]
        self.assertIn("$.rule[1].credentials", paths)

    def test_t235_cidr(self) -> None:
        """T235: host bits, no prefix, /33, /0, loopback and public networks are refused."""
        for entry in (
            "10.20.0.1/16",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0",
            "0.0.0.0/0",
            "::/0",
            "127.0.0.0/8",
            "8.8.8.0/24",
            "169.254.0.0/16",
            "169.254.169.254:80",
            "127.0.0.1",
            "localhost:80",
            "",
        ):
            with self.subTest(entry):
                self.refuses("$.resolver.allow_private[0]", "", ("10.20.0.0/16", entry))
        for entry in ("10.0.0.0/8", "192.168.1.0/24", "fd00::/8", "[::1]:8081", "10.20.0.5/32"):
            self.accepts(("10.20.0.0/16", entry))

    def test_t181_http_carries_no_credential(self) -> None:
        """T181, T238: http must be said, and then with a credential it is refused."""
        self.refuses("$.rule[0].credentials", "plain http", ('action = "allow"', 'scheme = "http"'))
        self.accepts(('credentials = ["openai"]', 'scheme = "http"'))
        self.refuses("$.rule[0].credentials", "says deny", ('action = "allow"', 'action = "deny"'))

    def test_ids(self) -> None:
        """An id is a short plain name, and one of its kind."""
        for bad in ("", "a b", "a/b", "x" * 65, "a\\nb", "ä"):
            found = problems(('id = "blind"', f'id = "{bad}"'))
            self.assertEqual([one.path for one in found], ["$.rule[1].id"], bad)
        self.accepts(('id = "blind"', f'id = "{"x" * 64}"'))
        self.refuses("$.rule[1].id", "rule[0]", ('id = "blind"', 'id = "openai"'))
        twins = problems(('id = "other"', 'id = "openai"'))
        self.assertEqual(twins[0].path, "$.credential[1].id")
        self.refuses(
            "$.listener[0].identity", "not a name", ('identity = "sandbox"', 'identity = "*"')
        )
        self.refuses("$.rule[1].identities[0]", "not a name", ('["*"]', '["**"]'))

    def test_hosts_of_rules(self) -> None:
        """Stars, ports, URLs and addresses are no host patterns."""
        for bad in (
            "*",
            "*.",
            "**.example",
            "a.*.example",
            "*a.example",
            "https://a.example",
            "a.example:443",
            "a..example",
            "127.1",
            "10.20.0.5",
            "[::1]",
            "10.0.0.0/8",
            "*.10.0.0.1",
            "ä.example",
            "",
        ):
            with self.subTest(bad):
                found = problems((BLIND_HOSTS, f'hosts = ["{bad}"]'))
                self.assertEqual([one.path for one in found], ["$.rule[1].hosts[0]"])
        for good in ("a.example", "*.a.example", "A.Example.", "xn--mnchen-3ya.de", "_x.example"):
            self.accepts((BLIND_HOSTS, f'hosts = ["{good}"]'))

    def test_t018_trailing_dot(self) -> None:
        """T018: ``evil.com.`` is the same host to every check; two dots are none."""
        self.accepts(("pinned.example", "pinned.example."))
        self.refuses("$.rule[1].hosts[0]", "label", ('["pinned.example"', '["pinned.example.."'))

    def test_ports_methods_paths(self) -> None:
        """A port has a range, a method is upper case, a path begins with a slash or a star."""
        for line, path in (
            ("ports = [0]", "ports[0]"),
            ("ports = [443, 65536]", "ports[1]"),
            ("ports = [-1]", "ports[0]"),
        ):
            self.refuses(f"$.rule[0].{path}", "65535", ('action = "allow"', line))
        self.accepts(('action = "allow"', "ports = [1, 65535]"))
        for bad in ("get", "GE T", "", "GET\\r", "TRACE", "CONNECT"):
            found = problems(('"POST"]', f'"{bad}"]'))
            self.assertEqual([one.path for one in found], ["$.rule[0].methods[1]"], bad)
        self.accepts(('"POST"]', '"M-SEARCH"]'))
        for bad in ("v1", "", "/a b", "/a?b", "/a#b", "/a/../b", "/./a", "/ä"):
            found = problems(('"/v1/*"', f'"{bad}"'))
            self.assertEqual([one.path for one in found], ["$.rule[0].paths[0]"], bad)
        for good in ("/", "*", "*/x", "/v1/*/y", "/a..b", "/%20"):
            self.accepts(('"/v1/*"', f'"{good}"'))

    def test_a_deny_rule_may_name_trace(self) -> None:
        """A rule that denies what is denied anyway is harmless."""
        self.accepts(
            ('methods = ["GET", "POST"]', 'methods = ["TRACE"]'),
            ('credentials = ["openai"]\naction = "allow"', 'action = "deny"'),
        )

    def test_credentials_of_rules(self) -> None:
        """A rule names credentials that exist and that could be used on one of its hosts."""
        line = 'credentials = ["openai"]'
        self.refuses("$.rule[0].credentials[0]", "no credential", (line, 'credentials = ["opena"]'))
        self.refuses(
            "$.rule[0].credentials[1]", "twice", (line, 'credentials = ["openai", "openai"]')
        )
        self.refuses(
            "$.rule[0].credentials[1]", "never be used", (line, 'credentials = ["openai", "other"]')
        )
        self.accepts(
            (line, 'credentials = ["openai", "other"]'),
            (RULE_HOSTS, 'hosts = ["api.openai.com", "x.other.example"]'),
        )

    def test_sources_are_not_quoted(self) -> None:
        """A secret pasted in place of its source is refused without being repeated."""
        secret = "sk-" + os.urandom(12).hex()
        for bad in (secret, f"env:{secret}", "env:", "file:", "vault:x", f"systemd:{secret}/x"):
            found = problems(("env:OPENAI_API_KEY", bad))
            self.assertEqual([one.path for one in found], ["$.credential[0].source"])
            self.assertNotIn(secret, str(found[0]))
        found = self.accepts(("env:OPENAI_API_KEY", "file:secrets/openai"))
        self.assertEqual(found.credentials[0].source, "file:/etc/slapenir/secrets/openai")
        self.accepts(("env:OPENAI_API_KEY", "systemd:openai.key"))

    def test_placeholders(self) -> None:
        """Long enough, plain, not too poor, and one for each credential."""
        for bad in ("SHORT_7", "has space in it", "x" * 513, "aaaaaaaaaa", "DUMMY=OPENAI", "ä" * 9):
            found = problems(("DUMMY_OPENAI", bad))
            self.assertEqual([one.path for one in found], ["$.credential[0].placeholder"], bad)
        self.accepts(("DUMMY_OPENAI", "LENGTH_8"))
        other = 'source = "env:OTHER_KEY"'
        self.refuses(
            "$.credential[1].placeholder",
            "openai too",
            (other, f'{other}\nplaceholder = "DUMMY_OPENAI"'),
        )

    def test_t231_surfaces(self) -> None:
        """T231: one surface in an entry, never a header that frames, routes or is hashed."""
        for bad in (
            "{}",
            '{ scheme = "Bearer" }',
            '{ header = "Authorization", query = "key" }',
            '{ header = "Host" }',
            '{ header = "Content-Length" }',
            '{ header = "Sec-WebSocket-Key" }',
            '{ header = "Digest" }',
            '{ header = "a b" }',
            '{ header = "" }',
            '{ header = "ä" }',
            '{ header = "x", scheme = "a b" }',
            '{ header = "x", when = "sometimes" }',
            '{ query = "k", when = "always" }',
            '{ query = "" }',
            '{ basic = "both" }',
            "{ body = false }",
        ):
            with self.subTest(bad):
                found = problems((INJECT, f"inject = [{bad}]"))
                self.assertEqual([one.path for one in found], ["$.credential[0].inject[0]"])
        for good in (
            '{ header = "x-api-key", when = "always" }',
            '{ basic = "username" }, { basic = "password" }',
            '{ query = "key" }',
            "{ body = true }",
        ):
            self.accepts((INJECT, f"inject = [{good}]"))
        twice = 'inject = [{ header = "X-Key" }, { header = "x-key" }]'
        self.refuses("$.credential[0].inject[1]", "already", (INJECT, twice))

    def test_variables(self) -> None:
        """Two credentials of one identity cannot be in one variable."""
        both = (
            ('credentials = ["openai"]', 'credentials = ["openai", "other"]'),
            (RULE_HOSTS, 'hosts = ["api.openai.com", "*.other.example"]'),
        )
        line = 'source = "env:OTHER_KEY"'
        same = (line, f'{line}\nvariable = "OPENAI_API_KEY"')
        self.refuses("$.credential[1].variable", "one variable", *both, same)
        self.accepts(same)
        self.accepts(*both)
        for bad in ("", "1A", "A-B", "A B", "A=B"):
            found = problems((line, f'{line}\nvariable = "{bad}"'))
            self.assertEqual([one.path for one in found], ["$.credential[1].variable"], bad)

    def test_listeners(self) -> None:
        """Mode, endpoint, name and url of a listener."""
        endpoint = "tcp:8080:interface=127.0.0.1"
        self.accepts(('"explicit"', '"transparent"'))
        self.refuses("$.listener[0].mode", "not a mode", ('"explicit"', '"open"'))
        for bad in (
            "",
            "8080",
            "tcp:",
            ":8080",
            "tcp: 8080",
            "TCP:80",
            "tls:8443",
            "ssl:1",
            "stdio:x",
        ):
            found = problems((endpoint, bad))
            self.assertEqual([one.path for one in found], ["$.listener[0].endpoint"], bad)
        for good in (
            "unix:/run/x.sock",
            "systemd:domain=INET:index=0",
            "tcp6:80:interface=\\\\:\\\\:1",
        ):
            self.accepts((endpoint, good))
        self.refuses("$.listener[0].endpoint", "admin", (endpoint, "tcp:9464:interface=127.0.0.1"))
        self.refuses("$.gateway.admin", "endpoint", ("[gateway]", '[gateway]\nadmin = "tcp:70000"'))
        second = '[[listener]]\nendpoint = "{}"\nidentity = "b"\nname = "{}"\n\n[resolver]'
        self.accepts(("[resolver]", second.format("tcp:8082", "b")))
        self.refuses(
            "$.listener[1].endpoint", "earlier", ("[resolver]", second.format(endpoint, "b"))
        )
        self.refuses(
            "$.listener[1].name", "earlier", ("[resolver]", second.format("tcp:1", "listener-1"))
        )
        for bad in ("https://a:1", "http://a", "http://a:x", "a:1", "http://a:1/", "http://u@a:1"):
            found = problems((f'"{endpoint}"', f'"{endpoint}"\nurl = "{bad}"'))
            self.assertEqual([one.path for one in found], ["$.listener[0].url"], bad)
        self.accepts((f'"{endpoint}"', f'"{endpoint}"\nurl = "http://[fd00::1]:3128"'))

    def test_resolver(self) -> None:
        """Servers and static answers are addresses; names are exact hosts."""
        line = "[resolver]"
        self.accepts((line, f'{line}\nservers = ["192.0.2.53:53", "192.0.2.54", "[::1]:5353"]'))
        for bad in ("dns.example:53", "192.0.2.53:0", "::1", "127.1:53", ""):
            self.refuses("$.resolver.servers[0]", "", (line, f'{line}\nservers = ["{bad}"]'))
        for bad in ("10.20.0", "a.example", "fe80::1%eth0", ""):
            found = problems(('["10.20.0.5"]', f'["{bad}"]'))
            self.assertEqual([one.path for one in found], ["$.resolver.hosts.llm.internal[0]"])
        for bad in ("*.internal", "10.0.0.1", "a..b"):
            self.refuses(f"$.resolver.hosts.{bad}", "", ('"llm.internal"', f'"{bad}"'))
        twice = '"llm.internal" = ["10.20.0.5"], "LLM.internal." = ["10.20.0.6"]'
        self.refuses(
            "$.resolver.hosts.LLM.internal.",
            "is llm.internal once more",
            ('"llm.internal" = ["10.20.0.5"]', twice),
        )

    def test_limits(self) -> None:
        """Bounds are positive and finite, do not contradict one another; one may be 0."""
        for line, path in (
            ("head_seconds = 0", "head_seconds"),
            ("head_seconds = -1.5", "head_seconds"),
            ("head_seconds = nan", "head_seconds"),
            ("head_seconds = inf", "head_seconds"),
            ("head_bytes = 1" + "0" * 400, "head_bytes"),
            ("head_bytes = 0\ntarget_bytes = 0", "head_bytes"),
            ("connections_per_identity = 1001", "connections_per_identity"),
            ("resolve_seconds = 11", "resolve_seconds"),
            ("request_body_bytes = -1", "request_body_bytes"),
        ):
            found = problems(("connections = 1000", line))
            self.assertEqual(found[0].path, f"$.limits.{path}", line)
        self.accepts(("connections = 1000", "request_body_bytes = 0"))

    def test_directories(self) -> None:
        """The CA bundle is not inside the state directory, and the audit directory is another."""
        self.refuses("$.gateway.audit", "own directory", ('audit = "audit"', 'audit = "state/"'))
        self.refuses(
            "$.gateway.ca_bundle",
            "inside",
            ('audit = "audit"', 'audit = "audit"\nca_bundle = "state/ca.pem"'),
        )
        self.refuses("$.gateway.state_dir", "usable", ('"state"', '"/"'))

    def test_not_toml(self) -> None:
        """Text that is no TOML, no UTF-8, or nested without end is one plain problem."""
        for data in (
            b"[gateway",
            b"\xff",
            b"a = 1\na = 2",
            b"x = " + b"[" * 100000,
            b"x = " + b"1" * 5000,
        ):
            with self.assertRaises(ConfigErrors) as caught:
                parse(data, FILE)
            self.assertEqual([one.path for one in caught.exception.errors], ["$"])

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_any_value_anywhere(self, data: st.DataObject) -> None:
        """Whatever one value becomes, parse() returns settings or ConfigErrors, and no more."""
        lines = BASE.split("\n")
        places = [index for index, line in enumerate(lines) if " = " in line]
        index = data.draw(st.sampled_from(places))
        value = data.draw(
            st.sampled_from(["{}", "[]", "[[]]", "{ a = 1 }", "1979-05-27", "nan", "'*'", "''"])
            | st.integers().map(str)
            | st.text("*.:/\\x[]ä0 ", max_size=8).map(lambda text: f"'{text}'")
        )
        for text in (value, f"[{value}]"):
            lines[index] = lines[index].partition(" = ")[0] + " = " + text
            try:
                parse("\n".join(lines).encode("utf-8"), FILE)
            except ConfigErrors as found:
                self.assertTrue(found.errors)


class ReferenceTests(SynchronousTestCase):
    """etc/slapenir.toml is true."""

    def setUp(self) -> None:
        with open(os.path.join(ROOT, "etc", "slapenir.toml"), "rb") as file:
            self.data = file.read()

    def test_reference_loads_and_is_the_template(self) -> None:
        """It loads as it is, and the packaged template is the same text."""
        parse(self.data, FILE)
        with open(os.path.join(ROOT, "slapenir", "config", "template.toml"), "rb") as file:
            self.assertEqual(file.read(), self.data)

    def test_limits_are_the_defaults(self) -> None:
        """Every bound is there with its default, and explained by a comment in the paragraph."""
        document = tomllib.loads(self.data.decode("utf-8"))
        self.assertEqual(document["limits"], attrs.asdict(Limits()))

    def test_every_key_is_there(self) -> None:
        """No key of any table is missing, commented examples included."""
        text = self.data.decode("utf-8")
        module = __import__("slapenir.config.settings", fromlist=["x"])
        for fields in attrs.fields(Settings):
            kind = re.sub(r"tuple\[(\w+), \.\.\.\]|(\w+) \| None", r"\1\2", str(fields.type))
            for key in attrs.fields_dict(getattr(module, kind)) if hasattr(module, kind) else ():
                self.assertIsNotNone(re.search(rf"(?m)^(# )?{key} = ", text), key)

    def test_commented_tables_load(self) -> None:
        """Each table that is commented out loads once it is not, beside all that is there."""
        found = commented_tables(self.data.decode("utf-8"))
        heads = [one.partition("\n")[0] for one in found]
        more = ["[dns]", "[sandboxes]", "[pki]", "[pki]", "[pki]"]
        self.assertEqual(heads, ["[[listener]]", "[[identity]]", *more])
        for one in found:
            parse(self.data + one.encode("utf-8"), FILE)
        providers = []
        for one in found[4:]:
            text = "\n".join(["", *found[:2], one])
            settings = parse(self.data + text.encode("utf-8"), FILE)
            self.assertEqual(settings.identities, ("sandbox", "agent-1"))
            providers.append(settings.pki.provider if settings.pki else "")
        self.assertEqual(providers, ["embedded", "acme", "step-ca"])
        managed = re.sub(r"(?ms)^tls = \{.*?^\}", 'tls = "managed"', found[0])
        listener = parse(self.data + f"{managed}\n{found[4]}".encode(), FILE).listeners[1]
        self.assertTrue(listener.tls and listener.tls.managed)

    def test_commented_defaults_are_true(self) -> None:
        """What the commented listener and the embedded CA show as a default is one."""
        listener, _, dns, _, pki, *_ = commented_tables(self.data.decode("utf-8"))
        shown = parse(self.data + dns.encode(), FILE).dns
        self.assertEqual(shown.synthetic, Dns().synthetic)
        settings = parse(self.data + f"{listener}\n{pki}".encode(), FILE)
        tls = settings.listeners[1].tls
        self.assertEqual((tls and tls.client_auth, tls and tls.crl_required), ("required", True))
        self.assertEqual(ways_of(attrs.evolve(settings.listeners[1], identify=None)),
                         settings.listeners[1].identify)  # fmt: skip
        given = settings.pki or Pki(provider="")
        for key in ("provider", "lifetime", "crl_lifetime"):
            self.assertEqual(getattr(given, key), getattr(Pki(), key))


def commented_tables(text: str) -> list[str]:
    """Return the tables of a file that are commented out, each to the end of its paragraph."""
    found = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.split("\n")
        heads = [number for number, line in enumerate(lines) if line.startswith("# [")]
        if heads:
            found.append("".join(f"{line[2:]}\n" for line in lines[heads[0] :]))
    return found


class FileTests(SynchronousTestCase):
    """T239: who may own and write the file."""

    def test_load(self) -> None:
        """A file of ours loads and its paths are relative to it."""
        path = write_file(self.mktemp(), BASE.encode())
        found = load(os.path.relpath(path))
        self.assertEqual(found.file, path)
        self.assertEqual(found.gateway.audit, os.path.join(os.path.dirname(path), "audit"))

    def refused(self, path: str, text: str) -> None:
        with self.assertRaises(ConfigErrors) as caught:
            load(path)
        self.assertIn(text, str(caught.exception))
        self.assertIn(path, str(caught.exception))

    def test_missing(self) -> None:
        """A missing file says how to get one."""
        self.refused(os.path.abspath(self.mktemp()), "slapenir init")

    def test_t239_writable_by_others(self) -> None:
        """T239: group or others may read the file, not write it."""
        path = write_file(self.mktemp(), BASE.encode())
        for mode in (0o620, 0o602, 0o666):
            os.chmod(path, mode)
            self.refused(path, "go-w")
        os.chmod(path, 0o644)
        load(path)

    def test_t239_directory_anyone_can_write(self) -> None:
        """T239: a directory in which anyone could swap the file is refused; /tmp's bit is not."""
        directory = self.mktemp()
        path = write_file(os.path.join(directory, "inner"), BASE.encode())
        for where in (directory, os.path.dirname(path)):
            os.chmod(where, 0o777)  # noqa: S103
            self.refused(path, "anyone can write")
            os.chmod(where, 0o1777)  # noqa: S103
            load(path)

    def test_t239_links(self) -> None:
        """T239: a link of another user is refused, our own (or root's) is followed."""
        path = write_file(self.mktemp(), BASE.encode())
        link = os.path.join(os.path.dirname(path), "link.toml")
        os.symlink(path, link)
        load(link)
        if os.geteuid() != 0:
            raise self.skipTest("only root can make a link of another user")
        os.lchown(link, 65534, 65534)
        self.refused(link, "another user")

    def test_t239_owner(self) -> None:
        """T239: a file, or a directory around it, that belongs to another user is refused."""
        if os.geteuid() != 0:
            raise self.skipTest("only root can give files away")
        path = write_file(self.mktemp(), BASE.encode())
        os.chown(path, 65534, 65534)
        self.refused(path, "owned by user 65534")
        os.chown(path, 0, 0)
        os.chown(os.path.dirname(path), 65534, 65534)
        self.refused(path, "belongs to user 65534")

    def test_not_a_file(self) -> None:
        """A directory, a FIFO and a file without end are refused, without waiting."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory, 0o700)
        self.refused(directory, "not a regular file")
        fifo = os.path.join(directory, "fifo")
        os.mkfifo(fifo, 0o600)
        self.refused(fifo, "not a regular file")
        path = write_file(directory, b"#" * ((1 << 20) + 1))
        self.refused(path, "longer than")

    def test_t237_environment_is_ignored(self) -> None:
        """T237, T229: no variable of the process changes what is loaded."""
        path = write_file(self.mktemp(), BASE.encode())
        before = load(path)
        for name in ("HTTPS_PROXY", "SSL_CERT_FILE", "SLAPENIR_CONFIG", "ALLOW_BUILD"):
            self.patch(os, "environ", os.environ | {name: "1"})
        self.assertEqual(load(path), before)
