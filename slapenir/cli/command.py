"""The group that holds every subcommand, and how their failures are told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from slapenir import __version__
from slapenir.cli.authority import ca
from slapenir.cli.check import check
from slapenir.cli.enrol import enrol
from slapenir.cli.environment import env
from slapenir.cli.explain import explain
from slapenir.cli.identity_ca import ca_token
from slapenir.cli.identity_token import token
from slapenir.cli.initial import init
from slapenir.cli.output import report
from slapenir.cli.rules import rules
from slapenir.cli.run import run_command
from slapenir.cli.sidecar import sidecar
from slapenir.cli.trust import trust
from slapenir.errors import SlapenirError

BAD_CONFIGURATION = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="slapenir")
def cli() -> None:
    """SLAPENIR: an egress firewall for AI-agent sandboxes.

    The gateway itself is run with: twistd -n slapenir --config FILE
    """


assert ca_token.name in ca.commands  # noqa: S101 - importing it is what adds it
for command in (run_command, init, check, explain, env, trust, rules, token, ca, enrol, sidecar):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 for a denial in ``explain``, 2 for what is wrong."""
    try:
        cli.main(arguments, prog_name="slapenir")
    except SlapenirError as error:
        report(error)
        sys.exit(BAD_CONFIGURATION)
    sys.exit(0)
