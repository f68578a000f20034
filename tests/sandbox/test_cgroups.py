"""Control groups in a directory that stands for the kernel's, and what stands in for them."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import SandboxError
from slapenir.sandbox import cgroups
from slapenir.sandbox.cgroups import Bounds, Groups, by_limit, demand, make_groups, usual_memory


class GroupsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        (self.root / "pids").mkdir(parents=True)

    def made(self) -> list[str]:
        return sorted(os.listdir(self.root / "pids"))

    def test_a_name_that_is_taken(self) -> None:
        """Whoever made a group by the runner's number before it does not lift its bound."""
        before = [f"slapenir-{os.getpid()}", f"slapenir-{os.getpid()}-0"]
        for name in before:
            (self.root / "pids" / name).mkdir()
        first, second = (make_groups(Bounds(processes=9), 0, str(self.root)) for _ in range(2))
        self.assertEqual((first.missing, second.missing), ((), ()))
        self.assertNotEqual(first.paths, second.paths)
        self.assertEqual((Path(first.paths[0]) / "pids.max").read_text(), "9")
        self.assertEqual(len(self.made()), 4)

    def test_those_of_dead_runners(self) -> None:
        """They go; what has another name, or is of one that lives, stays."""
        for name in ("slapenir-99999999-ab", "slapenir-1-ab", "slapenir-99999999", "other"):
            (self.root / "pids" / name).mkdir()
        (made,) = make_groups(Bounds(processes=9), 0, str(self.root)).paths
        rest = {"slapenir-1-ab", "slapenir-99999999", "other", os.path.basename(made)}
        self.assertEqual(set(self.made()), rest)

    def test_a_limit_instead(self) -> None:
        """For processes, where the kernel counts them by user namespace; for nothing else."""
        none = Groups((), ("pids", "memory"))
        for release, limit in (("5.14.0-1", 9), ("6.1", 9), ("5.13.19", 0), ("4.19", 0)):
            uname = os.uname_result(("Linux", "", release, "", ""))
            self.patch(cgroups.os, "uname", lambda given=uname: given)
            self.assertEqual(by_limit(none, Bounds(processes=9)), limit, release)
            self.assertEqual(by_limit(Groups(("x",)), Bounds(processes=9)), 0)
            if limit:
                demand(none, Bounds(processes=9))
            else:
                with self.assertRaises(SandboxError):
                    demand(none, Bounds(processes=9))
            with self.assertRaises(SandboxError):
                demand(none, Bounds(memory=9, processes=9))

    def test_usual_memory(self) -> None:
        line = Path("/proc/meminfo").read_text().splitlines()[0]
        total = int(line.split()[1]) * 1024
        self.assertLess(abs(usual_memory() - total * 3 // 4), total // 100)
