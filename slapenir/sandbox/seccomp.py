"""The system calls that a sandbox does not get (seccomp(2)), as a program for bubblewrap.

The program is assembled here: some instructions of classic BPF over ``struct seccomp_data``.
It is a list of refusals.  What it closes is what namespaces and mounts do not: more namespaces,
kernel features that have led out of sandboxes, socket families that no network namespace holds, and
typing into the terminal of whoever started the sandbox.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence

from slapenir.errors import SandboxError

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000

# CLONE_NEW*: mount, cgroup, UTS, IPC, user, PID, network, time.
_NAMESPACES = 0x7E020080
_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_ROUTE = 0  # the netlink that resolvers ask for addresses

# Refused outright: x86-64, aarch64 (the kernel's tables), None where there is no such call.
_REFUSED: dict[str, tuple[int, int | None]] = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "lookup_dcookie": (212, 18),
    "memfd_secret": (447, 447),
    "modify_ldt": (154, None),
}
_CONDITIONAL: dict[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "unshare": (272, 97),
    "socket": (41, 198),
    "ioctl": (16, 29),
}
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def program(machine: str) -> bytes:
    """Return the filter for a machine as ``platform.machine()`` names it; raises SandboxError."""
    found = _MACHINES.get(machine)
    if found is None:
        raise SandboxError(f"there is no system call filter for {machine}", "use x86-64 or aarch64")
    arch, column = found
    numbers = {name: each[column] for name, each in _CONDITIONAL.items()}
    lines = [
        _load(_ARCH),
        _jump(_EQUAL, arch, 1, 0),
        _return(_KILL),
        _load(_NR),
        _jump(_GREATER_EQUAL, _X32, 0, 1),
        _return(_ERRNO | errno.ENOSYS),
    ]
    for each in _REFUSED.values():
        number = each[column]
        if number is not None:
            lines += [_jump(_EQUAL, number, 0, 1), _return(_ERRNO | errno.EPERM)]
    # A flag of clone3 is behind a pointer, so it cannot be looked at: libraries go back to clone.
    lines += [_jump(_EQUAL, numbers["clone3"], 0, 1), _return(_ERRNO | errno.ENOSYS)]
    for name in ("clone", "unshare"):
        lines += _when(numbers[name], _any_bit(0, _NAMESPACES, errno.EPERM))
    lines += _when(numbers["ioctl"], _one_of(1, _TERMINAL, errno.EPERM))
    lines += _when(numbers["socket"], _families())
    return b"".join([*lines, _return(_ALLOW)])


def _when(number: int, then: Sequence[bytes]) -> list[bytes]:
    """Do something for one system call; its number is in the accumulator before and after."""
    return [_jump(_EQUAL, number, 0, len(then)), *then]


def _any_bit(argument: int, bits: int, error: int) -> list[bytes]:
    return [
        _load_argument(argument),
        _jump(_ANY_BIT, bits, 0, 1),
        _return(_ERRNO | error),
        _return(_ALLOW),
    ]


def _one_of(argument: int, values: Iterable[int], error: int) -> list[bytes]:
    lines = [_load_argument(argument)]
    for value in values:
        lines += [_jump(_EQUAL, value, 0, 1), _return(_ERRNO | error)]
    return [*lines, _return(_ALLOW)]


def _families() -> list[bytes]:
    """Allow UNIX, IPv4, IPv6 and routing netlink sockets; there are none of another family."""
    lines = [_load_argument(0)]
    for family in (_UNIX, _INET, _INET6):
        lines += [_jump(_EQUAL, family, 0, 1), _return(_ALLOW)]
    return [
        *lines,
        _jump(_EQUAL, _NETLINK, 1, 0),
        _return(_ERRNO | errno.EAFNOSUPPORT),
        _load_argument(2),
        _jump(_EQUAL, _ROUTE, 0, 1),
        _return(_ALLOW),
        _return(_ERRNO | errno.EPROTONOSUPPORT),
    ]


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _load_argument(index: int) -> bytes:
    """Load the lower half of an argument: the kernel looks at no more of these."""
    return _load(_ARGUMENTS + 8 * index)


def _jump(test: int, value: int, yes: int, no: int) -> bytes:
    return struct.pack("=HBBI", test, yes, no, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, value)
