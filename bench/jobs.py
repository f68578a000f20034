"""One measurement: start the load, bracket it with CPU readings of the proxy, return numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import attrs

from bench.contenders import HOST, ROOT, Bed, Running
from bench.load import REDIRECTED
from bench.measure import cpu_seconds

JOB_SECONDS = 180.0
SETTLE_SECONDS = 0.05
GIGA = 1e9


class JobFailed(Exception):
    """The load generator could not finish its work through this contender."""


@attrs.frozen
class Job:
    """``count`` units of ``name``; ``slow_count`` for contenders that are ten times slower."""

    name: str
    count: int
    slow_count: int
    size: int = 0
    connections: int = 1


FULL = (
    Job("requests", 8000, 1600, connections=8),
    Job("connections", 500, 100),
    Job("down", 4, 4, size=64 << 20, connections=4),
    Job("up", 4, 4, size=64 << 20, connections=4),
)
QUICK = (
    Job("requests", 2400, 480, connections=8),
    Job("connections", 150, 40),
    Job("down", 2, 2, size=64 << 20, connections=2),
    Job("up", 2, 2, size=64 << 20, connections=2),
)
SLOW = ("mitmproxy",)
UNITS = {
    "cpu_us_per_request": "us",
    "cpu_us_per_connection": "us",
    "cpu_s_per_gb_down": "s/GB",
    "cpu_s_per_gb_up": "s/GB",
    "requests_per_s": "1/s",
    "connections_per_s": "1/s",
    "mb_per_s_down": "MB/s",
    "mb_per_s_up": "MB/s",
    "rss_mb": "MB",
}


def measure(running: Running, job: Job, bed: Bed) -> dict[str, float]:
    """Do one job through one contender and return its metrics; raise JobFailed."""
    count = job.slow_count if running.name in SLOW else job.count
    command = [sys.executable, "-m", "bench.load", job.name, str(running.port)]
    command += [f"{HOST}:{bed.origin_port}", str(running.ca_file), str(count), str(job.size)]
    command += [str(job.connections), running.token]
    if running.mutual is not None:
        command.append(str(running.mutual))
    if running.enter is not None:
        command.append(REDIRECTED)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=running.enter,
    ) as load:
        watchdog = threading.Timer(JOB_SECONDS, load.kill)
        watchdog.start()
        try:
            return _bracket(running, job, load)
        finally:
            watchdog.cancel()
            load.kill()


def _bracket(running: Running, job: Job, load: subprocess.Popen[str]) -> dict[str, float]:
    assert load.stdin is not None and load.stdout is not None
    if load.stdout.readline().strip() != "ready":
        raise JobFailed(_complaint(load))
    time.sleep(SETTLE_SECONDS)
    before = cpu_seconds(running.process.pid)
    load.stdin.write("go\n")
    load.stdin.flush()
    line = load.stdout.readline()
    time.sleep(SETTLE_SECONDS)
    cpu = cpu_seconds(running.process.pid) - before
    if not line:
        raise JobFailed(_complaint(load))
    done = json.loads(line)
    return _metrics(job, cpu, float(done["seconds"]), int(done["units"]))


def _complaint(load: subprocess.Popen[str]) -> str:
    load.kill()
    _, errors = load.communicate()
    lines = errors.strip().splitlines()
    return lines[-1] if lines else "the load generator was stopped at its time limit"


def _metrics(job: Job, cpu: float, seconds: float, units: int) -> dict[str, float]:
    if job.name == "requests":
        return {"cpu_us_per_request": cpu / units * 1e6, "requests_per_s": units / seconds}
    if job.name == "connections":
        return {"cpu_us_per_connection": cpu / units * 1e6, "connections_per_s": units / seconds}
    return {
        f"cpu_s_per_gb_{job.name}": cpu / units * GIGA,
        f"mb_per_s_{job.name}": units / seconds / 1e6,
    }
