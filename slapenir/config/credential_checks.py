"""What a [[credential]] must hold, as far as it shows without reading the secret."""

from __future__ import annotations

import re

from slapenir.config.build import may_use, surface_of, variable_of
from slapenir.config.findings import Findings
from slapenir.config.rule_checks import check_group
from slapenir.config.settings import CredentialSettings, Settings

_SOURCE = re.compile(
    r"env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f]+|systemd:[A-Za-z0-9_.-]+", re.ASCII
)
_PLACEHOLDER = re.compile(r"[A-Za-z0-9._-]{8,512}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
MIN_DISTINCT = 4


def check_credentials(settings: Settings, findings: Findings) -> None:
    """Note every problem of every credential.  No value is quoted: it might be the secret."""
    placeholders: dict[str, str] = {}
    for index, credential in enumerate(settings.credentials):
        path = f"$.credential[{index}]"
        if _SOURCE.fullmatch(credential.source) is None:
            findings.add(
                f"{path}.source", "is not a source", "write env:NAME, file:/PATH or systemd:NAME"
            )
        for place, host in enumerate(credential.hosts):
            findings.host(f"{path}.hosts[{place}]", host)
        _check_inject(path, credential, findings)
        for place, name in enumerate(credential.identities or ()):
            if name != "*":
                findings.name(f"{path}.identities[{place}]", name)
        for place, group in enumerate(credential.groups or ()):
            check_group(f"{path}.groups[{place}]", group, settings, findings)
        if credential.variable is not None and _VARIABLE.fullmatch(credential.variable) is None:
            findings.add(f"{path}.variable", "is not a variable's name", "write SOME_API_KEY")
        if credential.placeholder is not None:
            _check_placeholder(f"{path}.placeholder", credential.placeholder, findings)
            twin = placeholders.setdefault(credential.placeholder, credential.id)
            if twin != credential.id:
                findings.add(f"{path}.placeholder", f"is that of {twin} too", "give each its own")
    _check_variables(settings, findings)


def _check_placeholder(path: str, placeholder: str, findings: Findings) -> None:
    if _PLACEHOLDER.fullmatch(placeholder) is None:
        findings.add(path, "is not a placeholder", "use 8 to 512 of A-Z a-z 0-9 . _ -")
    elif len(set(placeholder)) < MIN_DISTINCT:
        findings.add(
            path, f"has fewer than {MIN_DISTINCT} different characters", "choose a rarer text"
        )


def _check_inject(path: str, credential: CredentialSettings, findings: Findings) -> None:
    seen = []
    for place, entry in enumerate(credential.inject):
        where = f"{path}.inject[{place}]"
        try:
            surface = surface_of(entry)
        except ValueError as error:
            findings.add(where, str(error))
            continue
        if surface.label in seen:
            findings.add(where, "names a surface that is there already", "remove one")
        seen.append(surface.label)


def _check_variables(settings: Settings, findings: Findings) -> None:
    """Note two credentials that one identity would be given in the same variable."""
    for identity in settings.identities:
        taken: dict[str, str] = {}
        for index, credential in enumerate(settings.credentials):
            if not may_use(settings, identity, credential.id):
                continue
            twin = taken.setdefault(variable_of(credential), credential.id)
            if twin != credential.id:
                findings.add(
                    f"$.credential[{index}].variable",
                    f"{identity} would find {twin} and {credential.id} in one variable",
                    "set variable to another name",
                )
