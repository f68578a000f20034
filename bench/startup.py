"""What a sandbox costs before its command runs: ``slapenir run -- true`` beside ``bwrap ... true``.

``python bench/startup.py [RUNS]``.  The three take turns, RUNS times each (default 30): bubblewrap
with the same namespaces and mounts and no network of its own, ``slapenir run`` that joins a running
gateway, and ``slapenir run`` that starts one.  Prints medians in milliseconds and their ratios.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if str(_ROOT) not in sys.path:
    sys.path.insert(0, str(_ROOT))

from tests.support.certs import ThrowawayCA  # noqa: E402 - run as a script, the path comes first
from tests.support.gateway import IDENTITY, Gateway, Rule  # noqa: E402

_BWRAP = (
    "bwrap --unshare-all --die-with-parent --proc /proc --dev /dev --ro-bind /usr /usr "
    "--symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --ro-bind /etc /etc "
    "--tmpfs /tmp --tmpfs /run --cap-drop ALL true"
).split()


def measure(commands: dict[str, list[str]], runs: int, env: dict[str, str]) -> dict[str, float]:
    """Return the median of each command's wall time, in milliseconds; they take turns."""
    seen: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, env=env, capture_output=True)
            seen[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(times) for name, times in seen.items()}


def main(argv: list[str]) -> int:
    """Run the comparison and print it."""
    runs = int(argv[0]) if argv else 30
    with tempfile.TemporaryDirectory(prefix="slapenir-startup-") as scratch:
        directory = Path(scratch)
        directory.chmod(0o755)
        workspace = directory / "work"
        workspace.mkdir()
        workspace.chmod(0o777)
        ca = ThrowawayCA(directory)
        place = directory / "gateway"
        place.mkdir()
        path = str(directory / "join.sock")
        table = f'[sandboxes]\nendpoint = "unix:{path}:mode=666"\n'
        rules = [Rule("any", ("api.example.test",), (443,))]
        gateway = Gateway(place, [], rules, {"api.example.test": 443}, ca.ca_file, extra=table)
        gateway.start()
        user = ["--user", "nobody"] if os.geteuid() == 0 else []
        run = [sys.executable, "-m", "slapenir.cli", "run", "--workspace", str(workspace), *user]
        run += ["--identity", IDENTITY]
        env = gateway.environment()
        try:
            joined = [*run, "--gateway", path, "--", "true"]
            found = measure({"bwrap": _BWRAP, "joins": joined}, runs, env)
        finally:
            gateway.stop()
        alone = [*run, "--config", str(gateway.config_file), "--", "true"]
        found |= measure({"starts": alone}, runs, env)
    base = found["bwrap"]
    for name, milliseconds in found.items():
        print(f"{name:<8} {milliseconds:8.1f} ms   {milliseconds / base:6.1f} x bwrap")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
