"""CPU time and memory of a process tree, read from /proc: seen from the outside, so fair to all."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[int, int] | None:
    """Return (parent pid, CPU ticks with reaped children) of a process, None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[1]), sum(int(value) for value in fields[11:15])


def tree(root: int) -> list[int]:
    """Return ``root`` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))) is not None:
            children.setdefault(stat[0], []).append(int(entry))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu_seconds(root: int) -> float:
    """Return user plus system CPU seconds of ``root`` and its descendants, living or reaped.

    The kernel reports in clock ticks (usually 10 ms): measure spans of a second or so.
    """
    stats = (_stat(pid) for pid in tree(root))
    return sum(stat[1] for stat in stats if stat is not None) / _TICKS


def rss_megabytes(root: int) -> float:
    """Return the resident memory of the tree in MB (10**6); shared pages count once a process."""
    total = 0
    for pid in tree(root):
        try:
            pages = Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]
        except OSError:
            continue
        total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total / 1e6
