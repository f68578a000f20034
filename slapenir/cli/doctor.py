"""``slapenir doctor``: would sandboxes work here, do clients, and does nothing get around them?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence

import click
from rich.text import Text

from slapenir.cli.output import console, say
from slapenir.errors import SandboxError
from slapenir.sandbox.doctor_check import (
    CLIENTS,
    FAILED,
    HOLE,
    HOLES,
    HOST,
    MISSING,
    OK,
    SKIPPED,
    Finding,
    exit_status,
)
from slapenir.sandbox.doctor_trial import run_trial
from slapenir.sandbox.doctor_wiring import inside_findings
from slapenir.sandbox.prerequisites import NEEDED, prerequisites

_STYLES = {OK: "green", SKIPPED: "dim", MISSING: "yellow", FAILED: "bold red", HOLE: "bold red"}


@click.command()
@click.option("--config", "-c", default="", metavar="FILE", help="The configuration to look at.")
@click.option("--inside", is_flag=True, help="Look from inside a sandbox, however it was made.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each finding.")
def doctor(config: str, inside: bool, as_json: bool) -> None:
    """Check what sandboxes need, ask with every client that is there, and try every way around.

    For the clients and the ways around it makes a gateway, an origin and a sandbox of its own, and
    takes them down again.  With --inside it looks from where it is.  Exits 0 when all is well, 1
    for a hole or a client that failed, 2 when something is missing.
    """
    found: list[Finding] = []
    for finding in inside_findings(os.environ) if inside else _outside(config, as_json):
        found.append(finding)
        if as_json:
            console().print(json.dumps(finding._asdict()))
    if not as_json:
        _print(found)
    sys.exit(exit_status(found))


def _outside(config: str, quiet: bool) -> Iterator[Finding]:
    found = []
    for finding in prerequisites(config, os.environ):
        found.append(finding)
        yield finding
    wanted = [one.name for one in found if one.result == MISSING and one.name in NEEDED]
    if wanted:
        for group in (CLIENTS, HOLES):
            yield Finding(group, "all", SKIPPED, f"needs {', '.join(wanted)}")
        return
    try:
        yield from run_trial(os.environ, (lambda text: None) if quiet else say)
    except SandboxError as error:
        yield Finding(HOST, "a sandbox", FAILED, error.error, error.remedy)


def _print(found: Sequence[Finding]) -> None:
    """Print a table of plain lines, each with its remedy where there is one."""
    out, shown = console(), ""
    widths = [max(len(one[column]) for one in found) for column in range(3)]
    for one in found:
        group = one.group if one.group != shown else ""
        row = Text.assemble(
            (group.ljust(widths[0]) + "  ", "bold"),
            one.name.ljust(widths[1]) + "  ",
            (one.result.ljust(widths[2]), _STYLES[one.result]),
            f"  {one.detail}",
        )
        row.rstrip()
        out.print(row)
        if one.remedy and one.result != OK:
            out.print(" " * (sum(widths[:2]) + 4), Text("remedy: ", "green"), one.remedy, sep="")
        shown = one.group
    wrong = [one for one in found if one.result in (HOLE, FAILED, MISSING)]
    words = f"{len(wrong)} of {len(found)} findings want attention" if wrong else "all is well"
    out.print(words)
