"""What ``slapenir explain`` says is what the gateway does."""

from __future__ import annotations

import contextlib
import io
import random

from twisted.trial.unittest import SynchronousTestCase

from slapenir.cli.explain import _explain
from slapenir.config.build import build_policy, static_hosts
from slapenir.config.load import parse
from slapenir.config.settings import Settings
from slapenir.errors import RemoteProtocolError
from slapenir.exchange.admission import admit
from slapenir.exchange.terms import Terms
from slapenir.names import Authority
from slapenir.policy.addresses import decide_address
from slapenir.policy.decide import decide_connect
from slapenir.policy.model import ConnectFacts
from slapenir.wire.http1 import RequestDecoder
from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import RequestHead
from slapenir.wire.target import parse_connect
from tests.support.playbook import make_terms

CONFIGURATIONS, REQUESTS = 150, 40
BASE = """
[gateway]
state_dir = "state"
audit = "audit"
admin = "tcp:9464"
[[listener]]
endpoint = "tcp:8080:interface=127.0.0.1"
identity = "sandbox"
[resolver]
hosts = { "a.test" = ["10.1.1.1", "127.0.0.1"], "b.a.test" = ["10.9.9.9"] }
allow_private = ["10.1.0.0/16", "127.0.0.1:8080"]
"""
METHODS = ("GET", "GET", "POST", "get", "FOO", "TRACE", "CONNECT", "M-SEARCH", "G ET", "", "PRI")
HOSTS = ("a.test", "A.test", "a.test.", "b.a.test", "x.test", "10.1.1.1", "u@a.test", "-.test")
PORTS = ("", "", "", ":443", ":80", ":0443", ":8443", ":")
PATHS = (
    *("/", "", "?q", "/v1", "/v1/x", "/V1/x", "/v1//x", "/v1/x?%zz", "/v1/%41", "/v1/x;a"),
    *("/v1/../x", "/v1/%2e%2e/x", "/v1/..;/x", "/v1/%2f", "/v1/%", "/v1/x y", "/v1#x", "/v1\\x"),
)


def head_of(data: str) -> RequestHead:
    """Return the head in a client's bytes; raises RemoteProtocolError."""
    for message in RequestDecoder(WireLimits()).feed(data.encode("utf-8")):
        if isinstance(message, RequestHead):
            return message
        raise RemoteProtocolError("no request")
    raise RemoteProtocolError("nothing")


class Explain(SynchronousTestCase):
    """Random rules and odd requests, asked both ways."""

    def setUp(self) -> None:
        self.random = random.Random(166)

    def configuration(self) -> str:
        """Return a configuration with random rules."""
        choose, chance = self.random.choice, self.random.random
        text = BASE
        for number in range(self.random.randint(1, 4)):
            text += f'[[rule]]\nid = "r{number}"\n'
            text += f"identities = {choose((['sandbox'], ['*'], ['other']))}\n"
            text += f"hosts = {choose((['a.test'], ['*.test'], ['x.test', 'b.a.test']))}\n"
            text += f'action = "{choose(("allow", "allow", "deny"))}"\n'
            text += f'scheme = "{choose(("https", "http"))}"\n'
            if chance() < 0.3:
                text += f"ports = {choose(([443, 80], [8443]))}\n"
            if chance() < 0.3:
                text += f"methods = {choose((['GET'], ['POST', 'M-SEARCH']))}\n"
            if chance() < 0.5:
                text += f"paths = {choose((['/v1/*'], ['/v1'], ['/'], ['*'], ['/*/x']))}\n"
        return text

    def test_says_what_is_done(self) -> None:
        """Allowed by one is allowed by the other."""
        allowed = 0
        for _ in range(CONFIGURATIONS):
            text = self.configuration()
            settings = parse(text.encode("utf-8"), "/nowhere/slapenir.toml")
            terms = make_terms(list(build_policy(settings).rules), [])
            for _ in range(REQUESTS):
                choose = self.random.choice
                scheme, method = choose(("http", "https")), choose(METHODS)
                authority, path = choose(HOSTS) + choose(PORTS), choose(PATHS)
                real = self.real(settings, terms, scheme, method, authority, path)
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    said = _explain(settings, "sandbox", method, f"{scheme}://{authority}{path}")
                case = f"{text}\n{method!r} {scheme}://{authority}{path}\n{out.getvalue()}"
                self.assertEqual(said, real, case)
                allowed += real
        self.assertGreater(allowed, CONFIGURATIONS * REQUESTS / 100)

    def real(
        self, settings: Settings, terms: Terms, scheme: str, method: str, host: str, path: str
    ) -> bool:
        """Return whether a client's bytes would get through to an address."""
        end = f" HTTP/1.1\r\nHost: {host}\r\n\r\n"
        tunnel: Authority | None = None
        try:
            if scheme == "https":
                target = host if ":" in host else f"{host}:443"
                tunnel = parse_connect(head_of(f"CONNECT {target}{end}").target)
                if not decide_connect(terms.policy, ConnectFacts("sandbox", tunnel)).allowed:
                    return False
                slash = "" if path.startswith("/") else "/"
                head = head_of(f"{method} {slash}{path}{end}")
            else:
                head = head_of(f"{method} http://{host}{path}{end}")
        except RemoteProtocolError:
            return False
        admission = admit(terms, "sandbox", head, tunnel, None)
        if admission.refusal is not None:
            return False
        authority = admission.authority
        known = static_hosts(settings).get(authority.host, ())
        addresses = build_policy(settings).addresses
        judged = [decide_address(addresses, one, authority.port, False) for one in known]
        return not known or any(one.allowed for one in judged)
