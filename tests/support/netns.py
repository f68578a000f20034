"""Network namespaces for tests: made here, gone afterwards, with names of their own.

A namespace belongs to a thread: ``with space.inside():`` moves this one there, so sockets made and
processes started meanwhile are the namespace's, and stay it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count

from twisted.trial.unittest import SkipTest

_CLONE_NEWNET = 0x40000000
_NUMBERS = count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def need_namespaces(*tools: str) -> None:
    """Skip the test unless this is root with ``ip`` and these programs."""
    if os.geteuid() != 0:
        raise SkipTest("network namespaces need root")
    for tool in ("ip", *tools):
        if shutil.which(tool) is None:
            raise SkipTest(f"{tool} is not installed")


def command(*words: str, text: str | None = None) -> str:
    """Run a program that has to succeed, ``text`` on its standard input; return its output."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stderr or done.stdout}")
    return done.stdout


class Namespace:
    """One network namespace, with loopback up."""

    def __init__(self) -> None:
        self.name = f"slt-{os.getpid()}-{next(_NUMBERS)}"
        command("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        """Run ``ip`` in it."""
        return command("ip", "-n", self.name, *words)

    def nft(self, ruleset: str) -> None:
        """Load packet filter rules."""
        with self.inside():
            command("nft", "-f", "-", text=ruleset)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be in it for a while, with this thread."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(there)
            os.close(before)

    def remove(self) -> None:
        """Let go of it; the kernel removes it with its last socket."""
        command("ip", "netns", "delete", self.name)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def join(left: Namespace, right: Namespace, number: int = 1) -> tuple[str, str]:
    """Connect two by a cable, 10.99.N.2 to 10.99.N.1; routes of the left go to the right.

    Returns the names of its ends.
    """
    a, b = f"sla{number}", f"slb{number}"
    command(
        "ip", "link", "add", a, "netns", left.name, "type", "veth",
        "peer", "name", b, "netns", right.name,
    )  # fmt: skip
    for space, link, last in ((left, a, 2), (right, b, 1)):
        space.ip("addr", "add", f"10.99.{number}.{last}/24", "dev", link)
        space.ip("-6", "addr", "add", f"fd99:{number}::{last}/64", "dev", link, "nodad")
        space.ip("link", "set", link, "up")
    left.ip("route", "add", "default", "via", f"10.99.{number}.1")
    left.ip("-6", "route", "add", "default", "via", f"fd99:{number}::1")
    return a, b
