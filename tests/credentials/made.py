"""Secrets made up at run time, and credentials of them."""

from __future__ import annotations

import secrets

from slapenir.credentials.inject import Held
from slapenir.credentials.model import Credential, HeaderSurface, Surface
from slapenir.secret import Secret

BEARER = HeaderSurface(b"authorization", b"Bearer")


def token(size: int = 32) -> bytes:
    """Return ``size`` hexadecimal digits that nobody has seen before."""
    return secrets.token_hex(size)[:size].encode("ascii")


def held(
    *surfaces: Surface,
    name: str = "key",
    secret: bytes | None = None,
    placeholder: bytes | None = None,
) -> Held:
    """Return a credential on these surfaces with a secret and placeholder of 32 bytes."""
    made = Credential(name, Secret(secret or token()), ("a.org",), surfaces)
    return Held(made, placeholder or token())


def real(item: Held) -> bytes:
    """Return the secret of what is held."""
    return item.credential.secret.reveal()
