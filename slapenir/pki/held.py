"""A certificate in use with its key: what is wanted of a CA, what it gave, and its files."""

from __future__ import annotations

import ipaddress
import os

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from slapenir.errors import PkiError
from slapenir.pki.files import read_guarded, replace
from slapenir.pki.key_files import key_pem, read_signing_key

KEY, CHAIN, ROOTS = "key.pem", "chain.pem", "roots.pem"
MAX_CHAIN = 8


@attrs.frozen(slots=True)
class Wanted:
    """What a certificate is to say.  ``lifetime`` is in seconds.

    ``server`` asks for a certificate of a server; without it, for one of a client.
    """

    common_name: str = ""
    spiffe: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    server: bool = False
    lifetime: float = 86400.0

    def alternative_names(self) -> list[x509.GeneralName]:
        """Return the subject alternative names (RFC 5280, 4.2.1.6)."""
        return [
            *(x509.UniformResourceIdentifier(one) for one in self.spiffe),
            *(x509.DNSName(one) for one in self.dns),
            *(x509.IPAddress(ipaddress.ip_address(one)) for one in self.addresses),
        ]

    def is_said_by(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate has exactly these alternative names."""
        try:
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except (x509.ExtensionNotFound, ValueError):
            return not self.alternative_names()
        return set(found.value) == set(self.alternative_names())

    def request(self, key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
        """Return a signed request for a certificate with these names (PKCS #10, RFC 2986)."""
        common = (
            [x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)] if self.common_name else []
        )
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(common))
        names = self.alternative_names()
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(key, hashes.SHA256())


@attrs.frozen(slots=True, repr=False, eq=False)
class Held:
    """A key, its certificate chain (the leaf first, the root left out) and the roots of its CA."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...] = ()

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate itself."""
        return self.chain[0]

    @property
    def not_before(self) -> float:
        """When it begins, in Unix seconds."""
        return self.leaf.not_valid_before_utc.timestamp()

    @property
    def not_after(self) -> float:
        """When it ends, in Unix seconds."""
        return self.leaf.not_valid_after_utc.timestamp()

    def save(self, directory: str) -> None:
        """Write key.pem (0600), chain.pem and roots.pem, each in one step; raises PkiError.

        The key comes first: where the process dies in between, ``load`` sees two that do not
        belong together and says so, and the caller asks for a new certificate.
        """
        replace(os.path.join(directory, KEY), key_pem(self.key), 0o600)
        replace(os.path.join(directory, ROOTS), to_pem(self.roots), 0o644)
        replace(os.path.join(directory, CHAIN), to_pem(self.chain), 0o644)

    @classmethod
    def load(cls, directory: str) -> Held:
        """Read what ``save`` wrote; raises FileNotFoundError or PkiError."""
        key = read_key(os.path.join(directory, KEY))
        chain = read_chain(os.path.join(directory, CHAIN))
        roots = read_chain(os.path.join(directory, ROOTS), least=0)
        if chain[0].public_key() != key.public_key():
            raise PkiError(f"{directory}: {KEY} is not the key of {CHAIN}")
        return cls(key, chain, roots)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new EC P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def to_pem(certificates: tuple[x509.Certificate, ...]) -> bytes:
    """Return certificates in PEM, one after the other."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def from_pem(data: bytes, where: str, least: int = 1) -> tuple[x509.Certificate, ...]:
    """Return the certificates in PEM text; raises PkiError naming ``where``."""
    if not data.strip() and least == 0:
        return ()
    try:
        found = tuple(x509.load_pem_x509_certificates(data))
    except (ValueError, x509.InvalidVersion):
        raise PkiError(f"{where} is not a certificate in PEM") from None
    if len(found) < least:
        raise PkiError(f"{where} holds no certificate")
    return found


def read_chain(path: str, least: int = 1) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a file; raises FileNotFoundError or PkiError."""
    return from_pem(read_guarded(path, private=False), path, least)


def read_key(path: str) -> ec.EllipticCurvePrivateKey:
    """Return the EC key of a file that nobody else may read; raises FileNotFoundError, PkiError."""
    key = read_signing_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path} is not an EC key; use EC P-256")
    return key
