"""Open files: every connection is one, so the bounds must fit what the process may open.

A process without free descriptors cannot answer /healthz, follow a rotated log or dial for the
clients it has.  So the bounds are lowered at start rather than met at the worst moment.
"""

from __future__ import annotations

import resource

import attrs

from slapenir.edge.contracts import EdgeLimits

OWN = 80
"""Descriptors kept for the gateway itself: listeners, logs, the reactor, the admin endpoint."""

_OF_SANDBOX = 7  # its six sockets and the connection that handed them over

_COUNTS = (
    "connections",
    "connections_per_identity",
    "sandboxes",
    "origin_connections",
    "origin_idle_per_key",
    "origin_idle_total",
    "lookups",
    "refusals",
)


def fit_descriptors(limits: EdgeLimits) -> EdgeLimits:
    """Raise the soft limit of open files as far as ``limits`` need and the hard one lets us.

    Returns ``limits``, or with too few files one whose counts are lowered in proportion.  A
    look-up counts twice: it has a socket for each address family.
    """
    need = limits.connections + limits.origin_connections + 2 * limits.lookups + limits.refusals
    need += _OF_SANDBOX * limits.sandboxes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    if soft < need + OWN:
        soft = need + OWN if hard == resource.RLIM_INFINITY else min(need + OWN, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= need + OWN:
        return limits
    part = max(soft - OWN, 0) / need
    return attrs.evolve(
        limits, **{name: max(int(getattr(limits, name) * part), 1) for name in _COUNTS}
    )
