"""``slapenir run``: the bounds of a sandbox that nobody asked for, and without control groups."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from slapenir.sandbox.cgroups import ROOT as CGROUPS
from slapenir.sandbox.cgroups import usual_memory
from tests.integration.test_run import SECONDS, RunCase
from tests.integration.test_sandboxes import OTHER_USER
from tests.support.gateway import ROOT

CAP_SYS_RESOURCE = 24
SYSTEM_PYTHON = "/usr/bin/python3"
FORKS = (
    "import os, time\n"
    "made = 0\n"
    "try:\n"
    "    while made < 60:\n"
    "        if os.fork() == 0:\n"
    "            time.sleep(60)\n"
    "        made += 1\n"
    "except OSError:\n"
    "    pass\n"
    "print(made)\n"
)


class UsualTests(RunCase):
    """As root."""

    def test_first_to_go_when_memory_is_short(self) -> None:
        """The kernel takes the sandbox before the gateway; a real root's cannot change that."""
        script = (
            "cd /proc/self; cat oom_score_adj; echo 0 >oom_score_adj; cat /proc/1/oom_score_adj"
        )
        script += " /proc/self/oom_score_adj"
        done = self.run_("--", "bash", "-c", script)
        *set_, changed = done.stdout.split()
        self.assertEqual(set_, [b"1000"] * 2, done.stderr)
        status = Path("/proc/self/status").read_text()
        effective = int(status.partition("CapEff:")[2].split()[0], 16)
        if effective >> CAP_SYS_RESOURCE & 1:
            self.assertEqual(changed, b"1000")
        ours = Path(f"/proc/{self.gateway.process.pid}/oom_score_adj").read_text()
        self.assertLess(int(ours), 1000)

    def test_memory(self) -> None:
        """Three quarters of the machine's, or what was asked for."""
        for more, expected in (((), usual_memory()), (("--memory", "64M"), 64 << 20)):
            process = self.start(*more, "--", "sh", "-c", "echo up; sleep 60")
            self.assertEqual(process.stdout.readline(), b"up\n")
            found = [
                int((group / name).read_text())
                for group in Path(CGROUPS).glob(f"**/slapenir-{process.pid}-*")
                for name in ("memory.limit_in_bytes", "memory.max")
                if (group / name).exists()
            ]
            process.terminate()
            process.wait(SECONDS)
            if not found:
                self.skipTest("there are no control groups for memory")
            self.assertEqual([round(one / expected, 3) for one in found], [1.0])


class UnprivilegedTests(RunCase):
    """A user without a delegated control group."""

    def run_as_other(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run it as another user, with the system's Python and these packages."""
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{sysconfig.get_paths()['purelib']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/nonexistent",
        }
        user = str(OTHER_USER)
        as_other = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", SYSTEM_PYTHON]
        probe = [*as_other, "-c", "import attrs, click, cryptography, rich"]
        if subprocess.run(probe, env=env, capture_output=True).returncode:
            self.skipTest("the system's python3 cannot use this environment's packages")
        return subprocess.run(
            [*as_other, "-m", "slapenir.cli", "run", "--gateway", self.path, *arguments],
            capture_output=True,
            cwd=self.workspace,
            env=env,
            timeout=SECONDS,
        )

    def test_processes(self) -> None:
        """A limit stands in for the group."""
        command = ["--", SYSTEM_PYTHON, "-c", FORKS]
        done = self.run_as_other("--pids", "20", *command)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, b"")
        self.assertTrue(10 < int(done.stdout) < 20, done.stdout)
        control = self.run_as_other(*command)
        self.assertEqual((control.stdout, control.stderr), (b"60\n", b""))

    def test_memory(self) -> None:
        """Nothing stands in for that one: asked for, it is an error, else it is left."""
        asked = self.run_as_other("--memory", "64M", "--", "true")
        self.assertEqual(asked.returncode, 2, asked.stderr)
        self.assertIn(b"no control group for memory", asked.stderr)
        self.assertEqual(self.run_as_other("--", "true").returncode, 0)
