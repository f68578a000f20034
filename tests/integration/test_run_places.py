"""``slapenir run``: what an agent makes of its own tree, and what happens outside while it runs."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from tests.integration.test_run import SECONDS, RunCase
from tests.support.gateway import ROOT

NOBODY = 65534


class PlacesCase(RunCase):
    """Runs with the gateway's configuration, so that what is the gateway's is known."""

    def setUp(self) -> None:
        super().setUp()
        self.private = self.directory / "private"
        self.private.mkdir()
        self.private.chmod(0o755)
        os.chown(self.private, NOBODY, NOBODY)  # what its user has beside the workspace
        (self.private / "diary").write_text("dear diary")

    def words(self, *arguments: str) -> list[str]:
        """Return a command line that has the configuration, too."""
        words = super().words(*arguments)
        at = words.index("--gateway")
        return [*words[:at], "--config", str(self.gateway.config_file), *words[at:]]

    def plant(self, name: str, target: Path | str) -> Path:
        """Do what an agent can do: replace something in the workspace by a link."""
        place = self.workspace / name
        place.parent.mkdir(exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.symlink_to(target)
        os.chown(place, NOBODY, NOBODY, follow_symlinks=False)
        return place

    def make(self, name: str) -> Path:
        """Return a directory in the workspace that is the agent's."""
        place = self.workspace / name
        place.mkdir(parents=True)
        os.chown(place, NOBODY, NOBODY)
        return place

    def opt(self) -> Path:
        """Return a new directory below /opt, which every sandbox sees."""
        made = Path("/opt") / f"slt-{secrets.token_hex(6)}"
        made.mkdir()
        self.addCleanup(shutil.rmtree, made)
        made.chmod(0o755)
        return made

    def refused(self, word: str, *arguments: str, **env: str) -> None:
        """Assert that it is refused, with a reason that has a word."""
        done = self.run_(*arguments, "--", "cat", str(self.private / "diary"), **env)
        self.assertEqual((done.returncode, done.stdout), (2, b""), (arguments, done.stderr))
        self.assertIn(word, done.stderr.decode(), arguments)
        self.assertIn(b"remedy", done.stderr)


class SecretTests(PlacesCase):
    """Files of the gateway's in places that are shown."""

    def name(self, path: Path) -> None:
        """Have the configuration name a secret in a file."""
        text = self.gateway.config_file.read_text("utf-8")
        source = text[text.index("source = ") :].partition("\n")[0]
        changed = text.replace(source, f'source = "file:{path}"')
        self.gateway.config_file.write_text(changed, "utf-8")

    def write(self, path: Path) -> str:
        """Write a secret that everybody may read, for the mounts alone are under test."""
        made = secrets.token_hex(16)
        path.write_text(made)
        return made

    def test_rotated_by_rename(self) -> None:
        """The old one is not there, nor is the new one once it is moved over it; others are."""
        place = self.opt()
        (place / "ann").mkdir()
        (place / "tool").write_text("a tool")
        key = place / "ann" / "key"
        self.write(key)
        self.name(key)
        script = f"cat {place}/tool; cat {key}; echo; read x; cat {key} 2>&1; cat {place}/ann/*"
        words = self.words("--", "sh", "-c", script)
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.workspace, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        with process:
            self.assertEqual(process.stdout.readline(), b"a tool\n")
            rotated = self.write(place / "ann" / "key.new")
            os.rename(place / "ann" / "key.new", key)
            output, _ = process.communicate(b"\n", SECONDS)
        self.assertNotIn(rotated, output.decode())
        self.assertEqual(key.read_text(), rotated)

    def test_where_it_cannot_be_covered(self) -> None:
        """Directly in /opt, or in what --ro shows: refused, by name; one level further down not."""
        key = Path("/opt") / f"slt-{secrets.token_hex(6)}"
        self.addCleanup(key.unlink)
        self.write(key)
        self.name(key)
        self.refused(str(key))
        shown = self.directory / "shown"
        (shown / "ann").mkdir(parents=True)
        self.write(shown / "ann" / "key")
        self.name(shown / "ann" / "key")
        self.refused("cannot be covered", "--ro", str(shown / "ann"))
        done = self.run_("--ro", str(shown), "--", "ls", "-A", str(shown))
        self.assertEqual(done.stdout, b"ann\n", done.stderr)

    def test_the_configuration(self) -> None:
        """Under --ro of what holds it directly it is refused; further up it is covered."""
        place = self.directory / "shown" / "gateway"
        place.mkdir(parents=True)
        (place.parent / "other").write_text("other")
        config = place / "slapenir.toml"
        shutil.copy(self.gateway.config_file, config)
        config.chmod(0o644)
        named = ["--config", str(config), "--ro"]
        self.refused("cannot be covered", *named, str(place))
        done = self.run_(
            *named, str(place.parent), "--", "cat", f"{place.parent}/other", str(config)
        )
        self.assertEqual(done.stdout, b"other", done.stderr)

    def test_a_socket_of_the_gateways_in_the_workspace(self) -> None:
        """Whoever reaches it is somebody else."""
        text = self.gateway.config_file.read_text("utf-8")
        inside = self.workspace / "join.sock"
        changed = text.replace(f"unix:{self.path}:", f"unix:{inside}:")
        self.assertNotEqual(text, changed)
        self.gateway.config_file.write_text(changed, "utf-8")
        self.refused(str(inside))
        self.gateway.config_file.write_text(text, "utf-8")
        self.refused(str(inside), "--gateway", str(inside))
        self.assertEqual(self.run_("--", "true").returncode, 0)

    def test_a_workspace_in_the_state(self) -> None:
        inside = self.gateway.directory / "state" / "inner"
        inside.mkdir()
        self.refused("is the gateway's", "--workspace", str(inside))

    def test_private_directories(self) -> None:
        """TMPDIR may be in the workspace: nothing of ours is made there."""
        place = self.make("tmp")
        script = f"ls -A {place}; mount | grep /run/slapenir/trust | wc -l"
        done = self.run_("--", "sh", "-c", script, TMPDIR=str(place))
        self.assertEqual(done.stdout, b"1\n", done.stderr)


