"""Directories of runners: who lives keeps them, who is dead leaves them to the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from slapenir.sandbox import scratch
from slapenir.sandbox.scratch import KIT, RUN, Scratch, held, sweep
from tests.support.gateway import ROOT

HOLD = (
    "import sys, time\nfrom slapenir.sandbox.scratch import RUN, Scratch\n"
    "print(Scratch(sys.argv[1], RUN).name, flush=True)\ntime.sleep(60)\n"
)


class ScratchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(self.mktemp()).resolve()
        self.top.mkdir()

    def runner(self) -> tuple[subprocess.Popen[str], str]:
        """Start a process that has a directory; return it and the directory."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(self.top)],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, process.stdout.readline().strip()

    def left(self) -> list[str]:
        return sorted(str(one) for one in self.top.iterdir())

    def test_of_one_that_lives(self) -> None:
        """It stays, and is found; that of one that was killed goes, whatever is in it."""
        process, path = self.runner()
        sweep(str(self.top))
        self.assertEqual(self.left(), [path])
        self.assertEqual(list(held(str(self.top), RUN)), [path])
        self.assertEqual(list(held(str(self.top), KIT)), [])
        (Path(path) / "inner").mkdir()
        (Path(path) / "inner" / "link").symlink_to("/etc")
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertEqual(list(held(str(self.top), RUN)), [])
        sweep(str(self.top))
        self.assertEqual(self.left(), [])
        self.assertTrue(os.path.exists("/etc/passwd"))

    def test_our_own(self) -> None:
        """One of this process is not swept, and goes by itself."""
        mine = Scratch(str(self.top), KIT)
        sweep(str(self.top))
        self.assertEqual(self.left(), [mine.name])
        self.assertEqual(os.stat(mine.name).st_mode & 0o777, 0o700)
        mine.cleanup()
        self.assertEqual(self.left(), [])

    def test_what_is_not_a_runners(self) -> None:
        """Other names, links, files and what belongs to others; the control is swept."""
        other = self.top / "elsewhere"
        other.mkdir()
        (other / "kept").touch()
        (self.top / f"{KIT}notes").mkdir()
        (self.top / f"{KIT}abcdefg_").symlink_to(other)
        (self.top / f"{KIT}abcdefgh").touch()
        before = self.left()
        dead = self.top / f"{KIT}12345678"
        dead.mkdir()
        sweep(str(self.top))
        self.assertEqual(self.left(), before)
        self.assertEqual(os.listdir(other), ["kept"])
        if os.geteuid() == 0:
            dead.mkdir()
            os.chown(dead, 65534, 65534)
            sweep(str(self.top))
            self.assertTrue(dead.exists())

    def test_one_that_was_taken_for_a_dead_ones(self) -> None:
        """A directory that is swept before it is locked: another is made."""
        real = scratch._locked
        taken = []

        def late(path: str) -> int:
            if not taken:
                taken.append(path)
                os.rmdir(path)
            return real(path)

        self.patch(scratch, "_locked", late)
        made = Scratch(str(self.top), RUN)
        self.assertNotEqual(made.name, taken[0])
        self.assertEqual(self.left(), [made.name])
        made.cleanup()
