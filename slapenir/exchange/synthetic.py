"""Addresses that stand for names: what the gateway's DNS tells a sandbox instead of real ones.

A connection to such an address says by its destination which name it is for.  Nothing is ever
dialled there.  An address is derived from identity and name, so after a restart the same name has
the same address again, as long as no other name took its place.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_TRIES = 64
_MAPPED = "::ffff:"


class SyntheticAddresses:
    """Names by address, for each identity apart.

    ``networks`` has at most one of each family.  Of the names of one identity the
    ``names_per_identity`` used last are remembered.  ``key`` is the gateway's own.
    """

    def __init__(self, networks: Sequence[Network], names_per_identity: int, key: bytes) -> None:
        self._networks: dict[int, Network] = {network.version: network for network in networks}
        self._most = names_per_identity
        self._key = key
        self._names: dict[str, OrderedDict[str, dict[int, str]]] = {}
        self._owners: dict[str, tuple[str, str]] = {}

    def address_of(self, identity: str, name: str, version: int) -> str | None:
        """Return the address of a name in IP version 4 or 6, made up if need be.

        None where there is no network of that version, or no free address was found in it.
        """
        network = self._networks.get(version)
        if network is None:
            return None
        names = self._names.setdefault(identity, OrderedDict())
        held = names.get(name)
        if held is None:
            held = names[name] = {}
            if len(names) > self._most:
                self._forget(names)
        names.move_to_end(name)
        if version not in held:
            made = self._make(identity, name, network)
            if made is None:
                return None
            held[version] = made
            self._owners[made] = (identity, name)
        return held[version]

    def name_of(self, identity: str, address: str) -> str | None:
        """Return the name that an identity was given an address for, None for any other."""
        plain = address.removeprefix(_MAPPED) if "." in address else address
        owner = self._owners.get(plain)
        if owner is None or owner[0] != identity:
            return None
        self._names[identity].move_to_end(owner[1])
        return owner[1]

    def covers(self, address: str) -> bool:
        """Whether an address is in one of the networks."""
        found = ipaddress.ip_address(address)
        return any(
            found.version == version and found in network
            for version, network in self._networks.items()
        )

    def _forget(self, names: OrderedDict[str, dict[int, str]]) -> None:
        _, held = names.popitem(last=False)
        for address in held.values():
            del self._owners[address]

    def _make(self, identity: str, name: str, network: Network) -> str | None:
        """Return a free address: where it falls depends on the key, so nobody can aim it."""
        text = f"{network.version}\0{identity}\0{name}".encode()
        digest = hmac.new(self._key, text, hashlib.sha256).digest()
        place = int.from_bytes(digest[:16], "big")
        step = int.from_bytes(digest[16:], "big") | 1
        # Not the network's own address nor the last one, which is for broadcasts in IPv4.
        size = network.num_addresses - 2
        for _ in range(_TRIES):
            address = str(network[1 + place % size])
            if address not in self._owners:
                return address
            place += step
        return None
