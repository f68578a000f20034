"""``slapenir run``: what a sandbox could do to what is around it, and how it is kept from that."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.integration.case import need
from tests.integration.test_run import SECONDS, RunCase
from tests.integration.test_sandboxes import OTHER_USER, until
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
        which = [sys.executable, "-E", "-P", "-c", "import slapenir; print(slapenir.__file__)"]
        there = subprocess.run(which, capture_output=True, text=True, cwd="/").stdout.strip()
        if there != str(ROOT / "slapenir" / "__init__.py"):
            self.skipTest(f"what the doctor starts is {there or 'not installed'}, not this tree")
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


def below(pid: int) -> Iterator[int]:
    """Yield the processes below one, those above first."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from below(child)


class OwnPlaceTests(RunCase):
    """A runner that would be the agent's to change."""

    def test_modules_in_the_workspace_t239(self) -> None:
        """PYTHONPATH, or this program itself; the nearest that is outside is no reason."""
        inside, beside = self.workspace / "src", self.directory / "work-src"
        for place, status in ((inside, 2), (beside, 0)):
            place.mkdir()
            done = self.run_("--", "true", PYTHONPATH=f"{ROOT}:{place}")
            self.assertEqual(done.returncode, status, done.stderr)
        link = self.directory / "link"
        link.symlink_to(self.workspace)
        done = self.run_("--", "true", PYTHONPATH=f"{ROOT}:{link}")
        self.assertEqual(done.returncode, 2, done.stderr)
        done = self.run_("--workspace", str(ROOT), "--", "true")
        self.assertIn(b"could change", done.stderr)
        self.assertEqual(done.returncode, 2)


class EnvironmentTests(RunCase):
    """What the command's environment does outside of the sandbox: nothing."""

    def library(self) -> Path:
        """Return a library in the workspace that leaves a mark wherever it is loaded."""
        source = self.directory / "evil.c"
        source.write_text(
            "#include <fcntl.h>\n#include <unistd.h>\n"
            "__attribute__((constructor)) static void mark(void) {\n"
            f'  int f = open("{self.mark}", O_WRONLY | O_APPEND);\n'
            '  if (f >= 0) { write(f, "x", 1); close(f); }\n}\n'
        )
        made = self.workspace / "evil.so"
        subprocess.run([need("cc"), "-shared", "-fPIC", "-o", made, source], check=True)
        return made

    def test_preload(self) -> None:
        """--env LD_PRELOAD is the command's alone."""
        self.mark = self.directory / "mark"
        self.mark.write_text("")
        self.mark.chmod(0o666)
        library = self.library()
        for more in ((), ("--rootless",)):
            script = "test $LD_PRELOAD && ls -d $LD_PRELOAD"
            env = ("--env", f"LD_PRELOAD={library}")
            done = self.run_(*more, *env, "--", "sh", "-c", script)
            self.assertEqual((done.returncode, self.mark.read_text()), (0, ""), done.stderr)
        subprocess.run(["/bin/true"], env={"LD_PRELOAD": str(library)}, check=True)
        self.assertEqual(self.mark.read_text(), "x")

    def test_nothing_is_in_the_command_line(self) -> None:
        """Values come in whole, with any byte, and cannot be read in the host's /proc."""
        value = "\udcff x=\n'\""
        process = self.start("--env", f"GIVEN={value}", "--", "sh", "-c", "env -0; echo up; read x")
        output = b""
        while b"up\n" not in output:
            output += process.stdout.read1(65536)
        self.assertIn(b"\0GIVEN=\xff x=\n'\"\0", b"\0" + output)
        self.assertIn(f"\0PWD={self.workspace}\0".encode(), b"\0" + output)
        for pid in below(process.pid):
            self.assertNotIn(b"GIVEN", Path(f"/proc/{pid}/cmdline").read_bytes())


