"""``slapenir run``: what a command in a sandbox gets, and what is left when it has ended."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from slapenir.sandbox.cgroups import ROOT as CGROUPS
from slapenir.sandbox.places import private_place
from tests.integration.scene import API
from tests.integration.test_sandboxes import OTHER_USER, Case, until
from tests.support.gateway import ROOT
from tests.support.netns import need_namespaces
from tests.support.traces import traces

SECONDS = 30.0


class RunCase(Case):
    """A running gateway, and a workspace that everybody may write to."""

    def setUp(self) -> None:
        need_namespaces("nft", "bwrap")
        super().setUp()
        self.workspace = self.directory / "work"
        self.workspace.mkdir()
        self.workspace.chmod(0o777)

    def words(self, *arguments: str) -> list[str]:
        """Return a command line of ``slapenir run`` that joins the gateway."""
        run = [sys.executable, "-m", "slapenir.cli", "run", "--gateway", self.path]
        return [*run, "--identity", "sandbox", "--user", "nobody", *arguments]

    def run_(self, *arguments: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess:
        """Run it to its end; ``ran`` is the runner's process id afterwards."""
        process = subprocess.Popen(
            self.words(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.workspace,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
        )
        self.ran = process.pid
        with process:
            try:
                output, errors = process.communicate(stdin, SECONDS)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start it and leave it running."""
        process = subprocess.Popen(
            self.words(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.workspace,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process


class CommandTests(RunCase):
    """Status, streams, environment."""

    def test_status(self) -> None:
        """The command's own; 127 and 126 as a shell has them; 128 and more for a signal."""
        for arguments, status in (
            (["true"], 0),
            (["sh", "-c", "exit 7"], 7),
            (["sh", "-c", "kill -9 $$"], 137),
            (["sh", "-c", "kill -TERM $$"], 143),
            (["no-such-command"], 127),
            (["/etc/passwd"], 126),
        ):
            for more in ((), ("--rootless",)):
                done = self.run_(*more, "--", *arguments)
                self.assertEqual(done.returncode, status, (arguments, done.stderr))
                self.assertEqual(done.stdout, b"")

    def test_signals_are_as_usual(self) -> None:
        """Nothing is ignored that the command does not know of."""
        done = self.run_("--", "sh", "-c", "grep SigIgn /proc/self/status; yes | head -1")
        _, ignored, yes = done.stdout.split()
        ours = (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)
        self.assertEqual(int(ignored, 16) & sum(1 << (number - 1) for number in ours), 0)
        self.assertEqual(yes, b"y")
        self.assertEqual(done.stderr, b"")

    def test_streams(self) -> None:
        """Bytes pass both ways, ends too; nothing of ours is on standard output."""
        data = bytes(range(256)) * 4096
        done = self.run_("--", "cat", stdin=data)
        self.assertEqual((done.returncode, done.stdout), (0, data), done.stderr)
        done = self.run_("--", "sh", "-c", "echo told >&2")
        self.assertEqual((done.stdout, done.stderr), (b"", b"told\n"))

    def test_environment(self) -> None:
        """Placeholders and the trust kit; nothing else that was around, and no secret."""
        done = self.run_(
            "--env", "WANTED", "--env", "GIVEN=x y", "--", "env", "-0",
            HTTPS_PROXY="http://127.0.0.1:1", LD_PRELOAD="", OPENAI_API_KEY=self.secret,
            AWS_SECRET_ACCESS_KEY="x", WANTED="yes", LANG="C.UTF-8", SSH_AUTH_SOCK="/tmp/x",
        )  # fmt: skip
        found = dict(one.split("=", 1) for one in done.stdout.decode().split("\0") if one)
        self.assertEqual(
            (found["WANTED"], found["GIVEN"], found["LANG"]), ("yes", "x y", "C.UTF-8")
        )
        for name in ("HTTPS_PROXY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK",
                     "PYTHONPATH", "LD_PRELOAD"):  # fmt: skip
            self.assertNotIn(name, found)
        self.assertEqual(len(found["API_KEY"]), len(self.secret))
        self.assertEqual(traces(done.stdout, self.secret), [])
        for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "PIP_CERT", "SSL_CERT_DIR"):
            there = self.run_("--", "test", "-r", found[name])
            self.assertEqual(there.returncode, 0, name)

    def test_a_request(self) -> None:
        """curl as it is: the name resolves, the origin sees the key, the command never does."""
        script = 'curl -sS -i -H "Authorization: Bearer $API_KEY" "$0"'
        for more in ((), ("--rootless",)):
            done = self.run_(*more, "--", "sh", "-c", script, f"https://{API}:{self.origin.port}/")
            self.assertIn(b"HTTP/1.1 200", done.stdout, done.stderr)
            self.assertEqual(traces(done.stdout + done.stderr, self.secret), [])
        seen = {one.header(b"authorization") for one in self.origin.requests}
        self.assertEqual(seen, {b"Bearer " + self.secret.encode()})


