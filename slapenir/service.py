"""The gateway as one service: everything is put together here, swapped on SIGHUP, and drained.

Start-up order matters: nothing listens before the policy, the scanner and the audit log are
there, and ``/readyz`` answers 200 only when every listener does (T207).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from slapenir import __version__
from slapenir.admin import admin_factory
from slapenir.config.build import (
    build_policy,
    build_wire_limits,
    placeholders_by_identity,
    resolver_servers,
    static_hosts,
)
from slapenir.config.credentials import read_credentials
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import (
    check_audit_dir,
    check_origin_ca,
    check_state_dir,
    gateway_key,
    write_ca_bundle,
)
from slapenir.edge.client import Gateway
from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.descriptors import fit_descriptors
from slapenir.edge.dial import Dialler
from slapenir.edge.listen import Clients, Listener, start_listening
from slapenir.edge.lookup import DnsLookup, Lookup, SystemLookup
from slapenir.edge.resolver import Resolver
from slapenir.edge.tlscontext import OriginContext, ServerContexts
from slapenir.errors import AuditError, ConfigError, SlapenirError
from slapenir.events import CertificateLoaded, GatewayReady, GatewayStopping, Reloaded
from slapenir.exchange.session import Session
from slapenir.exchange.terms import Bounds, Deadlines, Terms, build_terms
from slapenir.observe.access import AccessLog
from slapenir.observe.audit import AuditLog
from slapenir.observe.diagnostics import Diagnostics
from slapenir.observe.lag import LagSampler
from slapenir.observe.metrics import Metrics
from slapenir.observe.publisher import Publisher
from slapenir.observe.readiness import Readiness
from slapenir.pki.authority import CertificateAuthority
from slapenir.pki.leaves import LeafMinter

_PR_SET_DUMPABLE = 4
# Clients that may wait to be accepted; of Twisted's 50 a burst makes the kernel drop the rest,
# and each of those waits a second before it tries again (T190).
_BACKLOG = 1024


@attrs.frozen(slots=True)
class Loaded:
    """One configuration, read and compiled: all that a reload replaces."""

    settings: Settings
    terms: Terms
    hosts: Mapping[str, tuple[str, ...]]


def load_all(path: str, environ: Mapping[str, str]) -> Loaded:
    """Read the configuration and its secrets and compile the scan databases.

    Raises ConfigError, PkiError.  May run in a thread.
    """
    settings = load(path)
    check_state_dir(settings.gateway.state_dir)
    check_audit_dir(settings.gateway.audit)
    check_origin_ca(settings.origin.ca_file)
    key = gateway_key(settings.gateway.state_dir, create=False)
    held = read_credentials(settings, environ, environ.get("CREDENTIALS_DIRECTORY"))
    limits = settings.limits
    terms = build_terms(
        build_policy(settings),
        {one.id: one for one in held},
        placeholders_by_identity(key, held, settings.identities),
        build_wire_limits(limits),
        Deadlines(
            head=limits.head_seconds,
            idle=limits.idle_seconds,
            handshake=limits.handshake_seconds,
            body=limits.body_seconds,
            response=limits.response_seconds,
            progress=limits.progress_seconds,
            tunnel=limits.tunnel_idle_seconds,
            close=limits.close_seconds,
        ),
        Bounds(
            request_body=limits.request_body_bytes,
            coding_ratio=limits.coding_ratio,
            coding_hold=limits.coding_hold_bytes,
            discard=limits.discard_bytes,
        ),
    )
    return Loaded(settings, terms, static_hosts(settings))


def edge_limits(settings: Settings) -> EdgeLimits:
    """Return the bounds that edge/ holds itself."""
    limits = settings.limits
    return EdgeLimits(
        connections=limits.connections,
        connections_per_identity=limits.connections_per_identity,
        origin_idle_per_key=limits.origin_idle_per_key,
        origin_idle_total=limits.origin_idle_total,
        origin_connections=limits.origin_connections,
        lookups=limits.lookups,
        lookup_threads=limits.lookup_threads,
        names_per_minute=limits.names_per_minute,
        leaf_cache=limits.leaf_cache,
        mints_per_second=limits.mints_per_second,
        mint_burst=limits.mint_burst,
        refusals=limits.refusals,
        discard=limits.discard_bytes,
        dial_seconds=limits.dial_seconds,
        resolve_seconds=limits.resolve_seconds,
        origin_idle_seconds=limits.origin_idle_seconds,
        close_seconds=limits.close_seconds,
    )


def forbid_core_dumps() -> None:
    """Keep memory out of core files and away from other processes of the same user (T226)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def with_backlog(endpoint: str) -> str:
    """Return a Twisted endpoint string that says how many clients may wait to be accepted."""
    if endpoint.partition(":")[0] not in ("tcp", "tcp6", "unix") or ":backlog=" in endpoint:
        return endpoint
    return f"{endpoint}:backlog={_BACKLOG}"


