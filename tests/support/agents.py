"""A CA for agents' certificates in tests: good ones, and ones that are wrong in one way each."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
TRUST_DOMAIN = "example.org"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def spiffe(name: str) -> str:
    """Return the SPIFFE ID that tests give an agent."""
    return f"spiffe://{TRUST_DOMAIN}/agent/{name}"


@attrs.frozen(eq=False)
class AgentCertificate:
    """A certificate with its key and the issuers that go with it."""

    certificate: x509.Certificate
    key: Key
    issuers: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificate and its issuers."""
        return (self.certificate, *self.issuers)

    def write(self, directory: Path, stem: str = "client") -> tuple[Path, Path]:
        """Write STEM.pem (the chain) and STEM.key (0600); return both."""
        chain, key = directory / f"{stem}.pem", directory / f"{stem}.key"
        chain.write_bytes(pem(self.chain))
        key.touch(0o600)
        key.chmod(0o600)
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return chain, key


def pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return certificates in PEM."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def _at(days: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


class AgentCA:
    """A CA, root or issuing, whose certificates tests make; ``parent`` signs it."""

    def __init__(
        self,
        name: str = "Agents CA",
        parent: AgentCA | None = None,
        path_length: int | None = None,
        ca: bool = True,
    ) -> None:
        self.parent = parent
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        signer = parent or self
        builder = self._builder(self.name, signer.name, self.key, -30, 365)
        builder = builder.add_extension(
            x509.BasicConstraints(ca, path_length if ca else None), True
        )
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = builder.add_extension(usage, True)
        self.certificate = signer.sign(builder, self.key if parent is None else None)
        self.revoked: list[int] = []

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: Key, starts: float, ends: float
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_at(starts))
            .not_valid_after(_at(ends))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )

    def sign(self, builder: x509.CertificateBuilder, key: Key | None = None) -> x509.Certificate:
        """Return what a builder makes, signed by this CA."""
        public = self.key.public_key()
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
        return builder.add_extension(identifier, False).sign(key or self.key, hashes.SHA256())

    def issue(
        self,
        uris: Sequence[str] = (),
        *,
        dns: Sequence[str] = (),
        common: Sequence[str] = (),
        usage: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
        starts: float = -1,
        ends: float = 1,
        ca: bool = False,
        key: Key | None = None,
        extra: x509.ExtensionType | None = None,
    ) -> AgentCertificate:
        """Return a leaf with these names; ``starts`` and ``ends`` are days from now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in common])
        builder = self._builder(subject, self.name, key, starts, ends)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(one) for one in uris]
        names += [x509.DNSName(one) for one in dns]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(usage)), critical=False)
        if extra is not None:
            builder = builder.add_extension(extra, critical=False)
        issuers = (self.certificate,) if self.parent else ()
        return AgentCertificate(self.sign(builder), key, issuers)

    def agent(self, name: str, **more: object) -> AgentCertificate:
        """Return the certificate of an agent, by its SPIFFE ID."""
        return self.issue([spiffe(name)], **more)  # type: ignore[arg-type]

    def crl(self, *revoked: AgentCertificate, starts: float = -0.01, ends: float = 1) -> bytes:
        """Return a list of revoked certificates in PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(_at(starts))
            .next_update(_at(ends))
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for one in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(one.certificate.serial_number)
                .revocation_date(_at(-0.01))
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
