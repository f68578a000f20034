"""``slapenir run``: a command in a sandbox whose only way out is the gateway."""

from __future__ import annotations

import math
import os
import shlex
import sys

import click

from slapenir.cli.output import console, say
from slapenir.errors import SandboxError
from slapenir.sandbox.cgroups import Bounds, parse_size, usual_memory
from slapenir.sandbox.plan import Plan, Request, make_plan
from slapenir.sandbox.runner import run
from slapenir.sandbox.view import mounts

_PROCESSES = 4096
_LEAST_MEMORY = 32 << 20  # bubblewrap and the launcher have to fit in
_MOST_CPUS = 10_000
_ERRORS = 2
_MOST_MEMORY = 1 << 62
_MOST_PROCESSES = 4_194_304  # the kernel's own (pids.max)
_NO_USER, _DIGITS = 0xFFFFFFFF, 10  # the number that means none (setresuid(2)); what is beyond it


def _cpus(ctx: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Refuse what is not a number: a range takes NaN for one that is in it."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("it is not a number")
    return value


def _user(ctx: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse a number that no user can have."""
    if value.isdigit():
        if not value.isascii() or len(value) > _DIGITS or int(value) >= _NO_USER:
            raise click.BadParameter(f"{value[:20]} is the number of no user")
    return value


def _memory(ctx: click.Context, option: click.Parameter, value: str) -> int | None:
    try:
        size = parse_size(value) if value else None
    except ValueError as error:
        raise SandboxError(f"--memory {value}", str(error)) from None
    if size is not None and size < _LEAST_MEMORY:
        raise SandboxError(f"--memory {value} is too little", "it takes at least 32M")
    if size is not None and size > _MOST_MEMORY:
        raise SandboxError(f"--memory {value} is too much", "leave it out for the usual bound")
    return size


@click.command("run")
@click.option("--config", "-c", default="", metavar="FILE", help="The gateway's configuration.")
@click.option("--gateway", default="", metavar="SOCKET", help="The socket of a running gateway.")
@click.option("--identity", default="", help="Whose sandbox it is, where there is a choice.")
@click.option("--rootless", is_flag=True, help="Use user namespaces even as root.")
@click.option("--workspace", default="", metavar="DIR", help="Where it may write; by default here.")
@click.option("--home", default="", metavar="DIR", help="Keep its home here; else it is lost.")
@click.option("--user", default="", metavar="NAME|UID", callback=_user,
              help="As root: whom the command runs as.")  # fmt: skip
@click.option("--ro", "shown", multiple=True, metavar="PATH", help="Show this too, read-only.")
@click.option("--env", "variables", multiple=True, metavar="NAME[=VALUE]", help="Pass this on.")
@click.option("--memory", default="", metavar="SIZE", callback=_memory,
              help="Its memory, such as 4G; by default 3/4 of the machine's.")  # fmt: skip
@click.option("--pids", type=click.IntRange(1, _MOST_PROCESSES),
              help=f"Its processes; by default {_PROCESSES}.")  # fmt: skip
@click.option("--cpus", type=click.FloatRange(0.01, _MOST_CPUS), callback=_cpus,
              help="Its CPUs, such as 1.5.")  # fmt: skip
@click.option("--restart", is_flag=True, help="Run it again when it fails, until it succeeds.")
@click.option("--show", is_flag=True, help="Print what would be done, and end.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def run_command(
    config: str,
    gateway: str,
    identity: str,
    rootless: bool,
    workspace: str,
    home: str,
    user: str,
    shown: tuple[str, ...],
    variables: tuple[str, ...],
    memory: int | None,
    pids: int | None,
    cpus: float | None,
    restart: bool,
    show: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in a sandbox: slapenir run -- claude

    Its network has no way out but the gateway, which is joined where it runs and started where it
    does not.  It sees the system read-only, writes to the workspace, and holds placeholders instead
    of credentials.  Its exit status is the command's; 2 when the sandbox cannot be made.

    The configuration is --config, else $SLAPENIR_CONFIG, else ~/.config/slapenir/slapenir.toml,
    else /etc/slapenir/slapenir.toml.
    """
    _open_standard()
    request = Request(
        command=command,
        config=config,
        gateway=gateway.removeprefix("unix:"),
        identity=identity,
        rootless=rootless,
        workspace=workspace,
        home=home,
        user=user,
        restart=restart,
        shown=shown,
        environment=variables,
        bounds=Bounds(memory or usual_memory(), pids or _PROCESSES, cpus),
        asked=Bounds(memory, pids, cpus),
    )
    plan = make_plan(request, os.environ)
    if show:
        _show(plan)
        return
    sys.exit(run(plan, os.environ, lambda text: say(f"slapenir run: {text}")))


def _open_standard() -> None:
    """Open what the caller has closed of standard input, output and errors: nothing of ours may
    take their numbers.
    """
    while (made := os.open(os.devnull, os.O_RDWR)) <= _ERRORS:
        os.set_inheritable(made, True)
    os.close(made)


def _show(plan: Plan) -> None:
    out = console()
    out.print(f"user       {plan.uid}, group {plan.gid}")
    out.print(f"gateway    {plan.gateway or 'one of its own'}")
    out.print(f"workspace  {plan.view.workspace}")
    out.print(f"variables  {' '.join(sorted(plan.environment))}")
    out.print(f"mounts     {shlex.join(mounts(plan.view))}")
    out.print(f"command    {shlex.join(plan.request.command)}")