class LinkTests(PlacesCase):
    """What an agent, in this run or an earlier one, has replaced by a link (T239)."""

    def test_options(self) -> None:
        """--workspace, --home and --ro: each refused, at the end and on the way."""
        inner = self.private / "inner"
        inner.mkdir()
        inner.chmod(0o755)
        link = self.plant("link", self.private)
        for option in ("--workspace", "--home", "--ro"):
            for path in (link, link / "inner", "link"):
                self.refused("goes through the link", option, str(path))

    def test_options_without_links(self) -> None:
        """The same options by names of directories."""
        place = self.make("place")
        for option in ("--workspace", "--home", "--ro"):
            done = self.run_(option, str(place), "--", "true")
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_restarts(self) -> None:
        """A kept home that a run replaces is not what the next one gets."""
        home = self.make("home")
        done = self.run_(
            "--restart", "--home", str(home), "--",
            "sh", "-c",
            f"cat ~/diary 2>/dev/null && exit 0; mv {home} x; ln -s {self.private} {home}; exit 1",
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout), (2, b""), done.stderr)
        self.assertIn(b"a link has taken its place", done.stderr)
        self.assertEqual(os.listdir(self.private), ["diary"])

    def test_links_in_a_kept_home(self) -> None:
        """Nothing is written by them, and nothing is mounted on them."""
        home = self.make("home")
        (home / ".pki").symlink_to("../../../oldroot" + str(self.private))
        self.refused("is a link", "--home", str(home))
        self.assertEqual(os.listdir(self.private), ["diary"])

    def test_path(self) -> None:
        """An entry of PATH in the workspace that leads out; one that is there works."""
        program = self.private / "tool"
        program.write_text("#!/bin/sh\necho ran\n")
        program.chmod(0o755)
        real = self.make(".venv/bin")
        shutil.copy(program, real)
        path = f"{self.workspace}/.venv/bin:{os.environ['PATH']}"
        self.assertEqual(self.run_("--", "tool", PATH=path).stdout, b"ran\n")
        self.plant(".venv/bin", self.private)
        done = self.run_("--", "cat", str(self.private / "diary"), PATH=path)
        self.assertEqual(done.stdout, b"", done.stderr)
        self.assertEqual(self.run_("--", "tool", PATH=path).returncode, 127)

    def test_a_command(self) -> None:
        """One that is a link out of the workspace, also to the root's directory."""
        program = self.private / "tool"
        program.write_text("#!/bin/sh\necho ran\n")
        program.chmod(0o755)
        for target in (program, *Path("/").glob(".dockerenv")):
            self.plant("tool", target)
            done = self.run_("--show", "--", "./tool")
            self.assertNotIn(f"--ro-bind {target.parent} ", done.stdout.decode())
            self.assertEqual(self.run_("--", "./tool").returncode, 127)
        shutil.copy(program, self.workspace / "real")
        self.assertEqual(self.run_("--", "./real").stdout, b"ran\n")

    def test_a_home_on_path(self) -> None:
        """PATH=$HOME:$PATH shows nothing of it."""
        path = f"{self.private}:{os.environ['PATH']}"
        shown = f"--ro-bind {self.private} "
        done = self.run_("--show", "--", "true", PATH=path, HOME=str(self.private))
        self.assertNotIn(shown, done.stdout.decode().replace("\n", " "))
        control = self.run_("--show", "--", "true", PATH=path)
        self.assertIn(shown, control.stdout.decode().replace("\n", " "), control.stderr)


