"""Which provider [pki] asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509

from slapenir.config.settings import Pki, Settings
from slapenir.errors import ConfigError
from slapenir.issuance.acme_provider import AcmeProvider
from slapenir.issuance.provider import EmbeddedProvider, Issue, Provider
from slapenir.issuance.stepca_provider import StepCaProvider, minted_tokens
from slapenir.pki.held import Wanted


def make_provider(
    reactor: Any,
    settings: Settings,
    directory: str,
    wanted: Wanted,
    issue: Issue | None,
    roots: Callable[[], tuple[x509.Certificate, ...]],
) -> Provider:
    """Return the provider of the gateway's certificate.

    ``directory`` is where it may keep what is its own; ``issue`` and ``roots`` are the embedded
    CA's.  Raises ConfigError.
    """
    pki = settings.pki or Pki()
    if pki.provider == "embedded" and issue is not None:
        return EmbeddedProvider(reactor, wanted, issue, roots)
    if pki.provider == "acme":
        return AcmeProvider(
            reactor,
            pki.directory,
            pki.root_fingerprint,
            pki.root_file,
            pki.contact,
            pki.challenge,
            directory,
            wanted,
        )
    if pki.provider == "step-ca":
        token = minted_tokens(pki.provisioner_key, pki.provisioner, pki.root_fingerprint)
        return StepCaProvider(reactor, pki.url, pki.root_fingerprint, wanted, token)
    raise ConfigError("is not a provider", "$.pki.provider", "", settings.file)
