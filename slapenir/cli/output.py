"""What all subcommands print with: plain lines, coloured only on a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

from slapenir.errors import ConfigError, ConfigErrors, SandboxError, SlapenirError


def _console(file: TextIO) -> Console:
    return Console(file=file, soft_wrap=True, highlight=False, markup=False, emoji=False)


def console() -> Console:
    """Return a console on standard output that never wraps, so that lines can be searched."""
    return _console(sys.stdout)


def say(text: str) -> None:
    """Tell the person at the terminal something that is no result: on standard error."""
    _console(sys.stderr).print(text)


def report(error: SlapenirError) -> None:
    """Print what is wrong, where, and what to do, on standard error; one part for each problem."""
    errors = _console(sys.stderr)
    for one in error.errors if isinstance(error, ConfigErrors) else [error]:
        if isinstance(one, SandboxError):
            errors.print(Text.assemble(("error: ", "bold red"), one.error))
            if one.remedy:
                errors.print(Text.assemble(("  remedy: ", "green"), one.remedy))
            continue
        if not isinstance(one, ConfigError):
            errors.print(Text.assemble(("error: ", "bold red"), str(one)))
            continue
        where = f"{one.file}: {one.path}" if one.file else one.path
        errors.print(Text.assemble(("error: ", "bold red"), (where, "bold"), f": {one.message}"))
        if one.remedy:
            errors.print(Text.assemble(("  remedy: ", "green"), one.remedy))
