"""Where an agent must not write: homes, the system, what is private, what is the gateway's."""

from __future__ import annotations

import os
import pwd

from slapenir.errors import SandboxError
from slapenir.sandbox.places import (
    Belongings,
    check_writable,
    every_name,
    home_of,
    homes,
    private_place,
)
from tests.sandbox.case import PlacesCase


class WritableTests(PlacesCase):
    def check(self, path: object, *hidden: object, guarded: tuple[object, ...] = ()) -> None:
        belongings = Belongings(tuple(map(str, hidden)), tuple(map(str, guarded)))
        check_writable(str(path), "--workspace", belongings, homes(str(self.home)))

    def test_refused_t239(self) -> None:
        """The system, homes and what holds one, what is private, what runs (T239)."""
        never = "/ /etc /usr /usr/local/src /tmp /root /proc/1 /dev /no/such /run /run/lock /boot"
        for workspace in (*never.split(), self.home, self.top):
            self.assertRaises(SandboxError, self.check, workspace)
        for name in (".ssh", ".gnupg", ".aws", ".config", ".local/share"):
            self.assertRaises(SandboxError, self.check, self.make("home", *name.split("/")))
            self.assertRaises(SandboxError, self.check, self.make("home", *name.split("/"), "x"))
        self.check(self.work)
        self.check(self.make("home", "project"))

    def test_the_gateways(self) -> None:
        """In both directions for what it hides; what it only reads may lie above."""
        inner = self.make("work", "inner")
        for hidden in (self.work, inner, self.top):
            self.assertRaises(SandboxError, self.check, self.work, hidden)
        self.assertRaises(SandboxError, self.check, self.work, guarded=(inner / "ca.pem",))
        self.check(self.work, self.home / "state", guarded=(self.home / "ca.pem",))

    def test_a_link_of_the_gateways_in_the_workspace(self) -> None:
        """Its state is elsewhere, but an agent could replace the link."""
        state = self.make("state")
        link = self.link(self.work / "state", state)
        names = every_name([str(link)])
        self.assertEqual(names, (str(link), str(state)))
        self.assertRaises(SandboxError, self.check, self.work, *names)
        self.check(self.work, *every_name([str(state)]))

    def test_what_to_do(self) -> None:
        """Each option has its own remedy."""
        for option in ("--workspace", "--home"):
            with self.assertRaises(SandboxError) as caught:
                check_writable("/no/such", option, Belongings(), [])
            self.assertIn(f"{option} DIR", caught.exception.remedy)


class HomeTests(PlacesCase):
    def test_every_users(self) -> None:
        """Wherever it is, by its real name too; and none is everything."""
        link = self.link(self.top / "data", self.home)
        known = homes(str(link), "", "relative")
        for home in (str(link), str(self.home), "/root"):
            self.assertIn(home, known)
        for none in ("/", "/tmp", "", "relative"):
            self.assertNotIn(none, known)

    def test_one_that_is_not_listed(self) -> None:
        """A directory service tells of a user when it is asked for that one."""
        entry = pwd.struct_passwd(("bob", "x", 12345, 12345, "", "/data/bob", "/bin/sh"))
        self.patch(pwd, "getpwall", list)
        self.patch(pwd, "getpwuid", {12345: entry}.__getitem__)
        self.assertNotIn("/data/bob", homes())
        self.assertIn("/data/bob", homes(uids=(12345, 54321)))

    def test_the_home_of_a_path(self) -> None:
        for path, home in (
            ("/data/bob/x", "/data/bob"),
            ("/data/bob", "/data/bob"),
            ("/data/bobby", ""),
            ("/home/unknown/x/y", "/home/unknown"),
            ("/srv/x", ""),
        ):
            self.assertEqual(home_of(path, ["/data/bob", "/root"]), home)


class PrivatePlaceTests(PlacesCase):
    def test_not_where_a_sandbox_sees(self) -> None:
        """TMPDIR says nothing; where everything is shown there is none."""
        usual = private_place([str(self.work)])
        self.patch(os, "environ", {**os.environ, "TMPDIR": str(self.work)})
        self.assertEqual(private_place([str(self.work)]), usual)
        self.assertNotEqual(private_place([usual]), usual)
        self.assertRaises(SandboxError, private_place, ["/"])
