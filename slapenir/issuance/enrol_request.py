"""What asks for a certificate: its JSON and its request (PKCS #10), checked before anything else.

Of the request only the public key is used.  No phrase here quotes what was sent.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

MAX_BODY = 64 * 1024
MAX_REQUEST = 16 * 1024
_MIN_RSA, _MAX_RSA = 2048, 4096
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_SECRET = re.compile(r"[A-Za-z0-9_-]{20,128}", re.ASCII)

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Refused(Exception):
    """A request gets no certificate.

    ``status`` and ``phrase`` are the answer; ``retry`` says whether the same request may succeed
    later; ``reason`` is what the event says, by default the phrase.
    """

    def __init__(self, status: int, phrase: str, retry: bool = False, reason: str = "") -> None:
        super().__init__(phrase)
        self.status, self.phrase, self.retry = status, phrase, retry
        self.reason = reason or phrase


@attrs.frozen(slots=True, repr=False)
class Application:
    """A parsed body: the certificate request in PEM, and the token's secret where one came."""

    request: bytes
    secret: str = ""


def parse(body: bytes, *, with_secret: bool) -> Application:
    """Return the application in a body: an object of exactly the expected members.

    Raises Refused (400).
    """
    wanted = {"csr", "token_secret"} if with_secret else {"csr"}
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(found, dict) or set(found) != wanted:
        raise Refused(400, f"the body is not an object of {' and '.join(sorted(wanted))}")
    if not all(isinstance(value, str) for value in found.values()):
        raise Refused(400, "a member of the body is not a string")
    request = found["csr"].encode("utf-8", "replace")
    if len(request) > MAX_REQUEST:
        raise Refused(413, f"the certificate request is longer than {MAX_REQUEST} bytes")
    secret = found.get("token_secret", "")
    if with_secret and _SECRET.fullmatch(secret) is None:
        raise Refused(400, "token_secret is not the secret of a token")
    return Application(request, secret)


def public_key(request: bytes) -> PublicKey:
    """Return the public key of a certificate request in PEM whose signature is its own.

    EC P-256 or P-384, RSA of 2048 to 4096 bits, or Ed25519.  Raises Refused (400).
    """
    try:
        found = x509.load_pem_x509_csr(request)
        key = found.public_key()
        usable = _usable(key)  # before the signature: a huge key is not worked with
        signed = usable and found.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise Refused(400, "csr is not a certificate request in PEM") from None
    if not usable:
        raise Refused(400, "the key is not EC P-256 or P-384, RSA of 2048 to 4096 bits or Ed25519")
    if not signed:
        raise Refused(400, "the certificate request is not signed by its own key")
    assert isinstance(key, PublicKey)  # noqa: S101 - for mypy; _usable has seen to it
    return key


def _usable(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    if isinstance(key, rsa.RSAPublicKey):
        return _MIN_RSA <= key.key_size <= _MAX_RSA
    return isinstance(key, ed25519.Ed25519PublicKey)