class ViewTests(RunCase):
    """What is there to see and to write to."""

    def test_writable(self) -> None:
        """The workspace stays; home and /tmp are its own and are gone; the rest is read-only."""
        script = (
            "echo kept > here; echo x > ~/there; echo x > /tmp/there;"
            "for f in /usr/x /etc/x /x /run/slapenir/trust/x;"
            "do echo x 2>/dev/null > $f && echo $f; done"
        )
        done = self.run_("--", "sh", "-c", script)
        self.assertEqual(done.stdout, b"", done.stderr)
        self.assertEqual((self.workspace / "here").read_text(), "kept\n")
        self.assertNotEqual((self.workspace / "here").stat().st_uid, 0)
        self.assertFalse(os.path.exists("/tmp/there"))
        again = self.run_("--", "sh", "-c", "ls -A ~ /tmp")
        self.assertNotIn(b"there", again.stdout)

    def test_home(self) -> None:
        """--home keeps it."""
        home = self.directory / "home"
        home.mkdir()
        home.chmod(0o777)
        for _ in range(2):
            done = self.run_("--home", str(home), "--", "sh", "-c", "echo x >> ~/.history")
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((home / ".history").read_text(), "x\nx\n")

    def test_nothing_of_the_gateways(self) -> None:
        """State, audit and configuration are not there, also where their directory is shown."""
        place = str(self.gateway.directory)
        script = f'ls -R "{place}"; cat "{place}/slapenir.toml" "{place}"/state/* 2>&1'
        for more in ((), ("--ro", place)):
            run = [*self.words()[:4], "--config", str(self.gateway.config_file), *self.words()[6:]]
            done = subprocess.run(
                [*run, *more, "--", "sh", "-c", script],
                capture_output=True,
                cwd=self.workspace,
                env={**self.gateway.environment(), "PYTHONPATH": str(ROOT)},
                timeout=SECONDS,
            )
            for secret in (b"[gateway]", b"PRIVATE KEY", self.secret.encode()):
                self.assertNotIn(secret, done.stdout)
            self.assertNotIn(b"audit.jsonl", done.stdout)

    def test_others(self) -> None:
        """Processes of the host, its sockets and its homes are not there."""
        done = self.run_("--", "sh", "-c", "ls -d /proc/[0-9]*; ls -A /root /run /home; hostname")
        self.assertLess(done.stdout.count(b"/proc/"), 10)
        self.assertIn(b"sandbox", done.stdout)
        self.assertNotIn(b"docker.sock", done.stdout)

    def test_workspaces_that_are_refused_t239(self) -> None:
        """The gateway's directory, a home, the system; each with what to do; the control runs."""
        for workspace in (str(self.directory), "/", "/root", "/etc", "/usr/local", "/tmp", "/no"):
            run = [*self.words()[:4], "--config", str(self.gateway.config_file), *self.words()[6:]]
            done = subprocess.run(
                [*run, "--workspace", workspace, "--", "true"],
                capture_output=True,
                text=True,
                env={**self.gateway.environment(), "PYTHONPATH": str(ROOT)},
                timeout=SECONDS,
            )
            self.assertEqual(done.returncode, 2, (workspace, done.stderr))
            self.assertIn("remedy", done.stderr)
        self.assertEqual(self.run_("--workspace", str(self.workspace), "--", "true").returncode, 0)

    def test_a_workspace_of_somebody_else(self) -> None:
        """It runs, and says why nothing can be written."""
        self.workspace.chmod(0o755)
        done = self.run_("--", "sh", "-c", "touch x")
        self.assertIn(b"is not writable for user 65534; --user names another", done.stderr)
        self.workspace.chmod(0o777)
        self.assertEqual(self.run_("--", "sh", "-c", "touch x").stderr, b"")

    def test_show(self) -> None:
        """--show says what would be done and does nothing."""
        done = self.run_("--show", "--", "claude")
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in (b"workspace", b"--ro-bind /usr /usr", b"claude"):
            self.assertIn(word, done.stdout)
        self.assertEqual(self.events("SandboxJoined"), [])


