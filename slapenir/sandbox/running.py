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
_OF_KEYBOARD = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH)


@attrs.define
class Running:
    """One run: ``child`` is bubblewrap, which ends with the command's status."""

    child: int
    terminal: Terminal
    told: Told
    _deadline: float = 0.0

    def look(self) -> int | None:
        """Return the status of the command when it has ended; see to one that has stopped.

        Raises SandboxError when there was no command, for the sandbox could not be made.
        """
        self.told.read()
        pid, status = os.waitpid(self.child, os.WNOHANG | os.WUNTRACED)
        if not pid:
            if self._deadline and time.monotonic() > self._deadline:
                self._kill()
            elif self.terminal.is_there and self._has_stopped_itself():
                self.terminal.stopped(signal.SIGSTOP)
                self._send(signal.SIGCONT)
            return None
        if os.WIFSTOPPED(status):
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

    def _has_stopped_itself(self) -> bool:
        """Whether only the command has stopped, as some do for Ctrl-Z: nobody is told of that."""
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
