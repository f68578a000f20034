"""Paths that are followed name by name: links of an agent's are refused, and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SkipTest

from slapenir.errors import SandboxError
from slapenir.sandbox.links import Agent, Pins, check_way, links_of, resolve
from tests.sandbox.case import SOMEBODY, PlacesCase


class ResolveTests(PlacesCase):
    def resolve(self, path: Path | str, agent: Agent | None = None) -> str:
        return resolve(str(path), "--ro", agent or self.agent)

    def test_plain_paths(self) -> None:
        """Also relative ones, with dots, and files."""
        place = self.make("work", "a", "b")
        (place / "file").write_text("x")
        self.assertEqual(self.resolve(place), str(place))
        self.assertEqual(self.resolve(f"{place}/.././b//file/"), f"{place}/file")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.work)
        self.assertEqual(self.resolve("a"), str(place.parent))

    def test_links_of_an_agents(self) -> None:
        """One in the workspace, at the end or on the way, by whoever made it; and one outside."""
        private = self.make("private", "inner").parent
        for place in (self.link(self.work / "end", private), self.link(self.home / "x", private)):
            for path in (place, place / "inner"):
                with self.assertRaises(SandboxError) as caught:
                    self.resolve(path)
                self.assertIn(f"the link {place}", caught.exception.error)
        self.assertEqual(self.resolve(private), str(private))

    def test_links_in_the_workspace(self) -> None:
        """Whoever made them and whoever owns it: it may have come with them."""
        tree = self.top / "tree"
        tree.mkdir()
        (tree / "link").symlink_to(self.work)
        stranger = Agent(SOMEBODY + 1, SOMEBODY + 1)
        self.assertEqual(self.resolve(tree / "link", stranger), str(self.work))
        held = Agent(SOMEBODY + 1, SOMEBODY + 1, (str(tree),))
        self.assertRaises(SandboxError, self.resolve, tree / "link", held)

    def test_links_of_earlier_runs(self) -> None:
        """Where root asks, an earlier agent was anybody, so only root's own links are followed."""
        if not self.root:
            raise SkipTest("other users' links need root")
        private = self.make("private")
        other = self.top / "link"
        other.symlink_to(private)
        self.assertEqual(self.resolve(other), str(private))
        os.chown(other, 12345, 12345, follow_symlinks=False)
        with self.assertRaises(SandboxError):
            self.resolve(other)
        self.assertEqual(self.resolve(other, Agent(self.uid, self.uid)), str(private))

    def test_a_directory_that_an_agent_may_write_to(self) -> None:
        """A link there may be an agent's tomorrow; in a sticky one it is its owner's."""
        if not self.root:
            raise SkipTest("other users' links need root")
        place = self.top / "open"
        place.mkdir()
        (place / "link").symlink_to(self.make("private"))
        for mode, refused in ((0o777, True), (0o1777, False), (0o755, False)):
            place.chmod(mode)
            if refused:
                self.assertRaises(SandboxError, self.resolve, place / "link")
            else:
                self.assertEqual(self.resolve(place / "link"), str(self.top / "private"))

    def test_what_is_not_there(self) -> None:
        """Also a link in a circle, and what is below a file."""
        (self.top / "circle").symlink_to("circle")
        (self.top / "file").write_text("x")
        for path in ("no", "circle", "file/x"):
            with self.assertRaises(SandboxError) as caught:
                self.resolve(self.top / path)
            self.assertIn("check the path", caught.exception.remedy)

    def test_every_link_is_told(self) -> None:
        data = self.make("..1")
        (data / "key").write_text("x")
        for place, target in (("..data", "..1"), ("key", "..data/key")):
            self.link(self.top / place, target)
        real, links = links_of(str(self.top / "key"))
        self.assertEqual(real, str(data / "key"))
        self.assertEqual([one.place for one in links], [f"{self.top}/key", f"{self.top}/..data"])


class PinTests(PlacesCase):
    def pins(self, *paths: Path) -> Pins:
        made = Pins(map(str, paths))
        self.addCleanup(made.close)
        return made

    def test_replaced(self) -> None:
        """By a link, also further up, or by nothing: refused."""
        for what in ("link", "above", "nothing"):
            place = self.make(what, "place")
            pins = self.pins(place)
            pins.renew()
            moved = place.parent if what == "above" else place
            moved.rename(f"{moved}.old")
            if what != "nothing":
                self.link(moved, f"{moved}.old")
            self.assertRaises(SandboxError, pins.renew)

    def test_made_anew(self) -> None:
        """By another directory: that is what is held then, and nothing else is held."""
        place = self.make("directory", "place")
        pins = self.pins(place)
        before = len(os.listdir("/proc/self/fd"))
        place.rename(f"{place}.old")
        self.assertFalse(place.exists())
        place.mkdir()
        pins.renew()
        self.assertTrue(os.path.samestat(os.fstat(pins.held[str(place)]), place.stat()))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_one_that_is_a_link_already(self) -> None:
        place = self.link(self.top / "link", self.work)
        before = len(os.listdir("/proc/self/fd"))
        self.assertRaises(SandboxError, Pins, [str(self.work), str(place)])
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class WayTests(PlacesCase):
    def test_what_is_mounted_on(self) -> None:
        """A link where something is to be mounted leads out; what is not there is made."""
        self.make("home", ".local")
        check_way(str(self.home), str(self.home / ".local" / "bin"))
        self.link(self.home / ".pki", "../../oldroot")
        for path in (".pki", ".pki/nssdb/cert9.db"):
            self.assertRaises(SandboxError, check_way, str(self.home), str(self.home / path))
