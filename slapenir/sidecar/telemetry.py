"""What a sidecar tells its operator: log lines, and metrics in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.logger import Logger

from slapenir.events import CertificateLoaded, CertificateRenewed, Event, RenewalFailed
from slapenir.observe.readiness import Readiness
from slapenir.sidecar.trouble import Trouble

QUIET_SECONDS = 60.0
"""How long the same trouble is only counted after it was logged."""


class Telemetry:
    """Take events and troubles.

    ``seconds`` is a monotonic clock, ``now`` Unix time; ``open_links`` counts links.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        now: Callable[[], float],
        open_links: Callable[[], int],
        notify_socket: str = "",
        log: Logger | None = None,
    ) -> None:
        self._seconds = seconds
        self._now = now
        self._log = log or Logger("slapenir")
        self.registry = registry = CollectorRegistry()
        Gauge(
            "slapenir_sidecar_connections", "Clients that are connected.", registry=registry
        ).set_function(lambda: float(open_links()))
        self._expiry = Gauge(
            "slapenir_cert_expiry_timestamp_seconds",
            "When the certificate in use ends.",
            ["cert"],
            registry=registry,
        )
        self._renewals = Counter(
            "slapenir_cert_renewals", "Renewals.", ["cert", "outcome"], registry=registry
        )
        self._troubles = Counter(
            "slapenir_sidecar_refused",
            "Clients that were not brought to the gateway.",
            ["reason"],
            registry=registry,
        )
        for outcome in ("renewed", "failed"):
            self._renewals.labels("client", outcome)
        for trouble in Trouble:
            self._troubles.labels(trouble.value)
        self._sinks: list[Mapping[type, Callable[[Any], None]]] = [
            {
                CertificateLoaded: self._on_loaded,
                CertificateRenewed: self._on_renewed,
                RenewalFailed: self._on_failed,
            },
            Readiness(notify_socket or None).handlers,
        ]
        self.enrolling = False  # whether the next certificate is the first
        self._logged: dict[Trouble, float] = {}
        self._unsaid: dict[Trouble, int] = dict.fromkeys(Trouble, 0)

    def publish(self, event: Event) -> None:
        """Log an event, count it, and tell systemd what it waits for."""
        for sink in self._sinks:
            handle = sink.get(type(event))
            if handle is None:
                continue
            try:
                handle(event)
            except OSError as error:  # systemd's socket is gone: nobody listens
                self._log.warn("systemd cannot be told: {error}", error=error.strerror)

    def listening(self, host: str, port: int, gateway: str) -> None:
        """Tell where clients are waited for."""
        self._log.info(
            "Clients of {host}:{port} are brought to {gateway}",
            host=host,
            port=port,
            gateway=gateway,
        )

    def trouble(self, trouble: Trouble, detail: str) -> None:
        """Count what kept a client from the gateway, and log it at most once a minute."""
        self._troubles.labels(trouble.value).inc()
        now = self._seconds()
        last = self._logged.get(trouble)
        if last is not None and now - last < QUIET_SECONDS:
            self._unsaid[trouble] += 1
            return
        more, self._unsaid[trouble] = self._unsaid[trouble], 0
        self._logged[trouble] = now
        self._log.warn(
            "A client was not brought to the gateway: {reason}{detail}{more}",
            reason=trouble.value,
            detail=f" ({detail})" if detail else "",
            more=f"; so were {more} others since this was last logged" if more else "",
        )

    def unusable(self, why: str) -> None:
        """Tell that new files cannot be used."""
        self._renewals.labels("client", "failed").inc()
        self._log.error("The new certificate files cannot be used: {why}", why=why)

    def _on_loaded(self, event: CertificateLoaded) -> None:
        self._expiry.labels(event.certificate).set(event.not_after)
        text = "Enrolled: the certificate" if self.enrolling else "The certificate"
        self.enrolling = False
        self._log.info(f"{text} in use ends {{end}}", end=self._end(event.not_after))

    def _on_renewed(self, event: CertificateRenewed) -> None:
        self._expiry.labels(event.certificate).set(event.not_after)
        self._renewals.labels(event.certificate, "renewed").inc()
        self._log.info("Renewed: the new certificate ends {end}", end=self._end(event.not_after))

    def _on_failed(self, event: RenewalFailed) -> None:
        self._renewals.labels(event.certificate, "failed").inc()
        if event.not_after:
            text = "Not renewed: {error}; next try in {wait:.0f} s; the one in use ends {end}"
        else:
            text = "Not enrolled: {error}; next try in {wait:.0f} s"
        end = self._end(event.not_after)
        self._log.error(text, error=event.error, wait=event.retry_seconds, end=end)

    def _end(self, not_after: float) -> str:
        """Return when a certificate ends, as a person reads it."""
        minutes = int((not_after - self._now()) // 60)
        if minutes < 0:
            return "now: it has expired"
        days, hours = minutes // 1440, minutes // 60 % 24
        return f"in {days} d {hours} h" if days else f"in {hours} h {minutes % 60} min"
