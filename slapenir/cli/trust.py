"""``slapenir trust``: the trust kit, for those who build images or wire sandboxes themselves."""

from __future__ import annotations

import os
import sys

import click

from slapenir.cli.authority import FILE
from slapenir.cli.environment import render
from slapenir.cli.output import say
from slapenir.config.bundles import load_interception
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import check_state_dir
from slapenir.errors import ConfigError, PkiError
from slapenir.sandbox.trust import make_kit


@click.command()
@FILE
@click.option("--identity", required=True, help="Whose sandbox it is.")
@click.option("--out", required=True, type=click.Path(), help="The directory to make it in.")
@click.option("--inside", help="Where the sandbox sees the directory; by default the same path.")
@click.option("--system-bundle", help="The CAs to trust beside; by default [origin] ca_file.")
@click.option("--shell", type=click.Choice(["sh", "fish", "json"]), default="sh", show_default=True)
def trust(
    file: str, identity: str, out: str, inside: str | None, system_bundle: str | None, shell: str
) -> None:
    """Make the trust kit of a sandbox in a directory, and print the variables that point at it.

    The kit is the system's CAs and the gateway's in every shape that clients read: PEM files, a
    hashed directory, a truststore for Java, a database for Chromium.  Nothing in it is secret and
    nothing is written anywhere else.  An earlier kit in the directory is replaced; beside anything
    else none is made.  Proxy and placeholders are printed by: slapenir env
    """
    settings = load(file)
    pem = _trusted(settings, identity)
    directory = os.path.abspath(out)
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
    except OSError as error:
        raise PkiError(f"{directory}: {error.strerror}") from None
    kit = make_kit(directory, pem, system_bundle or settings.origin.ca_file)
    variables = kit.environment(inside or directory)
    for note in kit.notes:
        say(f"note: {note}")
    sys.stdout.write(render(variables, shell))


def _trusted(settings: Settings, identity: str) -> bytes:
    """Return the CA certificates that an identity's agents have to trust."""
    if identity not in settings.identities:
        known = ", ".join(settings.identities)
        raise ConfigError("there is no such identity", "--identity", f"known: {known}")
    check_state_dir(settings.gateway.state_dir)
    trusted = load_interception(settings).trusted
    return trusted[identity] if identity in trusted else trusted[""]
