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
from slapenir.config.build import resolver_servers
from slapenir.config.bundles import write_bundles
from slapenir.config.settings import Listener as ListenerSettings
from slapenir.config.settings import Settings
from slapenir.edge.descriptors import fit_descriptors
from slapenir.edge.dial import Dialler
from slapenir.edge.doorway import Doorway
from slapenir.edge.gateway import Gateway
from slapenir.edge.listen import Clients, start_listening, with_backlog
from slapenir.edge.lookup import DnsLookup, Lookup, SystemLookup
from slapenir.edge.redirect import Redirections
from slapenir.edge.resolver import Resolver
from slapenir.edge.tlscontext import OriginContext, ServerContexts
from slapenir.edge.unix_sockets import beware
from slapenir.errors import AuditError, SlapenirError
from slapenir.events import CertificateLoaded, GatewayReady, GatewayStopping, Reloaded
from slapenir.exchange.session import Session
from slapenir.exchange.terms import Terms
from slapenir.gatehouse import Gatehouse, listener_of
from slapenir.loading import Loaded, check_reload, edge_limits, load_all
from slapenir.naming import Naming
from slapenir.observe.access import AccessLog
from slapenir.observe.audit import AuditLog
from slapenir.observe.diagnostics import Diagnostics
from slapenir.observe.lag import LagSampler
from slapenir.observe.metrics import Metrics
from slapenir.observe.publisher import Publisher
from slapenir.observe.readiness import Readiness
from slapenir.pki.interception import Interception
from slapenir.sandboxes import NAME as SANDBOXES
from slapenir.sandboxes import Sandboxes, private_endpoint

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Keep memory out of core files and away from other processes of the same user (T226)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class GatewayService(Service):
    """Run the gateway described by the file at ``config_path`` on ``reactor``.

    With ``only_sandboxes`` (a path) it listens nowhere but there, for the sandboxes of its own
    user: what ``slapenir run`` starts for itself.

    ``startService`` raises ConfigErrors or PkiError before anything listens; when a port cannot
    be had the reactor is stopped and ``failed`` says why.  ``stopService`` drains.
    """

    name = "slapenir"

    def __init__(
        self,
        config_path: str,
        reactor: Any,
        environ: Mapping[str, str] | None = None,
        only_sandboxes: str = "",
    ) -> None:
        self._only_sandboxes = only_sandboxes
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
        self._contexts: ServerContexts
        self._gatehouse: Gatehouse
        self._sandboxes: Sandboxes
        self._naming: Naming
        self.failed = ""

    # -- start ------------------------------------------------------------------------------

    def startService(self) -> None:
        """Load everything, then listen."""
        forbid_core_dumps()
        super().startService()  # type: ignore[no-untyped-call]
        self._loaded = loaded = load_all(self._path, self._environ)
        settings = loaded.settings
        write_bundles(settings, loaded.interception)
        registry = self._open_sinks(settings)
        naming = Naming(self._reactor, lambda: self._loaded, self._publisher)
        gateway = self._make_edge(settings, naming)
        self._naming = naming
        self._clients = Clients(
            gateway,
            lambda who, *asked, **more: Session(who, self.terms, *asked, **more),
            lambda evidence: self._loaded.identities.identify(evidence),
        )
        self._tell_authorities(loaded.interception)
        self._gatehouse = Gatehouse(
            self._reactor,
            settings,
            self._publisher.publish,
            self._clients.review,
            self._clients.identify,
        )
        self._stops.append(self._gatehouse.stop)
        self._sandboxes = Sandboxes(
            self._reactor,
            self._clients,
            lambda: self._loaded,
            self._publisher.publish,
            self._naming.server,
            gateway.limits.sandboxes,
        )
        started: list[Deferred[Any]] = []
        if self._only_sandboxes:
            started.append(self._sandboxes.listen(private_endpoint(self._only_sandboxes)))
        else:
            started += self._open_listeners(settings, registry, gateway)
        gatherResults(started, consumeErrors=True).addCallbacks(self._is_ready, self._has_failed)
        signal.signal(signal.SIGHUP, self._on_hangup)

    def _open_listeners(
        self, settings: Settings, registry: CollectorRegistry, gateway: Gateway
    ) -> list[Deferred[Any]]:
        """Open all that the configuration names."""
        started: list[Deferred[Any]] = [
            self._gatehouse.doorway(one).addCallback(self._listen, one)
            for one in settings.listeners
        ]
        started.append(self._gatehouse.serve_enrolment(self._clients.listening))
        own_ports = gateway.dialler.resolver.own_ports
        started.append(self._naming.listen(settings).addCallback(own_ports.update))
        if settings.sandboxes.endpoint:
            started.append(self._sandboxes.listen(settings.sandboxes.endpoint))
        if settings.gateway.admin:
            started.append(self._listen_admin(settings.gateway.admin, registry, gateway))
        return started

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

    def _tell_authorities(self, interception: Interception) -> None:
        for name, authority in interception.authorities.items():
            label = f"interception-ca:{name}" if name else "interception-ca"
            self._publisher.publish(CertificateLoaded(label, authority.not_after))

    def _listen(self, doorway: Doorway | None, one: ListenerSettings) -> Deferred[IListeningPort]:
        return start_listening(self._reactor, listener_of(one, doorway), self._clients)

    def _make_edge(self, settings: Settings, naming: Naming) -> Gateway:
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
        interception = self._loaded.interception
        own = "" not in interception.authorities
        contexts = ServerContexts(interception.mint, limits, by_identity=own)
        self._contexts = contexts
        redirections = Redirections(resolver.own_ports, naming.addresses.name_of)
        return Gateway(reactor, limits, self._publisher, dialler, contexts, redirections)

    def _listen_admin(
        self, endpoint: str, registry: CollectorRegistry, gateway: Gateway
    ) -> Deferred[None]:
        factory = admin_factory(registry, lambda: self._ready, self._reactor)

        def listening(port: IListeningPort) -> None:
            self._admin = beware(port)
            number = getattr(port.getHost(), "port", None)
            if number is not None:
                gateway.dialler.resolver.own_ports.add(number)

        opened = maybeDeferred(serverFromString, self._reactor, with_backlog(endpoint))
        return opened.addCallback(lambda found: found.listen(factory)).addCallback(listening)

    def _is_ready(self, ports: list[Any]) -> None:
        names = tuple(one.name for one in self._loaded.settings.listeners)
        if self._only_sandboxes:
            names = (SANDBOXES,)
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
        write_bundles(loaded.settings, loaded.interception)
        self._scanned = self._scan_seconds()
        before, self._loaded = self._loaded, loaded
        if loaded.interception.fingerprints != before.interception.fingerprints:
            self._contexts.replace(loaded.interception.mint)
            self._tell_authorities(loaded.interception)
        self._publisher.publish(Reloaded())
        self._gatehouse.reload(loaded.settings)
        self._sandboxes.revise()
        self._clients.revise()

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
        leaving = [self._sandboxes.stop(), self._naming.stop()]
        draining = gatherResults([*leaving, self._clients.drain(seconds)], consumeErrors=True)
        return draining.addCallback(self._close)

    def _close(self, _: object) -> Deferred[None]:
        closing = maybeDeferred(self._admin.stopListening if self._admin else lambda: None)

        def closed(_: object) -> None:
            for stop in self._stops:
                stop()

        return closing.addCallback(closed)
