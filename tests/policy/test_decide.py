"""Decisions about CONNECT and requests."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.names import Action, Authority, Reason, Scheme, Stage
from slapenir.policy.addresses import AddressPolicy
from slapenir.policy.decide import decide_connect, decide_request
from slapenir.policy.match import CACHE_LIMIT, METADATA_NAMES, Policy
from slapenir.policy.model import ConnectFacts, Decision, RequestFacts, Rule

ANY = ("sandbox",)


def policy(*rules: Rule) -> Policy:
    """Return a policy of these rules."""
    return Policy(rules, AddressPolicy())


def request(url: str, method: str = "GET", identity: str = "sandbox") -> RequestFacts:
    """Return consistent facts: https through a tunnel with SNI, http in absolute form."""
    scheme_text, _, rest = url.partition("://")
    scheme = Scheme(scheme_text)
    where, slash, path = rest.partition("/")
    host, _, port = where.partition(":")
    authority = Authority(host, int(port) if port else scheme.port)
    tls = scheme is Scheme.HTTPS
    return RequestFacts(
        identity,
        scheme,
        authority,
        authority,
        method,
        slash + path or "/",
        authority if tls else None,
        host if tls else None,
    )


class DecideCase(SynchronousTestCase):
    """Assertions on decisions."""

    def denied(self, policy: Policy, facts: RequestFacts, reason: Reason, rule: str = "") -> None:
        self.assertEqual(
            decide_request(policy, facts), Decision(Stage.REQUEST, Action.DENY, reason, rule)
        )

    def allowed(
        self, policy: Policy, facts: RequestFacts, rule: str, credentials: tuple[str, ...] = ()
    ) -> None:
        self.assertEqual(
            decide_request(policy, facts),
            Decision(Stage.REQUEST, Action.ALLOW, Reason.RULE, rule, credentials),
        )

    def connect(
        self, policy: Policy, host: str, port: int = 443, identity: str = "sandbox"
    ) -> Decision:
        return decide_connect(policy, ConnectFacts(identity, Authority(host, port)))


class RequestTests(DecideCase):
    """Rules."""

    def test_T240_no_rule_is_a_refusal(self) -> None:
        """T240: an empty policy, and one that names others, refuse; the named one passes."""
        self.denied(policy(), request("https://a.org/"), Reason.NO_RULE)
        one = policy(Rule("r", ANY, ("a.org",)))
        self.denied(one, request("https://b.org/"), Reason.NO_RULE)
        self.allowed(one, request("https://a.org/"), "r")

    def test_T164_empty_hosts_and_identities_match_nothing(self) -> None:
        """T164: a rule without hosts or identities is no rule for everyone."""
        self.denied(policy(Rule("r", ANY, ())), request("https://a.org/"), Reason.NO_RULE)
        self.denied(policy(Rule("r", (), ("a.org",))), request("https://a.org/"), Reason.NO_RULE)

    def test_identities(self) -> None:
        """A rule is for its identities, exactly, or for all with a star."""
        one = policy(Rule("r", ("a", "b"), ("a.org",)))
        self.allowed(one, request("https://a.org/", identity="b"), "r")
        for other in ("c", "A", "", "*", "ab"):
            self.denied(one, request("https://a.org/", identity=other), Reason.NO_RULE)
        self.allowed(
            policy(Rule("r", ("*",), ("a.org",))), request("https://a.org/", identity="c"), "r"
        )

    def test_T027_wildcard_hosts(self) -> None:
        """T027: a wildcard keeps to label boundaries."""
        one = policy(Rule("r", ANY, ("*.allowed.com",)))
        self.allowed(one, request("https://sub.allowed.com/"), "r")
        self.allowed(one, request("https://a.b.allowed.com/"), "r")
        for host in ("allowed.com", "evilallowed.com", "suballowed.com", "allowed.com.evil.com"):
            self.denied(one, request(f"https://{host}/"), Reason.NO_RULE)

    def test_T017_names_inside_names_switch_nothing(self) -> None:
        """T017: localhost in a host name or in a path is like any other text."""
        one = policy(Rule("r", ANY, ("a.org",)))
        self.denied(one, request("https://localhost.evil.com/"), Reason.NO_RULE)
        self.denied(one, request("https://evil.com/127.0.0.1/a.org"), Reason.NO_RULE)
        self.allowed(one, request("https://a.org/127.0.0.1"), "r")

    def test_T029_ports(self) -> None:
        """T029: only listed ports, for requests and for CONNECT."""
        one = policy(Rule("r", ANY, ("a.org",), ports=(443, 8443)))
        for port in (22, 25, 53, 80, 444, 2375, 6379):
            self.denied(one, request(f"https://a.org:{port}/"), Reason.NO_RULE)
            self.assertIs(self.connect(one, "a.org", port).reason, Reason.NO_RULE)
        self.allowed(one, request("https://a.org:8443/"), "r")
        self.assertIs(self.connect(one, "a.org", 8443).action, Action.ALLOW)

    def test_T238_the_default_is_https_443(self) -> None:
        """T238: a rule that names only a host means https on port 443."""
        one = policy(Rule("r", ANY, ("a.org",)))
        self.allowed(one, request("https://a.org/"), "r")
        self.denied(one, request("http://a.org/"), Reason.NO_RULE)
        self.denied(one, request("http://a.org:443/"), Reason.NO_RULE)

    def test_T181_http_carries_no_credential(self) -> None:
        """T181: an http rule gives none even where it lists one; https gives them."""
        rule = Rule("r", ANY, ("a.org",), Scheme.HTTP, (80,), credentials=("key",))
        self.allowed(policy(rule), request("http://a.org/"), "r", ())
        https = attrs.evolve(rule, scheme=Scheme.HTTPS, ports=(443,))
        self.allowed(policy(https), request("https://a.org/"), "r", ("key",))

    def test_T163_credentials_are_those_of_the_matching_rule(self) -> None:
        """T163: the first matching rule's credentials and no others."""
        both = policy(
            Rule("a", ANY, ("a.org",), paths=("/a/*",), credentials=("one",)),
            Rule("b", ANY, ("a.org",), credentials=("two",)),
        )
        self.allowed(both, request("https://a.org/a/x"), "a", ("one",))
        self.allowed(both, request("https://a.org/b/x"), "b", ("two",))

    def test_first_match_wins(self) -> None:
        """File order decides between allow and deny."""
        allow = Rule("allow", ANY, ("a.org",))
        deny = Rule("deny", ANY, ("*.org", "a.org"), action=Action.DENY)
        self.allowed(policy(allow, deny), request("https://a.org/"), "allow")
        self.denied(policy(deny, allow), request("https://a.org/"), Reason.DENY_RULE, "deny")

    def test_T079_methods_are_exact(self) -> None:
        """T079: an allow compares the method's case; a deny does not care."""
        one = policy(Rule("r", ANY, ("a.org",), methods=("GET", "POST")))
        self.allowed(one, request("https://a.org/", "POST"), "r")
        for method in ("get", "Get", "DELETE", "GETX", ""):
            self.denied(one, request("https://a.org/", method), Reason.NO_RULE)
        deny = Rule("d", ANY, ("a.org",), methods=("DELETE",), action=Action.DENY)
        two = policy(deny, Rule("r", ANY, ("a.org",)))
        for method in ("DELETE", "delete", "Delete"):
            self.denied(two, request("https://a.org/", method), Reason.DENY_RULE, "d")
        self.allowed(two, request("https://a.org/", "GET"), "r")

    def test_T167_trace_is_refused(self) -> None:
        """T167: TRACE, TRACK and an inner CONNECT are refused whatever the rules say."""
        one = policy(Rule("r", ANY, ("a.org",), methods=("TRACE", "TRACK", "CONNECT", "OPTIONS")))
        for method in ("TRACE", "TRACK", "CONNECT", "trace", "Connect"):
            self.denied(one, request("https://a.org/", method), Reason.METHOD_REFUSED)
        self.allowed(one, request("https://a.org/", "OPTIONS"), "r")

    def test_passthrough_hosts_are_not_requested(self) -> None:
        """A passthrough rule at the request stage is a refusal that a later allow cannot lift."""
        one = policy(
            Rule("get", ANY, ("a.org",), methods=("GET",)),
            Rule("blind", ANY, ("a.org",), action=Action.PASSTHROUGH),
            Rule("late", ANY, ("a.org",), credentials=("key",)),
        )
        self.allowed(one, request("https://a.org/"), "get")
        self.denied(one, request("https://a.org/", "POST"), Reason.NO_RULE, "blind")
        self.denied(one, request("http://a.org/"), Reason.NO_RULE)

    def test_T013_metadata_names_are_refused(self) -> None:
        """T013: metadata names are refused even when a rule allows them; a neighbour passes."""
        everything = tuple(METADATA_NAMES) + ("metadata.example.org",)
        one = policy(Rule("r", ANY, everything), Rule("h", ANY, everything, Scheme.HTTP, (80,)))
        for host in METADATA_NAMES:
            self.denied(one, request(f"http://{host}/"), Reason.ADDRESS_METADATA)
            self.denied(one, request(f"https://{host}/"), Reason.ADDRESS_METADATA)
            self.assertIs(self.connect(one, host).reason, Reason.ADDRESS_METADATA)
            self.assertFalse(self.connect(one, host).allowed)
        self.allowed(one, request("https://metadata.example.org/"), "r")


