"""``slapenir run``: its status when a sandbox cannot be made, and where there is nothing usual."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from slapenir.sandbox.places import private_place
from tests.integration.scene import API
from tests.integration.test_run import SECONDS, RunCase
from tests.integration.test_sandboxes import until
from tests.support.gateway import ROOT


class StatusTests(RunCase):
    """2 for what cannot be made, with a word; never a traceback."""

    def bad(self, *arguments: str, words: str = "") -> None:
        done = self.run_(*arguments)
        self.assertEqual(done.returncode, 2, (arguments, done.stderr))
        self.assertNotIn(b"Traceback", done.stderr)
        self.assertIn(words, done.stderr.decode())

    def test_numbers(self) -> None:
        """Those that are none, or none that a kernel could take; the control beside each."""
        for cpus in ("nan", "inf", "-inf", "1e30", "0"):
            self.bad("--cpus", cpus, "--", "true", words="--cpus")
        for user in ("²", "4294967295", "99999999999", "-1", "9" * 5000):
            self.bad("--user", user, "--", "true", words=user[:20])
        for memory, words in (("1K", "at least"), ("1M", "at least"), ("99999999T", "too much")):
            self.bad("--memory", memory, "--", "true", words=words)
        for pids, words in (("1", "could not be made"), ("4194305", "--pids"), ("x", "--pids")):
            self.bad("--pids", pids, "--", "true", words=words)
        more = ("--cpus", "1.5", "--user", "1234", "--memory", "32M", "--pids", "10")
        most = ("--cpus", "10000", "--memory", "4194304T", "--pids", "4194304")
        for one in (more, most):
            done = self.run_(*one, "--", "/bin/true")
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_user_who_cannot_get_to_the_workspace(self) -> None:
        self.directory.chmod(0o700)
        self.addCleanup(self.directory.chmod, 0o755)
        self.bad("--user", "1501", "--", "true", words="could not be made")

    def test_no_command(self) -> None:
        """An empty word is not found, as for a shell; an empty line is none."""
        done = self.run_("--", "")
        self.assertEqual(done.returncode, 127, done.stderr)
        self.assertNotIn(b"Traceback", done.stderr)
        self.bad("--")

    def test_one_is_not_enough(self) -> None:
        """The command's own 1 and 2 are its own."""
        for status in (1, 2):
            done = self.run_("--", "sh", "-c", f"exit {status}")
            self.assertEqual((done.returncode, done.stderr), (status, b""))

    def test_a_gateway_that_is_not_there(self) -> None:
        """One that was named is not replaced, also where there is a configuration."""
        words = [sys.executable, "-m", "slapenir.cli", "run", "--user", "nobody"]
        words += ["-c", str(self.gateway.config_file), "--identity", "sandbox", "--gateway"]
        environment = {**self.gateway.environment(), "PYTHONPATH": str(ROOT)}
        for path, status in ((self.path, 0), ("/no/such.sock", 2)):
            if status:
                self.gateway.stop()  # so that one of its own could start
            done = subprocess.run(
                [*words, path, "--", "true"],
                capture_output=True,
                cwd=self.workspace,
                env=environment,
                timeout=SECONDS,
            )
            self.assertEqual(done.returncode, status, done.stderr)

    def test_closed_descriptors(self) -> None:
        """Without standard input, output and errors the status is the command's, all the same."""
        for closed in ("<&-", "<&- >&-", "<&- >&- 2>&-", ">&- 2>&-"):
            script = f'"$@" {closed}'
            words = ["bash", "-c", script, "-", *self.words("--", "sh", "-c", "exit 5")]
            done = subprocess.run(
                words,
                capture_output=True,
                cwd=self.workspace,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
                timeout=SECONDS,
            )
            self.assertEqual(done.returncode, 5, (closed, done.stderr))


class LeftTests(RunCase):
    """What a runner that was killed has left."""

    def test_the_next_one_sweeps(self) -> None:
        """The directories of a dead one go, those of one that lives do not."""
        top = Path(private_place(()))
        before = set(top.iterdir())

        def left() -> set[Path]:
            return {p for p in top.iterdir() if p.name.startswith("slapenir-kit-")} - before

        script = "echo up; sleep 60"
        dead, alive = self.start(script), self.start(script)
        self.assertEqual(len(left()), 2)
        dead.kill()
        dead.wait()
        self.assertEqual(len(left()), 2)
        done = self.run_("--", "true")
        self.assertEqual(done.returncode, 0, done.stderr)
        (one,) = left()
        self.assertTrue((one / "bundle.pem").exists())
        alive.terminate()
        alive.wait()
        self.assertEqual(left(), set())

    def start(self, script: str) -> subprocess.Popen:  # type: ignore[override]
        """Start a script and wait until it is up."""
        process = subprocess.Popen(
            self.words("--", "sh", "-c", script),
            stdout=subprocess.PIPE,
            cwd=self.workspace,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"up\n")
        return process


class TogetherTests(RunCase):
    """Several sandboxes at once with the same configuration, and no gateway that runs."""

    def start(self, script: str) -> subprocess.Popen:  # type: ignore[override]
        """Start a script in a sandbox with the configuration only."""
        words = [sys.executable, "-m", "slapenir.cli", "run", "--user", "nobody"]
        words += ["-c", str(self.gateway.config_file), "--identity", "sandbox", "--"]
        process = subprocess.Popen(
            [*words, "sh", "-c", script, f"https://{API}:{self.origin.port}/"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.workspace,
            env={**self.gateway.environment(), "PYTHONPATH": str(ROOT)},
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_the_second_joins_the_firsts(self) -> None:
        """Both work, also started at once; the one that stays goes on by itself."""
        self.gateway.stop()
        once = 'curl -sS -m 20 -o /dev/null -w "%{http_code}\\n" "$0"'
        first, second = (self.start(f"{once}; read x; {once}") for _ in range(2))
        for one in (first, second):
            self.assertEqual(one.stdout.readline(), b"200\n")
        alive = ["pgrep", "-f", f"{self.gateway.config_file} --only-sandboxes"]
        running = subprocess.run(alive, capture_output=True, text=True).stdout.split()
        self.assertEqual(len(running), 1)
        owner = int(Path(f"/proc/{running[0]}/stat").read_text().rpartition(")")[2].split()[1])
        goes, stays = (first, second) if owner == first.pid else (second, first)
        goes.stdin.write(b"\n")
        goes.stdin.flush()
        goes.wait(SECONDS)
        output, errors = stays.communicate(b"\n", SECONDS)
        self.assertEqual((stays.returncode, output), (0, b"200\n"), errors)
        gone = until(lambda: subprocess.run(alive, capture_output=True).returncode != 0)
        self.assertTrue(gone)
