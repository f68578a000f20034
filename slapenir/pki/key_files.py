"""Private keys in PEM."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from slapenir.errors import PkiError
from slapenir.pki.files import read_guarded

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def key_pem(key: SigningKey) -> bytes:
    """Return a key in PEM, not encrypted: for files of mode 0600 only."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_signing_key(path: str) -> SigningKey:
    """Return the key of a file that nobody else may read; raises FileNotFoundError, PkiError."""
    try:
        key = serialization.load_pem_private_key(read_guarded(path, private=True), password=None)
    except TypeError:
        raise PkiError(f"{path} is encrypted; store it without a passphrase, mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):
        raise PkiError(f"{path} is not a private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PkiError(f"{path} is neither an EC nor an RSA key; use one of these")
    return key
