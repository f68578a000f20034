"""A command that runs in a sandbox: how it is, and what it is sent."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import attrs

from slapenir.errors import SandboxError
from slapenir.sandbox.bubble import Told
from slapenir.sandbox.terminal import Terminal

_GRACE_SECONDS = 10.0  # from a SIGTERM to a SIGKILL
_STOP_SECONDS, _LOOK_SECONDS, _ALONE_SECONDS = 0.5, 0.002, 0.1
_OF_KEYBOARD = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH)


@attrs.define
class Running:
    """One run: ``child`` is bubblewrap, which ends with the command's status."""

    child: int
    terminal: Terminal
    told: Told
    _deadline: float = 0.0
    _alone: float = 0.0

    def look(self) -> int | None:
        """Return the status of the command when it has ended; see to one that has stopped.

        Raises SandboxError when there was no command, for the sandbox could not be made.
        """
        self.told.read()
        pid, status = os.waitpid(self.child, os.WNOHANG | os.WUNTRACED)
        if not pid:
            if self._deadline and time.monotonic() > self._deadline:
                self._kill()
            elif self.terminal.is_there and self._has_stopped_alone():
                self.terminal.stopped(signal.SIGSTOP)
                self._send(signal.SIGCONT)
            return None
        self._alone = 0.0
        if os.WIFSTOPPED(status):
            self._wait_for_command()
            self.terminal.stopped(os.WSTOPSIG(status))
            return None
        self.told.read()
        if os.WIFSIGNALED(status):
            return 128 + os.WTERMSIG(status)
        if not self.told.ran:
            raise SandboxError(
                "the sandbox could not be made", "what is wrong is said above; try slapenir doctor"
            )
        return os.WEXITSTATUS(status)

    def pass_on(self, number: int) -> None:
        """Do for the command what the runner got a signal for.

        What the keyboard sends goes to everybody whom a terminal would send it to.  A sandbox that
        does not end by SIGTERM is killed in the end.
        """
        if number == signal.SIGCONT:
            self.terminal.go_on()
        elif number in _OF_KEYBOARD:
            self.terminal.forward(number)
        elif number != signal.SIGCHLD:
            if number == signal.SIGTERM and not self._deadline:
                self._deadline = time.monotonic() + _GRACE_SECONDS
            self._send(number)

    def _send(self, number: int) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pids(self) -> list[int]:
        """Return the command's process: the child of the first process in the sandbox.

        Until it is there, bubblewrap itself: then there is nothing yet to end in an orderly way.
        """
        first = self.told.first
        with contextlib.suppress(OSError):
            with open(f"/proc/{first}/task/{first}/children", encoding="ascii") as file:
                found = [int(word) for word in file.read().split()]
            if found:
                return found
        return [self.child]

    def _wait_for_command(self) -> None:
        """Wait a moment until the command has stopped like bubblewrap.

        Until then it may be reading, and would take the first line that the shell is typed.
        """
        until = time.monotonic() + _STOP_SECONDS
        while not self._has_stopped() and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)

    def _has_stopped_alone(self) -> bool:
        """Whether only the command has stopped, as some do for Ctrl-Z: nobody is told of that.

        What stops the whole group stops bubblewrap a moment later, and that is told.
        """
        if not self._has_stopped():
            self._alone = 0.0
            return False
        now = time.monotonic()
        self._alone = self._alone or now
        if now - self._alone < _ALONE_SECONDS:
            return False
        self._alone = 0.0
        return True

    def _has_stopped(self) -> bool:
        """Whether the command has stopped."""
        states = []
        for pid in self._pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
                states.append(file.read().rpartition(b")")[2].split()[0])
        return bool(states) and set(states) == {b"T"}

    def _kill(self) -> None:
        """End all of the sandbox: its first process, with which the kernel ends the others."""
        self._deadline = 0.0
        for pid in (self.told.first, self.child):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
