"""Bounds that fit the files that the process may open."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.descriptors import OWN, fit_descriptors

FILES = resource.RLIMIT_NOFILE


class DescriptorTests(SynchronousTestCase):
    """T198: the limits of this very process are real; they are put back."""

    def setUp(self) -> None:
        before = resource.getrlimit(FILES)
        self.hard = before[1] if before[1] != resource.RLIM_INFINITY else 1 << 20
        self.addCleanup(resource.setrlimit, FILES, before)

    def test_enough(self) -> None:
        """The soft limit is raised to what the bounds need, and no further."""
        limits = EdgeLimits(
            connections=40, origin_connections=40, lookups=10, refusals=3, sandboxes=1
        )
        resource.setrlimit(FILES, (128, self.hard))
        self.assertIs(fit_descriptors(limits), limits)
        self.assertEqual(resource.getrlimit(FILES), (110 + OWN, self.hard))
        resource.setrlimit(FILES, (500, self.hard))
        self.assertIs(fit_descriptors(limits), limits)
        self.assertEqual(resource.getrlimit(FILES), (500, self.hard))

    def test_too_few(self) -> None:
        """All are lowered by one factor, so that an identity keeps no more than its part."""
        asked = 2 * (self.hard - OWN)
        limits = EdgeLimits(
            connections=asked // 2,
            connections_per_identity=asked // 4,
            origin_connections=asked // 4,
            lookups=asked // 16,
            refusals=asked // 8,
            sandboxes=0,
        )
        fitted = fit_descriptors(limits)
        self.assertAlmostEqual(fitted.connections, limits.connections // 2, delta=1)
        self.assertAlmostEqual(fitted.connections_per_identity, asked // 8, delta=1)
        used = fitted.connections + fitted.origin_connections + 2 * fitted.lookups + fitted.refusals
        self.assertLessEqual(used + OWN, self.hard)
        self.assertGreater(used + OWN, self.hard - 10)
        self.assertEqual(fitted.dial_seconds, limits.dial_seconds)

    def test_never_nothing(self) -> None:
        """Whatever the limit is, each count is at least one."""
        limits = EdgeLimits(connections=10 * self.hard)
        fitted = fit_descriptors(limits)
        self.assertEqual((fitted.origin_idle_per_key, fitted.refusals > 0), (1, True))
