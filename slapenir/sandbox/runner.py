"""Run a command in a sandbox: make it, join the gateway, wait, clean up."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import selectors
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from types import FrameType

from slapenir.errors import SandboxError
from slapenir.sandbox import launcher, tools
from slapenir.sandbox.cgroups import Groups, demand, make_groups
from slapenir.sandbox.filter import read_counters
from slapenir.sandbox.link import Joined, Keeper, Link
from slapenir.sandbox.network import Network, make_network
from slapenir.sandbox.plan import Plan
from slapenir.sandbox.seccomp import program
from slapenir.sandbox.trust import Kit, make_kit
from slapenir.sandbox.view import (
    KIT,
    LAUNCHER,
    interpreter,
    is_writable,
    mounts,
    texts,
)

Say = Callable[[str], None]
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LOOK_SECONDS, _REPORT_SECONDS = 1.0, 5.0
_LONGEST_WAIT = 30.0
_REJOIN_SECONDS = 2.0
_STANDARD = 2  # input, output and errors


def run(plan: Plan, environ: Mapping[str, str], say: Say) -> int:
    """Run the plan's command; return its exit status, 128 and more for a signal.

    Raises SandboxError when the sandbox cannot be made.
    """
    view = plan.view
    if not is_writable(view.workspace, view.uid, view.gid):
        say(f"{view.workspace} is not writable for user {view.uid}; --user names another")
    with contextlib.ExitStack() as undo:
        network = make_network(plan.rootless, plan.uid, plan.gid)
        undo.callback(network.close)
        keeper = Keeper(plan.gateway, plan.config, environ, say)
        undo.callback(keeper.stop)
        sandbox = Sandbox(plan, network, keeper, say)
        undo.callback(sandbox.close)
        joined = sandbox.joined
        directory = undo.enter_context(tempfile.TemporaryDirectory(prefix="slapenir-kit-"))
        os.chmod(directory, 0o755)  # noqa: S103 - the command's user reads it; nothing is secret
        kit = make_kit(directory, joined.ca, plan.bundle)
        for note in kit.notes:
            say(note)
        groups = make_groups(plan.request.bounds, plan.uid)
        undo.callback(groups.remove)
        demand(groups, plan.request.asked)
        return sandbox.run(kit, groups)


class Sandbox:
    """A network that has joined a gateway, and the command in it."""

    def __init__(self, plan: Plan, network: Network, keeper: Keeper, say: Say) -> None:
        self._plan = plan
        self._network = network
        self._keeper = keeper
        self._link: Link | None = None
        self._say = say
        self._counted: dict[str, int] = {}
        self._next_try, self._wait = 0.0, 0.0
        self._reported = time.monotonic()
        self._stopped = False
        self._child = 0
        self._status_fd = -1
        self._keyboard: dict[int, object] = {}
        link = keeper.first()
        self.joined: Joined = link.join(plan.request.identity, network.sockets)
        self._link = link

    def close(self) -> None:
        """Tell the last of what was refused, and leave the gateway."""
        self._report()
        if self._link is not None:
            self._link.close()

    # -- the command ------------------------------------------------------------------------

    def run(self, kit: Kit, groups: Groups) -> int:
        """Run the command until it ends for good."""
        wait = 1.0
        while True:
            began = time.monotonic()
            status = self._run_once(kit, groups)
            if not self._plan.request.restart or self._stopped or status == 0:
                return status
            if time.monotonic() - began > _LONGEST_WAIT:
                wait = 1.0
            self._say(f"the command ended with {status}; again in {wait:.0f} s")
            if not self._pause(wait):
                return status
            wait = min(wait * 2, _LONGEST_WAIT)

    def _run_once(self, kit: Kit, groups: Groups) -> int:
        with contextlib.ExitStack() as undo:
            self._keyboard = _ignore_keyboard()
            undo.callback(_restore, self._keyboard)
            words, descriptors = self._words(kit, undo)
            status_read, status_write = os.pipe()
            undo.callback(os.close, status_read)
            words[1:1] = ["--json-status-fd", str(status_write)]
            environment = {
                **self._plan.environment,
                **kit.environment(KIT),
                **self.joined.environment,
            }
            self._child = os.fork()
            if self._child == 0:
                self._become(words, environment, [*descriptors, status_write], groups)
            os.close(status_write)
            self._status_fd = status_read
            try:
                return self._watch()
            finally:
                self._child, self._status_fd = 0, -1

    def _words(self, kit: Kit, undo: contextlib.ExitStack) -> tuple[list[str], list[int]]:
        """Return bubblewrap's command line and the descriptors that it is given."""
        plan, view = self._plan, self._plan.view
        python, more = interpreter()
        bwrap = tools.need("bwrap").path
        descriptors: list[int] = []

        def data(content: bytes) -> str:
            made = os.memfd_create("slapenir")
            undo.callback(os.close, made)
            os.write(made, content)
            os.lseek(made, 0, os.SEEK_SET)
            descriptors.append(made)
            return str(made)

        words = [
            bwrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
            "--unshare-cgroup-try", "--uid", str(plan.uid), "--gid", str(plan.gid),
            "--hostname", "sandbox", "--die-with-parent", "--cap-drop", "ALL", *mounts(view), *more,
            "--ro-bind", kit.directory, KIT,
        ]  # fmt: skip
        with open(launcher.__file__, "rb") as file:
            words += ["--ro-bind-data", data(file.read()), LAUNCHER]
        for ours, place in kit.overlays(KIT):
            words += ["--ro-bind", ours, place]
        for place, text in texts().items():
            words += ["--perms", "0444", "--ro-bind-data", data(text.encode()), place]
        for name, ours in kit.home_files().items():
            place = os.path.join(view.home, name)
            if view.kept and os.path.exists(os.path.join(view.kept, name)):
                continue
            words += ["--perms", "0700", "--dir", os.path.dirname(place)]
            with open(ours, "rb") as file:
                words += ["--perms", "0600", "--file", data(file.read()), place]
        words += [
            "--remount-ro",
            "/",
            "--seccomp",
            data(program(platform.machine())),
            "--chdir",
            view.workspace,
            "--",
        ]
        # bubblewrap leaves the keyboard's signals to the command; and Python ignores two others.
        usual = [n for n, handler in self._keyboard.items() if handler != signal.SIG_IGN]
        usual += [signal.SIGPIPE, signal.SIGXFSZ]
        signals = ",".join(str(int(number)) for number in usual)
        words += [python, "-I", "-S", LAUNCHER, signals, *view.writable, "--"]
        words += plan.request.command
        return words, descriptors

    def _become(
        self,
        words: list[str],
        environment: dict[str, str],
        descriptors: list[int],
        groups: Groups,
    ) -> None:
        """Become bubblewrap, in the groups and the network, as the user; never returns."""
        try:
            groups.join()
            self._network.join()
            if not self._plan.rootless:
                os.setgroups([])
                os.setresgid(*(self._plan.gid,) * 3)
                os.setresuid(*(self._plan.uid,) * 3)
            # Nothing else that this process, or whoever started it, has open goes in.
            for name in os.listdir("/proc/self/fd"):
                if int(name) > _STANDARD and int(name) not in descriptors:
                    with contextlib.suppress(OSError):  # the one of listdir is closed by now
                        os.set_inheritable(int(name), False)
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            os.execve(words[0], words, environment)  # noqa: S606
        except BaseException as error:
            sys.stderr.write(f"slapenir run: {words[0]} cannot be run: {error}\n")
        finally:
            os._exit(126)

    # -- while it runs ----------------------------------------------------------------------

    def _watch(self) -> int:
        """Wait for the command; pass signals on, keep the gateway, report what was refused."""
        child = os.pidfd_open(self._child)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        old = {number: signal.signal(number, self._forward) for number in _FORWARDED}
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(child, selectors.EVENT_READ)
                selector.register(wake_read, selectors.EVENT_READ)
                while True:
                    ready = self._select(selector)
                    if child in ready:
                        _, status = os.waitpid(self._child, 0)
                        return (
                            os.waitstatus_to_exitcode(status) % 256
                            if os.WIFEXITED(status)
                            else 128 + os.WTERMSIG(status)
                        )
                    if wake_read in ready:
                        os.read(wake_read, 4096)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in old.items():
                signal.signal(number, handler)
            for descriptor in (child, wake_read, wake_write):
                os.close(descriptor)

    def _select(self, selector: selectors.BaseSelector) -> set[int]:
        link = self._link
        if link is not None:
            selector.register(link, selectors.EVENT_READ)
        try:
            ready = {key.fd for key, _ in selector.select(_LOOK_SECONDS)}
        finally:
            if link is not None:
                selector.unregister(link)
        if link is not None and link.fileno() in ready and link.ended():
            self._say("the gateway went away; connections wait until it is back")
            link.close()
            self._link, self._wait = None, 0.1
        if self._link is None:
            self._rejoin()
        elif time.monotonic() - self._reported > _REPORT_SECONDS:
            self._report()
        return ready

    def _rejoin(self) -> None:
        """Hand the sockets over again; clients that connected meanwhile are in their backlog."""
        if time.monotonic() < self._next_try:
            return
        try:
            link = self._keeper.again(_REJOIN_SECONDS)
            try:
                link.join(self.joined.identity, self._network.sockets)
            except SandboxError:
                link.close()
                raise
        except SandboxError:
            self._next_try = time.monotonic() + self._wait
            self._wait = min(self._wait * 2, _LONGEST_WAIT / 6)
            return
        self._link = link
        self._say("the gateway is back")

    def _report(self) -> None:
        """Tell the gateway what the packet filter has refused since the last time."""
        if self._link is None:
            return
        self._reported = time.monotonic()
        try:
            counted = read_counters(self._network.run("nft", "-j", "list", "counters"))
        except (SandboxError, ValueError):
            return
        more = {k: n - self._counted.get(k, 0) for k, n in counted.items()}
        more = {k: n for k, n in more.items() if n > 0}
        if more:
            self._link.report(more)
            self._counted = counted

    def _forward(self, number: int, frame: FrameType | None) -> None:
        """Send a signal that the runner got to the command."""
        if number in (signal.SIGTERM, signal.SIGHUP):
            self._stopped = True
        for pid in self._command_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _command_pids(self) -> list[int]:
        """Return the command's process: the child of the first process in the sandbox.

        Until it is there, bubblewrap itself: then there is nothing yet to end in an orderly way.
        """
        first = self._first_process()
        if first:
            with contextlib.suppress(OSError):
                with open(f"/proc/{first}/task/{first}/children", encoding="ascii") as file:
                    found = [int(word) for word in file.read().split()]
                if found:
                    return found
        return [self._child] if self._child else []

    def _first_process(self) -> int:
        if self._status_fd < 0:
            return 0
        if not hasattr(self, "_init"):
            self._init: dict[int, int] = {}
        if self._child not in self._init:
            line = os.read(self._status_fd, 4096).split(b"\n")[0]
            with contextlib.suppress(ValueError):
                self._init[self._child] = int(json.loads(line)["child-pid"])
        return self._init.get(self._child, 0)

    def _pause(self, seconds: float) -> bool:
        """Wait before the next run; whether there is one, for a signal to end ends it."""
        until = time.monotonic() + seconds
        old = {number: signal.signal(number, self._forward) for number in _FORWARDED}
        try:
            while time.monotonic() < until and not self._stopped:
                time.sleep(0.05)
            return not self._stopped
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _ignore_keyboard() -> dict[int, object]:
    """Leave Ctrl-C and the like to the command, which the terminal sends them to as well."""
    return {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)
    }


def _restore(handlers: dict[int, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
