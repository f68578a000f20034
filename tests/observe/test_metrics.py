"""Metrics: what each event counts, and that labels are bounded."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial import unittest

from slapenir import events
from slapenir.names import Action, Form, Place, Reason, Side, Stage
from slapenir.observe.families import FAMILIES
from slapenir.observe.lag import INTERVAL, LagSampler
from slapenir.observe.metrics import METHODS, Metrics, status_label
from slapenir.observe.publisher import Publisher
from slapenir.observe.quota import Quota
from slapenir.observe.tally import MAX_SERIES, Counts, Spread
from tests.observe.samples import HONEYTOKEN, ONE_OF_EACH, WHO, FakeClock, decided, finished


class NoAudit:
    """An audit sink that wants nothing."""

    gates: frozenset[type] = frozenset()
    handlers: dict[type, Any] = {}


OWN = {"identity": "sandbox"}


class MetricsCase(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.scanned = 0.0
        self.dropped = 0
        self.metrics = Metrics(self.registry, lambda: self.scanned, lambda: self.dropped)
        self.publish = Publisher(NoAudit(), [self.metrics]).publish

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


class MetricsTests(MetricsCase):
    def test_an_exchange(self) -> None:
        """One exchange is counted with method, status and rule, and measured three times."""
        self.publish(finished())
        labels = {"method": "POST", "status": "200", "rule": "llm", **OWN}
        self.assertEqual(self.value("slapenir_proxy_http_requests_total", **labels), 1)
        prefix = "slapenir_proxy_http_"
        for name, amount in (
            ("request_duration_seconds", 0.25),
            ("request_size_bytes", 100),
            ("response_size_bytes", 5000),
        ):
            self.assertEqual(self.value(f"{prefix}{name}_sum"), amount)
            self.assertEqual(self.value(f"{prefix}{name}_count"), 1)
        name = f"{prefix}request_duration_seconds_bucket"
        self.assertEqual(self.value(name, le="0.1"), 0)
        self.assertEqual(self.value(name, le="0.25"), 1)
        self.assertEqual(self.value(name, le="+Inf"), 1)

    def test_a_decision_with_a_credential(self) -> None:
        """An allowed request counts its credentials as injected; a denied one does not."""
        self.publish(decided())
        self.publish(decided(action=Action.DENY, reason=Reason.NO_RULE))
        self.publish(decided(stage=Stage.CONNECT))
        name = "slapenir_policy_decisions_total"
        labels = {"stage": "request", "rule": "llm", **OWN}
        self.assertEqual(self.value(name, action="allow", **labels), 1)
        self.assertEqual(self.value(name, action="deny", **labels), 1)
        self.assertEqual(
            self.value("slapenir_credentials_injected_total", credential="llm", **OWN), 1
        )
        self.assertIsNone(self.value("slapenir_honeytokens_total", **OWN))

    def test_a_swap_in_a_body(self) -> None:
        """Every placeholder replaced in a request body counts as an injection."""
        self.publish(events.Swapped(WHO, 3, "llm", 2))
        self.assertEqual(
            self.value("slapenir_credentials_injected_total", credential="llm", **OWN), 2
        )

    def test_a_honeytoken(self) -> None:
        """A placeholder in the wrong place is counted; nothing was injected."""
        self.publish(HONEYTOKEN)
        self.assertEqual(self.value("slapenir_honeytokens_total", **OWN), 1)
        self.assertIsNone(
            self.value("slapenir_credentials_injected_total", credential="llm", **OWN)
        )

    def test_a_redaction(self) -> None:
        """Every overwritten occurrence counts."""
        self.publish(events.Sanitized(WHO, 1, "llm", Form.HEX, Place.BODY, 3))
        labels = {"credential": "llm", "form": "hex", "place": "body", **OWN}
        self.assertEqual(self.value("slapenir_secrets_sanitized_total", **labels), 3)

    def test_connections_return_to_zero_t224(self) -> None:
        """T224: open and closed connections cancel out; both sides are there from the start."""
        name = "slapenir_active_connections"
        for side in ("client", "origin"):
            self.assertEqual(self.value(name, side=side), 0)
        for _ in range(1000):
            self.publish(events.ConnectionOpened(WHO))
        self.publish(events.OriginOpened("a.test:443", "192.0.2.1"))
        self.assertEqual(self.value(name, side="client"), 1000)
        self.assertEqual(self.value(name, side="origin"), 1)
        for _ in range(1000):
            self.publish(events.ConnectionClosed(WHO))
        self.publish(events.OriginClosed("a.test:443", "192.0.2.1"))
        for side in ("client", "origin"):
            self.assertEqual(self.value(name, side=side), 0)

    def test_handshakes(self) -> None:
        """A completed handshake is measured, a failed one counted."""
        self.publish(events.TlsHandshake(Side.ORIGIN, "a.test:443", 0.02))
        self.publish(events.TlsHandshake(Side.ORIGIN, "a.test:443", 9.0, "unknown ca"))
        name = "slapenir_tls_handshake"
        self.assertEqual(self.value(f"{name}_duration_seconds_sum", side="origin"), 0.02)
        self.assertEqual(self.value(f"{name}_failures_total", side="origin"), 1)
        self.assertEqual(self.value(f"{name}_failures_total", side="client"), 0)

    def test_the_rest(self) -> None:
        """Certificates, refusals, errors, and what is read at the scrape."""
        self.publish(events.CertificateLoaded("ca", 2e9))
        self.publish(events.ConnectionRefused(WHO, "connections"))
        self.publish(events.InternalError("x", "ValueError"))
        self.publish(events.AuditFailed("no space"))
        self.scanned, self.dropped = 1.5, 4
        self.assertEqual(self.value("slapenir_cert_expiry_timestamp_seconds", cert="ca"), 2e9)
        self.assertEqual(self.value("slapenir_connections_refused_total", limit="connections"), 1)
        self.assertEqual(self.value("slapenir_internal_errors_total"), 1)
        self.assertEqual(self.value("slapenir_audit_failures_total"), 1)
        self.assertEqual(self.value("slapenir_scan_seconds_total"), 1.5)
        self.assertEqual(self.value("slapenir_access_log_dropped_total"), 4)

    def test_a_certificate_that_is_used_no_more(self) -> None:
        """Its end is not shown any more; retiring one that is unknown does nothing."""
        name = "slapenir_cert_expiry_timestamp_seconds"
        for cert in ("identity-root", "identity-root-2"):
            self.publish(events.CertificateLoaded(cert, 2e9))
        for _ in range(2):
            self.publish(events.CertificateRetired("identity-root-2"))
        self.assertIsNone(self.value(name, cert="identity-root-2"))
        self.assertEqual(self.value(name, cert="identity-root"), 2e9)

    def test_the_text_form_is_valid(self) -> None:
        """Every family is in the text under its catalogue name and type, and parses."""
        for event in ONE_OF_EACH:
            self.publish(event)
        text = generate_latest(self.registry).decode()
        parsed = {family.name: family for family in text_string_to_metric_families(text)}
        for family in FAMILIES:
            found = parsed[family.name.removesuffix("_total")]
            self.assertEqual(found.type, family.kind)
            self.assertEqual(found.documentation, family.help)
            for sample in found.samples:
                self.assertEqual(set(sample.labels) - {"le"}, set(family.labels))
        ours = {name for name in parsed if name.startswith("slapenir_")}
        self.assertEqual(ours, {family.name.removesuffix("_total") for family in FAMILIES})


class BoundTests(MetricsCase):
    """T197: what a client or an origin chooses makes no series."""

    def series(self) -> int:
        return sum(len(family.samples) for family in self.registry.collect())

    def test_paths_hosts_methods_statuses_and_peers_make_no_series_t197(self) -> None:
        """T197: ten thousand invented hosts, paths, methods and statuses add a bounded number."""
        self.publish(finished())
        self.publish(decided(action=Action.DENY, reason=Reason.NO_RULE, rule="", credentials=()))
        before = self.series()
        for n in range(10_000):
            who = events.Who(n, "listener-1", "sandbox", f"192.0.2.1:{n}")
            host = f"h{n}.example.test:443"
            change = {"who": who, "authority": host, "path": f"/{n}", "method": f"M{n}"}
            self.publish(finished(status=n, detail=str(n), **change))
            denied = {"action": Action.DENY, "reason": Reason.NO_RULE, "rule": ""}
            self.publish(decided(credentials=(), **denied, **change))
            self.publish(events.TlsHandshake(Side.CLIENT, host, 0.1, f"error {n}"))
            self.publish(events.OriginOpened(host, f"192.0.2.{n}"))
            self.publish(events.InternalError(f"w{n}", f"K{n}"))
        # one method ("other"), registered statuses, five classes and "0"
        self.assertLess(self.series() - before, 75)

    def test_labels_of_methods_and_statuses(self) -> None:
        """Registered methods and statuses are kept; others are folded."""
        for status, label in ((200, "200"), (404, "404"), (299, "2xx"), (599, "5xx")):
            self.assertEqual(status_label(status), label)
        for status in (0, -1, 99, 600, 10**9):
            self.assertEqual(status_label(status), "0")
        self.publish(finished(method="get"))
        labels = {"status": "200", "rule": "llm", **OWN}
        name = "slapenir_proxy_http_requests_total"
        self.assertEqual(self.value(name, method="other", **labels), 1)
        self.assertNotIn("get", METHODS)
        for method in METHODS:
            self.publish(finished(method=method))
            self.assertEqual(self.value(name, method=method, **labels), 1)

    def test_series_above_the_bound_are_folded(self) -> None:
        """Number MAX_SERIES + 1 goes to ``other``; known ones still count."""
        counts = Counts(2)
        for n in range(MAX_SERIES + 10):
            counts.add((str(n), "x"))
        counts.add(("0", "x"))
        self.assertEqual(len(counts.values), MAX_SERIES + 1)
        self.assertEqual(counts.values[("other", "other")], 10)
        self.assertEqual(counts.values[("0", "x")], 2)
        counts.put(("new", "x"), 5)
        self.assertEqual(counts.values[("other", "other")], 5)

    def test_spread_bounds_are_inclusive(self) -> None:
        """A value equal to a bound is in its bucket; one above the last is in +Inf only."""
        spread = Spread((1, 2))
        for value in (0, 1, 2, 3):
            spread.observe(value)
        self.assertEqual(spread.buckets(), [("1.0", 2), ("2.0", 3), ("+Inf", 4)])
        self.assertEqual(spread.sum, 6)


class LagTests(unittest.SynchronousTestCase):
    def test_lag_is_how_late_the_timer_was(self) -> None:
        """A timer on time observes zero, a late one its delay; stop ends it."""
        reactor, seen = Clock(), list[float]()
        sampler = LagSampler(reactor, reactor.seconds, seen.append)
        sampler.start()
        sampler.start()
        reactor.advance(INTERVAL)
        reactor.advance(INTERVAL + 0.5)
        self.assertEqual(seen[0], 0)
        self.assertAlmostEqual(seen[1], 0.5)
        sampler.stop()
        sampler.stop()
        reactor.advance(10)
        self.assertEqual(len(seen), 2)
        self.assertEqual(reactor.getDelayedCalls(), [])


class QuotaTests(unittest.SynchronousTestCase):
    def test_quota(self) -> None:
        """So many per second; the first of the next second tells of the rest."""
        clock = FakeClock(10.5)
        quota = Quota(2, clock)
        self.assertEqual([quota.take() for _ in range(5)], [0, 0, None, None, None])
        clock.now = 11.0
        self.assertEqual([quota.take(), quota.take(), quota.take()], [3, 0, None])
