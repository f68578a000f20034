"""Bubblewrap's side of a run: its command line, what it is given, and what it says of the run.

What bubblewrap itself runs with is nobody's to choose: the command's environment may hold
LD_PRELOAD, and bubblewrap starts outside of the sandbox.  So it goes in as a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterable, Mapping

import attrs

from slapenir.sandbox import launcher, tools
from slapenir.sandbox.links import Pins, check_way
from slapenir.sandbox.plan import Plan
from slapenir.sandbox.seccomp import program
from slapenir.sandbox.trust import Kit
from slapenir.sandbox.view import KIT, LAUNCHER, interpreter, knows_descriptors, mounts, texts

_ENVIRONMENT = "/run/slapenir/environment"
_OOM_SCORE = "/proc/self/oom_score_adj"
_STANDARD = 2  # input, output and errors


@attrs.define
class Bubble:
    """Bubblewrap's command line, and the descriptors that it is given.

    ``pins`` are what is mounted, and ``processes`` is the bound that the launcher sets, 0 for none.
    """

    plan: Plan
    kit: Kit
    environment: Mapping[str, str]
    pins: Pins
    processes: int = 0
    words: list[str] = attrs.field(factory=list)
    descriptors: list[int] = attrs.field(factory=list)

    def prepare(self, status: int, signals: Iterable[int]) -> None:
        """Write the command line; ``status`` is where bubblewrap tells how it goes.

        ``signals`` are those that the command takes as usual.  Raises SandboxError.
        """
        plan, view = self.plan, self.plan.view
        python, more = interpreter()
        bwrap = tools.need("bwrap").path
        pinned = self.pins.held if knows_descriptors(bwrap) else {}
        self.descriptors.append(status)
        self.words = [
            bwrap, "--json-status-fd", str(status), "--unshare-user",
            "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
            "--uid", str(plan.uid), "--gid", str(plan.gid), "--hostname", "sandbox",
            "--die-with-parent", "--cap-drop", "ALL", *mounts(view, pinned), *more,
            "--ro-bind", self.kit.directory, KIT,
        ]  # fmt: skip
        with open(launcher.__file__, "rb") as file:
            self.words += ["--ro-bind-data", self._data(file.read()), LAUNCHER]
        self.words += ["--ro-bind-data", self._data(self._variables()), _ENVIRONMENT]
        for ours, place in self.kit.overlays(KIT):
            self.words += ["--ro-bind", ours, place]
        for place, text in texts().items():
            data = self._data(text.encode())
            self.words += ["--perms", "0444", "--ro-bind-data", data, place]
        self._put_into_home()
        self.words += ["--remount-ro", "/", "--seccomp", self._data(program(platform.machine()))]
        self.words += ["--chdir", view.workspace, "--", python, "-I", "-S", LAUNCHER]
        self.words += [_ENVIRONMENT, ",".join(str(int(one)) for one in signals)]
        self.words += [str(self.processes), *view.writable, "--", *plan.request.command]

    def become(self) -> None:
        """Become bubblewrap, in this process; raises OSError."""
        # The first to go when memory is short: the gateway serves others too.
        with contextlib.suppress(OSError), open(_OOM_SCORE, "w", encoding="ascii") as file:
            file.write("1000")
        if not self.plan.rootless:
            os.setgroups([])
            os.setresgid(*(self.plan.gid,) * 3)
            os.setresuid(*(self.plan.uid,) * 3)
        # Nothing else that this process, or whoever started it, has open goes in.
        given = {*self.descriptors, *self.pins.held.values()}
        for name in os.listdir("/proc/self/fd"):
            if int(name) > _STANDARD and int(name) not in given:
                with contextlib.suppress(OSError):  # the one of listdir is closed by now
                    os.set_inheritable(int(name), False)
        for descriptor in given:
            os.set_inheritable(descriptor, True)
        os.execve(self.words[0], self.words, tools.ENVIRONMENT)  # noqa: S606

    def close(self) -> None:
        """Close what it was given."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def _variables(self) -> bytes:
        given = {**self.environment, "PWD": self.plan.view.workspace}
        return b"\0".join(os.fsencode(f"{key}={value}") for key, value in given.items())

    def _put_into_home(self) -> None:
        view = self.plan.view
        for name, ours in self.kit.home_files().items():
            place = os.path.join(view.home, name)
            if view.kept:
                check_way(view.kept, os.path.join(view.kept, name))
                if os.path.exists(os.path.join(view.kept, name)):
                    continue
            self.words += ["--perms", "0700", "--dir", os.path.dirname(place)]
            with open(ours, "rb") as file:
                self.words += ["--perms", "0600", "--file", self._data(file.read()), place]

    def _data(self, content: bytes) -> str:
        made = os.memfd_create("slapenir")
        self.descriptors.append(made)
        os.write(made, content)
        os.lseek(made, 0, os.SEEK_SET)
        return str(made)


class Told:
    """What bubblewrap tells of a run: ``first`` is its first process inside, 0 as yet.

    ``ran`` says whether there was a command that ended; without one there was no sandbox.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._data = b""
        self.first = 0
        self.ran = False
        os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is more."""
        return self._descriptor

    def read(self) -> bool:
        """Read what there is; return whether that was the last."""
        ended = False
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._descriptor, 4096):
                self._data += more
            ended = True
        *lines, self._data = self._data.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                self.first = int(said.get("child-pid", self.first))
                self.ran = self.ran or "exit-code" in said
        return ended
