"""Compare the gateway's CPU cost with other intercepting proxies, in one interleaved run.

Everything is on loopback: an origin, one process of each contender, one load generator at a time.
Each round measures every contender once with every job; the table shows median, least and most.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if str(_ROOT) not in sys.path:
    sys.path.insert(0, str(_ROOT))

from bench import contenders, jobs, report  # noqa: E402 - run as a script, the path comes first
from bench.gateway import (  # noqa: E402
    start_slapenir,
    start_slapenir_mutual,
    start_slapenir_transparent,
)
from bench.measure import rss_megabytes  # noqa: E402
from tests.support.certs import ThrowawayCA  # noqa: E402

STARTERS: dict[str, Callable[[contenders.Bed], contenders.Running]] = {
    "relay": contenders.start_relay,
    "squid": contenders.start_squid,
    "mitmproxy": contenders.start_mitmproxy,
    "slapenir": start_slapenir,
    "slapenir-mutual": start_slapenir_mutual,
    "slapenir-transparent": start_slapenir_transparent,
    "squid-peek": functools.partial(contenders.start_squid, name="squid-peek"),
}
DEFAULT = ("relay", "squid", "mitmproxy", "slapenir", "slapenir-mutual", "slapenir-transparent")


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--rounds", type=int, help="rounds to run (default 5, quick 2)")
    parser.add_argument(
        "--only", action="append", choices=sorted(STARTERS), help="a contender; may be repeated"
    )
    parser.add_argument(
        "--job", action="append", choices=[job.name for job in jobs.FULL], help="only this job"
    )
    parser.add_argument(
        "--json", type=Path, default=_ROOT / "build" / "bench.json", help="where the result goes"
    )
    return parser.parse_args(argv)


def _start_origin(ca: ThrowawayCA) -> tuple[subprocess.Popen[bytes], int]:
    cert, key = ca.leaf(contenders.HOST)
    command = [sys.executable, "-m", "bench.origin", str(cert), str(key)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def _start_all(
    names: list[str], bed: contenders.Bed, missing: dict[str, str]
) -> Iterator[contenders.Running]:
    for name in names:
        try:
            running = STARTERS[name](bed)
        except contenders.Unavailable as error:
            missing[name] = f"absent: {error}"
            print(f"bench: {name} is {missing[name]}", flush=True)
        else:
            print(f"bench: {name} is up", flush=True)
            yield running


def _round(
    running: list[contenders.Running],
    bed: contenders.Bed,
    chosen: list[jobs.Job],
    samples: report.Samples,
    missing: dict[str, str],
) -> None:
    """Measure every contender once with every job; one that fails is left out from then on."""
    for job in chosen:
        for one in running:
            if one.name in missing:
                continue
            try:
                values = jobs.measure(one, job, bed)
            except jobs.JobFailed as error:
                missing[one.name] = f"failed in {job.name}: {error}"
                print(f"bench: {one.name} {missing[one.name]}", flush=True)
                continue
            for metric, value in values.items():
                samples.setdefault(metric, {}).setdefault(one.name, []).append(value)
            shown = "  ".join(f"{metric} {value:.2f}" for metric, value in values.items())
            print(f"bench:   {one.name}: {shown}", flush=True)
    for one in running:
        if one.name not in missing:
            rss = rss_megabytes(one.process.pid)
            samples.setdefault("rss_mb", {}).setdefault(one.name, []).append(rss)


def main(argv: list[str]) -> int:
    """Run the benchmark; return 0 when every contender asked for was measured or is absent.

    A contender that started and then failed makes it 1.
    """
    options = _arguments(argv)
    table = jobs.QUICK if options.quick else jobs.FULL
    chosen = [job for job in table if not options.job or job.name in options.job]
    rounds = options.rounds or (2 if options.quick else 5)
    samples: report.Samples = {}
    missing: dict[str, str] = {}
    running: list[contenders.Running] = []
    with tempfile.TemporaryDirectory(prefix="slapenir-bench-") as scratch:
        directory = Path(scratch)
        directory.chmod(0o755)  # squid's helper runs as another user
        ca = ThrowawayCA(directory)
        origin, port = _start_origin(ca)
        bed = contenders.Bed(directory, ca, port, _ROOT / "build")
        try:
            running.extend(_start_all(options.only or list(DEFAULT), bed, missing))
            for number in range(1, rounds + 1):
                print(f"bench: round {number} of {rounds}", flush=True)
                _round(running, bed, chosen, samples, missing)
        finally:
            for one in running:
                one.close()
            contenders.stop(origin)
    text = report.table(samples, missing)
    report.write_json(samples, options.json)
    options.json.with_suffix(".txt").write_text(text, "utf-8")
    print(f"\n{text}\nbench: written to {options.json.name}", flush=True)
    return 1 if any(reason.startswith("failed") for reason in missing.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
