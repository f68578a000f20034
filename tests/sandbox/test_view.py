"""What a sandbox is shown: a list of what is there, and nothing of a home but toolchains."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import SandboxError
from slapenir.sandbox.cgroups import parse_size
from slapenir.sandbox.view import View, check_workspace, is_visible, mounts, of_command


class ViewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(self.mktemp()).resolve()
        self.top.mkdir()
        self.home, self.work = self.top / "home", self.top / "work"
        for path in (self.home, self.work):
            path.mkdir()

    def view(self, *path: Path, **more: object) -> View:
        """Return a view for this user, with these directories on PATH."""
        asked: dict[str, object] = {
            "workspace": str(self.work), "home": str(self.home), "uid": os.geteuid(),
            "gid": os.getegid(), "path": tuple(map(str, path)), **more,
        }  # fmt: skip
        return View(**asked)  # type: ignore[arg-type]

    def shown(self, view: View) -> list[str]:
        """Return what is bound read-only, by where it is inside."""
        words = mounts(view)
        return [words[at + 2] for at, word in enumerate(words) if word == "--ro-bind"]

    def make(self, *parts: str) -> Path:
        """Return a new directory below the home."""
        made = self.home.joinpath(*parts)
        made.mkdir(parents=True)
        return made

    def test_a_toolchain(self) -> None:
        """A bin on PATH with its lib; never what else is beside it, and never the home."""
        made, library = self.make("node", "bin"), self.make("node", "lib")
        self.make("node", "secrets")
        shown = self.shown(self.view(made))
        self.assertIn(str(made), shown)
        self.assertIn(str(library), shown)
        for path in (self.home, self.home / "node", self.home / "node" / "secrets"):
            self.assertNotIn(str(path), shown)
        self.assertTrue(is_visible(str(made), self.view(made)))

    def test_what_is_never_shown(self) -> None:
        """Directories of credentials, ones that anybody writes to, and ones out of reach."""
        for name in (".ssh", ".aws", ".config", ".kube"):
            self.assertNotIn(
                str(self.make(name, "bin")), self.shown(self.view(self.home / name / "bin"))
            )
        everybodys = self.make("open")
        everybodys.chmod(0o777)
        closed = self.make("closed", "bin")
        (self.home / "closed").chmod(0o700)
        self.assertNotIn(str(everybodys), self.shown(self.view(everybodys)))
        stranger = self.view(closed, uid=54321, gid=54321)
        self.assertNotIn(str(closed), self.shown(stranger))

    def test_hidden(self) -> None:
        """The gateway's files are covered where a directory that is shown has them."""
        state, key = self.make("gateway", "state"), self.home / "gateway" / "key"
        key.write_text("x")
        view = self.view(shown=(str(self.home / "gateway"),), hidden=(str(state), str(key)))
        words = " ".join(mounts(view))
        self.assertIn(f"--perms 0000 --tmpfs {state}", words)
        self.assertIn(f"--ro-bind /dev/null {key}", words)
        self.assertNotIn(str(state), " ".join(mounts(self.view(hidden=(str(state),)))))

    def test_a_command_behind_a_link(self) -> None:
        """Where PATH has a link only, the directory that it leads to is shown."""
        real, on_path = self.make("versions", "1"), self.make("bin")
        program = real / "claude"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        (on_path / "claude").symlink_to(program)
        self.assertEqual(of_command("claude", [str(on_path)]), [str(real)])
        self.assertEqual(of_command(str(program), []), [])
        self.assertEqual(of_command("no-such", [str(on_path)]), [])

    def test_workspaces(self) -> None:
        """One that is, holds or is held by what an agent must not write to is refused (T239)."""
        state = str(self.work / "state")
        never = "/ /etc /etc/x /usr/local/src /tmp /root /proc/1 /dev /no/such".split()
        for workspace in (*never, str(self.home), str(self.top)):
            with self.assertRaises(SandboxError):
                check_workspace(workspace, [], [str(self.home), "/root"])
        with self.assertRaises(SandboxError):
            check_workspace(str(self.work), [state], [])
        check_workspace(str(self.work), [str(self.home / "x")], [str(self.home)])


class SizeTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        for text, size in (("512", 512), ("4K", 4096), ("3M", 3 << 20), ("4G", 4 << 30)):
            self.assertEqual(parse_size(text), size)
        for bad in ("", "0", "G", "4g", "-1", "1.5G", "4GB", "٤G"):
            with self.assertRaises(ValueError):
                parse_size(bad)
