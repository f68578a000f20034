"""The authority that signs the leaves a sandbox sees.

It is made once by ``slapenir init`` or ``slapenir ca init`` and never by the running gateway: an
authority that appears by itself is one nobody installed, and hides that the old one is gone.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from slapenir.errors import PkiError
from slapenir.pki.files import read_guarded, write_new
from slapenir.pki.key_files import SigningKey, key_pem, read_signing_key

CERTIFICATE_FILE = "ca.pem"
KEY_FILE = "ca.key"
BACKDATE_SECONDS = 2 * 86400
_INIT = "run: slapenir ca init FILE"


def utc(seconds: float) -> datetime.datetime:
    """Return the UTC time of Unix ``seconds``, whole seconds as X.509 wants them."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _key_usage(*, certificate_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificate_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificate_sign,
        crl_sign=certificate_sign,
        encipher_only=False,
        decipher_only=False,
    )


LEAF_USAGE = _key_usage(certificate_sign=False)
AUTHORITY_USAGE = _key_usage(certificate_sign=True)


class CertificateAuthority:
    """A CA certificate with its key, checked to be fit for signing leaves (RFC 5280)."""

    __slots__ = ("certificate", "key", "not_after", "not_before")

    def __init__(self, certificate: x509.Certificate, key: SigningKey) -> None:
        self.certificate = certificate
        self.key = key
        self.not_before = certificate.not_valid_before_utc.timestamp()
        self.not_after = certificate.not_valid_after_utc.timestamp()

    def __repr__(self) -> str:
        return f"<CertificateAuthority {self.subject!r}>"

    @property
    def subject(self) -> str:
        """The subject name (RFC 4514)."""
        return self.certificate.subject.rfc4514_string()

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate in hex, as openssl and browsers show it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM: what a sandbox must trust.  The key is not in it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(
        cls,
        directory: str,
        common_name: str,
        days: int = 3650,
        clock: Callable[[], float] = time.time,
        stem: str = "ca",
    ) -> CertificateAuthority:
        """Make an EC P-256 authority and write STEM.key (0600) and STEM.pem (0644) there.

        It may sign leaves only (pathlen 0) and is valid from two days ago for ``days`` from now.
        Raises PkiError when either file exists, or cannot be written; then neither is changed.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, common_name, days, clock())
        pem = key_pem(key)
        key_path = os.path.join(directory, f"{stem}.key")
        path = os.path.join(directory, f"{stem}.pem")
        if os.path.lexists(path):
            raise PkiError(f"{path} exists already and is never overwritten")
        write_new(key_path, pem, 0o600)
        authority = cls(certificate, key)
        try:
            write_new(path, authority.certificate_pem, 0o644)
        except PkiError:
            with contextlib.suppress(OSError):
                os.unlink(key_path)
            raise
        return authority

    @classmethod
    def load(cls, directory: str, clock: Callable[[], float] = time.time) -> CertificateAuthority:
        """Read ca.pem and ca.key from ``directory``; never makes them (T115).

        Raises PkiError saying what is wrong and what to do: missing, a link, readable by others,
        not an authority, without keyCertSign, not valid now, or a key of another certificate.
        """
        certificate_path = os.path.join(directory, CERTIFICATE_FILE)
        key_path = os.path.join(directory, KEY_FILE)
        certificate = read_certificate(certificate_path)
        key = _read_key(key_path)
        check_authority(certificate, certificate_path)
        if certificate.public_key() != key.public_key():
            raise PkiError(
                f"{key_path} is not the key of {certificate_path}; restore the pair, or, in the "
                "middle of a rotation, run again: slapenir ca rotate FILE --interception --activate"
            )
        authority = cls(certificate, key)
        now = clock()
        if now >= authority.not_after:
            raise PkiError(
                f"{certificate_path} has expired; move ca.pem and ca.key away and {_INIT}"
            )
        if now < authority.not_before:
            raise PkiError(f"{certificate_path} is not valid yet; check this machine's clock")
        return authority


def _self_signed(
    key: ec.EllipticCurvePrivateKey, common_name: str, days: int, now: float
) -> x509.Certificate:
    if not 1 <= len(common_name) <= 64 or not common_name.isprintable():
        raise PkiError("the common name must be 1 to 64 printable characters")
    if not 1 <= days <= 36500:
        raise PkiError("the authority's life must be 1 to 36500 days")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc(now - BACKDATE_SECONDS))
        .not_valid_after(utc(now + days * 86400))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(AUTHORITY_USAGE, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def read_certificate(path: str) -> x509.Certificate:
    """Return the one certificate in a file; raises PkiError with what to do."""
    try:
        found = x509.load_pem_x509_certificates(read_guarded(path, private=False))
    except FileNotFoundError:
        raise PkiError(f"{path} is missing; {_INIT}") from None
    except (ValueError, x509.InvalidVersion):
        raise PkiError(f"{path} is not a certificate in PEM; restore it") from None
    if len(found) != 1:
        raise PkiError(f"{path} holds {len(found)} certificates; put exactly one there")
    return found[0]


def _read_key(path: str) -> SigningKey:
    try:
        return read_signing_key(path)
    except FileNotFoundError:
        raise PkiError(f"{path} is missing; restore it, or move ca.pem away and {_INIT}") from None


def check_authority(certificate: x509.Certificate, path: str, remedy: str = _INIT) -> None:
    """Raise PkiError unless the certificate may sign others (RFC 5280, 4.2.1.3 and 4.2.1.9)."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        raise PkiError(f"{path} is not an authority (no basic constraints); {remedy}") from None
    except ValueError:
        raise PkiError(f"{path} has extensions that cannot be read; {remedy}") from None
    if not constraints.value.ca:
        raise PkiError(f"{path} is not an authority (CA:FALSE); {remedy}")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise PkiError(f"{path} does not say it may sign (no key usage); {remedy}") from None
    if not usage.key_cert_sign:
        raise PkiError(f"{path} may not sign certificates (no keyCertSign); {remedy}")
