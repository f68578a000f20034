"""Times that a person writes and reads: ``90s``, ``15m``, ``24h``, ``7d``."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FORM = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)
LONGEST = 3650 * 86400


def duration(text: str) -> float:
    """Return the seconds of a number and a unit; raises ValueError, saying what to write."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("is not a duration: write a number and s, m, h or d, such as 24h")
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds > LONGEST:
        raise ValueError("is longer than ten years")
    return float(seconds)
