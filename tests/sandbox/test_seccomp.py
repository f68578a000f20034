"""The filter for system calls, run by a small machine of the test's own (classic BPF)."""

from __future__ import annotations

import errno
import struct

from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import SandboxError
from slapenir.sandbox.seccomp import _CONDITIONAL, _MACHINES, _REFUSED, program

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
COLUMN = {"x86_64": 0, "aarch64": 1}


def run(code: bytes, arch: int, number: int, *arguments: int) -> int:
    """Return what the program answers to one system call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    lines = list(struct.iter_unpack("=HBBI", code))
    accumulator, at = 0, 0
    while True:
        operation, yes, no, value = lines[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x06:
            return value
        else:
            holds = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            at += yes if holds else no


class SeccompTests(SynchronousTestCase):
    def ask(self, machine: str, name: str, *arguments: int) -> int:
        """Return the answer to a system call by its name."""
        number = {**_REFUSED, **_CONDITIONAL}[name][COLUMN[machine]]
        return run(program(machine), _MACHINES[machine][0], number, *arguments)

    def test_refused(self) -> None:
        for machine in COLUMN:
            for name, numbers in _REFUSED.items():
                if numbers[COLUMN[machine]] is None:
                    continue
                self.assertEqual(self.ask(machine, name), ERRNO | errno.EPERM, name)
            self.assertEqual(self.ask(machine, "clone3"), ERRNO | errno.ENOSYS)

    def test_newer_ways_to_a_mount(self) -> None:
        """By their numbers: open_tree_attr as open_tree; memory that nobody else sees, segments."""
        for machine in COLUMN:
            arch, code = _MACHINES[machine][0], program(machine)
            for number in (428, 467, 447):
                self.assertEqual(run(code, arch, number), ERRNO | errno.EPERM, number)
            ldt = ERRNO | errno.EPERM if machine == "x86_64" else ALLOW
            self.assertEqual(run(code, arch, 154), ldt)
            for number in (446, 448, 466, 468):  # landlock_restrict_self and others beside them
                self.assertEqual(run(code, arch, number), ALLOW, number)

    def test_what_is_usual(self) -> None:
        """read, write, openat, execve and whatever is not listed."""
        listed = {n for each in (*_REFUSED.values(), *_CONDITIONAL.values()) for n in each}
        for machine in COLUMN:
            arch, code = _MACHINES[machine][0], program(machine)
            for number in set(range(480)) - listed:
                self.assertEqual(run(code, arch, number), ALLOW, number)

    def test_namespaces(self) -> None:
        """Each flag by itself, beside others, and with upper bits; threads and forks go on."""
        for machine in COLUMN:
            for name in ("clone", "unshare"):
                for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000,
                            0x40000000, 0x80):  # fmt: skip
                    for flags in (bit, bit | 0x11, bit | 1 << 40):
                        answer = self.ask(machine, name, flags)
                        self.assertEqual(answer, ERRNO | errno.EPERM, hex(flags))
            self.assertEqual(self.ask(machine, "clone", 0x3D0F00), ALLOW)
            self.assertEqual(self.ask(machine, "clone", 0x1200011), ALLOW)

    def test_sockets(self) -> None:
        """UNIX, IPv4, IPv6 and routing netlink; no other family, however it is written."""
        for machine in COLUMN:
            for family in range(64):
                answer = self.ask(machine, "socket", family, 1, 0)
                allowed = family in (1, 2, 10, 16)
                self.assertEqual(answer, ALLOW if allowed else ERRNO | errno.EAFNOSUPPORT, family)
                self.assertEqual(self.ask(machine, "socket", family | 1 << 32, 1, 0), answer)
            for protocol in range(1, 32):
                answer = self.ask(machine, "socket", 16, 3, protocol)
                self.assertEqual(answer, ERRNO | errno.EPROTONOSUPPORT)

    def test_terminal(self) -> None:
        for machine in COLUMN:
            for request, answer in (
                (0x5412, ERRNO | errno.EPERM),
                (0x541C, ERRNO | errno.EPERM),
                (0x5412 | 1 << 32, ERRNO | errno.EPERM),
                (0x5413, ALLOW),
            ):
                self.assertEqual(self.ask(machine, "ioctl", 0, request), answer)

    def test_other_machines(self) -> None:
        """Calls of another architecture kill, those of x32 are not there; no filter, no sandbox."""
        code = program("x86_64")
        self.assertEqual(run(code, 0x40000003, 11), KILL)  # i386's execve
        self.assertEqual(run(code, _MACHINES["aarch64"][0], 0), KILL)
        self.assertEqual(run(code, _MACHINES["x86_64"][0], 0x40000000 | 41), ERRNO | errno.ENOSYS)
        with self.assertRaises(SandboxError):
            program("riscv64")
