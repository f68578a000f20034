"""Tools of the host: only those that nobody but root can change, and nothing of the caller's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from slapenir.errors import SandboxError
from slapenir.sandbox import tools
from slapenir.sandbox.tools import Tool, find, for_python, need


class FindTests(SynchronousTestCase):
    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("files of root's need root")
        # Not below /tmp, where everybody may write.
        self.place = Path("/root") / f"slapenir-test-{os.getpid()}"
        self.place.mkdir(mode=0o755)
        self.addCleanup(self.place.rmdir)
        self.tool = self.place / "nft"
        self.tool.write_text("#!/bin/sh\nenv\npwd\n")
        self.tool.chmod(0o755)
        self.addCleanup(self.tool.unlink)
        self.patch(tools, "PATH", f"/nonexistent:{self.place}")

    def refused(self, words: str) -> None:
        with self.assertRaises(SandboxError) as caught:
            find("nft")
        self.assertIn(words, caught.exception.error)

    def test_roots(self) -> None:
        """The control."""
        self.assertEqual(find("nft"), Tool("nft", str(self.tool)))

    def test_a_tool_that_others_may_write(self) -> None:
        for mode in (0o775, 0o757):
            self.tool.chmod(mode)
            self.refused("others may write")

    def test_a_directory_that_others_may_write(self) -> None:
        self.place.chmod(0o777)
        self.refused(f"others may write to {self.place}")

    def test_somebody_elses(self) -> None:
        os.chown(self.tool, 65534, 65534)
        self.refused("belongs to user 65534")
        os.chown(self.tool, 0, 0)
        os.chown(self.place, 65534, 65534)
        self.refused(f"{self.place} belongs to user 65534")

    def test_a_link_in_a_directory_of_somebody_elses(self) -> None:
        """What it leads to is root's, but where it leads is not root's to say."""
        self.tool.unlink()
        self.tool.symlink_to("/bin/sh")
        self.assertIsNotNone(find("nft"))
        os.chown(self.place, 65534, 65534)
        self.refused("belongs to user 65534")

    def test_the_next_one_is_taken(self) -> None:
        """An unsafe one does not stand in the way of a safe one behind it."""
        self.tool.chmod(0o777)
        self.patch(tools, "PATH", f"{self.place}:/usr/sbin:/usr/bin")
        self.tool.rename(self.place / "sh")
        self.addCleanup((self.place / "sh").rename, self.tool)
        found = need("sh")
        self.assertEqual(found.path, os.path.realpath("/bin/sh"))

    def test_missing(self) -> None:
        """None, or an error with the package."""
        self.assertIsNone(find("ip"))
        with self.assertRaises(SandboxError) as caught:
            need("ip")
        self.assertEqual(caught.exception.remedy, "install iproute2")

    def test_run(self) -> None:
        """Nothing of this environment, and not where this process stands."""
        self.patch(os, "environ", {"PATH": "/x", "LD_PRELOAD": "/x"})
        said = need("nft").run().decode().split()
        self.assertIn("LC_ALL=C", said)
        self.assertEqual([one for one in said if "/x" in one or "LD_" in one], [])
        self.assertEqual(said[-1], "/")

    def test_failures(self) -> None:
        """Each is an error that says which tool it was."""
        self.tool.write_text("#!/bin/sh\necho no such thing >&2; exit 3\n")
        with self.assertRaises(SandboxError) as caught:
            need("nft").run()
        self.assertEqual(caught.exception.error, "nft failed: no such thing")
        self.tool.write_text("#!/nonexistent\n")
        with self.assertRaises(SandboxError) as caught:
            need("nft").run()
        self.assertIn("cannot be run", caught.exception.error)
        self.patch(tools, "_SECONDS", 0.2)
        self.tool.write_text("#!/bin/sh\nexec sleep 20\n")
        with self.assertRaises(SandboxError) as caught:
            need("nft").run()
        self.assertIn("did not end", caught.exception.error)


class PythonTests(SynchronousTestCase):
    def test_for_python(self) -> None:
        kept = {"PATH": "y", "KEY": "z", "PYTHON_API_KEY": "k"}
        self.assertEqual(for_python({"PYTHONPATH": "x", "PYTHONHOME": "x", **kept}), kept)

    def test_isolated(self) -> None:
        """A module in the working directory or on PYTHONPATH is not taken."""
        place = Path(self.mktemp()).resolve()
        place.mkdir()
        (place / "base64.py").write_text("print('planted')\n")
        python = Tool(sys.executable, sys.executable)
        words = ["-c", f"import os; os.chdir({str(place)!r}); import base64"]
        self.patch(tools, "ENVIRONMENT", {"PYTHONPATH": str(place)})
        self.assertEqual(python.run(*tools.ISOLATED, *words), b"")
        self.assertEqual(python.run(*words), b"planted\n")