class PathTests(DecideCase):
    """Path rules."""

    def test_T078_allow_sees_what_is_sent(self) -> None:
        """T078: an allow does not match what would only match after decoding."""
        one = policy(Rule("r", ANY, ("a.org",), paths=("/v1/*", "/exact")))
        for path in ("/v1/", "/v1/a%2Fb", "/v1//x", "/v1/x;y=1", "/exact"):
            self.allowed(one, request(f"https://a.org{path}"), "r")
        for path in ("/v2/", "//v1/x", "/%761/x", "/V1/x", "/x/../v1/y", "/exact/", "/v1"):
            self.denied(one, request(f"https://a.org{path}"), Reason.NO_RULE)

    def test_T078_nothing_climbs_out_of_an_allowed_path(self) -> None:
        """T078: dot segments under a path-limited allow are refused, however written."""
        one = policy(
            Rule("r", ANY, ("a.org",), paths=("/v1/*",), credentials=("key",)),
            Rule("rest", ANY, ("a.org",)),
        )
        for tail in (
            "../admin",
            "%2e%2e/admin",
            "..%2fadmin",
            "..;/admin",
            "..\\admin",
            "%252e./x",
        ):
            facts = request(f"https://a.org/v1/{tail}")
            self.denied(one, facts, Reason.PATH_REFUSED, "r")
        self.allowed(one, request("https://a.org/v1/.well-known/..x"), "r", ("key",))
        self.allowed(one, request("https://a.org/x/../y"), "rest")

    def test_T078_deny_sees_every_reading(self) -> None:
        """T078: a deny matches raw and read paths, in any case; its neighbour passes."""
        one = policy(
            Rule("d", ANY, ("a.org",), paths=("/admin/*",), action=Action.DENY),
            Rule("r", ANY, ("a.org",)),
        )
        for path in (
            "/admin/x",
            "/ADMIN/x",
            "//admin/x",
            "/./admin/x",
            "/a/../admin/x",
            "/%61dmin/x",
            "/admin%2fx",
            "/admin;p/x",
            "/admin\\x",
            "/a/%2e%2e/admin/x",
            "/admin/../public",
        ):
            self.denied(one, request(f"https://a.org{path}"), Reason.DENY_RULE, "d")
        for path in ("/administrator/x", "/public/admin/x", "/admi%6e", "/"):
            self.allowed(one, request(f"https://a.org{path}"), "r")

    def test_asterisk_form(self) -> None:
        """``OPTIONS *`` has no path: a rule without paths covers it, ``/*`` does not."""
        facts = attrs.evolve(request("https://a.org/", "OPTIONS"), path="*")
        self.allowed(policy(Rule("r", ANY, ("a.org",))), facts, "r")
        self.denied(policy(Rule("r", ANY, ("a.org",), paths=("/*",))), facts, Reason.NO_RULE)


