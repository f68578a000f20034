"""``slapenir check``: would the gateway start with this file?"""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from slapenir.cli.authority import FILE, existing_authority
from slapenir.cli.output import console, say
from slapenir.config.checks import notes
from slapenir.config.credentials import read_credentials
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import check_audit_dir, check_origin_ca, gateway_key
from slapenir.errors import ConfigError, ConfigErrors, PkiError

CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"


@click.command()
@FILE
@click.option("--file-only", is_flag=True, help="Do not read secrets, CA and directories.")
def check(file: str, file_only: bool) -> None:
    """Say whether the gateway would start with FILE, and everything that is wrong with it.

    Secrets are read as the gateway would read them, so run this with its environment and user.
    """
    settings = load(file)
    if not file_only:
        _check_surroundings(settings)
    for note in notes(settings):
        say(f"note: {note}")
    counts = (
        (len(settings.listeners), "listener"),
        (len(settings.credentials), "credential"),
        (len(settings.rules), "rule"),
    )
    said = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    console().print(f"{settings.file}: good ({said})")


def _check_surroundings(settings: Settings) -> None:
    """Raise ConfigErrors with everything the gateway would miss when it starts."""
    found: list[ConfigError] = []

    def attempt(step: Callable[[], object], path: str) -> None:
        try:
            step()
        except ConfigErrors as error:
            found.extend(error.errors)
        except ConfigError as error:
            found.append(ConfigError(error.message, error.path, error.remedy, settings.file))
        except PkiError as error:
            found.append(ConfigError(str(error), path, "", settings.file))

    gateway = settings.gateway
    directory = os.environ.get(CREDENTIALS_DIRECTORY)
    attempt(lambda: existing_authority(settings), "$.gateway.state_dir")
    if not found:
        attempt(lambda: gateway_key(gateway.state_dir, create=False), "$.gateway.state_dir")
    attempt(lambda: check_audit_dir(gateway.audit), "$.gateway.audit")
    attempt(lambda: check_origin_ca(settings.origin.ca_file), "$.origin.ca_file")
    attempt(lambda: read_credentials(settings, os.environ, directory), "$.credential")
    if found:
        raise ConfigErrors(found)
