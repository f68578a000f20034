"""Every bound and every deadline, with its default; the unit is in the name or said beside it."""

from __future__ import annotations

import attrs


@attrs.frozen(slots=True, kw_only=True)
class Limits:
    """``[limits]``: see etc/slapenir.toml for what each one holds back.

    Names end in ``_bytes`` or ``_seconds``; ``coding_ratio`` is decoded to coded bytes; the rest
    count what they name.  HEAD, HANDSHAKE, DIAL and RESOLVE are deadlines for the whole step;
    the other seconds bound the time without progress.
    """

    # How many
    connections: int = 1000
    connections_per_identity: int = 500
    sandboxes: int = 32
    strangers_per_source: int = 100
    refusals: int = 64
    origin_connections: int = 1000
    origin_idle_per_key: int = 8
    origin_idle_total: int = 256
    lookups: int = 256
    lookup_threads: int = 64
    names_per_minute: int = 120
    leaf_cache: int = 512
    mints_per_second: float = 200.0
    mint_burst: int = 400
    pipelined: int = 64
    informational: int = 16
    header_count: int = 256
    trailer_count: int = 64
    coding_ratio: int = 200
    # How large
    head_bytes: int = 65536
    target_bytes: int = 16384
    trailer_bytes: int = 16384
    chunk_overhead_bytes: int = 4096
    early_bytes: int = 131072
    request_body_bytes: int = 0
    coding_hold_bytes: int = 262144
    discard_bytes: int = 262144
    # How long
    head_seconds: float = 30.0
    idle_seconds: float = 75.0
    handshake_seconds: float = 10.0
    dial_seconds: float = 10.0
    resolve_seconds: float = 5.0
    body_seconds: float = 60.0
    response_seconds: float = 600.0
    progress_seconds: float = 600.0
    tunnel_idle_seconds: float = 3600.0
    origin_idle_seconds: float = 60.0
    drain_seconds: float = 30.0
    close_seconds: float = 5.0


_LARGEST = 2**53
# Written as 0 this one bound is off; every other must be positive.
_OFF_AT_ZERO = frozenset({"request_body_bytes"})
_ORDERED = (
    ("connections_per_identity", "connections"),
    ("origin_idle_per_key", "origin_idle_total"),
    ("origin_idle_total", "origin_connections"),
    ("target_bytes", "head_bytes"),
    ("resolve_seconds", "dial_seconds"),
)


def problems_in(limits: Limits) -> list[tuple[str, str]]:
    """Return (key, what is wrong) for each bound that is no bound or contradicts another."""
    found = []
    for attribute in attrs.fields(Limits):
        value = getattr(limits, attribute.name)
        if not -_LARGEST < value < _LARGEST:  # nor is "not a number"
            found.append((attribute.name, "must be a number below 2 to the 53rd"))
        elif value < 0 or (value == 0 and attribute.name not in _OFF_AT_ZERO):
            found.append((attribute.name, "must be greater than 0"))
    for small, large in _ORDERED:
        if getattr(limits, small) > getattr(limits, large):
            found.append((small, f"must not be more than {large} ({getattr(limits, large)})"))
    return found
