"""The guarded resolver: what is judged, what is shared, and how long it may take."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.lookup import MAX_ADDRESSES
from slapenir.edge.resolver import Judged, ResolutionError, Resolver, is_local
from slapenir.exchange.inputs import DialFailure
from slapenir.names import Authority, Reason, canonical_host
from slapenir.policy.addresses import parse_allow_private
from tests.edge.rig import FakeLookup

PUBLIC = "8.8.8.8"
PUBLIC_SIX = "2606:4700:4700::1111"


class ResolverCase(SynchronousTestCase):
    """A resolver over answers that the test sets."""

    def make(
        self,
        answers: Mapping[str, Sequence[Any]] | None = None,
        allow: Sequence[str] = (),
        hosts: Mapping[str, Sequence[str]] | None = None,
        limits: EdgeLimits | None = None,
    ) -> Resolver:
        self.clock = Clock()
        self.lookup = FakeLookup(answers)
        policy = parse_allow_private(list(allow))
        return Resolver(
            self.clock,
            limits or EdgeLimits(resolve_seconds=5),
            self.lookup,
            lambda: policy,
            lambda: hosts or {},
        )

    def resolve(self, resolver: Resolver, host: str, port: int = 443) -> list[Judged]:
        return self.successResultOf(resolver.resolve(Authority(host, port), "sandbox"))

    def allowed(self, judged: list[Judged]) -> list[str]:
        return [one.address for one in judged if one.decision.allowed]

    def failure(self, resolving: Deferred[Any]) -> DialFailure:
        return self.failureResultOf(resolving, ResolutionError).value.failure  # type: ignore


class JudgementTests(ResolverCase):
    """Every address is judged, however it came about."""

    def test_literals_are_judged_without_a_lookup(self) -> None:
        resolver = self.make()
        for host, allowed in ((PUBLIC, True), (PUBLIC_SIX, True), ("10.0.0.1", False)):
            self.assertEqual(bool(self.allowed(self.resolve(resolver, host))), allowed)
        self.assertEqual(self.lookup.asked, [])

    def test_static_answers_come_first_and_are_judged(self) -> None:
        resolver = self.make(
            {"a.test": [[PUBLIC]]}, hosts={"a.test": ["10.0.0.1", "169.254.169.254"]}
        )
        judged = self.resolve(resolver, "a.test")
        self.assertEqual(self.allowed(judged), [])
        reasons = [one.decision.reason for one in judged]
        self.assertEqual(reasons, [Reason.ADDRESS_SPECIAL, Reason.ADDRESS_METADATA])
        self.assertEqual(self.lookup.asked, [])

    def test_static_answers_may_be_permitted(self) -> None:
        resolver = self.make(hosts={"a.test": ["10.20.0.5"]}, allow=["10.20.0.0/16"])
        self.assertEqual(self.allowed(self.resolve(resolver, "a.test")), ["10.20.0.5"])

    def test_private_addresses_among_public_ones_are_not_allowed(self) -> None:
        """T034: in either order."""
        for answer in ([PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC]):
            resolver = self.make({"a.test": [answer]})
            self.assertEqual(self.allowed(self.resolve(resolver, "a.test")), [PUBLIC])

    def test_loopback_in_ipv6(self) -> None:
        """T035: A public and AAAA ``::1``; AAAA only."""
        resolver = self.make({"a.test": [[PUBLIC, "::1"]], "b.test": [["::1"]]})
        self.assertEqual(self.allowed(self.resolve(resolver, "a.test")), [PUBLIC])
        self.assertEqual(self.allowed(self.resolve(resolver, "b.test")), [])

    def test_each_resolution_asks_and_judges_anew(self) -> None:
        """T033, T036: an answer that changes is judged as it is then."""
        resolver = self.make({"a.test": [[PUBLIC], ["127.0.0.1"]]})
        self.assertEqual(self.allowed(self.resolve(resolver, "a.test")), [PUBLIC])
        self.assertEqual(self.allowed(self.resolve(resolver, "a.test")), [])
        self.assertEqual(self.lookup.asked, ["a.test", "a.test"])

    def test_a_thousand_addresses_are_cut(self) -> None:
        """T035: bounded work."""
        many = [f"8.8.{n // 250}.{n % 250 + 1}" for n in range(1000)]
        resolver = self.make({"a.test": [many]})
        self.assertEqual(len(self.resolve(resolver, "a.test")), MAX_ADDRESSES)

    def test_families_take_turns(self) -> None:
        resolver = self.make({"a.test": [[PUBLIC, "8.8.4.4", PUBLIC_SIX, PUBLIC]]})
        order = [one.address for one in self.resolve(resolver, "a.test")]
        self.assertEqual(order, [PUBLIC, PUBLIC_SIX, "8.8.4.4"])

    def test_own_listeners_are_refused(self) -> None:
        """T031: whatever name or local address leads to them, permitted or not."""
        resolver = self.make(
            {"me.test": [["127.0.0.1"]]}, allow=["127.0.0.1:8080", "127.0.0.1:8081"]
        )
        resolver.own_ports.add(8080)
        for host in ("127.0.0.1", "127.0.0.2", "::1", "me.test", "0.0.0.0"):
            judged = self.resolve(resolver, host, 8080)
            self.assertEqual(judged[0].decision.reason, Reason.ADDRESS_OWN_LISTENER, host)
        self.assertEqual(self.allowed(self.resolve(resolver, "me.test", 8081)), ["127.0.0.1"])

    def test_the_port_of_a_listener_elsewhere_is_not_refused(self) -> None:
        """T031, control."""
        resolver = self.make()
        resolver.own_ports.add(443)
        self.assertEqual(self.allowed(self.resolve(resolver, PUBLIC, 443)), [PUBLIC])

    def test_local_addresses(self) -> None:
        """T031: the host's own address on its network is local too."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            with contextlib.suppress(OSError):  # there may be no network but loopback
                probe.connect((PUBLIC, 9))
                self.assertTrue(is_local(probe.getsockname()[0]))
        for address in ("127.0.0.1", "127.3.2.1", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"):
            self.assertTrue(is_local(address), address)
        self.assertFalse(is_local(PUBLIC))


class NameBudgetTests(ResolverCase):
    """T039: an identity's new names are bounded, and nobody else pays for them."""

    def test_new_names_are_bounded_T039(self) -> None:
        """The name over the budget is not looked up; known names and other identities are free."""
        names = {f"n{number}.zone.test": [[PUBLIC]] for number in range(4)}
        resolver = self.make(names, limits=EdgeLimits(names_per_minute=3))

        def ask(host: str, identity: str = "sandbox") -> bool:
            resolving = resolver.resolve(Authority(host, 443), identity)
            outcome: list[Any] = []
            resolving.addBoth(outcome.append)
            if isinstance(outcome[0], list):
                return True
            self.assertEqual(outcome[0].value.failure, DialFailure.LIMIT)
            return False

        for number in range(3):
            self.assertTrue(ask(f"n{number}.zone.test"))
        self.assertFalse(ask("n3.zone.test"))
        self.assertEqual(len(self.lookup.asked), 3)
        self.assertTrue(ask("n1.zone.test"))
        self.assertTrue(ask("n3.zone.test", "other"))
        self.assertTrue(ask("8.8.8.8"))
        self.clock.advance(61)
        self.assertTrue(ask("n3.zone.test"))

    def test_spellings_are_one_name_T204(self) -> None:
        """Case and a final dot make no second name, and a subdomain of a name is one more."""
        names = {name: [[PUBLIC]] * 3 for name in ("api.zone.test", "one.api.zone.test")}
        resolver = self.make(names, limits=EdgeLimits(names_per_minute=1))

        def ask(written: str) -> Any:
            outcome: list[Any] = []
            authority = Authority(canonical_host(written.encode()), 443)
            resolver.resolve(authority, "sandbox").addBoth(outcome.append)
            return outcome[0]

        for written in ("api.zone.test", "API.Zone.TEST", "api.zone.test."):
            self.assertIsInstance(ask(written), list, written)
        self.assertEqual(set(self.lookup.asked), {"api.zone.test"})
        self.assertEqual(ask("One.api.zone.test").value.failure, DialFailure.LIMIT)
        self.assertEqual(set(self.lookup.asked), {"api.zone.test"})


class LookupLimitTests(ResolverCase):
    """Deadlines and bounds."""

    def test_no_answer(self) -> None:
        """T219."""
        resolver = self.make()
        failed = self.failure(resolver.resolve(Authority("none.test", 443), "sandbox"))
        self.assertEqual(failed, DialFailure.UNRESOLVABLE)

    def test_a_lookup_without_end_times_out(self) -> None:
        """T219: and a later answer changes nothing."""
        late: Deferred[list[str]] = Deferred()
        resolver = self.make({"slow.test": [late]})
        resolving = resolver.resolve(Authority("slow.test", 443), "sandbox")
        self.clock.advance(4.9)
        self.assertNoResult(resolving)
        self.clock.advance(0.2)
        self.assertEqual(self.failure(resolving), DialFailure.RESOLVER_TIMEOUT)
        late.callback([PUBLIC])

    def test_a_slow_name_does_not_hold_up_another(self) -> None:
        """T199."""
        never: list[Deferred[list[str]]] = [Deferred() for _ in range(50)]
        answers: dict[str, Sequence[Any]] = {f"s{n}.test": [d] for n, d in enumerate(never)}
        resolver = self.make({**answers, "a.test": [[PUBLIC]]})
        for name in answers:
            resolver.resolve(Authority(name, 443), "sandbox").addErrback(lambda _: None)
        self.assertEqual(self.allowed(self.resolve(resolver, "a.test")), [PUBLIC])
        self.clock.advance(6)

    def test_lookups_are_bounded(self) -> None:
        """T199: one more than the bound is refused; its end makes room."""
        first: Deferred[list[str]] = Deferred()
        resolver = self.make(
            {"a.test": [first], "b.test": [[PUBLIC]]}, limits=EdgeLimits(lookups=1)
        )
        waiting = resolver.resolve(Authority("a.test", 443), "sandbox")
        failed = self.failure(resolver.resolve(Authority("b.test", 443), "sandbox"))
        self.assertEqual(failed, DialFailure.LIMIT)
        first.callback([PUBLIC])
        self.successResultOf(waiting)
        self.resolve(resolver, "b.test")

    def test_one_name_asked_twice_at_a_time_is_looked_up_once(self) -> None:
        """Each dial still judges for its own port."""
        answer: Deferred[list[str]] = Deferred()
        resolver = self.make({"a.test": [answer]}, allow=["127.0.0.1:80"])
        one = resolver.resolve(Authority("a.test", 80), "sandbox")
        two = resolver.resolve(Authority("a.test", 81), "sandbox")
        answer.callback(["127.0.0.1"])
        self.assertEqual(self.allowed(self.successResultOf(one)), ["127.0.0.1"])
        self.assertEqual(self.allowed(self.successResultOf(two)), [])
        self.assertEqual(self.lookup.asked, ["a.test"])

    def test_a_stuck_lookup_is_not_joined_for_ever(self) -> None:
        stuck: Deferred[list[str]] = Deferred()
        resolver = self.make({"a.test": [stuck, [PUBLIC]]})
        first = resolver.resolve(Authority("a.test", 443), "sandbox")
        self.clock.advance(5.1)
        self.failure(first)
        self.assertEqual(self.allowed(self.resolve(resolver, "a.test")), [PUBLIC])
        stuck.callback(["10.0.0.1"])

    def test_a_cancelled_dial_leaves_others_alone(self) -> None:
        answer: Deferred[list[str]] = Deferred()
        resolver = self.make({"a.test": [answer]})
        one = resolver.resolve(Authority("a.test", 443), "sandbox")
        two = resolver.resolve(Authority("a.test", 443), "sandbox")
        one.addErrback(lambda _: None)
        one.cancel()
        answer.callback([PUBLIC])
        self.assertEqual(self.allowed(self.successResultOf(two)), [PUBLIC])
