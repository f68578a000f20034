"""The process group of a sandbox, and the terminal that is lent to it.

The command must not share a group with the runner: ``kill(0, SIGKILL)`` reaches everybody in it,
whatever the namespace.  Where there is a terminal, job control (credentials(7), tcsetpgrp(3)) goes
on as a shell does it: the group that is typed to has it, and it comes back when the command stops.
"""

from __future__ import annotations

import contextlib
import os
import signal

_DEVICE = "/dev/tty"
_INPUT, _OUTPUT = 0, 1


class Terminal:
    """The controlling terminal of this process, if it has one.

    ``group`` is the sandbox's process group once there is one.
    """

    def __init__(self) -> None:
        self._ours = os.getpgrp()
        self._lent = False
        self.group = 0
        try:
            self._device = os.open(_DEVICE, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._device = -1

    @property
    def is_there(self) -> bool:
        """Whether there is one."""
        return self._device >= 0

    def close(self) -> None:
        """Let go of it."""
        if self.is_there:
            os.close(self._device)

    def leave(self) -> None:
        """Leave the runner's group, in the child that becomes the sandbox; its session, too,
        where nobody could type.

        A pipe at one end means that somebody else of the runner's group may be typed to, a pager
        say; then the terminal is lent when the sandbox asks for it.
        """
        if not self.is_there:
            os.setsid()
            return
        os.setpgid(0, 0)
        self.group = os.getpgrp()
        if os.isatty(_INPUT) and os.isatty(_OUTPUT):
            self._lend()

    def follow(self, child: int) -> None:
        """Take note, in the runner, of the child that has called ``leave``, or is about to."""
        self.group = child
        if self.is_there:
            with contextlib.suppress(OSError):  # it was faster
                os.setpgid(child, child)
            if os.isatty(_INPUT) and os.isatty(_OUTPUT):
                self._lent = self._lend() or self._foreground() == child

    def forward(self, number: int) -> None:
        """Send a signal to the whole group, as the keyboard would."""
        if self.group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, number)

    def stopped(self, number: int) -> None:
        """Stop the caller's group after the sandbox's has stopped, and return when it goes on."""
        if not self.is_there:
            return
        if number in (signal.SIGTTIN, signal.SIGTTOU) and self._lend():
            self.forward(signal.SIGCONT)
            return
        lent = self._lent
        self.take_back()
        old = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            with contextlib.suppress(PermissionError):
                os.killpg(self._ours, signal.SIGTSTP)
        finally:
            signal.signal(signal.SIGTSTP, old)
        self._lent = lent
        self.go_on()

    def go_on(self) -> None:
        """Let the sandbox go on: in the foreground where the runner's group was put there."""
        if not self.is_there:
            return
        if self._lent and not self._lend() and self._foreground() != self.group:
            self._lent = False  # somebody else's now
        self.forward(signal.SIGCONT)

    def take_back(self) -> None:
        """Take the terminal back, if it was lent."""
        if self._lent:
            self._lent = False
            self._give(self._ours)

    def _lend(self) -> bool:
        """Lend it if it is the runner's group's; return whether it was."""
        if self._foreground() != self._ours:
            return False
        self._lent = True
        self._give(self.group)
        return True

    def _foreground(self) -> int:
        try:
            return os.tcgetpgrp(self._device)
        except OSError:  # it was hung up
            return -1

    def _give(self, group: int) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._device, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