class GatewayService(Service):
    """Run the gateway described by the file at ``config_path`` on ``reactor``.

    ``startService`` raises ConfigErrors or PkiError before anything listens; when a port cannot
    be had the reactor is stopped and ``failed`` says why.  ``stopService`` drains.
    """

    name = "slapenir"

    def __init__(
        self, config_path: str, reactor: Any, environ: Mapping[str, str] | None = None
    ) -> None:
        self._path = os.path.abspath(config_path)
        self._reactor = reactor
        self._environ = dict(os.environ if environ is None else environ)
        self._log = Logger("slapenir")
        self._admin: IListeningPort | None = None
        self._stops: list[Callable[[], Any]] = []
        self._reopens: list[Callable[[], Any]] = []
        self._ready = self._reloading = self._again = False
        self._scanned = 0.0
        self._loaded: Loaded
        self._publisher: Publisher
        self._clients: Clients
        self.failed = ""

    # -- start ------------------------------------------------------------------------------

    def startService(self) -> None:
        """Load everything, then listen."""
        forbid_core_dumps()
        super().startService()  # type: ignore[no-untyped-call]
        self._loaded = loaded = load_all(self._path, self._environ)
        settings = loaded.settings
        authority = CertificateAuthority.load(settings.gateway.state_dir)
        write_ca_bundle(settings, authority.certificate_pem)
        registry = self._open_sinks(settings)
        gateway = self._make_edge(settings, authority)
        self._clients = Clients(gateway, lambda who: Session(who, self.terms))
        expiry = authority.certificate.not_valid_after_utc.timestamp()
        self._publisher.publish(CertificateLoaded("interception-ca", expiry))
        started: list[Deferred[Any]] = [
            start_listening(
                self._reactor,
                Listener(with_backlog(one.endpoint), one.name, one.identity),
                self._clients,
            )
            for one in settings.listeners
        ]
        if settings.gateway.admin:
            started.append(self._listen_admin(settings.gateway.admin, registry, gateway))
        gatherResults(started, consumeErrors=True).addCallbacks(self._is_ready, self._has_failed)
        signal.signal(signal.SIGHUP, self._on_hangup)

    def _open_sinks(self, settings: Settings) -> CollectorRegistry:
        """Open the logs and bind the metrics; the audit log comes first."""
        reactor, directory = self._reactor, settings.gateway.audit
        audit = AuditLog(directory)
        audit.open()
        sinks: list[Any] = []
        registry = CollectorRegistry()
        access = AccessLog(directory, reactor) if settings.gateway.access_log else None
        metrics = Metrics(registry, self._scan_seconds, lambda: access.dropped if access else 0)
        sinks += [metrics, Diagnostics(self._log), Readiness(self._environ.get("NOTIFY_SOCKET"))]
        lag = LagSampler(reactor, time.monotonic, metrics.lag.observe)
        lag.start()
        self._stops.append(lag.stop)
        if access is not None:
            sinks.append(access)
            self._stops.append(access.close)
            self._reopens.append(access.reopen)
        self._stops.append(audit.close)
        self._reopens.append(audit.reopen)
        self._publisher = Publisher(audit, sinks)
        return registry

    def _make_edge(self, settings: Settings, authority: CertificateAuthority) -> Gateway:
        """Put the I/O side together."""
        reactor, wanted = self._reactor, edge_limits(settings)
        limits = fit_descriptors(wanted)
        if limits != wanted:
            self._log.warn(
                "too few open files are allowed (RLIMIT_NOFILE): {clients} connections of clients "
                "and {origins} of origins instead of what $.limits says",
                clients=limits.connections,
                origins=limits.origin_connections,
            )
        servers = [(one.host, one.port) for one in resolver_servers(settings)]
        lookup: Lookup = (
            DnsLookup(reactor, servers, limits.resolve_seconds)
            if servers
            else SystemLookup(reactor, limits.lookup_threads)
        )
        resolver = Resolver(
            reactor,
            limits,
            lookup,
            lambda: self._loaded.terms.policy.addresses,
            lambda: self._loaded.hosts,
        )
        origins = OriginContext(settings.origin.ca_file)
        dialler = Dialler(reactor, limits, self._publisher, resolver, origins)
        self._stops += [resolver.stop, dialler.pool.close]
        self._reopens.append(dialler.pool.close)
        contexts = ServerContexts(LeafMinter(authority).mint, limits)
        return Gateway(reactor, limits, self._publisher, dialler, contexts)

    def _listen_admin(
        self, endpoint: str, registry: CollectorRegistry, gateway: Gateway
    ) -> Deferred[None]:
        factory = admin_factory(registry, lambda: self._ready, self._reactor)

        def listening(port: IListeningPort) -> None:
            self._admin = port
            number = getattr(port.getHost(), "port", None)
            if number is not None:
                gateway.dialler.resolver.own_ports.add(number)

        opened = maybeDeferred(serverFromString, self._reactor, with_backlog(endpoint))
        return opened.addCallback(lambda found: found.listen(factory)).addCallback(listening)

    def _is_ready(self, ports: list[Any]) -> None:
        names = tuple(one.name for one in self._loaded.settings.listeners)
        try:
            self._publisher.publish(GatewayReady(__version__, names))
        except AuditError:
            self._has_failed(Failure())
            return
        self._ready = True

    def _has_failed(self, failure: Failure) -> None:
        """End the process: a gateway that misses a listener is none."""
        reason = failure.value
        cause = getattr(reason, "subFailure", None)
        self.failed = str(cause.value if cause is not None else reason)
        self._log.critical("the gateway cannot listen: {reason}", reason=self.failed)
        self._reactor.callLater(0, self._reactor.stop)

    # -- while running ----------------------------------------------------------------------

    def terms(self) -> Terms:
        """Return the terms in force for what begins now."""
        return self._loaded.terms

    def _scan_seconds(self) -> float:
        """Return the CPU seconds of all scanning so far, those before reloads included."""
        terms = self._loaded.terms
        return self._scanned + terms.response.seconds + terms.request.seconds

    def _on_hangup(self, signum: int, frame: object) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> Deferred[None]:
        """Read the configuration again, off the reactor, and put it in force whole or not at all.

        Exchanges under way keep their terms.  The logs are opened anew, so a rotation may be
        followed by a SIGHUP.  Fires when done; a bad configuration is published, not raised.
        """
        if self._reloading:
            self._again = True
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        self._reloading = True
        loading = deferToThread(load_all, self._path, self._environ).addCallback(self._swap)
        return loading.addErrback(self._keep).addCallback(self._reloaded)

    def _swap(self, loaded: Loaded) -> None:
        check_reload(self._loaded.settings, loaded.settings)
        for reopen in self._reopens:  # the audit log's may fail: then nothing has changed
            reopen()
        self._scanned = self._scan_seconds()
        self._loaded = loaded
        self._publisher.publish(Reloaded())

    def _keep(self, failure: Failure) -> None:
        """Stay with the old configuration and say so."""
        error = failure.value
        said = isinstance(error, SlapenirError)
        self._publisher.publish(Reloaded(str(error) if said else type(error).__name__))

    def _reloaded(self, _: None) -> None:
        self._reloading = False
        if self._again:
            self._again = False
            self.reload()

    # -- stop -------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Stop listening, let exchanges finish until the deadline, then close the logs.

        A second SIGTERM cuts what is left at once.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._ready = False
        if not hasattr(self, "_clients"):
            return maybeDeferred(lambda: None)
        seconds = self._loaded.settings.limits.drain_seconds
        self._publisher.publish(GatewayStopping(seconds))
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.callFromThread(self._clients.cut))
        return self._clients.drain(seconds).addCallback(self._close)

    def _close(self, _: None) -> Deferred[None]:
        closing = maybeDeferred(self._admin.stopListening if self._admin else lambda: None)

        def closed(_: object) -> None:
            for stop in self._stops:
                stop()

        return closing.addCallback(closed)


def check_reload(old: Settings, new: Settings) -> None:
    """Raise ConfigError for a change that only a restart can bring into force."""
    fixed = {
        "$.listener": old.listeners != new.listeners,
        "$.gateway": old.gateway != new.gateway,
        "$.origin": old.origin != new.origin,
        "$.resolver.servers": old.resolver.servers != new.resolver.servers,
        "$.limits": edge_limits(old) != edge_limits(new),
    }
    for path, changed in fixed.items():
        if changed:
            raise ConfigError(
                "cannot change while the gateway runs", path, "restart the gateway", new.file
            )