class FactsTests(DecideCase):
    """Facts that disagree."""

    def setUp(self) -> None:
        self.policy = policy(
            Rule("all", ANY, ("a.org", "b.org", "1.2.3.4"), ports=(443, 8443)),
            Rule("plain", ANY, ("a.org", "b.org"), Scheme.HTTP, (80, 443)),
        )
        self.facts = request("https://a.org/")

    def test_T077_authority_host_and_tunnel_are_equal(self) -> None:
        """T077: another Host, port or tunnel than the authority is refused."""
        self.allowed(self.policy, self.facts, "all")
        for other in (Authority("b.org", 443), Authority("a.org", 8443), Authority("x.a.org", 443)):
            for field in ("host", "tunnel", "authority"):
                facts = attrs.evolve(self.facts, **{field: other})
                self.denied(self.policy, facts, Reason.AUTHORITY_MISMATCH)
        plain = attrs.evolve(request("http://a.org/"), host=Authority("b.org", 80))
        self.denied(self.policy, plain, Reason.AUTHORITY_MISMATCH)

    def test_T077_sni_is_the_tunnel_host(self) -> None:
        """T077: another SNI is refused, an absent one is the tunnel's host."""
        for sni in ("b.org", "x.a.org", ""):
            self.denied(self.policy, attrs.evolve(self.facts, sni=sni), Reason.SNI_MISMATCH)
        self.allowed(self.policy, attrs.evolve(self.facts, sni=None), "all")
        self.allowed(self.policy, attrs.evolve(request("https://1.2.3.4/"), sni=None), "all")

    def test_T182_cleartext_inside_a_tunnel(self) -> None:
        """T182: http inside a tunnel or inside TLS is refused; CONNECT to 80 has no rule."""
        facts = attrs.evolve(self.facts, scheme=Scheme.HTTP, sni=None)
        self.denied(self.policy, facts, Reason.SCHEME_MISMATCH)
        facts = attrs.evolve(self.facts, scheme=Scheme.HTTP, tunnel=None)
        self.denied(self.policy, facts, Reason.SCHEME_MISMATCH)
        self.assertIs(self.connect(self.policy, "a.org", 80).reason, Reason.NO_RULE)
        self.allowed(self.policy, request("http://a.org/"), "plain")

    def test_the_first_reason_is_given(self) -> None:
        """Authority, then SNI, then scheme, then method, then rules."""
        facts = attrs.evolve(
            request("https://none.org/", "TRACE"),
            scheme=Scheme.HTTP,
            sni="b.org",
            host=Authority("b.org", 443),
        )
        self.denied(self.policy, facts, Reason.AUTHORITY_MISMATCH)
        facts = attrs.evolve(facts, host=facts.authority)
        self.denied(self.policy, facts, Reason.SNI_MISMATCH)
        facts = attrs.evolve(facts, sni="none.org")
        self.denied(self.policy, facts, Reason.SCHEME_MISMATCH)
        facts = attrs.evolve(facts, scheme=Scheme.HTTPS)
        self.denied(self.policy, facts, Reason.METHOD_REFUSED)
        facts = attrs.evolve(facts, method="GET")
        self.denied(self.policy, facts, Reason.NO_RULE)


