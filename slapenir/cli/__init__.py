"""The ``slapenir`` command: set up, check, explain.  The gateway itself is run by twistd."""

from slapenir.cli.command import main

__all__ = ["main"]
