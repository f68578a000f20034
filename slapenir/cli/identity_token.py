"""``slapenir token``: what a client shows in Proxy-Authorization, and what is kept of it."""

from __future__ import annotations

import secrets
import sys

import click

from slapenir.cli.output import say
from slapenir.wire.proxyauth import token_digest

_BYTES = 32


@click.command()
def token() -> None:
    """Make a proxy token: print it, and say on standard error what the configuration keeps of it.

    The token is in the output only.  Give it to one agent; clients send it as the password of the
    proxy: http://IDENTITY:TOKEN@HOST:PORT.
    """
    made = secrets.token_urlsafe(_BYTES)
    sys.stdout.write(f"{made}\n")
    say(f'match = [{{ token = "{token_digest(made.encode("ascii"))}" }}]')
