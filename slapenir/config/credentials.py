"""Reading the secrets that checked settings name."""

from __future__ import annotations

from collections.abc import Mapping

from slapenir.config.build import surface_of, users_of
from slapenir.config.findings import Findings
from slapenir.config.settings import CredentialSettings, Settings
from slapenir.credentials.model import Credential
from slapenir.credentials.sources import read_source
from slapenir.names import parse_host_pattern


def read_credentials(
    settings: Settings,
    environ: Mapping[str, str],
    credentials_directory: str | None,
    only: frozenset[str] | None = None,
) -> tuple[Credential, ...]:
    """Return every credential with its secret, or those with an id in ``only``.

    Raises ConfigErrors naming each source that cannot be used: missing, readable by others,
    short, with control bytes, the same as another, or not told apart from a placeholder.  The
    texts never hold a secret.
    """
    findings = Findings(settings.file)
    found: list[tuple[int, Credential]] = []
    for index, one in enumerate(settings.credentials):
        if only is not None and one.id not in only:
            continue
        try:
            found.append((index, _read(settings, one, environ, credentials_directory)))
        except ValueError as error:
            findings.add(f"$.credential[{index}].source", str(error), _remedy(one))
    for place, (index, credential) in enumerate(found):
        for _, earlier in found[:place]:
            if earlier.secret == credential.secret:
                findings.add(
                    f"$.credential[{index}].source",
                    f"is the same secret as that of {earlier.id}",
                    "name both uses in one credential",
                )
    _check_placeholders(found, findings)
    findings.raise_any()
    return tuple(credential for _, credential in found)


def _read(
    settings: Settings, one: CredentialSettings, environ: Mapping[str, str], directory: str | None
) -> Credential:
    return Credential(
        id=one.id,
        secret=read_source(one.source, environ, directory),
        hosts=tuple(parse_host_pattern(host.encode("ascii")) for host in one.hosts),
        surfaces=tuple(surface_of(entry) for entry in one.inject),
        placeholder=None if one.placeholder is None else one.placeholder.encode("ascii"),
        identities=users_of(settings, one),
    )


def _remedy(one: CredentialSettings) -> str:
    kind, _, name = one.source.partition(":")
    if kind == "env":
        return f"set {name} in the gateway's own environment"
    return "put the secret there, readable by the gateway's user only"


def _check_placeholders(found: list[tuple[int, Credential]], findings: Findings) -> None:
    """Refuse a placeholder that is in a secret, or holds one: a swap would give it away."""
    for index, credential in found:
        placeholder = credential.placeholder
        if placeholder is None:
            continue
        for _, other in found:
            secret = other.secret.reveal()
            if placeholder in secret or secret in placeholder:
                findings.add(
                    f"$.credential[{index}].placeholder",
                    f"and the secret of {other.id} hold one another",
                    "choose a text that has nothing of a secret in it",
                )