class ShownTests(PlacesCase):
    """What is read-only, what is refused, what is bounded."""

    def test_read_only_in_the_workspace(self) -> None:
        """--ro of a directory in it: seen and not written to; beside it as ever."""
        place = self.make(".git")
        place.chmod(0o777)
        script = (
            "echo x 2>/dev/null > .git/hook || echo refused; mv .git y; rm -rf .git; echo x > z"
        )
        done = self.run_("--ro", ".git", "--", "sh", "-c", script)
        self.assertEqual(done.stdout, b"refused\n", done.stderr)
        self.assertEqual(sorted(os.listdir(self.workspace)), [".git", "z"])
        self.assertEqual(os.listdir(place), [])
        done = self.run_("--", "sh", "-c", "echo x > .git/hook")
        self.assertEqual(os.listdir(place), ["hook"], done.stderr)

    def test_a_file_that_is_shown(self) -> None:
        done = self.run_("--ro", str(self.private / "diary"), "--", "cat", f"{self.private}/diary")
        self.assertEqual(done.stdout, b"dear diary", done.stderr)

    def test_workspaces(self) -> None:
        """A home wherever it is, private places, and what runs; each with its remedy."""
        (self.private / ".ssh").mkdir()
        self.refused("home directory", "--workspace", str(self.private), HOME=str(self.private))
        self.refused("home directory", "--home", str(self.private), HOME=str(self.private))
        self.refused("private", "--workspace", str(self.private / ".ssh"))
        self.refused("belongs to the system", "--workspace", "/run/lock")
        self.refused("belongs to the system", "--workspace", "/boot")
        self.refused("--home /nope", "--home", "/nope")
        self.refused("--ro / would show /", "--ro", "/")
        done = self.run_("--workspace", str(self.private), "--", "true")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_sockets_of_the_host(self) -> None:
        """One below /opt cannot be connected to, also when its daemon makes it anew meanwhile."""
        place = self.opt() / "run"
        place.mkdir()
        path = str(place / "a.sock")

        def listen() -> None:
            made = socket.socket(socket.AF_UNIX)
            self.addCleanup(made.close)
            made.bind(path)
            made.listen()
            os.chmod(path, 0o777)  # noqa: S103 - another user has to get to it

        listen()
        script = (
            "import socket, sys\n"
            "def reach():\n"
            "    try: socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('reached')\n"
            "    except OSError: print('refused')\n"
            "    sys.stdout.flush()\n"
            "reach(); sys.stdin.readline(); reach()"
        )
        probe = ["/usr/bin/python3", "-c", script, path]
        plain = subprocess.run(probe, input=b"\n", capture_output=True, timeout=SECONDS)
        self.assertEqual(plain.stdout, b"reached\nreached\n", plain.stderr)
        process = subprocess.Popen(
            self.words("--", *probe), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=self.workspace, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        with process:
            self.assertEqual(process.stdout.readline(), b"refused\n")
            os.unlink(path)
            listen()
            output, _ = process.communicate(b"\n", SECONDS)
        self.assertEqual(output, b"refused\n")

    def test_scratch_is_bounded(self) -> None:
        """Every one has a size, /dev/shm too; a little fits, and /dev is not for writing."""
        script = (
            "for d in /tmp /var/tmp /run /home /dev/shm; do stat -f -c '%n %b %S' $d; done;"
            "echo x > /dev/shm/x; echo x > /tmp/x; echo x > /dev/null; echo x 2>&- > /dev/x;"
            "ls /dev/x /dev/shm/x"
        )
        done = self.run_("--memory", "64M", "--", "sh", "-c", script)
        lines = [line.split() for line in done.stdout.decode().splitlines()]
        sizes = {one[0]: int(one[1]) * int(one[2]) for one in lines if len(one) == 3}
        self.assertEqual(sizes["/tmp"], 16 << 20, done.stderr)
        self.assertLess(sum(sizes.values()), 64 << 20)
        self.assertEqual(lines[-1], ["/dev/shm/x"])

    def test_descriptors(self) -> None:
        """The command has the usual three and none of ours, which lead out."""
        for more in ((), ("--rootless",)):
            done = self.run_(*more, "--", "/usr/bin/python3", "-c",
                             "import os; print([n for n in range(3, 4096) if os.path.exists("
                             "f'/proc/self/fd/{n}')])")  # fmt: skip
            self.assertEqual(done.stdout, b"[]\n", done.stderr)
