"""The certificates and lists of the identity CA, as RFC 5280 wants them.  No I/O."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from slapenir.pki.authority import AUTHORITY_USAGE, utc
from slapenir.pki.held import Wanted

ROOT_SECONDS = 3650 * 86400.0
ISSUING_SECONDS = 365 * 86400.0
_BACKDATE = 2 * 86400.0
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begin(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, start: float, end: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc(start))
        .not_valid_after(utc(end))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _signed_by(
    builder: x509.CertificateBuilder, issuer: x509.Certificate
) -> x509.CertificateBuilder:
    found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)
    return builder.add_extension(identifier, critical=False)


def root_certificate(key: ec.EllipticCurvePrivateKey, number: int, now: float) -> x509.Certificate:
    """Return a self-signed root, valid for ten years.

    It has no path length: a root that follows it is signed by it, too.
    """
    name = _named(f"SLAPENIR identity root {number} {secrets.token_hex(4)}")
    builder = _begin(name, name, key.public_key(), now - _BACKDATE, now + ROOT_SECONDS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.add_extension(AUTHORITY_USAGE, critical=True).sign(key, hashes.SHA256())


def cross_signed(
    root: x509.Certificate,
    old_root: x509.Certificate,
    old_key: ec.EllipticCurvePrivateKey,
    now: float,
) -> x509.Certificate:
    """Return a new root's name and key, signed by the old root."""
    public = root.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise TypeError("roots have EC keys")
    end = min(root.not_valid_after_utc.timestamp(), old_root.not_valid_after_utc.timestamp())
    builder = _begin(root.subject, old_root.subject, public, now - _BACKDATE, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = _signed_by(builder.add_extension(AUTHORITY_USAGE, critical=True), old_root)
    return builder.sign(old_key, hashes.SHA256())


def issuing_certificate(
    public: ec.EllipticCurvePublicKey,
    number: int,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    constraints: x509.NameConstraints,
    now: float,
) -> x509.Certificate:
    """Return an issuing CA for leaves within ``constraints``, valid for a year."""
    name = _named(f"SLAPENIR identity issuing {number} {secrets.token_hex(4)}")
    end = min(now + ISSUING_SECONDS, root.not_valid_after_utc.timestamp())
    builder = _begin(name, root.subject, public, now - _BACKDATE, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(AUTHORITY_USAGE, critical=True)
    builder = _signed_by(builder.add_extension(constraints, critical=True), root)
    return builder.sign(root_key, hashes.SHA256())


def begin_leaf(
    wanted: Wanted, public: PublicKey, issuer: x509.Certificate, start: float, end: float
) -> x509.CertificateBuilder:
    """Return a leaf with the names of ``wanted``, its usages still to be added.

    Without a subject its names are critical (RFC 5280, 4.2.1.6).
    """
    subject = _named(wanted.common_name) if wanted.common_name else x509.Name([])
    builder = _begin(subject, issuer.subject, public, start, end)
    names = wanted.alternative_names()
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(names), critical=not wanted.common_name
        )
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    return _signed_by(builder.add_extension(constraints, critical=True), issuer)


def signed_list(
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    revoked: Sequence[tuple[int, float, x509.ReasonFlags]],
    number: int,
    now: float,
    lifetime: float,
) -> bytes:
    """Return an issuing CA's list of revoked certificates in PEM (RFC 5280, 5)."""
    entries = []
    for serial, when, reason in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(utc(when))
        if reason is not x509.ReasonFlags.unspecified:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        entries.append(entry.build())
    found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (  # adding them one by one would copy the list each time
        x509.CertificateRevocationListBuilder(revoked_certificates=entries)
        .issuer_name(issuer.subject)
        .last_update(utc(now))
        .next_update(utc(now + lifetime))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found), critical=False
        )
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
