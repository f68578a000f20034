"""Lists of certificates: read strictly, without doubles, and in the shapes that clients want."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12
from cryptography.utils import CryptographyDeprecationWarning
from OpenSSL.crypto import X509

from slapenir.errors import PkiError

_BEGIN = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_WHOLE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


def read_certificates(pem: bytes, what: str) -> tuple[list[x509.Certificate], int]:
    """Return the well-formed certificates of a PEM text, each once, and how many were not.

    Raises PkiError when there is a private key in it, or no certificate.  ``what`` is its name.
    """
    if _PRIVATE_KEY.search(pem):
        raise PkiError(f"{what} holds a private key, which no sandbox may have; take it out")
    found: dict[bytes, x509.Certificate] = {}
    good = 0
    for certificate in _loaded(_WHOLE.findall(pem)):
        good += 1
        found.setdefault(certificate.public_bytes(Encoding.DER), certificate)
    if not found:
        raise PkiError(f"{what} holds no certificate in PEM")
    return list(found.values()), len(_BEGIN.findall(pem)) - good


def _loaded(blocks: Iterable[bytes]) -> Iterator[x509.Certificate]:
    for block in blocks:
        with warnings.catch_warnings():
            # Old roots have serial numbers that are frowned upon; they are trusted nevertheless.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            try:
                certificate = x509.load_pem_x509_certificate(block)
            except ValueError:
                continue
        yield certificate


def check_authorities(certificates: Iterable[x509.Certificate], what: str) -> None:
    """Raise PkiError unless every certificate is that of a CA: no client would trust another."""
    for one in certificates:
        try:
            basic = one.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (x509.ExtensionNotFound, ValueError):
            basic = None
        if basic is None or not basic.ca:
            raise PkiError(f"{what} holds a certificate that is not a CA's")


def to_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return the certificates as one PEM text."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def hashed(certificates: Iterable[x509.Certificate]) -> dict[str, bytes]:
    """Return the files of a directory as OpenSSL looks them up: hash of the subject, a number."""
    files: dict[str, bytes] = {}
    for one in certificates:
        name = f"{X509.from_cryptography(one).subject_name_hash():08x}"
        number = 0
        while f"{name}.{number}" in files:
            number += 1
        files[f"{name}.{number}"] = one.public_bytes(Encoding.PEM)
    return files


def java_truststore(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return a PKCS#12 truststore that Java reads with any password and with none.

    That is what a JDK's own ``cacerts`` has been since version 18 (JDK-8275252): not encrypted, for
    certificates are public, and without a MAC, which would tie it to one password.  Java without a
    password finds nothing at all in an encrypted one.
    """
    entries = [
        pkcs12.PKCS12Certificate(one, f"{number:03}".encode())
        for number, one in enumerate(certificates)
    ]
    return _without_mac(pkcs12.serialize_java_truststore(entries, NoEncryption()))


def _without_mac(pfx: bytes) -> bytes:
    """Return a PFX of version and content only: its MAC is optional (RFC 7292, 4)."""
    start, _ = _content(pfx, 0)
    _, version_end = _content(pfx, start)
    _, safe_end = _content(pfx, version_end)
    kept = pfx[start:safe_end]
    size = len(kept).to_bytes((len(kept).bit_length() + 7) // 8)
    head = bytes([len(kept)]) if len(kept) < 0x80 else bytes([0x80 | len(size)]) + size
    return pfx[:1] + head + kept


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the DER element at ``at`` begins and ends."""
    size, start = der[at + 1], at + 2
    if size & 0x80:
        width = size & 0x7F
        size, start = int.from_bytes(der[start : start + width]), start + width
    return start, start + size
