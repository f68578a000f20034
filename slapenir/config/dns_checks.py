"""What [dns] must hold."""

from __future__ import annotations

import ipaddress

from slapenir.config.findings import Findings
from slapenir.config.settings import Settings
from slapenir.errors import AuthorityError
from slapenir.names import parse_authority

_SMALLEST = {4: 24, 6: 112}
"""The longest prefix that has room for the names of one identity."""
_NAMES = 16
"""How many names each identity must have room for."""


def check_dns(settings: Settings, findings: Findings) -> None:
    """Note every problem with the DNS server for sandboxes."""
    dns = settings.dns
    if dns.endpoint:
        try:
            if not parse_authority(dns.endpoint.encode("utf-8"), 53).is_ip:
                raise AuthorityError("is a name")
        except AuthorityError as error:
            findings.add("$.dns.endpoint", str(error), "write ADDRESS:PORT, such as 10.20.0.1:53")
    if dns.identity:
        findings.name("$.dns.identity", dns.identity)
        if dns.identity not in settings.identities:
            findings.add("$.dns.identity", "nobody is called that", "check the name")
    elif dns.endpoint and not any(
        one.source is not None for agent in settings.agents for one in agent.match
    ):
        findings.add(
            "$.dns.identity",
            "is missing, and no identity has a match by source",
            "say who asks, or give each identity its source",
        )
    families: set[int] = set()
    for place, text in enumerate(dns.synthetic):
        path = f"$.dns.synthetic[{place}]"
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            findings.add(path, "is not a network", "write NETWORK/PREFIX, such as 198.18.0.0/15")
            continue
        if network.prefixlen > _SMALLEST[network.version]:
            smallest = _SMALLEST[network.version]
            findings.add(path, "is too small", f"a prefix of /{smallest} or shorter is needed")
        elif names_each(network.num_addresses, settings) < _NAMES:
            findings.add(
                path,
                f"has no room for {_NAMES} names of each identity",
                "write a larger one, such as 198.18.0.0/15",
            )
        if network.is_global or network.is_loopback or network.is_multicast:
            findings.add(path, "is in use elsewhere", "write a network that nobody has")
        if network.version in families:
            findings.add(path, "is a second one of its family", "write one IPv4 and one IPv6")
        families.add(network.version)


def names_each(addresses: int, settings: Settings) -> int:
    """Return how many names of each identity a network of so many addresses has room for.

    A quarter full at most, so that a free address is found at once.
    """
    return addresses // (4 * max(1, len(settings.identities)))
