"""``slapenir doctor``: would sandboxes work here, do clients, and does nothing get around them?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import attrs
import click

from slapenir.cli.output import console, say
from slapenir.cli.rehearsal import HOST, IDENTITY, VARIABLE, Rehearsal, rehearsal
from slapenir.sandbox import probe
from slapenir.sandbox.prerequisites import Finding, prerequisites
from slapenir.sandbox.view import interpreter

HOLE, MISSING = 1, 2
_SECONDS = 600
# Clients that send the placeholder; of the others it is enough that they are served.
_WITH_KEY = ("curl", "wget", "git", "python", "node", "java", "go")


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
    for finding in _inside() if inside else _outside(config, as_json):
        found.append(finding)
        if as_json:
            console().print(json.dumps(attrs.asdict(finding)))
    if not as_json:
        _print(found)
    results = {one.result for one in found}
    sys.exit(HOLE if results & {"hole", "failed"} else MISSING if "missing" in results else 0)


def _outside(config: str, quiet: bool) -> Iterator[Finding]:
    found = list(prerequisites(config, os.environ))
    yield from found
    wanted = [one.name for one in found if one.result == "missing" and one.name != "configuration"]
    if wanted:
        detail = f"needs {', '.join(wanted)}"
        yield Finding("client", "all", "skipped", detail)
        yield Finding("way around", "all", "skipped", detail)
        return
    if not quiet:
        say("asking with each client and trying each way around, in a sandbox (up to a minute)")
    with rehearsal() as made:
        yield from _rehearse(made)


def _rehearse(made: Rehearsal) -> Iterator[Finding]:
    """Run the probe in a sandbox; believe what it says of itself only where nobody else knows."""
    plan = {
        "url": made.url,
        "key": VARIABLE,
        "outside": made.outside,
        "hidden": [made.config, os.path.join(made.directory, "state", "ca.key")],
    }
    words = [sys.executable, "-P", "-m", "slapenir.cli", "run", "--config", made.config]
    words += ["--identity", IDENTITY, "--workspace", made.workspace, *_user()]
    words += ["--", interpreter()[0], "-I", "-", json.dumps(plan)]
    environment = {**os.environ, VARIABLE: made.secret}
    with open(probe.__file__, "rb") as script:
        done = subprocess.run(
            words, stdin=script, capture_output=True, text=True, env=environment, timeout=_SECONDS
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        yield Finding("client", "all", "failed", f"the sandbox did not run: {last[0]}")
        return
    for line in lines:
        yield _checked(Finding(**json.loads(line)), made)
    if probe.END not in done.stdout.splitlines():
        last = done.stderr.strip().splitlines()[-1:] or ["it ended early"]
        yield Finding("way around", "all", "failed", f"not everything was tried: {last[0]}")
    if made.contacts:
        yield Finding("way around", "the server outside", "hole", "; ".join(made.contacts[:3]))
    else:
        yield Finding("way around", "the server outside", "ok", "nothing arrived")
    leaked = made.leaked(done.stdout + done.stderr)
    detail = "the sandbox printed it" if leaked else f"{HOST} saw it, the sandbox never"
    yield Finding("client", "the credential", "hole" if leaked else "ok", detail)


def _checked(finding: Finding, made: Rehearsal) -> Finding:
    """Compare what a client says with what the origin saw."""
    if finding.group != "client" or finding.result != "ok" or finding.name not in _WITH_KEY:
        return finding
    if any(made.secret in said for said in made.asked.get(finding.name, ())):
        return attrs.evolve(finding, detail="the origin saw the credential")
    return attrs.evolve(finding, result="failed", detail="the origin did not see the credential")


def _user() -> list[str]:
    return ["--user", "nobody"] if os.geteuid() == 0 else []


def _inside() -> Iterator[Finding]:
    """Run the probe here; there is no server outside to ask for, only what must be refused."""
    for group in (probe.surroundings(), probe.ways({})):
        for line in group:
            yield Finding(**line)


def _print(found: Sequence[Finding]) -> None:
    """Print a table of plain lines, each with its remedy where there is one."""
    out, shown = console(), ""
    widths = [max(len(getattr(one, key)) for one in found) for key in ("group", "name", "result")]
    for one in found:
        group = one.group if one.group != shown else ""
        cells = (group, one.name, one.result)
        row = "  ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True))
        out.print(f"{row}  {one.detail}".rstrip())
        if one.remedy and one.result != "ok":
            out.print(f"{' ' * (sum(widths) + 6)}remedy: {one.remedy}")
        shown = one.group
    wrong = [one for one in found if one.result in ("hole", "failed", "missing")]
    words = f"{len(wrong)} of {len(found)} findings want attention" if wrong else "all is well"
    out.print(words)
