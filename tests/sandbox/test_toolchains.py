"""Which directories of programs a sandbox is shown: toolchains, and nothing else of a home."""

from __future__ import annotations

from pathlib import Path

from slapenir.sandbox.toolchains import Judge
from tests.sandbox.case import PlacesCase


class ToolchainTests(PlacesCase):
    def shown(self, *path: Path | str, command: Path | str = "none") -> list[str]:
        """Return where something is seen inside, with these directories on PATH."""
        judge = Judge(self.agent, str(self.work), (str(self.home),))
        return [place for _, place in judge.toolchains(tuple(map(str, path)), str(command))]

    def test_a_toolchain(self) -> None:
        """A bin on PATH with its lib; never what else is beside it, and never the home."""
        made = self.make("home", ".nvm", "versions", "node", "v1", "bin")
        library = self.make("home", ".nvm", "versions", "node", "v1", "lib")
        self.make("home", ".nvm", "versions", "node", "v1", "secrets")
        self.assertEqual(self.shown(made), [str(made), str(library)])

    def test_toolchains_of_a_home(self) -> None:
        """Those of installers; not a home, what is above, or anything else below (T239)."""
        self.make("home", ".local", "lib")
        for name in (".local/bin", ".cargo/bin", ".pyenv/shims", ".local/share/uv/tools/x/bin"):
            self.assertIn(str(self.home / name), self.shown(self.make("home", *name.split("/"))))
        self.make("home", "lib")
        self.assertEqual(self.shown(self.make("home", "bin")), [str(self.home / "bin")])
        for place in (self.home, self.top, "/"):
            self.assertEqual(self.shown(place), [], place)
        for name in ("private", "src/other/.venv/bin", ".local", ".local/share"):
            self.assertEqual(self.shown(self.make("home", *name.split("/"))), [], name)
        elsewhere = self.make("tools", "bin")
        self.assertEqual(self.shown(elsewhere), [str(elsewhere)])

    def test_what_is_never_shown(self) -> None:
        """Directories of credentials, ones that anybody writes to, and ones out of reach."""
        for above in ("home", "tools"):
            for name in (".ssh", ".aws", ".config", ".kube", ".gnupg", ".local/share/x"):
                self.assertEqual(self.shown(self.make(above, *name.split("/"), "bin")), [])
        everybodys = self.make("tools", "open")
        everybodys.chmod(0o777)
        closed = self.make("tools", "closed", "bin")
        closed.parent.chmod(0)
        self.assertEqual(self.shown(everybodys, closed), [])
        closed.parent.chmod(0o755)
        everybodys.chmod(0o755)
        self.assertEqual(self.shown(everybodys, closed), [str(everybodys), str(closed)])

    def test_links_of_the_workspace(self) -> None:
        """What an agent made a link of is not shown, wherever it leads."""
        private, tools = self.make("private"), self.make("home", ".cargo", "bin")
        venv = self.make("work", ".venv")
        for target in (private, tools, "/usr/bin", self.home):
            place = self.link(venv / "bin", target)
            self.assertEqual(self.shown(place), [], target)
            outer = self.link(self.home / ".volta", place)
            self.assertEqual(self.shown(outer), [], target)
            place.unlink()
            outer.unlink()
        self.assertEqual(self.shown(tools), [str(tools)])

    def test_a_virtual_environment(self) -> None:
        """Its Python is a link to one that was installed in a home: that one is shown."""
        for place in (".pyenv/versions/3.12", ".local/share/uv/python/cpython-3.12"):
            program = self.program(self.make("home", *place.split("/"), "bin") / "python3")
            version = program.parent.parent
            (version / "lib").mkdir()
            self.make("work", ".venv", "bin")
            python = self.link(self.work / ".venv" / "bin" / "python", program)
            wanted = [str(version / "bin"), str(version / "lib")]
            self.assertEqual(self.shown(python.parent, command="python"), wanted)
            python.unlink()
            for other in (".pyenv", ".local/share/uv", ".local/share/uv/tools"):
                beside = self.program(self.make("home", *other.split("/")) / "program")
                self.link(python, beside)
                self.assertEqual(self.shown(python.parent, command="python"), [], other)
                python.unlink()

    def test_links_of_a_home(self) -> None:
        """Both names of a version are there; a link to what is private leads nowhere."""
        version = self.make("home", ".nvm", "versions", "v1", "bin")
        current = self.link(self.home / ".nvm" / "current", version.parent)
        self.assertEqual(self.shown(current / "bin"), [str(version), str(current / "bin")])
        profile = self.link(self.home / ".nix-profile", "/usr")
        if not self.root:  # where root asks, only root's links are followed out of a home
            self.assertEqual(self.shown(profile / "bin"), [str(profile / "bin")])
        private = self.link(self.home / ".cargo", self.make("home", "private"))
        self.assertEqual(self.shown(private), [])

    def test_a_command_behind_a_link(self) -> None:
        """Where PATH has a link only, the directory that it leads to is shown."""
        versions = self.make("home", ".local", "share", "claude", "versions")
        program = self.program(versions / "1.0")
        on_path = self.make("home", ".local", "bin")
        self.link(on_path / "claude", program)
        self.assertEqual(self.shown(on_path, command="claude"), [str(on_path), str(versions)])
        self.assertEqual(self.shown(command=program), [])
        self.assertEqual(self.shown(on_path, command="no-such"), [str(on_path)])

    def test_a_command_that_leads_astray(self) -> None:
        """To a home or what is private; and by a link in the workspace, anywhere."""
        on_path = self.make("home", ".local", "bin")
        tools = self.make("home", ".cargo", "bin")
        for place, target in (
            (on_path / "a", self.program(self.home / "hello")),
            (on_path / "b", self.program(self.make("home", ".ssh") / "x")),
            (self.work / "a", self.home / "hello"),
            (self.work / "b", self.program(tools / "cargo")),
            (self.work / "c", self.program(self.make("tools") / "x")),
            (self.top / "d", self.program(self.top / "e")),
        ):
            self.link(place, target)
            self.assertEqual(self.shown(command=place), [], place)
        self.link(on_path / "cargo", tools / "cargo")
        self.assertEqual(self.shown(command=on_path / "cargo"), [str(tools)])
