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
    CertificateIssued,
    CertificateLoaded,
    CertificateRenewed,
    CertificateRetired,
    ClientIdentified,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRefused,
    Decided,
    EnrolmentRefused,
    ExchangeFinished,
    InternalError,
    NameAsked,
    OriginClosed,
    OriginOpened,
    RenewalFailed,
    RevocationsLoaded,
    SandboxJoined,
    SandboxLeft,
    Sanitized,
    Swapped,
    TlsHandshake,
    TrafficRefused,
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
_LISTENER = (Side.LISTENER.value,)


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
                sides = (_CLIENT, _ORIGIN, _LISTENER) if family.labels else ((),)
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
        for side in (_CLIENT, _ORIGIN, _LISTENER):
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
        self._of_identity = counts[families.IDENTITY_CONNECTIONS.name]
        self._duration = spreads[families.DURATION.name][()]
        self._request_size = spreads[families.REQUEST_SIZE.name][()]
        self._response_size = spreads[families.RESPONSE_SIZE.name][()]
        self.lag = spreads[families.REACTOR_LAG.name][()]
        """Where the reactor's lag is observed, in seconds."""
        self.handlers: Mapping[type, Callable[[Any], None]] = {
            Decided: self._on_decided,
            Swapped: self._on_swapped,
            Sanitized: self._on_sanitized,
            ExchangeFinished: self._on_finished,
            ConnectionOpened: self._on_opened,
            ConnectionClosed: self._on_closed,
            OriginOpened: lambda event: self._active.add(_ORIGIN),
            OriginClosed: lambda event: self._active.add(_ORIGIN, -1),
            ConnectionRefused: lambda event: self._add(families.REFUSED, (event.limit,)),
            TlsHandshake: self._on_handshake,
            InternalError: lambda event: self._add(families.INTERNAL_ERRORS),
            AuditFailed: lambda event: self._add(families.AUDIT_FAILURES),
            CertificateLoaded: self._on_certificate,
            ClientIdentified: self._on_identified,
            CertificateRenewed: self._on_renewed,
            CertificateRetired: self._on_retired,
            RenewalFailed: self._on_not_renewed,
            CertificateIssued: self._on_issued,
            EnrolmentRefused: lambda event: self._add(families.ENROLMENTS_REFUSED),
            RevocationsLoaded: self._on_revocations,
            NameAsked: lambda event: self._add(
                families.NAMES_ASKED, (event.who.identity, event.answer)
            ),
            SandboxJoined: lambda event: self._add(families.SANDBOXES, (event.identity,)),
            SandboxLeft: lambda event: self._add(families.SANDBOXES, (event.identity,), -1),
            TrafficRefused: self._on_traffic,
        }

    def _add(self, family: Family, labels: tuple[str, ...] = (), amount: float = 1) -> None:
        self._counts[family.name].add(labels, amount)

    def _on_decided(self, event: Decided) -> None:
        who = event.who
        self._decisions.add((event.stage._value_, event.action._value_, event.rule, who.identity))
        if event.credentials and event.stage is Stage.REQUEST and event.action is Action.ALLOW:
            for use in event.credentials:
                self._injected.add((use.credential, who.identity))
        if event.reason is Reason.HONEYTOKEN:
            self._add(families.HONEYTOKENS, (who.identity,))
        elif event.stage is Stage.IDENTIFY:
            self._add(families.IDENTITY_REFUSALS, (who.listener, event.reason.value))

    def _on_swapped(self, event: Swapped) -> None:
        self._injected.add((event.credential, event.who.identity), event.count)

    def _on_opened(self, event: ConnectionOpened) -> None:
        self._active.add(_CLIENT)
        if event.who.identity:
            self._of_identity.add((event.who.identity,))

    def _on_closed(self, event: ConnectionClosed) -> None:
        self._active.add(_CLIENT, -1)
        if event.who.identity:
            self._of_identity.add((event.who.identity,), -1)

    def _on_identified(self, event: ClientIdentified) -> None:
        identity = event.who.identity
        if event.way == "token":  # it was opened before it was anybody's
            self._of_identity.add((identity,))
        if event.serial:
            self._counts[families.CERT_EXPIRY.name].put((f"client:{identity}",), event.not_after)

    def _on_sanitized(self, event: Sanitized) -> None:
        place, identity = event.place.value, event.who.identity
        labels = (event.credential, event.form.value, place, identity)
        self._add(families.SANITIZED, labels, event.count)

    def _on_finished(self, event: ExchangeFinished) -> None:
        method = event.method if event.method in METHODS else "other"
        labels = (method, status_label(event.status), event.rule, event.who.identity)
        self._requests.add(labels)
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

    def _on_retired(self, event: CertificateRetired) -> None:
        self._counts[families.CERT_EXPIRY.name].forget((event.certificate,))

    def _on_renewed(self, event: CertificateRenewed) -> None:
        self._add(families.CERT_RENEWALS, (event.certificate, "renewed"))
        self._counts[families.CERT_EXPIRY.name].put((event.certificate,), event.not_after)

    def _on_not_renewed(self, event: RenewalFailed) -> None:
        self._add(families.CERT_RENEWALS, (event.certificate, "failed"))

    def _on_issued(self, event: CertificateIssued) -> None:
        self._add(families.CERTIFICATES_ISSUED, (event.identity, event.how))

    def _on_traffic(self, event: TrafficRefused) -> None:
        self._add(families.TRAFFIC_REFUSED, (event.identity, event.kind), event.packets)

    def _on_revocations(self, event: RevocationsLoaded) -> None:
        labels = (event.listener,)
        self._add(families.REVOCATION_FAILURES, labels, 1 if event.error else 0)
        if not event.error:
            self._counts[families.REVOKED.name].put(labels, event.count)
            self._counts[families.REVOCATION_NEXT_UPDATE.name].put(labels, event.next_update)

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
