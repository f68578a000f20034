"""Samples in, a table and a JSON document out."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from bench.jobs import UNITS

Samples = dict[str, dict[str, list[float]]]
"""metric -> contender -> one value a round."""
_COMPARED = "slapenir"


def summarise(samples: Samples) -> dict[str, dict[str, dict[str, float | str]]]:
    """Return ``{metric: {contender: {median, min, max, unit}}}``."""
    return {
        metric: {
            contender: {
                "median": round(statistics.median(values), 4),
                "min": round(min(values), 4),
                "max": round(max(values), 4),
                "unit": UNITS[metric],
            }
            for contender, values in sorted(contenders.items())
        }
        for metric, contenders in sorted(samples.items(), key=_metric_order)
    }


def _metric_order(pair: tuple[str, object]) -> int:
    return list(UNITS).index(pair[0])


def write_json(samples: Samples, path: Path) -> None:
    """Write the summary to ``path``, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summarise(samples), indent=2) + "\n", "ascii")


def table(samples: Samples, missing: dict[str, str]) -> str:
    """Return the printed report: medians with range, then ratios, then who is missing and why."""
    lines = [f"{'metric':<24}{'contender':<13}{'median':>10}{'min':>10}{'max':>10}  unit"]
    summary = summarise(samples)
    for metric, contenders in summary.items():
        for contender, row in contenders.items():
            numbers = "".join(f"{row[key]:>10.2f}" for key in ("median", "min", "max"))
            lines.append(f"{metric:<24}{contender:<13}{numbers}  {row['unit']}")
    lines += ["", *_ratios(summary)]
    lines += [f"{name}: {reason}" for name, reason in sorted(missing.items())]
    return "\n".join(lines) + "\n"


def _ratios(summary: dict[str, dict[str, dict[str, float | str]]]) -> list[str]:
    lines = []
    for metric, contenders in summary.items():
        ours = contenders.get(_COMPARED)
        others = {name: row for name, row in contenders.items() if name != _COMPARED}
        if ours is None or not others:
            continue
        parts = [
            f"{float(ours['median']) / float(row['median']):.3f} x {name}"
            for name, row in others.items()
            if float(row["median"]) > 0
        ]
        lines.append(f"{metric:<24}{_COMPARED} = " + ", ".join(parts))
    return lines
