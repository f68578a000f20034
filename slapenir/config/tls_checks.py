"""What listener.tls and [pki] must hold."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from slapenir.config.durations import duration
from slapenir.config.findings import Findings
from slapenir.config.identity_checks import parse_network
from slapenir.config.settings import Listener, ListenerTls, Pki, Settings
from slapenir.errors import AuthorityError
from slapenir.names import canonical_host, parse_authority

CLIENT_AUTH = ("required", "optional", "none")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_KEYS = {
    "embedded": ("domains", "enrol", "url", "crl_lifetime"),
    "acme": ("directory", "root_fingerprint", "root_file", "contact", "challenge", "crl"),
    "step-ca": ("url", "root_fingerprint", "provisioner", "provisioner_key", "crl"),
}
_NEEDED = {
    "embedded": (),
    "acme": ("directory", "root_fingerprint", "challenge"),
    "step-ca": ("url", "root_fingerprint", "provisioner", "provisioner_key"),
}
_SHORTEST = 300.0


def check_tls(settings: Settings, findings: Findings) -> None:
    """Note every problem with the TLS of listeners, and with [pki]."""
    for index, listener in enumerate(settings.listeners):
        path = f"$.listener[{index}]"
        if listener.tls is not None:
            _check_listener(f"{path}.tls", listener, listener.tls, settings, findings)
        _check_balancers(f"{path}.proxy_protocol", listener, findings)
    if settings.pki is not None:
        _check_pki(settings.pki, findings)
    if settings.gateway.ca not in ("per-gateway", "per-identity"):
        findings.add("$.gateway.ca", "is not a choice", "write per-gateway or per-identity")


def _check_listener(
    path: str, listener: Listener, tls: ListenerTls, settings: Settings, findings: Findings
) -> None:
    if tls.managed:
        if settings.pki is None:
            findings.add(path, "is managed, and there is no [pki]", "write a [pki] table")
        elif not settings.pki.names:
            findings.add(
                "$.pki.names", "is missing", "list the names by which clients find the gateway"
            )
        return
    for key in ("certificate", "key"):
        if not getattr(tls, key):
            findings.add(f"{path}.{key}", "is missing", "name a file in PEM")
    if tls.client_auth not in CLIENT_AUTH:
        findings.add(f"{path}.client_auth", "is not a choice", f"write {', '.join(CLIENT_AUTH)}")
    asks = tls.client_auth in ("required", "optional")
    if asks and not tls.client_ca:
        findings.add(
            f"{path}.client_ca", "is missing", "name the file of the CAs of clients' certificates"
        )
    if tls.client_auth == "none" and (tls.client_ca or tls.crl):
        key = "client_ca" if tls.client_ca else "crl"
        findings.add(f"{path}.{key}", "is for client certificates only", "set client_auth")
    if tls.crl:
        _check_list(f"{path}.crl", tls.crl, findings)


def is_url(text: str) -> bool:
    """Whether a list of revoked certificates is named by a URL and not by a path."""
    return "://" in text


def _check_list(path: str, text: str, findings: Findings) -> None:
    if is_url(text) and not _is_url_of(text, ("http", "https")):
        findings.add(path, "is neither a path nor a URL", "write /path or https://HOST/PATH")


def _is_url_of(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        parse_authority(parts.netloc.encode("utf-8"), 443)
    except (ValueError, AuthorityError):
        return False
    return parts.scheme in schemes and text.isascii() and text.isprintable() and " " not in text


def _check_balancers(path: str, listener: Listener, findings: Findings) -> None:
    for place, text in enumerate(listener.proxy_protocol or ()):
        try:
            network = parse_network(text)
        except ValueError as error:
            findings.add(f"{path}[{place}]", str(error))
            continue
        if network.prefixlen == 0:
            findings.add(f"{path}[{place}]", "is everybody", "name the load balancers")
    if listener.proxy_protocol and listener.endpoint.partition(":")[0] == "unix":
        findings.add(path, "names addresses, and the endpoint is unix:", "remove it")


def _check_pki(pki: Pki, findings: Findings) -> None:
    if pki.provider not in _KEYS:
        findings.add("$.pki.provider", "is not a provider", f"write one of {', '.join(_KEYS)}")
        return
    _check_keys(pki, findings)
    for key in ("lifetime", "crl_lifetime"):
        try:
            if duration(getattr(pki, key)) < _SHORTEST:
                findings.add(f"$.pki.{key}", "is shorter than five minutes", "write 5m or more")
        except ValueError as error:
            findings.add(f"$.pki.{key}", str(error))
    for key in ("names", "domains"):
        for place, name in enumerate(getattr(pki, key)):
            _check_name(f"$.pki.{key}[{place}]", name, key == "names", findings)
    if pki.enrol and not pki.url:
        findings.add("$.pki.url", "is missing", "write https://HOST:PORT, as agents find enrol")
    for key in ("url", "directory"):
        text = getattr(pki, key)
        if text and not _is_url_of(text, ("https",)):
            findings.add(f"$.pki.{key}", "is not an https URL", "write https://HOST:PORT")
    if pki.root_fingerprint and _FINGERPRINT.fullmatch(pki.root_fingerprint) is None:
        findings.add(
            "$.pki.root_fingerprint", "is not a SHA-256", "write 64 hex digits in lower case"
        )
    if pki.crl:
        _check_list("$.pki.crl", pki.crl, findings)


def _check_keys(pki: Pki, findings: Findings) -> None:
    """Note keys that the provider needs, and those that are another's."""
    defaults = Pki()
    for key in _NEEDED[pki.provider]:
        if not getattr(pki, key):
            findings.add(f"$.pki.{key}", "is missing", f"the provider {pki.provider} needs it")
    others = {key for keys in _KEYS.values() for key in keys} - set(_KEYS[pki.provider])
    for key in sorted(others):
        if getattr(pki, key) != getattr(defaults, key):
            findings.add(f"$.pki.{key}", f"is not for the provider {pki.provider}", "remove it")


def _check_name(path: str, name: str, addresses: bool, findings: Findings) -> None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            if canonical_host(name.encode("utf-8")) != name:
                findings.add(path, "is not in its canonical form", "write it in lower case")
        except AuthorityError as error:
            findings.add(path, str(error), "write a DNS name")
        return
    if not addresses or "%" in name:
        findings.add(path, "is an IP address", "write a DNS name")
    elif str(address) != name:
        findings.add(path, "is not in its canonical form", f"write {address}")
