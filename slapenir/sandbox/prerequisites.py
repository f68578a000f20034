"""What a host needs for sandboxes, one by one; each with what to do when it is missing."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from slapenir.errors import ConfigErrors, SandboxError, SlapenirError
from slapenir.sandbox import tools
from slapenir.sandbox.cgroups import Bounds, make_groups
from slapenir.sandbox.doctor_check import HOST, MISSING, OK, SKIPPED, Finding
from slapenir.sandbox.doctor_gateway import gateway_findings
from slapenir.sandbox.network import make_network
from slapenir.sandbox.plan import Request, find_configuration
from slapenir.sandbox.seccomp import program
from slapenir.sandbox.view import interpreter

_NOBODY = 65534
_LANDLOCK_CREATE, _LANDLOCK_VERSION = 444, 1
_YEAR_2025 = 1_735_689_600
CONFIGURATION = "configuration"
NEEDED = frozenset((
    "system", "bubblewrap", "nftables", "iproute2", "user namespaces", "network namespace",
    "system call filter", "Python inside",
))  # fmt: skip
"""Without these there is no sandbox at all; the rest is about a certain gateway."""

_PERMIT = (
    "sysctl -w user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 "
    "kernel.apparmor_restrict_unprivileged_userns=0 (those that are there); in a container: let "
    "it have unmasked /proc and the system calls unshare and mount"
)


class Missing(Exception):
    """Something is not there: why, and what to do."""

    def __init__(self, detail: str, remedy: str, optional: bool = False) -> None:
        super().__init__(detail)
        self.detail, self.remedy, self.optional = detail, remedy, optional


def prerequisites(config: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at everything; never raises."""
    checks: dict[str, Callable[[], str]] = {
        "system": _system,
        "bubblewrap": lambda: tools.need("bwrap").path,
        "nftables": lambda: tools.need("nft").path,
        "iproute2": lambda: tools.need("ip").path,
        "user namespaces": _user_namespaces,
        "network namespace": _network,
        "system call filter": _seccomp,
        "Landlock": _landlock,
        "control groups": _groups,
        "Python inside": _python,
        "certutil": _certutil,
        "clock": _clock,
    }
    for name, check in checks.items():
        try:
            yield Finding(HOST, name, OK, check())
        except Missing as missing:
            result = SKIPPED if missing.optional else MISSING
            yield Finding(HOST, name, result, missing.detail, missing.remedy)
        except SandboxError as error:
            yield Finding(HOST, name, MISSING, error.error, error.remedy)
        except (SlapenirError, OSError) as error:
            yield Finding(HOST, name, MISSING, str(error), "see docs/sandbox.rst")
    yield from _configuration(config, environ)


def _system() -> str:
    if sys.platform != "linux":
        raise Missing(f"{sys.platform} has no namespaces", "use Linux, or a Linux VM")
    return f"{platform.release()} {platform.machine()}"


def _certutil() -> str:
    try:
        return tools.need("certutil").path
    except SandboxError as error:
        raise Missing(error.error, error.remedy, optional=True) from None


def _network() -> str:
    """Make one and take it down again: namespaces, addresses, NAT and filter at once."""
    rootless = os.geteuid() != 0
    network = make_network(rootless, os.geteuid(), os.getegid())
    kinds = ", ".join(network.sockets)
    network.close()
    if "tcp6" not in kinds:
        raise Missing("the kernel has no IPv6; sandboxes have only IPv4", "nothing, mostly", True)
    return f"{'by a user namespace' if rootless else 'as root'}: {kinds}"


def _user_namespaces() -> str:
    """Let bubblewrap make the namespaces of a sandbox, as the user that would do it."""
    try:
        bwrap = tools.need("bwrap")
    except SandboxError as error:
        raise Missing("not tried without bubblewrap", error.remedy, optional=True) from None
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", bwrap.path, "--version"]
    try:
        bwrap.run(*words, user=None if os.geteuid() else _NOBODY)
    except SandboxError as error:
        raise Missing(error.error, _PERMIT) from None
    return "bubblewrap can make them"


def _seccomp() -> str:
    size = len(program(platform.machine())) // 8
    if not os.path.exists("/proc/sys/kernel/seccomp"):
        raise Missing("the kernel has none", "use a kernel with CONFIG_SECCOMP_FILTER")
    return f"{size} instructions"


def _landlock() -> str:
    abi = ctypes.CDLL(None).syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if abi < 1:
        raise Missing("the kernel has none", "add landlock to the lsm= of the kernel", True)
    return f"ABI {abi}"


def _groups() -> str:
    groups = make_groups(Bounds(1 << 30, 1000, 1.0), os.geteuid())
    groups.remove()
    if groups.missing:
        raise Missing(
            f"not for {', '.join(groups.missing)}",
            "as root, or: systemd-run --user --scope -p Delegate=yes slapenir run ...",
            optional=True,
        )
    return "memory, pids, cpu"


def _python() -> str:
    path, brought = interpreter()
    return f"{path}{' (brought along)' if brought else ''}"


def _clock() -> str:
    now = time.time()
    if now < _YEAR_2025:
        raise Missing("it is years behind", "set it: certificates depend on it")
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))


def _configuration(config: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Read it, and look at the gateway that it is for."""
    request = Request(command=("true",), config=config)
    try:
        path, settings = find_configuration(request, environ)
    except ConfigErrors as error:
        first = error.errors[0]
        yield Finding(HOST, CONFIGURATION, MISSING, str(first), "run: slapenir check FILE")
        return
    except SandboxError as error:
        yield Finding(HOST, CONFIGURATION, MISSING, error.error, error.remedy)
        return
    yield Finding(HOST, CONFIGURATION, OK, path or "none that can be read, and none is needed")
    yield from gateway_findings(path, settings, environ)
