"""The CA of agents' certificates as the command line makes, shows and checks it."""

from __future__ import annotations

import os

from slapenir.cli.output import console, say
from slapenir.config.identities import ca_addresses, ca_domains, wanted_server
from slapenir.config.settings import Settings
from slapenir.config.state import make_directory
from slapenir.errors import ConfigError
from slapenir.pki.ca_book import BOOK
from slapenir.pki.identity_authority import IdentityAuthority
from slapenir.pki.issue_files import sha256_hex

PKI = "pki"


def pki_directory(settings: Settings) -> str:
    """Return where the embedded CA is."""
    return os.path.join(settings.gateway.state_dir, PKI)


def make_identity_authority(settings: Settings, root_directory: str | None) -> bool:
    """Make the embedded CA where [pki] asks for one and there is none; return whether it did."""
    directory = pki_directory(settings)
    if settings.pki is None or settings.pki.provider != "embedded":
        return False
    if os.path.lexists(os.path.join(directory, BOOK)):
        return False
    domains = ca_domains(settings)
    if not domains:
        raise ConfigError(
            "the CA of agents' certificates needs to know what it is for", "$.pki.domains",
            "list domains, or give identities spiffe or dns names", settings.file,
        )  # fmt: skip
    if root_directory is not None and not os.path.isdir(root_directory):
        raise ConfigError(
            f"{root_directory} is not a directory", "--root-dir",
            f"run: mkdir -m 700 {root_directory}", settings.file,
        )  # fmt: skip
    make_directory(directory, "$.gateway.state_dir")
    made = IdentityAuthority.create(
        directory,
        domains=domains,
        addresses=ca_addresses(settings),
        root_directory=root_directory,
    )
    key = os.path.join(root_directory or directory, made.root_key_file)
    say(f"made the identity CA in {directory}, for {', '.join(domains)}")
    say(f"keep its root's key offline: move {key} away; rotating the CA asks for it again")
    return True


def show_identity_authority(settings: Settings) -> None:
    """Print the embedded CA's certificates and fingerprints, where there is one, fit or not."""
    directory = pki_directory(settings)
    if not os.path.isdir(directory):
        return
    authority = IdentityAuthority(directory)
    out = console()
    for kind, found in (("root", authority.roots), ("issuing", authority.issuers)):
        for number, one in enumerate(found):
            out.print(f"identity {kind}{'' if number == 0 else ' (older)'}")
            out.print(f"  subject    {one.subject.rfc4514_string()}")
            out.print(f"  not after  {one.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
            out.print(f"  sha256     {sha256_hex(one)}")


def check_identity_authority(settings: Settings) -> None:
    """Raise PkiError or ConfigError when [pki] asks for a CA that is not there or unfit."""
    if settings.pki is None or settings.pki.provider != "embedded":
        return
    IdentityAuthority.load(pki_directory(settings))
    if any(one.tls is not None and one.tls.managed for one in settings.listeners):
        wanted_server(settings)
