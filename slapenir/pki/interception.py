"""The authorities that sign what sandboxes see: one for the gateway, or one for each identity."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from slapenir.errors import PkiError
from slapenir.pki.authority import CertificateAuthority
from slapenir.pki.leaves import Leaf, LeafMinter

IDENTITIES = "identities"


class Interception:
    """Every interception CA in use, each with its minter; immutable."""

    def __init__(self, authorities: Mapping[str, CertificateAuthority]) -> None:
        self.authorities = dict(authorities)
        self._minters = {name: LeafMinter(one) for name, one in authorities.items()}

    @classmethod
    def load(
        cls,
        state_dir: str,
        identities: Sequence[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Interception:
        """Read the gateway's CA, or that of each of ``identities``; never makes one (T115).

        Raises PkiError, as CertificateAuthority.load does.
        """
        if identities is None:
            return cls({"": CertificateAuthority.load(state_dir, clock)})
        return cls(
            {
                name: CertificateAuthority.load(identity_directory(state_dir, name), clock)
                for name in identities
            }
        )

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What changes when any of the authorities does."""
        return tuple(f"{name} {one.fingerprint}" for name, one in self.authorities.items())

    def mint(self, host: str, identity: str) -> Leaf:
        """Return a leaf for a host that ``identity`` may see; raises PkiError, AuthorityError."""
        minter = self._minters.get(identity) or self._minters.get("")
        if minter is None:
            raise PkiError("the identity has no interception CA; run: slapenir ca init FILE")
        return minter.mint(host)


def identity_directory(state_dir: str, identity: str) -> str:
    """Return where the interception CA of one identity is."""
    return os.path.join(state_dir, IDENTITIES, identity)
