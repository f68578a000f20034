"""What a sandbox is shown, as arguments of bubblewrap: their order, and what is bound how."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import SandboxError
from slapenir.sandbox.cgroups import parse_size
from slapenir.sandbox.view import View, is_visible, knows_descriptors, mounts
from tests.sandbox.case import PlacesCase


class ViewTests(PlacesCase):
    def view(self, **more: object) -> View:
        """Return a view of this workspace."""
        asked: dict[str, object] = {
            "workspace": str(self.work), "home": str(self.home), "uid": self.uid, "gid": self.uid,
            **more,
        }  # fmt: skip
        return View(**asked)  # type: ignore[arg-type]

    def at(self, words: list[str], *some: str) -> int:
        """Return where words stand in a row; fails where they do not."""
        length = len(some)
        for at in range(len(words)):
            if tuple(words[at : at + length]) == some:
                return at
        raise self.failureException(f"{some} is not in {words}")

    def test_deeper_is_later(self) -> None:
        """What is shown read-only lies on the workspace, and the workspace on what holds it."""
        work, inner = str(self.work), str(self.work / ".git")
        words = mounts(self.view(shown=(inner, str(self.top))))
        order = [
            self.at(words, "--ro-bind", str(self.top), str(self.top)),
            self.at(words, "--bind", work, work),
            self.at(words, "--ro-bind", inner, inner),
        ]
        self.assertEqual(order, sorted(order))

    def test_covered(self) -> None:
        """The directory of the gateway's file, closed; passable where something is below it."""
        key = self.make("shown", "gateway") / "key"
        key.write_text("x")
        hidden = {"hidden": (str(key),), "shown": (str(self.top / "shown"),)}
        words = mounts(self.view(**hidden))
        self.at(words, "--perms", "0000", "--size", "65536", "--tmpfs", str(key.parent))
        self.assertNotIn("/dev/null", words)
        work = str(self.make("shown", "gateway", "work"))
        words = mounts(self.view(**hidden, workspace=work))
        cover = self.at(words, "--perms", "0111", "--size", "65536", "--tmpfs", str(key.parent))
        self.assertLess(cover, self.at(words, "--bind", work, work))
        self.assertNotIn(str(key.parent), mounts(self.view(hidden=(str(key),))))

    def test_scratch_is_bounded(self) -> None:
        """Every file system in memory has a size, and all together less than the memory."""
        words = mounts(self.view(memory=64 << 20, sockets=("/opt/x/a.sock",)))
        sizes = {
            words[at + 1]: int(words[at - 1]) for at, word in enumerate(words) if word == "--tmpfs"
        }
        self.assertEqual(sizes["/tmp"], 16 << 20)
        self.assertLessEqual({"/tmp", "/var/tmp", "/run", "/home", "/root", "/dev/shm"}, set(sizes))
        self.assertLess(sum(sizes.values()), 64 << 20)
        self.assertEqual([w for at, w in enumerate(words) if words[at + 1 : at + 2] == ["--tmpfs"]],
                         [str(one) for one in sizes.values()])  # fmt: skip

    def test_only_the_store_of_nix(self) -> None:
        """The daemon's socket is below /nix/var."""
        view = self.view()
        self.patch(os.path, "isdir", lambda path: True)
        self.patch(os.path, "islink", lambda path: False)
        words = mounts(view)
        self.assertIn("/nix/store", words)
        self.assertNotIn("/nix", words)

    def test_descriptors(self) -> None:
        """What is held is mounted by its descriptor; the control by its path."""
        kept = str(self.make("kept"))
        view = self.view(kept=kept, shown=(str(self.top),), toolchains=((kept, "/x"),))
        words = mounts(view, dict.fromkeys(view.sources, 7))
        self.at(words, "--bind-fd", "7", str(self.work))
        self.at(words, "--bind-fd", "7", str(self.home))
        self.at(words, "--ro-bind-fd", "7", str(self.top))
        self.at(words, "--ro-bind-fd", "7", "/x")
        self.at(mounts(view), "--bind", kept, str(self.home))

    def test_whether_it_can_be_given_descriptors(self) -> None:
        """An older bubblewrap knows no option for it."""
        for told, known in (("--ro-bind-fd FD DEST", True), ("--ro-bind SRC DEST", False)):
            program = self.top / "bwrap"
            program.write_text(f"#!/bin/sh\necho '{told}'\n")
            program.chmod(0o755)
            self.assertEqual(knows_descriptors(str(program)), known)

    def test_the_kept_home(self) -> None:
        """A link of an agent's where something is to be mounted is refused."""
        kept = self.make("kept")
        place = str(self.home / ".cargo" / "bin")
        view = self.view(kept=str(kept), toolchains=(("/usr/bin", place),))
        view.check_kept()
        self.link(kept / ".cargo", "../../oldroot")
        self.assertRaises(SandboxError, view.check_kept)
        self.view(kept=str(kept)).check_kept()

    def test_visible(self) -> None:
        """PATH inside has what is there, also what --ro shows."""
        tools = str(self.make("tools", "bin"))
        self.assertFalse(is_visible(tools, self.view()))
        self.assertTrue(is_visible(tools, self.view(toolchains=((tools, tools),))))
        self.assertTrue(is_visible(tools, self.view(shown=(str(Path(tools).parent),))))
        self.assertTrue(is_visible("/usr/bin", self.view()))
        self.link(self.work / "bin", tools)
        self.assertFalse(is_visible(str(self.work / "bin"), self.view()))
        os.mkdir(self.work / "real")
        self.assertTrue(is_visible(str(self.work / "real"), self.view()))


class SizeTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        for text, size in (("512", 512), ("4K", 4096), ("3M", 3 << 20), ("4G", 4 << 30)):
            self.assertEqual(parse_size(text), size)
        for bad in ("", "0", "G", "4g", "-1", "1.5G", "4GB", "٤G"):
            with self.assertRaises(ValueError):
                parse_size(bad)
