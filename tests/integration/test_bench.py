"""The benchmark itself: it ends, and its result has the promised shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench import contenders, report, run
from tests.support.gateway import ROOT

BENCH_SECONDS = 120.0


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run bench/run.py to its end."""
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "run.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=BENCH_SECONDS,
    )


class TestBench(SynchronousTestCase):
    """With the contender that needs nothing but Twisted."""

    def test_relay_alone_gives_every_metric(self) -> None:
        result = Path(self.mktemp()).resolve()
        done = bench("--quick", "--rounds", "1", "--only", "relay", "--json", str(result))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        document = json.loads(result.read_text("ascii"))
        for metric in (
            "cpu_us_per_request",
            "cpu_us_per_connection",
            "cpu_s_per_gb_down",
            "cpu_s_per_gb_up",
            "requests_per_s",
            "rss_mb",
        ):
            row = document[metric]["relay"]
            self.assertEqual(set(row), {"median", "min", "max", "unit"})
            self.assertGreater(row["min"], 0)
            self.assertLessEqual(row["min"], row["median"])
            self.assertLessEqual(row["median"], row["max"])

    def test_an_absent_contender_is_named_with_its_reason_and_has_no_numbers(self) -> None:
        self.patch(contenders, "_CERTGEN", ())
        missing: dict[str, str] = {}
        bed = contenders.Bed(Path("."), None, 0, Path("."))  # type: ignore[arg-type]
        self.assertEqual(list(run._start_all(["squid"], bed, missing)), [])
        self.assertIn("squid with OpenSSL is not installed", missing["squid"])
        samples: report.Samples = {
            "cpu_us_per_request": {"slapenir": [110.0, 90.0, 130.0], "relay": [100.0]}
        }
        text = report.table(samples, missing)
        self.assertIn("squid: absent: squid with OpenSSL is not installed", text)
        self.assertIn("slapenir = 1.100 x relay", text)
        self.assertEqual(list(report.summarise(samples)), ["cpu_us_per_request"])

    def test_help(self) -> None:
        done = bench("--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("--quick", done.stdout)
