"""What all subcommands print with: plain lines, coloured only on a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

from slapenir.errors import ConfigError, ConfigErrors, SlapenirError


def console() -> Console:
    """Return a console on standard output that never wraps, so that lines can be searched."""
    return Console(
        file=sys.stdout, soft_wrap=True, highlight=False, markup=False, emoji=False
    )


def say(text: str) -> None:
    """Tell the person at the terminal something that is no result: on standard error."""
    Console(file=sys.stderr, soft_wrap=True, highlight=False, markup=False).print(text)


def report(error: SlapenirError) -> None:
    """Print what is wrong, where, and what to do, on standard error; one part for each problem."""
    errors = Console(file=sys.stderr, soft_wrap=True, highlight=False, markup=False)
    for one in error.errors if isinstance(error, ConfigErrors) else [error]:
        if not isinstance(one, ConfigError):
            errors.print(Text.assemble(("error: ", "bold red"), str(one)))
            continue
        where = f"{one.file}: {one.path}" if one.file else one.path
        errors.print(Text.assemble(("error: ", "bold red"), (where, "bold"), f": {one.message}"))
        if one.remedy:
            errors.print(Text.assemble(("  remedy: ", "green"), one.remedy))
