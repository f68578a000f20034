"""``slapenir check``: would the gateway start with this file?"""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from slapenir.cli.authority import FILE, existing_authorities
from slapenir.cli.identity_setup import check_identity_authority
from slapenir.cli.output import console, say
from slapenir.config.checks import notes
from slapenir.config.credentials import read_credentials
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import check_audit_dir, check_origin_ca, gateway_key
from slapenir.config.tls_checks import is_url
from slapenir.doors import read_material
from slapenir.errors import ConfigError, ConfigErrors, PkiError
from slapenir.pki.files import read_guarded
from slapenir.pki.revocation import MAX_BYTES, Revocations

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
    attempt(lambda: existing_authorities(settings), "$.gateway.state_dir")
    if not found:
        attempt(lambda: gateway_key(gateway.state_dir, create=False), "$.gateway.state_dir")
    attempt(lambda: check_audit_dir(gateway.audit), "$.gateway.audit")
    attempt(lambda: check_origin_ca(settings.origin.ca_file), "$.origin.ca_file")
    attempt(lambda: check_identity_authority(settings), "$.pki")
    attempt(lambda: check_listeners(settings), "$.listener")
    attempt(lambda: read_credentials(settings, os.environ, directory), "$.credential")
    if found:
        raise ConfigErrors(found)


def check_listeners(settings: Settings) -> None:
    """Raise ConfigErrors for each listener whose certificate, CAs or list cannot be used."""
    found = []
    for index, listener in enumerate(settings.listeners):
        tls = listener.tls
        if tls is None or tls.managed:
            continue
        try:
            material = read_material(tls)
            if tls.crl and not is_url(tls.crl):
                data = read_guarded(tls.crl, private=False, limit=MAX_BYTES)
                Revocations.parse(data, material.anchors)
        except FileNotFoundError:
            found.append(_listener_problem(index, f"{tls.crl} does not exist", settings))
        except PkiError as error:
            found.append(_listener_problem(index, str(error), settings))
    if found:
        raise ConfigErrors(found)


def _listener_problem(index: int, message: str, settings: Settings) -> ConfigError:
    return ConfigError(message, f"$.listener[{index}].tls", "", settings.file)
