"""Transparent listeners, rules for raw TCP, [dns], [sandboxes]: what they must and must not say."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.load import parse
from slapenir.config.settings import Settings
from slapenir.errors import ConfigErrors
from slapenir.names import Action

FILE = "/etc/slapenir/slapenir.toml"
BASE = """
[gateway]
state_dir = "state"
audit = "audit"
"""
LISTENER = '[[listener]]\nendpoint = "{endpoint}"\nmode = "transparent"\n{more}\n'
EXPLICIT = '[[listener]]\nendpoint = "tcp:8080"\nidentity = "sandbox"\n'
RULE = (
    '[[rule]]\nid = "raw"\nidentities = ["sandbox"]\nhosts = ["git.example"]\naction = "tunnel"\n'
)
CREDENTIAL = '[[credential]]\nid = "key"\nsource = "env:X"\nhosts = ["git.example"]\n'


class SandboxingTests(SynchronousTestCase):
    def problems(self, text: str) -> list[tuple[str, str]]:
        """Return the path and the words of each problem."""
        try:
            parse((BASE + text).encode(), FILE)
        except ConfigErrors as found:
            return [(one.path, f"{one.message} {one.remedy}") for one in found.errors]
        return []

    def accepts(self, text: str) -> Settings:
        return parse((BASE + text).encode(), FILE)

    def refuses(self, path: str, words: str, text: str) -> None:
        """Exactly one problem, there, saying this."""
        found = self.problems(text)
        self.assertEqual([where for where, _ in found], [path], found)
        self.assertIn(words, found[0][1])

    def test_listeners(self) -> None:
        """A redirected client shows nothing but its address, and has no TLS with the gateway."""

        def listener(more: str, endpoint: str = "tcp:8444") -> str:
            return LISTENER.format(endpoint=endpoint, more=more)

        identity = 'identity = "sandbox"'
        source = '[[identity]]\nname = "a"\nmatch = [{ source = "10.0.0.0/24" }]\n'
        for good in (identity, f'identify = ["source"]\n{source}'):
            self.accepts(listener(good))
        self.accepts(listener(identity, "tcp6:8444"))
        where = "$.listener[0]"
        for path, words, text in (
            ("endpoint", "redirected", listener(identity, "unix:/run/x")),
            ("tls", "explicit", listener(f'{identity}\ntls = {{ certificate = "c", key = "k", '
                                         'client_auth = "none" }')),
            ("proxy_protocol", "explicit",
             listener(f'{identity}\nproxy_protocol = ["10.0.0.0/8"]')),
            ("url", "nobody", listener(f'{identity}\nurl = "http://x:1"')),
            ("identify", "cannot show a token",
             listener('identify = ["token"]\n[[identity]]\nname = "a"\nmatch = '
                      f'[{{ token = "sha256:{"0" * 64}" }}]')),
        ):  # fmt: skip
            self.refuses(f"{where}.{path}", words, text)

    def test_raw_tcp(self) -> None:
        """Ports have to be named; what raw TCP does not have is refused."""
        rule = self.accepts(f"{EXPLICIT}{RULE}ports = [22]\n").rules[0]
        self.assertEqual((rule.action, rule.ports), (Action.TUNNEL, (22,)))
        where = "$.rule[0]"
        for path, more in (
            ("ports", ""),
            ("methods", 'ports = [22]\nmethods = ["GET"]\n'),
            ("paths", 'ports = [22]\npaths = ["/x"]\n'),
            ("scheme", 'ports = [22]\nscheme = "http"\n'),
        ):
            self.refuses(f"{where}.{path}", "", f"{EXPLICIT}{RULE}{more}")
        carries = f'{EXPLICIT}{RULE}ports = [22]\ncredentials = ["key"]\n{CREDENTIAL}'
        self.refuses(f"{where}.credentials", "carries none", carries)

    def test_t117_raw_tcp_on_the_port_of_https(self) -> None:
        """T117: where a credential would be put in, a tunnel would go around it; SSH would not."""
        self.refuses(
            "$.rule[0].hosts[0]", "uninspected", f"{EXPLICIT}{RULE}ports = [22, 443]\n{CREDENTIAL}"
        )
        self.accepts(f"{EXPLICIT}{RULE}ports = [22]\n{CREDENTIAL}")
        self.accepts(f"{EXPLICIT}{RULE}ports = [443]\n")

    def test_dns(self) -> None:
        table = "[dns]\n"
        good = 'endpoint = "10.20.0.1:53"\nidentity = "sandbox"\n'
        found = self.accepts(f"{EXPLICIT}{table}{good}")
        self.assertEqual(found.dns.endpoint, "10.20.0.1:53")
        self.accepts(f'{EXPLICIT}{table}{good}synthetic = ["10.99.0.0/16"]\n')
        five = "".join(f'[[identity]]\nname = "s{n}"\n' for n in range(5))
        self.accepts(f'{EXPLICIT}{table}{good}synthetic = ["10.9.0.0/23"]\n{five}')
        for path, more in (
            ("endpoint", 'endpoint = "localhost:53"\nidentity = "sandbox"'),
            ("identity", 'endpoint = "10.20.0.1:53"'),
            ("identity", 'endpoint = "10.20.0.1:53"\nidentity = "nobody"'),
            ("synthetic[0]", 'synthetic = ["198.18.0.1/15"]'),
            ("synthetic[0]", 'synthetic = ["x"]'),
            ("synthetic[0]", 'synthetic = ["198.18.0.0/25"]'),
            ("synthetic[0]", 'synthetic = ["fd00:5a::/113"]'),
            ("synthetic[0]", f'synthetic = ["10.9.0.0/24"]\n{five}'),
            ("synthetic[0]", 'synthetic = ["8.8.8.0/24"]'),
            ("synthetic[0]", 'synthetic = ["127.0.0.0/8"]'),
            ("synthetic[1]", 'synthetic = ["10.0.0.0/16", "10.1.0.0/16"]'),
            ("synthetic", "synthetic = []"),
        ):
            self.refuses(f"$.dns.{path}", "", f"{EXPLICIT}{table}{more}\n")

    def test_sandboxes(self) -> None:
        self.accepts(f'{EXPLICIT}[sandboxes]\nendpoint = "unix:/run/slapenir/s.sock:mode=666"\n')
        for bad in ("tcp:1", "/run/x", "unix:"):
            text = f'{EXPLICIT}[sandboxes]\nendpoint = "{bad}"\n'
            self.refuses("$.sandboxes.endpoint", "UNIX", text)
