"""Metrics from events.

No label holds a string that a client or an origin can choose: methods and statuses outside the
registered ones are folded, rules, credentials and certificates are named by the configuration.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from slapenir import __version__
from slapenir.events import (
    AuditFailed,
    CertificateLoaded,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRefused,
    Decided,
    ExchangeFinished,
    InternalError,
    OriginClosed,
    OriginOpened,
    Sanitized,
    Swapped,
    TlsHandshake,
)
from slapenir.names import Action, Reason, Side, Stage
from slapenir.observe import families
from slapenir.observe.families import FAMILIES, Family
from slapenir.observe.tally import Counts, Spread

METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
)
"""Methods that are a label value; every other is ``other``."""

_STATUSES = {int(status): str(int(status)) for status in HTTPStatus}
_CLIENT = (Side.CLIENT.value,)
_ORIGIN = (Side.ORIGIN.value,)


def status_label(status: int) -> str:
    """Return a registered status as it is, another as its class (``4xx``), no status as ``0``."""
    label = _STATUSES.get(status)
    if label is not None:
        return label
    return f"{status // 100}xx" if 100 <= status <= 599 else "0"


def _zero() -> float:
    return 0.0


class Metrics:
    """Count events and give the result to ``registry`` when it is scraped.

    ``scan_seconds`` and ``access_dropped`` are asked at each scrape.  The registry must be a
    private one; the process metrics of the client library are registered with it too.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        scan_seconds: Callable[[], float] = _zero,
        access_dropped: Callable[[], float] = _zero,
    ) -> None:
        self._read = {
            families.SCAN_SECONDS.name: scan_seconds,
            families.ACCESS_DROPPED.name: access_dropped,
        }
        self._counts: dict[str, Counts] = {}
        self._spreads: dict[str, dict[tuple[str, ...], Spread]] = {}
        for family in FAMILIES:
            if family.kind == "histogram":
                sides = (_CLIENT, _ORIGIN) if family.labels else ((),)
                self._spreads[family.name] = {side: Spread(family.bounds) for side in sides}
            else:
                self._counts[family.name] = Counts(len(family.labels))
        self._preset()
        self._bind()
        registry.register(self)
        ProcessCollector(registry=registry)

    def _preset(self) -> None:
        """Show what has a fixed set of labels from the start, at zero."""
        for side in (_CLIENT, _ORIGIN):
            self._counts[families.ACTIVE.name].put(side, 0)
            self._counts[families.HANDSHAKE_FAILURES.name].put(side, 0)
        info = (__version__, platform.python_version())
        self._counts[families.BUILD_INFO.name].put(info, 1)

    def _bind(self) -> None:
        """Look up once what the handlers need for each event."""
        counts, spreads = self._counts, self._spreads
        self._requests = counts[families.REQUESTS.name]
        self._decisions = counts[families.DECISIONS.name]
        self._injected = counts[families.INJECTED.name]
        self._active = counts[families.ACTIVE.name]
        self._duration = spreads[families.DURATION.name][()]
        self._request_size = spreads[families.REQUEST_SIZE.name][()]
        self._response_size = spreads[families.RESPONSE_SIZE.name][()]
        self.lag = spreads[families.REACTOR_LAG.name][()]
        """Where the reactor's lag is observed, in seconds."""
        self.handlers: Mapping[type, Callable[[Any], None]] = {
            Decided: self._on_decided,
            Swapped: lambda event: self._injected.add((event.credential,), event.count),
            Sanitized: self._on_sanitized,
            ExchangeFinished: self._on_finished,
            ConnectionOpened: lambda event: self._active.add(_CLIENT),
            ConnectionClosed: lambda event: self._active.add(_CLIENT, -1),
            OriginOpened: lambda event: self._active.add(_ORIGIN),
            OriginClosed: lambda event: self._active.add(_ORIGIN, -1),
            ConnectionRefused: lambda event: self._add(families.REFUSED, (event.limit,)),
            TlsHandshake: self._on_handshake,
            InternalError: lambda event: self._add(families.INTERNAL_ERRORS),
            AuditFailed: lambda event: self._add(families.AUDIT_FAILURES),
            CertificateLoaded: self._on_certificate,
        }

    def _add(self, family: Family, labels: tuple[str, ...] = (), amount: float = 1) -> None:
        self._counts[family.name].add(labels, amount)

    def _on_decided(self, event: Decided) -> None:
        self._decisions.add((event.stage._value_, event.action._value_, event.rule))
        if event.credentials and event.stage is Stage.REQUEST and event.action is Action.ALLOW:
            for use in event.credentials:
                self._injected.add((use.credential,))
        if event.reason is Reason.HONEYTOKEN:
            self._add(families.HONEYTOKENS)

    def _on_sanitized(self, event: Sanitized) -> None:
        labels = (event.credential, event.form.value, event.place.value)
        self._add(families.SANITIZED, labels, event.count)

    def _on_finished(self, event: ExchangeFinished) -> None:
        method = event.method if event.method in METHODS else "other"
        self._requests.add((method, status_label(event.status), event.rule))
        self._duration.observe(event.seconds)
        self._request_size.observe(event.request_bytes)
        self._response_size.observe(event.response_bytes)

    def _on_handshake(self, event: TlsHandshake) -> None:
        if event.error:
            self._add(families.HANDSHAKE_FAILURES, (event.side.value,))
        else:
            self._spreads[families.HANDSHAKES.name][(event.side.value,)].observe(event.seconds)

    def _on_certificate(self, event: CertificateLoaded) -> None:
        self._counts[families.CERT_EXPIRY.name].put((event.certificate,), event.not_after)

    def collect(self) -> Iterator[Metric]:
        """Return every metric family with its present values; called at a scrape."""
        for family in FAMILIES:
            if family.kind == "histogram":
                yield self._histogram(family)
            else:
                yield self._plain(family)

    def _histogram(self, family: Family) -> Metric:
        metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, spread in self._spreads[family.name].items():
            metric.add_metric(labels, spread.buckets(), spread.sum)
        return metric

    def _plain(self, family: Family) -> Metric:
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(family.name, family.help, labels=family.labels)
        read = self._read.get(family.name)
        if read is not None:
            metric.add_metric((), read())
        else:
            for labels, value in self._counts[family.name].values.items():
                metric.add_metric(labels, value)
        return metric
