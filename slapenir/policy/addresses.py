"""Which addresses may be dialled: a table of every special-purpose range, and its few openings.

The judgement is made on the address after resolution and just before it is dialled.  The table
follows the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates) and
is written out here: ``ipaddress.is_global`` is true for ``::127.0.0.1``, ``64:ff9b::7f00:1``,
``2002:7f00:1::``, ``224.0.0.1`` and ``168.63.129.16``, so it is no test of this.

An IPv4-mapped address is judged as the IPv4 address that it is.  Every other way to write an
IPv4 address in IPv6 is refused whatever it holds, for where it ends up depends on translators
that cannot be seen from here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import Enum
from typing import TypeAlias

import attrs

from slapenir.errors import AuthorityError
from slapenir.names import Action, Reason, Stage, parse_authority
from slapenir.policy.model import Decision

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Kind(Enum):
    """What an address is good for."""

    PUBLIC = "public"
    PRIVATE = "private"  # may be opened by network or by endpoint
    LOOPBACK = "loopback"  # may be opened by endpoint only
    NEVER = "never"
    METADATA = "metadata"


# Most specific first, for a later row may contain an earlier one.
_RANGES: tuple[tuple[str, _Kind], ...] = (
    ("0.0.0.0/8", _Kind.NEVER),  # this network: Linux routes it to itself
    ("10.0.0.0/8", _Kind.PRIVATE),
    ("100.64.0.0/10", _Kind.PRIVATE),  # shared address space
    ("127.0.0.0/8", _Kind.LOOPBACK),
    ("169.254.0.0/16", _Kind.NEVER),  # link-local
    ("172.16.0.0/12", _Kind.PRIVATE),
    ("192.0.0.0/24", _Kind.NEVER),  # IETF protocol assignments, NAT64 discovery
    ("192.0.2.0/24", _Kind.PRIVATE),  # documentation
    ("192.31.196.0/24", _Kind.NEVER),  # AS112
    ("192.52.193.0/24", _Kind.NEVER),  # AMT
    ("192.88.99.0/24", _Kind.NEVER),  # 6to4 relay anycast
    ("192.168.0.0/16", _Kind.PRIVATE),
    ("192.175.48.0/24", _Kind.NEVER),  # AS112
    ("198.18.0.0/15", _Kind.PRIVATE),  # benchmarking
    ("198.51.100.0/24", _Kind.PRIVATE),  # documentation
    ("203.0.113.0/24", _Kind.PRIVATE),  # documentation
    ("224.0.0.0/4", _Kind.NEVER),  # multicast
    ("240.0.0.0/4", _Kind.NEVER),  # reserved, limited broadcast
    ("0.0.0.0/0", _Kind.PUBLIC),
    ("::1/128", _Kind.LOOPBACK),
    ("2001:2::/48", _Kind.PRIVATE),  # benchmarking
    ("2001::/23", _Kind.NEVER),  # IETF protocol assignments: Teredo, ORCHID, AMT, DET
    ("2001:db8::/32", _Kind.PRIVATE),  # documentation
    ("2002::/16", _Kind.NEVER),  # 6to4
    ("2620:4f:8000::/48", _Kind.NEVER),  # AS112
    ("3fff::/20", _Kind.PRIVATE),  # documentation
    ("2000::/3", _Kind.PUBLIC),  # global unicast
    ("fc00::/7", _Kind.PRIVATE),  # unique local
    # All the rest is not global unicast: ::/96 compatible, ::ffff:0:0:0/96 translated,
    # 64:ff9b::/96 and 64:ff9b:1::/48 NAT64, 100::/64 discard, 5f00::/16 SRv6 SIDs,
    # fe80::/10 link-local, fec0::/10 site-local, ff00::/8 multicast, and what is unassigned.
    ("::/0", _Kind.NEVER),
)
_TABLE: tuple[tuple[Network, _Kind], ...] = tuple(
    (ipaddress.ip_network(text), kind) for text, kind in _RANGES
)
_TABLE_V4 = tuple((int(n.network_address), int(n.netmask), k) for n, k in _TABLE if n.version == 4)
_TABLE_V6 = tuple((int(n.network_address), int(n.netmask), k) for n, k in _TABLE if n.version == 6)

_METADATA: frozenset[Address] = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # most clouds
        "169.254.169.253",  # AWS resolver
        "169.254.170.2",  # AWS container credentials
        "169.254.170.23",  # AWS pod identity
        "169.254.0.23",  # Tencent
        "169.254.42.42",  # Scaleway
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure WireServer
        "fd00:ec2::254",  # AWS
        "fd00:ec2::253",  # AWS resolver
        "fd00:ec2::23",  # AWS pod identity
        "fd20:ce::254",  # Google
        "fd00:42::42",  # Scaleway
        "fe80::a9fe:a9fe",  # OpenStack
    )
)
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # RFC 5214, 6.1


def _kind(address: Address) -> _Kind:
    """Return what an address (not IPv4-mapped) is good for."""
    if address in _METADATA:
        return _Kind.METADATA
    number = int(address)
    if address.version == 6 and (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return _Kind.NEVER
    for network, mask, kind in _TABLE_V4 if address.version == 4 else _TABLE_V6:
        if number & mask == network:
            return kind
    raise AssertionError("the tables end with a row for every address")


@attrs.frozen(slots=True)
class AddressPolicy:
    """The openings in the table.

    ``networks`` open private ranges only, whatever they contain; ``endpoints`` are pairs of a
    canonical IP address and a port, and the only way to loopback.
    """

    networks: tuple[Network, ...] = ()
    endpoints: frozenset[tuple[str, int]] = frozenset()


def _decision(action: Action, reason: Reason) -> Decision:
    return Decision(Stage.ADDRESS, action, reason)


_PUBLIC = _decision(Action.ALLOW, Reason.ADDRESS_PUBLIC)
_PERMITTED = _decision(Action.ALLOW, Reason.ADDRESS_PERMITTED)
_SPECIAL = _decision(Action.DENY, Reason.ADDRESS_SPECIAL)
_IS_METADATA = _decision(Action.DENY, Reason.ADDRESS_METADATA)
_OWN_LISTENER = _decision(Action.DENY, Reason.ADDRESS_OWN_LISTENER)


def decide_address(policy: AddressPolicy, address: str, port: int, own: bool) -> Decision:
    """Decide whether a resolved address may be dialled; total, what is no address is refused.

    ``own`` says that a listener of this gateway would answer there: that is always refused.
    """
    if own:
        return _OWN_LISTENER
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return _SPECIAL
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            return _SPECIAL
        parsed = parsed.ipv4_mapped or parsed
    kind = _kind(parsed)
    if kind is _Kind.PUBLIC:
        return _PUBLIC
    if kind is _Kind.METADATA:
        return _IS_METADATA
    if kind is _Kind.NEVER:
        return _SPECIAL
    if (str(parsed), port) in policy.endpoints:
        return _PERMITTED
    if kind is _Kind.PRIVATE and any(parsed in network for network in policy.networks):
        return _PERMITTED
    return _SPECIAL


def parse_allow_private(entries: Sequence[str]) -> AddressPolicy:
    """Return the openings written as ``10.20.0.0/16`` or ``127.0.0.1:8081`` / ``[::1]:8081``.

    Raises ValueError, naming the entry and what to write instead, for whatever opens nothing or
    more than one private range: host bits, a missing prefix, public and special-purpose ranges,
    loopback without a port, metadata addresses.
    """
    networks: list[Network] = []
    endpoints: set[tuple[str, int]] = set()
    for entry in entries:
        if "/" in entry:
            networks.append(_parse_network(entry))
        else:
            endpoints.add(_parse_endpoint(entry))
    return AddressPolicy(tuple(networks), frozenset(endpoints))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _parse_network(entry: str) -> Network:
    base, _, prefix = entry.partition("/")
    try:
        address = ipaddress.ip_address(base)
    except ValueError:
        raise ValueError(f"{entry!r} does not start with an IP address") from None
    if not (prefix.isascii() and prefix.isdigit()) or int(prefix[:4]) > address.max_prefixlen:
        raise ValueError(f"{entry!r} needs a prefix length from 0 to {address.max_prefixlen}")
    if int(prefix) == 0:
        raise ValueError(f"{entry!r} is every address there is; name the private range you mean")
    network = ipaddress.ip_network(f"{base}/{int(prefix)}", strict=False)
    if network.network_address != address:
        raise ValueError(f"{entry!r} has host bits set; write {network}")
    if network.num_addresses == 1 and address in _METADATA:
        raise ValueError(f"{entry!r} is a cloud metadata service, which is never opened")
    for known, kind in _TABLE:
        if known.version == network.version and known.overlaps(network):
            _check_range(entry, known, kind, network)
            return network
    raise AssertionError("the tables end with a row for every address")


def _check_range(entry: str, known: Network, kind: _Kind, network: Network) -> None:
    """Refuse a network that is not wholly inside one private range."""
    inside = known.prefixlen <= network.prefixlen
    if kind is _Kind.PRIVATE and inside:
        return
    if kind is _Kind.LOOPBACK and inside:
        raise ValueError(f"{entry!r} is loopback; open one service there, as ADDRESS:PORT")
    if kind is _Kind.PUBLIC and inside:
        raise ValueError(f"{entry!r} is public; only rules speak about public addresses")
    if inside:
        raise ValueError(f"{entry!r} is a special-purpose range that is never opened")
    raise ValueError(f"{entry!r} reaches beyond one private range ({known} is inside it)")


def _parse_endpoint(entry: str) -> tuple[str, int]:
    if _is_address(entry):
        raise ValueError(f"{entry!r} needs a prefix length or a port")
    try:
        authority = parse_authority(entry.encode("utf-8"), None)
    except AuthorityError as error:
        raise ValueError(f"{entry!r} is no NETWORK/PREFIX and no ADDRESS:PORT: {error}") from None
    if not authority.is_ip:
        raise ValueError(f"{entry!r} has a name; write the address")
    address = ipaddress.ip_address(authority.host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"{entry!r} is an IPv4 address; write {address.ipv4_mapped}")
    kind = _kind(address)
    if kind is _Kind.METADATA:
        raise ValueError(f"{entry!r} is a cloud metadata service, which is never opened")
    if kind is _Kind.PUBLIC:
        raise ValueError(f"{entry!r} is public; only rules speak about public addresses")
    if kind is _Kind.NEVER:
        raise ValueError(f"{entry!r} is a special-purpose address that is never opened")
    return str(address), authority.port
