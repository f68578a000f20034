"""``slapenir ca``: make, show and export the authority that sandboxes trust."""

from __future__ import annotations

import os
import secrets
import sys

import click

from slapenir.cli.identity_setup import make_identity_authority, show_identity_authority
from slapenir.cli.output import console, say
from slapenir.config.bundles import load_interception
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import (
    bundle_path,
    check_state_dir,
    gateway_key,
    make_directory,
    write_ca_bundle,
)
from slapenir.errors import ConfigError, PkiError
from slapenir.pki.authority import CERTIFICATE_FILE, CertificateAuthority
from slapenir.pki.interception import identity_directory

FILE = click.argument("file", type=click.Path())
DAYS = 3650


def make_authority(settings: Settings, common_name: str | None, days: int) -> CertificateAuthority:
    """Make the state directory, the authority, the gateway's key and the CA bundle.

    An existing authority is an error; an existing gateway key is kept.  Raises ConfigError or
    PkiError.  With a CA for each identity see ``make_own_authorities``.
    """
    state_dir = settings.gateway.state_dir
    make_directory(state_dir, "$.gateway.state_dir")
    check_state_dir(state_dir)
    name = common_name or f"SLAPENIR {secrets.token_hex(4)}"
    authority = CertificateAuthority.create(state_dir, name, days)
    gateway_key(state_dir, create=True)
    write_ca_bundle(settings, authority.certificate_pem)
    return authority


def make_own_authorities(settings: Settings, days: int) -> list[str]:
    """Make an interception CA for each identity that has none; return whose were made.

    Raises ConfigError or PkiError.
    """
    state_dir = settings.gateway.state_dir
    make_directory(state_dir, "$.gateway.state_dir")
    check_state_dir(state_dir)
    gateway_key(state_dir, create=True)
    made = []
    for name in settings.identities:
        directory = identity_directory(state_dir, name)
        if os.path.lexists(os.path.join(directory, CERTIFICATE_FILE)):
            continue
        make_directory(os.path.dirname(directory), "$.gateway.state_dir")
        make_directory(directory, "$.gateway.state_dir")
        CertificateAuthority.create(directory, f"SLAPENIR {name}"[:64], days)
        made.append(name)
    for name, trusted in load_interception(settings).trusted.items():
        write_ca_bundle(settings, trusted, name)
    return made


def existing_authorities(settings: Settings) -> dict[str, CertificateAuthority]:
    """Return the interception CAs in the state directory; raises ConfigError or PkiError."""
    check_state_dir(settings.gateway.state_dir)
    return load_interception(settings).authorities


@click.group()
def ca() -> None:
    """Make, show or export the authority that sandboxes trust."""


@ca.command("init")
@FILE
@click.option("--common-name", help="The authority's name; by default SLAPENIR and a number.")
@click.option("--days", type=int, default=DAYS, show_default=True, help="How long it is valid.")
@click.option("--root-dir", type=click.Path(), help="Where the identity CA's root key is put.")
def ca_init(file: str, common_name: str | None, days: int, root_dir: str | None) -> None:
    """Make the CAs that the configuration asks for, and the gateway's key; never overwrites.

    That is the CA that intercepts, or one for each identity, and with [pki] the CA of agents'
    certificates.  What is there already is left alone; when all of it is there, that is an error.
    """
    settings = load(file)
    state_dir = settings.gateway.state_dir
    made = False
    if settings.gateway.ca == "per-identity":
        for name in make_own_authorities(settings, days):
            say(f"made the interception CA of {name}; its bundle is {bundle_path(settings, name)}")
            made = True
    elif settings.pki is None or not os.path.lexists(os.path.join(state_dir, CERTIFICATE_FILE)):
        authority = make_authority(settings, common_name, days)
        say(f"made {authority.subject} in {state_dir}")
        say(f"wrote {settings.gateway.ca_bundle}: what sandboxes have to trust")
        made = True
    made = make_identity_authority(settings, root_dir) or made
    if not made:
        raise PkiError(f"{state_dir} has every CA already; none is ever overwritten")


@ca.command("show")
@FILE
def ca_show(file: str) -> None:
    """Print the CAs' names, validity and fingerprints."""
    settings = load(file)
    out = console()
    for name, authority in existing_authorities(settings).items():
        certificate = authority.certificate
        if name:
            out.print(f"interception CA of {name}")
        out.print(f"subject      {authority.subject}")
        out.print(f"not before   {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
        out.print(f"not after    {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
        out.print(f"serial       {certificate.serial_number:X}")
        out.print(f"sha256       {authority.fingerprint}")
    show_identity_authority(settings)


@ca.command("export")
@FILE
@click.option("--identity", default="", help="Whose, where each identity has a CA of its own.")
def ca_export(file: str, identity: str) -> None:
    """Print what sandboxes have to trust as PEM; the key stays where it is."""
    settings = load(file)
    check_state_dir(settings.gateway.state_dir)
    trusted = load_interception(settings).trusted
    found = trusted.get(identity) if identity else trusted.get("")
    if found is None:
        known = ", ".join(name for name in trusted if name) or "none has its own"
        raise ConfigError("say whose CA it is", "--identity", f"known: {known}", settings.file)
    sys.stdout.write(found.decode("ascii"))
