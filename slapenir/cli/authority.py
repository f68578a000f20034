"""``slapenir ca``: make, show and export the authority that sandboxes trust."""

from __future__ import annotations

import secrets
import sys

import click

from slapenir.cli.output import console, say
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import check_state_dir, gateway_key, make_directory, write_ca_bundle
from slapenir.pki.authority import CertificateAuthority

FILE = click.argument("file", type=click.Path())
DAYS = 3650


def make_authority(settings: Settings, common_name: str | None, days: int) -> CertificateAuthority:
    """Make the state directory, the authority, the gateway's key and the CA bundle.

    An existing authority is an error; an existing gateway key is kept.  Raises ConfigError or
    PkiError.
    """
    state_dir = settings.gateway.state_dir
    make_directory(state_dir, "$.gateway.state_dir")
    check_state_dir(state_dir)
    name = common_name or f"SLAPENIR {secrets.token_hex(4)}"
    authority = CertificateAuthority.create(state_dir, name, days)
    gateway_key(state_dir, create=True)
    write_ca_bundle(settings, authority.certificate_pem)
    return authority


def existing_authority(settings: Settings) -> CertificateAuthority:
    """Return the authority in the state directory; raises ConfigError or PkiError."""
    check_state_dir(settings.gateway.state_dir)
    return CertificateAuthority.load(settings.gateway.state_dir)


@click.group()
def ca() -> None:
    """Make, show or export the authority that sandboxes trust."""


@ca.command("init")
@FILE
@click.option("--common-name", help="The authority's name; by default SLAPENIR and a number.")
@click.option("--days", type=int, default=DAYS, show_default=True, help="How long it is valid.")
def ca_init(file: str, common_name: str | None, days: int) -> None:
    """Make the CA and the gateway's key in the state directory; never overwrites."""
    settings = load(file)
    authority = make_authority(settings, common_name, days)
    say(f"made {authority.subject} in {settings.gateway.state_dir}")
    say(f"wrote {settings.gateway.ca_bundle}: what sandboxes have to trust")


@ca.command("show")
@FILE
def ca_show(file: str) -> None:
    """Print the CA's name, validity and fingerprint."""
    authority = existing_authority(load(file))
    certificate = authority.certificate
    out = console()
    out.print(f"subject      {authority.subject}")
    out.print(f"not before   {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
    out.print(f"not after    {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    out.print(f"serial       {certificate.serial_number:X}")
    out.print(f"sha256       {authority.fingerprint}")


@ca.command("export")
@FILE
def ca_export(file: str) -> None:
    """Print the CA's certificate as PEM; the key stays where it is."""
    sys.stdout.write(existing_authority(load(file)).certificate_pem.decode("ascii"))
