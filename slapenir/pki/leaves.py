"""Leaf certificates, made while a client waits: one key for the process, one signature each."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from slapenir.errors import PkiError
from slapenir.names import canonical_host
from slapenir.pki.authority import BACKDATE_SECONDS, LEAF_USAGE, CertificateAuthority, utc

LIFETIME_SECONDS = 30 * 86400
MAX_COMMON_NAME = 64
_CONSTRAINTS = x509.BasicConstraints(ca=False, path_length=None)
_SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


@attrs.frozen(slots=True, repr=False, eq=False)
class Leaf:
    """A certificate for one host with its key; ``expiry`` is its end in Unix seconds."""

    host: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    expiry: float

    def __repr__(self) -> str:
        return f"<Leaf {self.host}>"

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        """The private key in PEM, unencrypted.  The caller must not store it."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


class LeafMinter:
    """Sign leaves with an authority; every leaf of one minter has the same EC P-256 key."""

    def __init__(
        self, authority: CertificateAuthority, clock: Callable[[], float] = time.time
    ) -> None:
        self._authority = authority
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key()
        self._builder = (  # what all leaves share; a builder is immutable
            x509.CertificateBuilder()
            .issuer_name(authority.certificate.subject)
            .public_key(public)
            .add_extension(_CONSTRAINTS, critical=True)
            .add_extension(LEAF_USAGE, critical=True)
            .add_extension(_SERVER, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_authority_identifier(authority), critical=False)
        )
        self._hash = hashes.SHA256()

    @property
    def authority(self) -> CertificateAuthority:
        """The authority that signs."""
        return self._authority

    def mint(self, host: str) -> Leaf:
        """Return a leaf for one host: a name, a dotted quad, or IPv6 with or without brackets.

        The leaf is valid from two days ago (or the authority's start, when later), for at most 30
        days in all, and never longer than the authority.  Raises AuthorityError when ``host`` is
        not one canonical host, so a wildcard is never signed, and PkiError once the authority has
        expired.
        """
        try:
            raw = host.encode("ascii")
        except UnicodeEncodeError:
            raw = b""
        name = canonical_host(b"[%b]" % raw if b":" in raw and raw[:1] != b"[" else raw)
        now = self._clock()
        if now >= self._authority.not_after:
            raise PkiError("the authority has expired; no leaf can be signed")
        start = max(now - BACKDATE_SECONDS, self._authority.not_before)
        expiry = float(int(min(start + LIFETIME_SECONDS, self._authority.not_after)))
        return Leaf(name, self._sign(name, start, expiry), self._key, expiry)

    def _sign(self, name: str, start: float, expiry: float) -> x509.Certificate:
        common = (
            [x509.NameAttribute(NameOID.COMMON_NAME, name)] if len(name) <= MAX_COMMON_NAME else []
        )
        # With no subject the names alone identify the host, and are critical (RFC 5280, 4.2.1.6).
        return (
            self._builder.subject_name(x509.Name(common))
            .serial_number(x509.random_serial_number())
            .not_valid_before(utc(start))
            .not_valid_after(utc(expiry))
            .add_extension(_alternative_name(name), critical=not common)
            .sign(self._authority.key, self._hash)
        )


def _alternative_name(name: str) -> x509.SubjectAlternativeName:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return x509.SubjectAlternativeName([x509.DNSName(name)])
    return x509.SubjectAlternativeName([x509.IPAddress(address)])


def _authority_identifier(authority: CertificateAuthority) -> x509.AuthorityKeyIdentifier:
    """Name the issuer's key by the identifier it carries, or by its hash when it carries none."""
    extensions = authority.certificate.extensions
    try:
        found = extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)
