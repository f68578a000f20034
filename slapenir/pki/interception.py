"""The authorities that sign what sandboxes see: one for the gateway, or one for each identity.

One that is to be replaced has a successor beside it first (``ca-next``), which sandboxes learn to
trust; then that one signs, and what it replaced (``ca-old``) is trusted until sandboxes forget it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from slapenir.errors import PkiError
from slapenir.pki.authority import (
    CERTIFICATE_FILE,
    KEY_FILE,
    CertificateAuthority,
    read_certificate,
)
from slapenir.pki.files import replace
from slapenir.pki.held import to_pem
from slapenir.pki.key_files import read_signing_key
from slapenir.pki.leaves import Leaf, LeafMinter

IDENTITIES = "identities"
NEXT, OLD = "ca-next", "ca-old"


class Interception:
    """Every interception CA in use, each with its minter; immutable.

    ``trusted`` is what the sandboxes of each have to trust, in PEM: the CA, and its successor or
    predecessor while one replaces the other.
    """

    def __init__(
        self,
        authorities: Mapping[str, CertificateAuthority],
        trusted: Mapping[str, bytes] | None = None,
    ) -> None:
        self.authorities = dict(authorities)
        self.trusted = {name: one.certificate_pem for name, one in authorities.items()}
        self.trusted.update(trusted or {})
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
        directories = {"": state_dir}
        if identities is not None:
            directories = {name: identity_directory(state_dir, name) for name in identities}
        found = {name: CertificateAuthority.load(one, clock) for name, one in directories.items()}
        trusted = {
            name: one.certificate_pem + _beside(directories[name]) for name, one in found.items()
        }
        return cls(found, trusted)

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
    """Return where the interception CA of one identity is; raises PkiError for a bad name."""
    if identity[:1] in ("", ".") or "/" in identity:
        raise PkiError(f"{identity!r} cannot be the name of a directory; choose another identity")
    return os.path.join(state_dir, IDENTITIES, identity)


def is_due(directory: str, step: str) -> bool:
    """Whether a CA has ``prepare``, ``activate`` or ``finish`` still before it."""
    if step == "finish":
        return os.path.lexists(_path(directory, f"{OLD}.pem"))
    return os.path.lexists(_path(directory, f"{NEXT}.pem")) == (step == "activate")


def prepare(directory: str, days: int = 3650) -> CertificateAuthority:
    """Make the successor of a directory's CA; raises PkiError when there is one already."""
    CertificateAuthority.load(directory)
    if is_due(directory, "prepare"):
        with contextlib.suppress(FileNotFoundError):  # of a preparation that was cut short
            os.unlink(_path(directory, f"{NEXT}.key"))
    name = f"SLAPENIR {secrets.token_hex(4)}"
    return CertificateAuthority.create(directory, name, days, stem=NEXT)


def activate(directory: str) -> None:
    """Let the successor sign from now on; its predecessor stays trusted.

    Raises PkiError when there is none.  A process that dies half-way leaves a pair that does not
    fit, with which no gateway starts; doing it again mends that.
    """
    next_pem, next_key = _path(directory, f"{NEXT}.pem"), _path(directory, f"{NEXT}.key")
    current, key_file = _path(directory, CERTIFICATE_FILE), _path(directory, KEY_FILE)
    try:
        successor = read_certificate(next_pem)
    except PkiError:
        raise PkiError(f"{next_pem} is missing or unfit; prepare the rotation first") from None
    try:
        half_way = not os.path.lexists(next_key)
        key = read_signing_key(key_file if half_way else next_key)
    except FileNotFoundError:
        raise PkiError(f"{next_key} is missing; restore it") from None
    if key.public_key() != successor.public_key():
        raise PkiError(f"{next_key} is not the key of {next_pem}; restore the pair")
    replace(_path(directory, f"{OLD}.pem"), to_pem((read_certificate(current),)), 0o644)
    if not half_way:
        os.replace(next_key, key_file)
    os.replace(next_pem, current)


def finish(directory: str) -> None:
    """Let sandboxes forget the predecessor; raises PkiError when there is none."""
    path = _path(directory, f"{OLD}.pem")
    try:
        os.unlink(path)
    except FileNotFoundError:
        raise PkiError(f"{path} does not exist: no rotation is to be finished") from None


def _path(directory: str, name: str) -> str:
    return os.path.join(directory, name)


def _beside(directory: str) -> bytes:
    """Return the successor and the predecessor of a CA in PEM, those that there are."""
    paths = [_path(directory, f"{stem}.pem") for stem in (NEXT, OLD)]
    return b"".join(to_pem((read_certificate(one),)) for one in paths if os.path.lexists(one))
