"""Reading a configuration into all that a reload replaces, and what a reload may not change."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from slapenir.config.build import (
    build_identities,
    build_policy,
    build_wire_limits,
    placeholders_by_identity,
    static_hosts,
)
from slapenir.config.bundles import load_interception
from slapenir.config.credentials import read_credentials
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import (
    check_audit_dir,
    check_origin_ca,
    check_state_dir,
    gateway_key,
)
from slapenir.edge.contracts import EdgeLimits
from slapenir.errors import ConfigError
from slapenir.exchange.terms import Bounds, Deadlines, Terms, build_terms
from slapenir.pki.interception import Interception
from slapenir.policy.identities import IdentityTable


@attrs.frozen(slots=True)
class Loaded:
    """One configuration, read and compiled: all that a reload replaces."""

    settings: Settings
    terms: Terms
    hosts: Mapping[str, tuple[str, ...]]
    identities: IdentityTable
    interception: Interception
    key: bytes = attrs.field(repr=False)


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
    return Loaded(
        settings,
        terms,
        static_hosts(settings),
        build_identities(settings),
        load_interception(settings),
        key,
    )


def edge_limits(settings: Settings) -> EdgeLimits:
    """Return the bounds that edge/ holds itself."""
    limits = settings.limits
    return EdgeLimits(
        connections=limits.connections,
        connections_per_identity=limits.connections_per_identity,
        sandboxes=limits.sandboxes,
        strangers_per_source=limits.strangers_per_source,
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
        arrival_seconds=limits.handshake_seconds,
        dial_seconds=limits.dial_seconds,
        resolve_seconds=limits.resolve_seconds,
        origin_idle_seconds=limits.origin_idle_seconds,
        close_seconds=limits.close_seconds,
    )


def check_reload(old: Settings, new: Settings) -> None:
    """Raise ConfigError for a change that only a restart can bring into force."""
    fixed = {
        "$.listener": old.listeners != new.listeners,
        "$.gateway": old.gateway != new.gateway,
        "$.origin": old.origin != new.origin,
        "$.pki": old.pki != new.pki,
        "$.dns": old.dns != new.dns,
        "$.sandboxes": old.sandboxes != new.sandboxes,
        "$.resolver.servers": old.resolver.servers != new.resolver.servers,
        "$.limits": edge_limits(old) != edge_limits(new),
    }
    for path, changed in fixed.items():
        if changed:
            raise ConfigError(
                "cannot change while the gateway runs", path, "restart the gateway", new.file
            )
