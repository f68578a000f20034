"""Run a command in a sandbox: make it, join the gateway, wait, clean up."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import FrameType

from slapenir.errors import SandboxError
from slapenir.sandbox.bubble import Bubble, Told
from slapenir.sandbox.cgroups import Groups, by_limit, demand, make_groups
from slapenir.sandbox.filter import read_counters
from slapenir.sandbox.link import Joined, Keeper, Link
from slapenir.sandbox.links import Pins
from slapenir.sandbox.network import Network, make_network
from slapenir.sandbox.plan import Plan
from slapenir.sandbox.running import Running
from slapenir.sandbox.scratch import KIT as KIT_PREFIX
from slapenir.sandbox.scratch import Scratch, sweep
from slapenir.sandbox.terminal import Terminal
from slapenir.sandbox.trust import Kit, make_kit
from slapenir.sandbox.view import KIT, View, is_writable

Say = Callable[[str], None]
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LOOK_SECONDS, _REPORT_SECONDS = 1.0, 5.0
_LONGEST_WAIT = 30.0
_REJOIN_SECONDS = 2.0
_NOT_MADE = 2


def run(plan: Plan, environ: Mapping[str, str], say: Say) -> int:
    """Run the plan's command; return its exit status, 128 and more for a signal.

    Raises SandboxError when the sandbox cannot be made.
    """
    view = plan.view
    if not is_writable(view.workspace, view.uid, view.gid):
        say(f"{view.workspace} is not writable for user {view.uid}; --user names another")
    for note in plan.notes:
        say(note)
    _check_own_place(view)
    sweep(plan.scratch)
    with contextlib.ExitStack() as undo:
        pins = Pins(view.sources)
        undo.callback(pins.close)
        network = make_network(plan.rootless, plan.uid, plan.gid)
        undo.callback(network.close)
        # One that was named is the one to use: none is started in its place.
        config = "" if plan.request.gateway else plan.config
        keeper = Keeper(plan.gateway, config, environ, say, plan.scratch)
        undo.callback(keeper.stop)
        sandbox = Sandbox(plan, network, keeper, pins, say)
        undo.callback(sandbox.close)
        joined = sandbox.joined
        scratch = Scratch(plan.scratch, KIT_PREFIX)
        undo.callback(scratch.cleanup)
        os.chmod(scratch.name, 0o755)  # noqa: S103 - the command's user reads it; nothing is secret
        kit = make_kit(scratch.name, joined.ca, plan.bundle)
        for note in kit.notes:
            say(note)
        groups = make_groups(plan.request.bounds, plan.uid)
        undo.callback(groups.remove)
        demand(groups, plan.request.asked)
        if "pids" in groups.missing and not by_limit(groups, plan.request.bounds):
            say("its processes are not bounded: there is no control group for them")
        return sandbox.run(kit, groups)


class Sandbox:
    """A network that has joined a gateway, and the command in it."""

    def __init__(self, plan: Plan, network: Network, keeper: Keeper, pins: Pins, say: Say) -> None:
        self._plan = plan
        self._network = network
        self._keeper = keeper
        self._pins = pins
        self._link: Link | None = None
        self._say = say
        self._counted: dict[str, int] = {}
        self._next_try, self._wait = 0.0, 0.0
        self._reported = time.monotonic()
        self._stopped = False
        self._signals: list[int] = []
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
        wait, first = 1.0, True
        while True:
            began = time.monotonic()
            self._pins.renew()  # a link that an agent has put in a directory's place ends it
            self._plan.view.check_kept()
            try:
                status = self._run_once(kit, groups)
            except SandboxError:
                if first:
                    raise
                status = _NOT_MADE
            first = False
            if not self._plan.request.restart or self._stopped or status == 0:
                return status
            if time.monotonic() - began > _LONGEST_WAIT:
                wait = 1.0
            self._say(f"the command ended with {status}; again in {wait:.0f} s")
            if not self._pause(wait):
                return status
            wait = min(wait * 2, _LONGEST_WAIT)

    def _run_once(self, kit: Kit, groups: Groups) -> int:
        environment = {
            **self._plan.environment,
            **kit.environment(KIT),
            **self.joined.environment,
        }
        processes = by_limit(groups, self._plan.request.bounds)
        bubble = Bubble(self._plan, kit, environment, self._pins, processes)
        with contextlib.ExitStack() as undo:
            keyboard = _ignore_keyboard()
            undo.callback(_restore, keyboard)
            undo.callback(bubble.close)
            status_read, status_write = os.pipe()
            undo.callback(os.close, status_read)
            # bubblewrap leaves the keyboard's signals to the command; Python ignores two others.
            taken = [one for one, handler in keyboard.items() if handler != signal.SIG_IGN]
            bubble.prepare(status_write, [*taken, signal.SIGPIPE, signal.SIGXFSZ])
            terminal = Terminal()
            undo.callback(terminal.close)
            child = os.fork()
            if child == 0:
                self._become(bubble, terminal, groups)
            bubble.close()
            terminal.follow(child)
            undo.callback(terminal.take_back)
            return self._watch(Running(child, terminal, Told(status_read)), taken)

    def _become(self, bubble: Bubble, terminal: Terminal, groups: Groups) -> None:
        """Become bubblewrap, in the groups and the network, as the user; never returns."""
        try:
            terminal.leave()
            groups.join()
            self._network.join()
            bubble.become()
        except BaseException as error:
            os.write(2, f"slapenir run: {error}\n".encode(errors="replace"))
        finally:
            os._exit(1)

    # -- while it runs ----------------------------------------------------------------------

    def _watch(self, running: Running, keyboard: Iterable[int]) -> int:
        """Wait for the command; pass signals on, keep the gateway, report what was refused."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, wake_read)
            undo.callback(os.close, wake_write)
            undo.callback(_restore, self._handle(keyboard, running.terminal.is_there))
            undo.callback(signal.set_wakeup_fd, -1)
            signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
            selector = undo.enter_context(selectors.DefaultSelector())
            selector.register(wake_read, selectors.EVENT_READ)
            selector.register(running.told, selectors.EVENT_READ)
            while (status := running.look()) is None:
                ready = self._select(selector)
                if wake_read in ready:
                    os.read(wake_read, 4096)
                if running.told.fileno() in ready and running.told.read():
                    selector.unregister(running.told)
                while self._signals:
                    running.pass_on(self._signals.pop(0))
            return status

    def _handle(self, keyboard: Iterable[int], terminal: bool) -> dict[int, object]:
        """Take the signals while a command runs; return what took them before."""
        self._signals.clear()
        numbers = [*_FORWARDED, *keyboard, signal.SIGWINCH, signal.SIGCHLD]
        if terminal:
            numbers += [signal.SIGTSTP, signal.SIGCONT]
        return {number: signal.signal(number, self._take) for number in numbers}

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

    def _take(self, number: int, frame: FrameType | None) -> None:
        """Keep a signal that the runner got for the command."""
        if number in (signal.SIGTERM, signal.SIGHUP):
            self._stopped = True
        self._signals.append(number)

    def _pause(self, seconds: float) -> bool:
        """Wait before the next run; whether there is one, for a signal to end ends it."""
        until = time.monotonic() + seconds
        old = {number: signal.signal(number, self._take) for number in _FORWARDED}
        try:
            while time.monotonic() < until and not self._stopped:
                time.sleep(0.05)
            return not self._stopped
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _check_own_place(view: View) -> None:
    """Raise SandboxError when this program itself is where the command may write (T239)."""
    for place in (sys.prefix, *sys.path, os.path.dirname(__file__)):
        real = os.path.realpath(place)
        for writable in filter(None, (view.workspace, view.kept)):
            if os.path.commonpath((real, writable)) == writable:
                raise SandboxError(
                    f"SLAPENIR loads programs from {real}, which the command could change",
                    "install it outside of the workspace, and take that off PYTHONPATH",
                )


def _ignore_keyboard() -> dict[int, object]:
    """Leave Ctrl-C and the like to the command, which the terminal sends them to as well."""
    return {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)
    }


def _restore(handlers: dict[int, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