class ConnectTests(DecideCase):
    """CONNECT, where method and path are unknown."""

    def decide(self, *rules: Rule) -> tuple[Action, Reason, str]:
        decision = self.connect(policy(*rules), "a.org")
        self.assertIs(decision.stage, Stage.CONNECT)
        self.assertEqual(decision.credentials, ())
        return decision.action, decision.reason, decision.rule

    def test_one_rule(self) -> None:
        """Each action alone, and none."""
        allow = Rule("a", ANY, ("a.org",), methods=("GET",), paths=("/x",), credentials=("key",))
        self.assertEqual(self.decide(allow), (Action.ALLOW, Reason.RULE, "a"))
        deny = Rule("d", ANY, ("a.org",), action=Action.DENY)
        self.assertEqual(self.decide(deny), (Action.DENY, Reason.DENY_RULE, "d"))
        blind = Rule("p", ANY, ("a.org",), action=Action.PASSTHROUGH)
        self.assertEqual(self.decide(blind), (Action.PASSTHROUGH, Reason.RULE, "p"))
        self.assertEqual(self.decide(), (Action.DENY, Reason.NO_RULE, ""))
        plain = Rule("h", ANY, ("a.org",), Scheme.HTTP, (443,))
        self.assertEqual(self.decide(plain), (Action.DENY, Reason.NO_RULE, ""))

    def test_a_deny_with_conditions_waits(self) -> None:
        """It is left to the requests when an allow follows, and blocks a blind tunnel."""
        some = Rule("d", ANY, ("a.org",), methods=("DELETE",), action=Action.DENY)
        path = Rule("d", ANY, ("a.org",), paths=("/x",), action=Action.DENY)
        allow = Rule("a", ANY, ("a.org",))
        blind = Rule("p", ANY, ("a.org",), action=Action.PASSTHROUGH)
        for deny in (some, path):
            self.assertEqual(self.decide(deny, allow), (Action.ALLOW, Reason.RULE, "a"))
            self.assertEqual(self.decide(deny, blind), (Action.DENY, Reason.DENY_RULE, "d"))
            self.assertEqual(self.decide(deny), (Action.DENY, Reason.NO_RULE, ""))
            self.assertEqual(self.decide(blind, deny), (Action.PASSTHROUGH, Reason.RULE, "p"))
        self.assertEqual(self.decide(allow, blind), (Action.ALLOW, Reason.RULE, "a"))

    def test_identity(self) -> None:
        """Another identity's rule is no rule."""
        one = policy(Rule("p", ("other",), ("a.org",), action=Action.PASSTHROUGH))
        self.assertIs(self.connect(one, "a.org").reason, Reason.NO_RULE)
        self.assertTrue(self.connect(one, "a.org", identity="other").allowed)