class SignalTests(RunCase):
    """Signals and the terminal."""

    def test_sigterm(self) -> None:
        """The command gets it, may end in its own way, and its status is passed on."""
        script = "trap 'echo ending; exit 5' TERM; echo up; while :; do sleep 0.05; done"
        process = self.start("--", "sh", "-c", script)
        self.assertEqual(process.stdout.readline(), b"up\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(SECONDS), 5)
        self.assertEqual(process.stdout.read(), b"ending\n")

    def test_the_runner_is_killed(self) -> None:
        """Nothing is left: the command dies with it and the gateway lets go."""
        process = self.start("--", "sh", "-c", "echo up; sleep 77.7")
        self.assertEqual(process.stdout.readline(), b"up\n")
        process.kill()
        process.wait()
        alive = ["pgrep", "-f", "sleep 77.7$"]
        gone = until(lambda: subprocess.run(alive, capture_output=True).returncode != 0)
        self.assertTrue(gone)
        self.assertTrue(until(lambda: bool(self.events("SandboxLeft"))))

    def terminal(self, script: str, keys: list[bytes]) -> tuple[int, bytes]:
        """Run a script on a terminal; send each key once a line of output has come."""
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(self.workspace)
            os.environ["PYTHONPATH"] = str(ROOT)
            words = self.words("--", "bash", "-c", script)
            os.execvp(words[0], words)  # noqa: S606
        output, deadline = b"", time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if keys and output.count(b"\n") > 0 and b"ready" in output:
                os.write(master, keys.pop(0))
                output = output.replace(b"ready", b"sent")
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                more = os.read(master, 4096)
            except OSError:
                break
            if not more:
                break
            output += more
        os.close(master)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), output

    def test_ctrl_c(self) -> None:
        """Ctrl-C reaches the command on the terminal, not only the runner."""
        script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done"
        status, output = self.terminal(script, [b"\x03"])
        self.assertEqual(status, 9, output)
        self.assertIn(b"interrupted", output)

    def test_a_terminal(self) -> None:
        """It is one, and what is typed arrives; typing into it by ioctl does not work."""
        script = (
            "test -t 0 && test -t 1 && echo is; echo ready; read line; echo got $line;"
            "/usr/bin/python3 -c 'import fcntl; fcntl.ioctl(0, 0x5412, b\"x\")' 2>&1 | tail -1"
        )
        status, output = self.terminal(script, [b"words\n"])
        self.assertEqual(status, 0, output)
        for word in (b"is\r\n", b"got words", b"not permitted"):
            self.assertIn(word, output)


