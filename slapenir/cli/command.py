"""The group that holds every subcommand, and how their failures are told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from slapenir import __version__
from slapenir.cli.output import report
from slapenir.errors import SlapenirError

BAD_CONFIGURATION = 2

# Where each subcommand is.  Only the one that is asked for is imported: they need very different
# things, and ``run`` is started often.  identity_ca adds its commands to the group ``ca``.
_COMMANDS = {
    "run": "run:run_command",
    "init": "initial:init",
    "check": "check:check",
    "explain": "explain:explain",
    "doctor": "doctor:doctor",
    "env": "environment:env",
    "trust": "trust:trust",
    "rules": "rules:rules",
    "token": "identity_token:token",
    "ca": "identity_ca:ca",
    "enrol": "enrol:enrol",
    "sidecar": "sidecar:sidecar",
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the help page."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, None when there is none."""
        module, _, name = _COMMANDS.get(cmd_name, "").partition(":")
        if not module:
            return None
        command: click.Command = getattr(import_module(f"slapenir.cli.{module}"), name)
        return command


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="slapenir")
def cli() -> None:
    """SLAPENIR: an egress firewall for AI-agent sandboxes.

    The gateway itself is run with: twistd -n slapenir --config FILE
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 for a denial in ``explain``, 2 for what is wrong."""
    try:
        cli.main(arguments, prog_name="slapenir")
    except SlapenirError as error:
        report(error)
        sys.exit(BAD_CONFIGURATION)
    sys.exit(0)
