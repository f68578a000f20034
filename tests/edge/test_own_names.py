"""Names that mean this machine, through the system's own resolver."""

from __future__ import annotations

import socket

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.lookup import SystemLookup
from slapenir.edge.resolver import ResolutionError, Resolver
from slapenir.names import Authority
from slapenir.policy.addresses import AddressPolicy
from tests.edge.rig import REACTOR

NOTHING = AddressPolicy((), frozenset())
LOOPBACK = AddressPolicy((), frozenset({("127.0.0.1", 443)}))


class OwnNameTests(TestCase):
    """T016: whatever a name is, the addresses behind it are judged."""

    timeout = 20

    def resolver(self, policy: AddressPolicy) -> Resolver:
        lookup = SystemLookup(REACTOR, 4)
        self.addCleanup(lookup.stop)
        return Resolver(REACTOR, EdgeLimits(), lookup, lambda: policy, dict)

    @inlineCallbacks
    def test_names_of_this_machine_T016(self):
        """No address of localhost, of its relatives or of our host name may be dialled (T016)."""
        resolver = self.resolver(NOTHING)
        seen = 0
        for name in (
            "localhost",
            "x.localhost",
            "localhost.localdomain",
            "ip6-localhost",
            socket.gethostname().lower(),
        ):
            try:
                judged = yield resolver.resolve(Authority(name, 443), "sandbox")
            except ResolutionError:
                continue
            own = [one for one in judged if one.address.startswith("127.") or one.address == "::1"]
            seen += len(own)
            self.assertEqual([one for one in own if one.decision.allowed], [], name)
        self.assertGreater(seen, 0)

    @inlineCallbacks
    def test_unless_the_operator_says_so(self):
        """Negative control: address and port written down are permitted, and only they."""
        judged = yield self.resolver(LOOPBACK).resolve(Authority("localhost", 443), "sandbox")
        allowed = {one.address for one in judged if one.decision.allowed}
        self.assertEqual(allowed, {"127.0.0.1"})
        judged = yield self.resolver(LOOPBACK).resolve(Authority("localhost", 444), "sandbox")
        self.assertEqual([one for one in judged if one.decision.allowed], [])
