"""The few system calls that Python 3.11 has no name for, by ctypes: unshare, setns, prctl."""

from __future__ import annotations

import ctypes
import os
import signal

NEW_NET, NEW_USER = 0x40000000, 0x10000000

_SET_DEATH_SIGNAL, _SET_DUMPABLE = 1, 4
_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones; raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def enter(descriptor: int, kind: int) -> None:
    """Enter the namespace that a descriptor stands for; raises OSError."""
    _check(_libc.setns(descriptor, kind), "setns")


def stay_dumpable() -> None:
    """Keep the files of this process in /proc its own after a change of user (prctl(2))."""
    _check(_libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it is gone (prctl(2))."""
    _check(_libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0), "prctl")


def _check(result: int, call: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