class GroupTests(RunCase):
    """Process groups, and a sandbox that does not want to end."""

    def test_kill_everybody(self) -> None:
        """kill(0, SIGKILL) inside reaches nobody outside, also not of the same user."""
        beside = f"setpriv --reuid {OTHER_USER} --regid {OTHER_USER} --clear-groups sleep 44"
        kill = "import os; os.kill(0, 9)"
        words = shlex.join(self.words("--", "/usr/bin/python3", "-c", kill))
        script = f"{beside} & sleep 0.5; {words}; echo status $?; kill $! && echo alive"
        done = subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            cwd=self.workspace,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            timeout=SECONDS,
        )
        self.assertEqual(done.stdout, b"status 137\nalive\n", done.stderr)

    def test_groups(self) -> None:
        """None of its processes is in the runner's group; without a terminal nor in its session."""
        process = self.start("--", "sh", "-c", "echo up; sleep 60")
        self.assertEqual(process.stdout.readline(), b"up\n")
        inside = list(below(process.pid))
        self.assertGreater(len(inside), 2)
        for pid in inside:
            self.assertNotEqual(os.getpgid(pid), os.getpgid(process.pid))
            self.assertNotEqual(os.getsid(pid), os.getsid(process.pid))

    def test_the_first_process_is_stopped(self) -> None:
        """Held, as who traces it can, it ends nothing any more: the runner does, when told to."""
        process = self.start("--", "sh", "-c", "echo up; sleep 1")
        self.assertEqual(process.stdout.readline(), b"up\n")
        outer, first, *_ = below(process.pid)
        os.kill(first, signal.SIGSTOP)
        time.sleep(2)
        self.assertIsNone(process.poll())
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(SECONDS), 137)
        self.assertGreater(time.monotonic() - began, 5)
        self.assertTrue(
            until(lambda: not any(Path(f"/proc/{one}").exists() for one in (outer, first)))
        )

    def test_interrupts_without_a_terminal(self) -> None:
        """SIGINT for the runner is the command's, which has a session of its own."""
        script = "trap 'echo interrupted; exit 9' INT; echo up; while :; do sleep 0.05; done"
        process = self.start("--", "bash", "-c", script)
        self.assertEqual(process.stdout.readline(), b"up\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(SECONDS), 9)


class JobTests(RunCase):
    """Job control: an interactive shell around, with the keyboard."""

    def setUp(self) -> None:
        super().setUp()
        self.output = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(self.workspace)
            environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PS1": "ready> "}
            os.execve("/bin/bash", ["bash", "--norc", "--noediting", "-i"], environment)  # noqa: S606
        self.addCleanup(os.waitpid, self.pid, 0)
        self.addCleanup(os.kill, self.pid, signal.SIGKILL)
        self.addCleanup(os.close, self.master)
        self.wait("ready> ")

    def wait(self, words: str) -> None:
        """Wait until this has come on the terminal, and forget it and what was before."""
        deadline = time.monotonic() + SECONDS
        while words.encode() not in self.output:
            self.assertLess(time.monotonic(), deadline, (words, self.output))
            if select.select([self.master], [], [], 0.1)[0]:
                self.output += os.read(self.master, 4096)
        self.output = self.output.split(words.encode(), 1)[1]

    def ask_until(self, words: str) -> None:
        """Ask the shell for a prompt again and again until this has come."""
        deadline = time.monotonic() + SECONDS
        while words.encode() not in self.output:
            self.assertLess(time.monotonic(), deadline, (words, self.output))
            self.type("\n")
            if select.select([self.master], [], [], 0.5)[0]:
                self.output += os.read(self.master, 4096)
        self.wait(words)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def sandbox(self, script: str, after: str = "") -> None:
        """Start a script in a sandbox from the shell."""
        self.type(shlex.join(self.words("--", "bash", "-c", script)) + f"{after}\n")

    def test_stop_and_go_on(self) -> None:
        """Ctrl-Z gives the shell back; fg goes on with what was typed; Ctrl-C then ends it."""
        script = "echo u''p; read line; echo got-$line; sleep 60"
        self.sandbox(script)
        self.wait("\nup")
        self.type("\x1a")
        self.wait("Stopped")
        self.wait("ready> ")
        self.type("echo she''ll\n")
        self.wait("shell")
        self.type("fg\n")
        self.wait("run")
        self.type("word\n")
        self.wait("got-word")
        self.type("\x03")
        self.wait("ready> ")
        self.type("echo status=$?\n")
        self.wait("status=130")

    def test_only_the_command_stops(self) -> None:
        """Programs that take Ctrl-Z themselves stop nobody else: that stops all as well."""
        self.sandbox("echo u''p; kill -STOP $$; echo on-a''gain")
        self.wait("\nup")
        self.wait("Stopped")
        self.type("fg\n")
        self.wait("on-again")
        self.wait("ready> ")

    def test_in_the_background(self) -> None:
        """One that wants to read waits for fg; the terminal stays the shell's meanwhile."""
        self.sandbox("echo u''p; read line; echo got-$line", " &")
        self.wait("up")
        self.ask_until("Stopped")  # the shell tells of it with its next prompt
        self.type("fg\n")
        self.wait("run")
        self.type("word\n")
        self.wait("got-word")
        self.wait("ready> ")

    def test_a_pager(self) -> None:
        """Who reads the sandbox's output has the terminal, until the sandbox wants it."""
        self.sandbox(
            "echo u''p; read line </dev/tty; echo got-$line", " | { read x; echo $x-x; cat; }"
        )
        self.wait("up-x")
        self.type("word\n")
        self.wait("got-word")
        self.wait("ready> ")
        self.sandbox("echo u''p; sleep 60", " | cat")
        self.wait("\nup")
        self.type("\x03")
        self.wait("ready> ")

    def test_a_script_around(self) -> None:
        """It has the terminal back when the sandbox has ended, also from a shell inside."""
        words = shlex.join(
            self.words("--", "bash", "--norc", "-ic", "set -m; sleep 0.1; echo i''n")
        )
        self.type(f"bash -c {shlex.quote(words + '; read line; echo got-$line')}\n")
        self.wait("\nin")
        self.type("word\n")
        self.wait("got-word")
        self.wait("ready> ")
