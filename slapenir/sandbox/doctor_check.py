"""What the doctor finds: one check each, and what all of them together mean.

This file also runs inside sandboxes, so it needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

OK, MISSING, HOLE, FAILED, SKIPPED = "ok", "missing", "hole", "failed", "skipped"
HOST, CLIENTS, HOLES, TRUST = "host", "client", "way around", "trust"


class Finding(NamedTuple):
    """One thing that was looked at.

    ``result`` is OK; MISSING for a prerequisite; HOLE for a way around the gateway; FAILED for what
    does not work through it, or is not refused at once; SKIPPED for what is not needed, or cannot
    be told.
    """

    group: str
    name: str
    result: str
    detail: str = ""
    remedy: str = ""


def exit_status(checks: Iterable[Finding]) -> int:
    """Return 1 for a hole or a failure, else 2 when something is missing, else 0."""
    results = {one.result for one in checks}
    if results & {HOLE, FAILED}:
        return 1
    return 2 if MISSING in results else 0
