"""What an issuing CA may sign for, written into its own certificate (RFC 5280, 4.2.1.10)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509

from slapenir.errors import PkiError
from slapenir.pki.held import Wanted

_EVERY_ADDRESS = ("0.0.0.0/0", "::/0")
# What OpenSSL takes for a host in a common name: two labels or more of these characters.
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})+", re.ASCII)


def name_constraints(domains: Sequence[str], addresses: Sequence[str] = ()) -> x509.NameConstraints:
    """Return the constraint to names at and below ``domains``, and to exactly ``addresses``.

    Without addresses none may be signed at all.  Raises PkiError for no domain.
    """
    if not domains:
        raise PkiError("the CA would sign for any name; list pki.domains")
    permitted: list[x509.GeneralName] = []
    for domain in domains:
        permitted += [
            x509.DNSName(domain),
            x509.UniformResourceIdentifier(domain),
            x509.UniformResourceIdentifier(f".{domain}"),
        ]
    for address in addresses:
        permitted.append(x509.IPAddress(ipaddress.ip_network(address)))
    excluded = None
    if not addresses:
        excluded = [x509.IPAddress(ipaddress.ip_network(one)) for one in _EVERY_ADDRESS]
    return x509.NameConstraints(permitted, excluded)


def is_host_like(common_name: str) -> bool:
    """Whether a common name is held to the constraints for DNS names where there are none."""
    return _HOST.fullmatch(common_name) is not None


def outside(constraints: x509.NameConstraints, wanted: Wanted) -> str:
    """Return the first name of ``wanted`` that the constraints do not permit; empty when none."""
    domains, addresses = [], []
    for one in constraints.permitted_subtrees or ():
        if isinstance(one, x509.DNSName):
            domains.append(one.value)
        elif isinstance(one, x509.IPAddress):
            addresses.append(one.value)
    hosts = [(name, name) for name in wanted.dns]
    hosts += [(uri, uri.partition("://")[2].partition("/")[0]) for uri in wanted.spiffe]
    if is_host_like(wanted.common_name) and not wanted.dns:
        hosts.append((wanted.common_name, wanted.common_name.lower()))
    for name, host in hosts:
        if not any(host == domain or host.endswith(f".{domain}") for domain in domains):
            return name
    for address in wanted.addresses:
        if not any(
            ipaddress.ip_address(address) in network
            for network in addresses
            if isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network)
        ):
            return address
    return ""
