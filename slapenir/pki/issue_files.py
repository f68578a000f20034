"""Requests for certificates in files, and what is written for who asked."""

from __future__ import annotations

import os

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from slapenir.errors import PkiError
from slapenir.pki.files import read_guarded, replace
from slapenir.pki.held import CHAIN, KEY, ROOTS, to_pem
from slapenir.pki.key_files import key_pem

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def read_request(path: str) -> PublicKey:
    """Return the key of a request (PKCS #10, RFC 2986) in PEM whose signature is right.

    Raises PkiError.
    """
    try:
        request = x509.load_pem_x509_csr(read_guarded(path, private=False))
        good, key = request.is_signature_valid, request.public_key()
    except FileNotFoundError:
        raise PkiError(f"{path} does not exist") from None
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise PkiError(f"{path} is not a certificate request in PEM") from None
    if not good:
        raise PkiError(f"{path} is not signed by its own key")
    if not isinstance(key, PublicKey) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048
    ):
        raise PkiError(f"{path} has a key of a kind that is not signed: use EC P-256")
    return key


def write_issued(
    directory: str,
    key: ec.EllipticCurvePrivateKey | None,
    chain: tuple[x509.Certificate, ...],
    roots: tuple[x509.Certificate, ...],
) -> list[str]:
    """Write key.pem (0600) where there is a key, chain.pem and roots.pem; return their names."""
    written = [CHAIN, ROOTS]
    if key is not None:
        replace(os.path.join(directory, KEY), key_pem(key), 0o600)
        written.insert(0, KEY)
    replace(os.path.join(directory, ROOTS), to_pem(roots), 0o644)
    replace(os.path.join(directory, CHAIN), to_pem(chain), 0o644)
    return written


def sha256_hex(certificate: x509.Certificate) -> str:
    """Return a certificate's SHA-256 as tokens and configurations write it."""
    return certificate.fingerprint(hashes.SHA256()).hex()
