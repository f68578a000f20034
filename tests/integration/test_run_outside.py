"""``slapenir run``: what a sandbox could do to what is around it, and how it is kept from that."""

from __future__ import annotations

import subprocess
import sys

from tests.integration.test_run import SECONDS, RunCase
from tests.support.gateway import ROOT

TOOLS = ("nft", "ip", "certutil", "bwrap", "python3", "sh")


class PlantedTests(RunCase):
    """Programs and modules that the agent left in the workspace, which is on PATH."""

    def setUp(self) -> None:
        super().setUp()
        self.bin = self.workspace / "bin"
        self.bin.mkdir()
        self.mark = self.directory / "mark"
        for name in TOOLS:
            planted = self.bin / name
            planted.write_text(f"#!/bin/bash\necho $0 >> {self.mark}\nexec /usr/bin/{name} $@\n")
            planted.chmod(0o755)
        self.path = f"{self.bin}:.:/usr/local/bin:/usr/sbin:/usr/bin"

    def marked(self) -> str:
        return self.mark.read_text() if self.mark.exists() else ""

    def words(self, *arguments: str) -> list[str]:
        """Return the command line; the socket has another name here than PATH."""
        run = [sys.executable, "-m", "slapenir.cli", "run", "--gateway"]
        run += [str(self.directory / "join.sock"), "--identity", "sandbox", "--user", "nobody"]
        return [*run, *arguments]

    def test_tools_on_path(self) -> None:
        """No tool that the runner uses comes from there; the command itself may."""
        for more in ((), ("--rootless",)):
            done = self.run_(*more, "--", "/bin/true", PATH=self.path)
            self.assertEqual((done.returncode, self.marked()), (0, ""), done.stderr)
        subprocess.run(["nft", "--version"], env={"PATH": self.path}, capture_output=True)
        self.assertIn("/nft", self.marked())
        self.mark.unlink()
        inside = self.run_("--", "bash", "-c", f"ip -V; cat {self.mark}", PATH=self.path)
        self.assertIn(b"/bin/ip", inside.stdout, inside.stderr)
        self.assertEqual(self.marked(), "")

    def test_tools_of_the_doctor(self) -> None:
        """Nor any that the doctor uses, with what it needs to be there."""
        words = [sys.executable, "-m", "slapenir.cli", "doctor", "--config", "/no/such.toml"]
        done = subprocess.run(
            words,
            capture_output=True,
            cwd=self.workspace,
            env={"PATH": self.path, "PYTHONPATH": str(ROOT), "HOME": str(self.directory)},
            timeout=240,
        )
        self.assertIn(b"bubblewrap can make them", done.stdout, done.stderr)
        self.assertEqual(self.marked(), "")

    def plant_modules(self) -> None:
        for name in ("base64", "twisted", "attr", "usercustomize", "sitecustomize"):
            code = f"open({str(self.mark)!r}, 'a').write(__file__)\n"
            (self.workspace / f"{name}.py").write_text(code)

    def test_modules_where_it_is_started(self) -> None:
        """None comes from the workspace, for the runner and for a gateway of its own."""
        self.plant_modules()
        done = self.run_("--", "/bin/true")
        self.assertEqual((done.returncode, self.marked()), (0, ""), done.stderr)
        self.gateway.stop()
        words = [sys.executable, "-P", "-m", "slapenir.cli", "run", "--user", "nobody"]
        words += ["-c", str(self.gateway.config_file), "--identity", "sandbox", "--", "/bin/true"]
        done = subprocess.run(
            words,
            capture_output=True,
            cwd=self.workspace,
            env={**self.gateway.environment(), "PYTHONPATH": str(ROOT), "PYTHONSTARTUP": "base64"},
            timeout=SECONDS,
        )
        self.assertEqual((done.returncode, self.marked()), (0, ""), done.stderr)
        control = [sys.executable, "-c", "import base64"]
        subprocess.run(control, cwd=self.workspace, env={}, check=True)
        self.assertIn("base64", self.marked())
