"""Bounds on memory, processes and CPU, by control groups of either version (cgroups(7))."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time

import attrs

from slapenir.errors import SandboxError

ROOT = "/sys/fs/cgroup"
_NAME = "slapenir-"
_GROUP = re.compile(rf"{_NAME}([0-9]+)-[0-9a-f]+", re.ASCII)
_PERIOD = 100_000  # microseconds
_SIZE = re.compile(r"([0-9]+)([KMGT]?)", re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@attrs.frozen
class Bounds:
    """Bytes of memory, number of processes, number of CPUs; None for no bound."""

    memory: int | None = None
    processes: int | None = None
    cpus: float | None = None

    def by_controller(self) -> dict[str, object]:
        """Return those that are set."""
        every = {"memory": self.memory, "pids": self.processes, "cpu": self.cpus}
        return {name: value for name, value in every.items() if value is not None}


def parse_size(text: str) -> int:
    """Return bytes of ``512M`` and the like; raises ValueError."""
    found = _SIZE.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise ValueError("write a number with K, M, G or T, such as 4G")
    return int(found[1]) * _UNITS[found[2]]


def physical_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def usual_memory() -> int:
    """Return the bound where none is asked for: three quarters of what the machine has."""
    return physical_memory() // 4 * 3


@attrs.frozen
class Groups:
    """The groups of one sandbox; ``missing`` are the controllers that could not be had."""

    paths: tuple[str, ...]
    missing: tuple[str, ...] = ()

    def join(self) -> None:
        """Put this process into them."""
        for path in self.paths:
            _write(f"{path}/cgroup.procs", "0")

    def remove(self) -> None:
        """Remove them once they are empty; what is still in them is killed."""
        for path in self.paths:
            with contextlib.suppress(OSError):
                _write(f"{path}/cgroup.kill", "1")
            for _ in range(50):
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)
                else:
                    break


def make_groups(bounds: Bounds, owner: int, root: str = ROOT) -> Groups:
    """Make groups with these bounds; a controller that is not to be had is ``missing``."""
    name = f"{_NAME}{os.getpid()}-{secrets.token_hex(8)}"  # nobody has it already
    made: list[str] = []
    missing: list[str] = []
    try:
        for controller, value in bounds.by_controller().items():
            path = _place(root, controller, name)
            try:
                if path is None:
                    raise OSError
                if path not in made:
                    _sweep(os.path.dirname(path))
                    os.mkdir(path)
                    made.append(path)
                _set(path, controller, value, v1=path.startswith(f"{root}/{controller}/"))
            except OSError:
                missing.append(controller)
    except BaseException:
        Groups(tuple(made)).remove()
        raise
    return Groups(tuple(made), tuple(missing))


def _sweep(directory: str) -> None:
    """Remove the empty groups of runners that were killed before they could."""
    for name in os.listdir(directory):
        found = _GROUP.fullmatch(name)
        if found is not None and not os.path.exists(f"/proc/{found[1]}"):
            with contextlib.suppress(OSError):
                os.rmdir(f"{directory}/{name}")


def _place(root: str, controller: str, name: str) -> str | None:
    """Return where a group for a controller goes: version 1 by its name, else version 2."""
    if os.path.isdir(f"{root}/{controller}"):
        return f"{root}/{controller}/{name}"
    for base in (_own_group(root), root):
        if base is None:
            continue
        try:
            with open(f"{base}/cgroup.subtree_control", encoding="ascii") as file:
                enabled = file.read().split()
        except OSError:
            continue
        if controller not in enabled:
            try:
                _write(f"{base}/cgroup.subtree_control", f"+{controller}")
            except OSError:
                continue
        if os.access(base, os.W_OK):
            return f"{base}/{name}"
    return None


def _own_group(root: str) -> str | None:
    """Return the version 2 group above this process's own, which may be delegated to its user."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/"):
            return os.path.dirname(f"{root}{line[3:]}")
    return None


def _set(path: str, controller: str, value: object, *, v1: bool) -> None:
    if controller == "memory":
        _write(f"{path}/{'memory.limit_in_bytes' if v1 else 'memory.max'}", str(value))
        swap = "memory.memsw.limit_in_bytes" if v1 else "memory.swap.max"
        with contextlib.suppress(OSError):  # not every kernel counts swap
            _write(f"{path}/{swap}", str(value) if v1 else "0")
    elif controller == "pids":
        _write(f"{path}/pids.max", str(value))
    else:
        quota = max(1000, int(float(str(value)) * _PERIOD))
        if v1:
            _write(f"{path}/cpu.cfs_period_us", str(_PERIOD))
            _write(f"{path}/cpu.cfs_quota_us", str(quota))
        else:
            _write(f"{path}/cpu.max", f"{quota} {_PERIOD}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def by_limit(groups: Groups, bounds: Bounds) -> int:
    """Return how many processes a resource limit of the sandbox's has to allow; 0 for no limit.

    RLIMIT_NPROC stands in for the control group that cannot be had.  Since Linux 5.14 it counts in
    each user namespace by itself; before, it would count everything that the user runs.
    """
    if bounds.processes is None or "pids" not in groups.missing or not _limits_by_namespace():
        return 0
    return bounds.processes


def _limits_by_namespace() -> bool:
    found = re.match(r"([0-9]+)\.([0-9]+)", os.uname().release, re.ASCII)
    return found is not None and (int(found[1]), int(found[2])) >= (5, 14)


def demand(groups: Groups, asked: Bounds) -> None:
    """Raise SandboxError for a bound that was asked for and cannot be had."""
    wanted = set(asked.by_controller()) & set(groups.missing)
    if by_limit(groups, asked):
        wanted.discard("pids")
    if wanted:
        raise SandboxError(
            f"there is no control group for {', '.join(sorted(wanted))}",
            "run it as root, or by: systemd-run --user --scope -p Delegate=yes slapenir run ...",
        )
