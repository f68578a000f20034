"""Reading the configuration file: all of it checked, every problem said, or nothing."""

from __future__ import annotations

import os
from typing import Any

import attrs
import tomli

from slapenir.config.checks import check
from slapenir.config.findings import Findings
from slapenir.config.settings import CredentialSettings, Listener, Pki, Settings
from slapenir.config.state import read_config_file
from slapenir.config.structure import StructureFailed, structure
from slapenir.config.tls_checks import is_url


def load(path: str) -> Settings:
    """Return the settings in a TOML file; relative paths in it are relative to the file.

    Secrets are not read.  Raises ConfigErrors with every problem: the file's path, the place in
    it (``$.rule[0].hosts``), what is wrong and what to do.  A file that others can write, or that
    is reached by a link of theirs, is refused (T239).
    """
    file = os.path.abspath(path)
    return parse(read_config_file(file), file)


def parse(data: bytes, file: str) -> Settings:
    """Return the settings in TOML text; ``file`` is for error texts and relative paths.

    Raises ConfigErrors as load() does.
    """
    findings = Findings(file)
    try:
        document = tomli.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        findings.add("$", "is not UTF-8", "save the file as UTF-8")
    except tomli.TOMLDecodeError as error:
        findings.add("$", f"is not TOML: {error}", "see etc/slapenir.toml")
    except ValueError:  # Python does not read integers of any length
        findings.add("$", "has a number with too many digits", "see etc/slapenir.toml")
    except RecursionError:
        findings.add("$", "is nested too deeply", "see etc/slapenir.toml")
    findings.raise_any()
    _note_empty_lists(document, "$", findings)
    try:
        settings = structure(document, file)
    except StructureFailed as failed:
        findings.errors += failed.errors
        findings.raise_any()
        raise AssertionError("a failed structure has errors") from failed
    settings = _settle(settings, file)
    check(settings, findings)
    findings.raise_any()
    return settings


def _note_empty_lists(value: Any, path: str, findings: Findings) -> None:
    """Refuse every empty list: it may be read as nothing or as everything (T164, T240)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _note_empty_lists(inner, f"{path}.{key}", findings)
    elif isinstance(value, list):
        if not value:
            findings.add(path, "is an empty list", "list what is meant, or remove the key")
        for index, inner in enumerate(value):
            _note_empty_lists(inner, f"{path}[{index}]", findings)


def _settle(settings: Settings, file: str) -> Settings:
    """Make paths absolute and give listeners their names."""
    base = os.path.dirname(file)

    def absolute(path: str) -> str:
        return os.path.normpath(os.path.join(base, path)) if path else path

    def listener_of(number: int, listener: Listener) -> Listener:
        tls = listener.tls
        if tls is not None:
            tls = attrs.evolve(
                tls,
                certificate=absolute(tls.certificate),
                key=absolute(tls.key),
                client_ca=absolute(tls.client_ca),
                crl=tls.crl if is_url(tls.crl) else absolute(tls.crl),
            )
        return attrs.evolve(listener, name=listener.name or f"listener-{number}", tls=tls)

    def pki_of(pki: Pki) -> Pki:
        return attrs.evolve(
            pki,
            root_file=absolute(pki.root_file),
            provisioner_key=absolute(pki.provisioner_key),
            crl=pki.crl if is_url(pki.crl) else absolute(pki.crl),
        )

    def with_source(credential: CredentialSettings) -> CredentialSettings:
        kind, colon, name = credential.source.partition(":")
        if kind != "file" or not name:
            return credential
        return attrs.evolve(credential, source=f"{kind}{colon}{absolute(name)}")

    gateway = settings.gateway
    return attrs.evolve(
        settings,
        file=file,
        gateway=attrs.evolve(
            gateway,
            state_dir=absolute(gateway.state_dir),
            audit=absolute(gateway.audit),
            ca_bundle=absolute(gateway.ca_bundle),
        ),
        origin=attrs.evolve(settings.origin, ca_file=absolute(settings.origin.ca_file)),
        credentials=tuple(with_source(one) for one in settings.credentials),
        listeners=tuple(listener_of(n, one) for n, one in enumerate(settings.listeners, 1)),
        pki=None if settings.pki is None else pki_of(settings.pki),
    )
