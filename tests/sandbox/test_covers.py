"""What is covered of what is shown: directories, for a mount on a file does not last."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from slapenir.errors import SandboxError
from slapenir.sandbox import covers as module
from slapenir.sandbox.covers import covers, find_sockets
from slapenir.sandbox.places import every_name
from tests.sandbox.case import PlacesCase


class CoverTests(PlacesCase):
    def covered(self, hidden: Sequence[Path | str], *shown: Path | str) -> dict[str, bool]:
        seen = [(str(one), str(one)) for one in shown]
        return covers([str(one) for one in hidden], [], seen)

    def file(self, *parts: str) -> Path:
        made = self.make(*parts[:-1]) / parts[-1]
        made.write_text("x")
        return made

    def test_the_directory_of_a_file(self) -> None:
        """Not the file; of a directory itself; what is not shown needs nothing."""
        key, state = self.file("shown", "gateway", "key"), self.make("shown", "state")
        self.assertEqual(self.covered([key], self.top / "shown"), {str(key.parent): True})
        self.assertEqual(self.covered([state], self.top / "shown"), {str(state): True})
        self.assertEqual(self.covered([key, state], self.home), {})

    def test_one_in_another(self) -> None:
        """What is gone with its directory is not covered again, but where it is shown again."""
        key = self.file("shown", "gateway", "key")
        inner = self.file("shown", "gateway", "x", "y", "inner")
        top = self.top / "shown"
        self.assertEqual(self.covered([key, inner], top), {str(key.parent): True})
        found = self.covered([key, inner], top, key.parent / "x")
        self.assertEqual(found, {str(key.parent): True, str(inner.parent): True})

    def test_what_is_not_there_yet(self) -> None:
        """A file that comes later comes covered."""
        place = self.make("shown", "gateway")
        self.assertEqual(self.covered([place / "key"], self.top / "shown"), {str(place): True})

    def test_where_that_cannot_be(self) -> None:
        """A file directly in what is shown, or what the system needs; one level down it can."""
        shown = self.make("shown")
        for hidden in (self.file("shown", "key"), shown):
            self.assertRaises(SandboxError, self.covered, [hidden], shown)
        for hidden in ("/etc/passwd", "/usr/bin/env", "/etc/ssl/certs"):
            self.assertRaises(SandboxError, self.covered, [hidden])
        self.assertRaises(SandboxError, self.covered, [shown], self.make("shown", "inner"))
        self.assertEqual(self.covered(["/etc/no-such-file", "/no/such"]), {})

    def test_seen_under_another_name(self) -> None:
        """Of a directory that is seen by two names both are covered."""
        key = self.file("v1", "secrets", "key")
        found = covers([str(key)], [], [(str(self.top / "v1"), "/x"), (str(self.top / "v1"), "/y")])
        self.assertEqual(found, {"/x/secrets": True, "/y/secrets": True})

    def test_a_secret_behind_links(self) -> None:
        """Whoever swaps a link on the way rotates the secret: the links' directories, too."""
        key = self.file("shown", "archive", "1", "key")
        place = self.make("shown", "live")
        self.link(place / "..data", "../archive/1")
        self.link(place / "key", "..data/key")
        found = self.covered(every_name([str(place / "key")]), self.top / "shown")
        self.assertEqual(found, {str(place): True, str(key.parent): True})


class SocketTests(PlacesCase):
    def listen(self, *parts: str) -> str:
        path = str(self.make(*parts[:-1]) / parts[-1])
        made = socket.socket(socket.AF_UNIX)
        self.addCleanup(made.close)
        made.bind(path)
        return path

    def test_sockets_are_found(self) -> None:
        """At any depth; nothing else is one, and links are not followed."""
        wanted = {self.listen("a.sock"), self.listen("deep", "er", "b.sock")}
        self.link(self.home / "link", self.top)
        (self.home / "file").write_text("x")
        found, complete = find_sockets([str(self.top), "/no/such"])
        self.assertEqual((set(found), complete), (wanted, True))

    def test_no_more_than_some(self) -> None:
        """The walk ends, and says so."""
        self.patch(module, "MOST_ENTRIES", 10)
        near = self.listen("a.sock")
        for number in range(20):
            (self.home / str(number)).write_text("x")
        found, complete = find_sockets([str(self.top)])
        self.assertEqual((found, complete), ([near], False))

    def test_their_directory_is_covered(self) -> None:
        """Where it can be; else the socket is."""
        found = covers([], ["/opt/app/run/a.sock", "/opt/b.sock"], [])
        self.assertEqual(found, {"/opt/app/run": True, "/opt/b.sock": False})
