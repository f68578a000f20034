"""What a host needs for sandboxes, one by one; each with what to do when it is missing."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import attrs

from slapenir.errors import ConfigErrors, SandboxError, SlapenirError
from slapenir.sandbox.cgroups import Bounds, make_groups
from slapenir.sandbox.network import make_network
from slapenir.sandbox.plan import Request, find_configuration, joining_socket
from slapenir.sandbox.seccomp import program
from slapenir.sandbox.view import interpreter

_NOBODY = 65534
_LANDLOCK_CREATE, _LANDLOCK_VERSION = 444, 1
_YEAR_2025 = 1_735_689_600


@attrs.frozen
class Finding:
    """One thing that was looked at: ``result`` is ok, missing, hole, failed or skipped."""

    group: str
    name: str
    result: str
    detail: str = ""
    remedy: str = ""


class Missing(Exception):
    """Something is not there: why, and what to do."""

    def __init__(self, detail: str, remedy: str, optional: bool = False) -> None:
        super().__init__(detail)
        self.detail, self.remedy, self.optional = detail, remedy, optional


def prerequisites(config: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at everything; never raises."""
    checks: dict[str, Callable[[], str]] = {
        "system": _system,
        "bubblewrap": lambda: _tool("bwrap", "bubblewrap"),
        "nftables": lambda: _tool("nft", "nftables"),
        "iproute2": lambda: _tool("ip", "iproute2"),
        "network namespace": _network,
        "system call filter": lambda: f"{len(program(platform.machine())) // 8} instructions",
        "Landlock": _landlock,
        "control groups": _groups,
        "Python inside": _python,
        "certutil": lambda: _tool("certutil", "libnss3-tools, for Chromium", optional=True),
        "clock": _clock,
        "configuration": lambda: _configuration(config, environ),
    }
    for name, check in checks.items():
        try:
            yield Finding("host", name, "ok", check())
        except Missing as missing:
            result = "skipped" if missing.optional else "missing"
            yield Finding("host", name, result, missing.detail, missing.remedy)
        except SandboxError as error:
            yield Finding("host", name, "missing", error.error, error.remedy)
        except (SlapenirError, OSError) as error:
            yield Finding("host", name, "missing", str(error), "see docs/sandbox.rst")


def _system() -> str:
    if sys.platform != "linux":
        raise Missing(f"{sys.platform} has no namespaces", "use Linux, or a Linux VM")
    return f"{platform.release()} {platform.machine()}"


def _tool(name: str, package: str, optional: bool = False) -> str:
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed", f"install {package}", optional)
    return path


def _network() -> str:
    """Make one and take it down again: namespaces, addresses, NAT and filter at once."""
    rootless = os.geteuid() != 0
    network = make_network(rootless, os.geteuid(), os.getegid())
    kinds = ", ".join(network.sockets)
    network.close()
    if "tcp6" not in kinds:
        raise Missing("the kernel has no IPv6; sandboxes have only IPv4", "nothing, mostly", True)
    return f"{'by a user namespace' if rootless else 'as root'}: {kinds}"


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


def _configuration(config: str, environ: Mapping[str, str]) -> str:
    request = Request(command=("true",), config=config)
    try:
        path, settings = find_configuration(request, environ)
    except ConfigErrors as error:
        first = error.errors[0]
        raise Missing(str(first), "run: slapenir check FILE") from None
    socket_path = joining_socket(settings)
    if settings is None:
        return f"none that can be read; a gateway may answer at {socket_path}"
    _authority(settings)
    joins = (
        "a gateway answers" if socket_path and os.path.exists(socket_path) else "no gateway runs"
    )
    return f"{path}; {joins}"


def _authority(settings: object) -> None:
    """Refuse a CA of the future: the clock is wrong, or was when it was made."""
    from slapenir.config.bundles import load_interception

    for one in load_interception(settings).authorities.values():  # type: ignore[arg-type]
        if one.certificate.not_valid_before_utc.timestamp() > time.time():
            raise Missing("the interception CA is not good yet", "set the clock")
