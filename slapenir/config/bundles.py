"""The interception CAs of a configuration, and the bundles that sandboxes are given."""

from __future__ import annotations

from slapenir.config.settings import Settings
from slapenir.config.state import write_ca_bundle
from slapenir.pki.interception import Interception


def load_interception(settings: Settings) -> Interception:
    """Read the interception CA, or that of each identity; raises PkiError."""
    own = settings.identities if settings.gateway.ca == "per-identity" else None
    return Interception.load(settings.gateway.state_dir, own)


def write_bundles(settings: Settings, interception: Interception) -> None:
    """Write what sandboxes are to trust: one file, or one for each identity; raises ConfigError."""
    for identity, trusted in interception.trusted.items():
        write_ca_bundle(settings, trusted, identity)