class RestartTests(RunCase):
    """--restart, and a gateway that goes away."""

    def test_until_it_succeeds(self) -> None:
        script = "echo x >> runs; test $(wc -l < runs) -ge 3"
        done = self.run_("--restart", "--", "sh", "-c", script)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.workspace / "runs").read_text(), "x\n" * 3)
        self.assertIn(b"again in 1 s", done.stderr)
        self.assertEqual(len(self.events("SandboxJoined")), 1)

    def test_told_to_end(self) -> None:
        """A SIGTERM ends it for good."""
        process = self.start("--restart", "--", "sh", "-c", "echo up; sleep 60")
        self.assertEqual(process.stdout.readline(), b"up\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(SECONDS), 143)

    def test_the_gateway_is_killed(self) -> None:
        """T208: the sandbox joins the next one by itself, with the same sockets; requests work."""
        script = (
            'curl -sS -o /dev/null -w "%{http_code}\\n" "$0"; read word;'
            'curl -sS -m 20 -o /dev/null -w "%{http_code}\\n" "$0"'
        )
        process = subprocess.Popen(
            self.words("--", "sh", "-c", script, f"https://{API}:{self.origin.port}/"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.workspace,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual(process.stdout.readline(), b"200\n")
        self.gateway.process.kill()
        self.gateway.process.wait()
        self.gateway.launch()
        output, errors = process.communicate(b"go\n", SECONDS)
        self.assertEqual((output, process.returncode), (b"200\n", 0), errors)
        self.assertIn(b"the gateway is back", errors)


class BoundsTests(RunCase):
    """Control groups."""

    def groups(self) -> list[Path]:
        """Return the groups that are left of the runner that ended last."""
        return list(Path(CGROUPS).glob(f"**/slapenir-{self.ran}-*"))

    def test_processes(self) -> None:
        """A fork bomb meets its bound; the group is gone afterwards."""
        script = "for i in $(seq 60); do sleep 2 & done 2>&1 | grep -c -i 'resource' ; wait"
        done = self.run_("--pids", "30", "--", "bash", "-c", script)
        if b"no control group" in done.stderr:
            self.skipTest(done.stderr.decode())
        self.assertTrue(b"fork" in done.stderr or done.stdout.strip() not in (b"", b"0"), done)
        self.assertEqual(self.groups(), [])

    def test_memory(self) -> None:
        """More than its memory: killed, and only it."""
        script = "/usr/bin/python3 -c 'x = bytearray(300 << 20); print(len(x))'"
        done = self.run_("--memory", "100M", "--", "sh", "-c", script)
        if b"no control group" in done.stderr:
            self.skipTest(done.stderr.decode())
        self.assertEqual((done.returncode, done.stdout), (137, b""), done.stderr)
        control = self.run_("--memory", "600M", "--", "sh", "-c", script)
        self.assertEqual(control.stdout.strip(), str(300 << 20).encode(), control.stderr)
        self.assertEqual(self.groups(), [])

    def test_bad_sizes(self) -> None:
        for size in ("0", "-1", "4X", "lots"):
            done = self.run_("--memory", size, "--", "true")
            self.assertEqual(done.returncode, 2, done.stderr)


class UnprivilegedTests(RunCase):
    """A user who is not root and cannot read the gateway's files, by the system's Python."""

    def test_another_user(self) -> None:
        """It is the identity that has its uid; the same walls, by a user namespace."""
        python, packages = "/usr/bin/python3", sysconfig.get_paths()["purelib"]
        script = 'id -u; curl -sS -o /dev/null -w "%{http_code} " -m 5 "$0"; touch here; echo done'
        number = str(OTHER_USER)
        probe = [python, "-c", "import attrs, click, cryptography, rich"]
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{packages}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/nonexistent",
        }
        as_other = ["setpriv", "--reuid", number, "--regid", number, "--clear-groups"]
        if subprocess.run([*as_other, *probe], env=env, capture_output=True).returncode:
            self.skipTest("the system's python3 cannot use this environment's packages")
        run = [*as_other, python, "-m", "slapenir.cli", "run", "--gateway", self.path, "--"]
        done = subprocess.run(
            [*run, "sh", "-c", script, f"https://{API}:{self.origin.port}/"],
            capture_output=True,
            cwd=self.workspace,
            env=env,
            timeout=SECONDS,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.split()[0], number.encode())
        self.assertEqual(done.stdout.split()[-1], b"done")
        self.assertEqual((self.workspace / "here").stat().st_uid, OTHER_USER)
        self.assertEqual(self.events("SandboxJoined")[0]["identity"], "other")
        self.assertEqual(self.events("SandboxJoined")[0]["uid"], OTHER_USER)


class OwnGatewayTests(RunCase):
    """Without a running gateway."""

    def alone(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        """Run it with the configuration only."""
        words = [sys.executable, "-m", "slapenir.cli", "run", "--user", "nobody", *arguments]
        return subprocess.run(
            words,
            capture_output=True,
            cwd=self.workspace,
            env={**self.gateway.environment(), "PYTHONPATH": str(ROOT), **env},
            timeout=SECONDS,
        )

    def test_starts_one(self) -> None:
        """One of its own, which is gone afterwards; its directory too."""
        self.gateway.stop()
        config = str(self.gateway.config_file)
        script = 'curl -sS -o /dev/null -w "%{http_code}" "$0"'
        url = f"https://{API}:{self.origin.port}/"
        place = Path(private_place(()))
        before = set(place.glob("slapenir-run-*"))
        words = ["-c", config, "--identity", "sandbox", "--", "sh", "-c", script, url]
        done = self.alone(*words)
        self.assertEqual((done.returncode, done.stdout), (0, b"200"), done.stderr)
        self.assertEqual(set(place.glob("slapenir-run-*")) - before, set())
        left = subprocess.run(["pgrep", "-f", f"{config} --only-sandboxes"], capture_output=True)
        self.assertEqual(left.stdout, b"")

    def test_its_gateway_is_killed(self) -> None:
        """One that it started is started again, and requests work again."""
        self.gateway.stop()
        config = str(self.gateway.config_file)
        script = (
            'curl -sS -o /dev/null -w "%{http_code}\\n" "$0"; read word;'
            'curl -sS -m 20 -o /dev/null -w "%{http_code}\\n" "$0"'
        )
        words = [sys.executable, "-m", "slapenir.cli", "run", "--user", "nobody", "-c", config]
        words += ["--identity", "sandbox", "--", "sh", "-c", script]
        process = subprocess.Popen(
            [*words, f"https://{API}:{self.origin.port}/"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.workspace,
            env={**self.gateway.environment(), "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual(process.stdout.readline(), b"200\n")
        subprocess.run(["pkill", "-KILL", "-f", f"{config} --only-sandboxes"], check=True)
        output, errors = process.communicate(b"go\n", SECONDS)
        self.assertEqual((output, process.returncode), (b"200\n", 0), errors)
        self.assertIn(b"the gateway is back", errors)

    def test_killed_with_its_gateway(self) -> None:
        """A runner that is killed takes the gateway that it started along."""
        self.gateway.stop()
        config = str(self.gateway.config_file)
        words = [sys.executable, "-m", "slapenir.cli", "run", "--user", "nobody", "-c", config]
        process = subprocess.Popen(
            [*words, "--identity", "sandbox", "--", "sh", "-c", "echo up; sleep 60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.workspace,
            env={**self.gateway.environment(), "PYTHONPATH": str(ROOT)},
        )
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), b"up\n")
        alive = ["pgrep", "-f", f"{config} --only-sandboxes"]
        self.assertEqual(subprocess.run(alive, capture_output=True).returncode, 0)
        process.kill()
        process.wait()
        self.assertTrue(until(lambda: subprocess.run(alive, capture_output=True).returncode != 0))

    def test_what_is_wrong(self) -> None:
        """Each with its remedy, status 2, and nothing run."""
        config = str(self.gateway.config_file)
        no_home = {"HOME": str(self.directory), "XDG_CONFIG_HOME": str(self.directory)}
        known = ["-c", config, "--identity", "sandbox"]
        for arguments, env, words in (
            ([], no_home, "slapenir init"),
            (["-c", "/no/such.toml"], {}, "does not exist"),
            (["-c", config, "--identity", "nobody-at-all"], {}, "nobody is called"),
            (["-c", config], {}, "choose --identity of"),
            (["--gateway", "/no/such.sock"], {}, "no gateway answers"),
            ([*known, "--user", "root"], {}, "as root"),
            ([*known, "--user", "no-one"], {}, "no user"),
            ([*known, "--env", "X"], {}, "NAME=VALUE"),
            ([*known, "--ro", "/no"], {}, "check the path"),
        ):
            done = self.alone(*arguments, "--", "true", **env)
            self.assertEqual(done.returncode, 2, (arguments, done.stderr))
            self.assertIn(words, done.stderr.decode(), arguments)

    def test_a_configuration_in_the_workspace_is_not_taken_t239(self) -> None:
        """An untrusted project cannot bring the gateway's configuration along."""
        planted = self.workspace / "slapenir.toml"
        planted.write_text("[gateway]\n")
        done = self.alone("--", "true", HOME=str(self.directory), XDG_CONFIG_HOME="/nowhere")
        self.assertIn(b"there is no configuration", done.stderr)
        named = self.alone("-c", str(planted), "--", "true")
        self.assertEqual(named.returncode, 2)

    def test_a_second_gateway_is_not_started_beside_the_first(self) -> None:
        """With a gateway that sandboxes cannot join, it says how they could."""
        self.gateway.stop()
        self.gateway.extra = self.gateway.extra.replace("[sandboxes]", "#").replace(
            f'endpoint = "unix:{self.path}:mode=666"', ""
        )
        self.gateway.config_file.write_text(self.gateway.toml(), "utf-8")
        self.gateway.launch()
        config = str(self.gateway.config_file)
        done = self.alone("-c", config, "--identity", "sandbox", "--", "true")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(b"give it [sandboxes] endpoint", done.stderr)