RULES = st.builds(
    Rule,
    id=st.sampled_from(["r1", "r2", "r3"]),
    identities=st.sampled_from([("a",), ("b",), ("*",), ("a", "b")]),
    hosts=st.sampled_from([("x.org",), ("*.x.org",), ("x.org", "*.x.org"), ("y.org",)]),
    scheme=st.sampled_from(list(Scheme)),
    ports=st.sampled_from([(443,), (80,), (80, 443)]),
    methods=st.sampled_from([(), ("GET",), ("GET", "POST")]),
    paths=st.sampled_from([(), ("/a/*",), ("/a/*", "/b")]),
    credentials=st.sampled_from([(), ("key",)]),
    action=st.sampled_from(list(Action)),
)
AUTHORITIES = st.builds(
    Authority, st.sampled_from(["x.org", "a.x.org", "y.org", "z.org"]), st.sampled_from([80, 443])
)
FACTS = st.builds(
    RequestFacts,
    identity=st.sampled_from(["a", "b", "c"]),
    scheme=st.sampled_from(list(Scheme)),
    authority=AUTHORITIES,
    host=AUTHORITIES,
    method=st.sampled_from(["GET", "POST", "TRACE"]),
    path=st.sampled_from(["/", "/a/x", "/a/../b", "/b"]),
    tunnel=st.none() | AUTHORITIES,
    sni=st.none() | st.sampled_from(["x.org", "y.org"]),
)


class PropertyTests(DecideCase):
    """What holds for every policy."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(RULES, max_size=5), FACTS)
    def test_invariants(self, rules: list[Rule], facts: RequestFacts) -> None:
        """Allowed means that an allow rule says so, facts agree, and credentials need https."""
        made = policy(*rules)
        decision = decide_request(made, facts)
        self.assertEqual(decision, decide_request(made, facts))
        self.assertEqual(decision, decide_request(policy(*rules), facts))
        self.assertIsNot(decision.action, Action.PASSTHROUGH)
        if decision.allowed:
            self.assertEqual(facts.authority, facts.host)
            self.assertIn(facts.tunnel, (None, facts.authority))
            rule = next(r for r in rules if r.id == decision.rule and r.action is Action.ALLOW)
            self.assertIs(rule.action, Action.ALLOW)
        if decision.credentials:
            self.assertTrue(decision.allowed)
            self.assertIs(facts.scheme, Scheme.HTTPS)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(RULES, max_size=5), FACTS)
    def test_a_refused_connect_has_no_allowed_request(
        self, rules: list[Rule], facts: RequestFacts
    ) -> None:
        """Where CONNECT finds no rule, no request through the tunnel would be allowed."""
        made = policy(*rules)
        inner = attrs.evolve(
            facts, scheme=Scheme.HTTPS, host=facts.authority, tunnel=facts.authority, sni=None
        )
        connect = decide_connect(made, ConnectFacts(facts.identity, facts.authority))
        if connect.reason is Reason.NO_RULE:
            self.assertFalse(decide_request(made, inner).allowed)

    def test_the_cache_is_bounded_and_changes_nothing(self) -> None:
        """More look-ups than CACHE_LIMIT keep it at the limit; the answer is the same after."""
        one = policy(Rule("r", ANY, ("*.x.org",)))
        before = self.connect(one, "a.x.org")
        sizes = set()
        for i in range(CACHE_LIMIT + 10):
            self.connect(one, f"h{i}.x.org")
            sizes.add(len(one._cache))
        self.assertEqual(max(sizes), CACHE_LIMIT)
        self.assertLess(len(one._cache), 20)
        self.assertEqual(self.connect(one, "a.x.org"), before)

    def test_a_policy_cannot_be_changed(self) -> None:
        """A reload makes a new one."""
        one = policy(Rule("r", ANY, ("a.org",)))
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            one.rules = ()  # type: ignore[misc]
