"""Directories for tests of what a sandbox is shown: a home, a workspace, and places beside."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from slapenir.sandbox.links import Agent

SOMEBODY = 54321
"""A user of no test's, who is never root; also a group."""


class PlacesCase(SynchronousTestCase):
    """``home`` and ``work`` belong to somebody where this is root, else to whoever runs it."""

    def setUp(self) -> None:
        # Others have to be able to look into it, and trial's directory may be below a private one.
        made = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
        self.top = Path(made.stdout.strip())
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.top)], check=False)
        self.top.chmod(0o755)
        self.root = os.geteuid() == 0
        self.uid = SOMEBODY if self.root else os.geteuid()
        self.home, self.work = self.make("home"), self.make("work")
        self.agent = Agent(self.uid, self.uid, (str(self.work),), anybody=self.root)

    def make(self, *parts: str) -> Path:
        """Return a new directory of somebody's below the top one."""
        made = self.top
        for part in parts:
            made = made / part
            if not made.is_dir():
                made.mkdir(mode=0o755)
                self.give(made)
        return made

    def link(self, place: Path, target: Path | str) -> Path:
        """Make a link that is somebody's."""
        place.symlink_to(target)
        self.give(place)
        return place

    def give(self, path: Path) -> None:
        """Make something somebody's, where this is root."""
        if self.root:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def program(self, place: Path) -> Path:
        """Make a file that can be run."""
        place.write_text("#!/bin/sh\n")
        place.chmod(0o755)
        self.give(place)
        return place
