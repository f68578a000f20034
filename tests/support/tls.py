"""Certificates for tests, made at run time: good ones, and wrong in one chosen way."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL import SSL

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH


def _days(days: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@attrs.frozen(slots=True, eq=False)
class Identity:
    """A certificate with its key and the chain to send after it."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()
    host: str = ""
    expiry: float = 0.0

    def server_context(self) -> SSL.Context:
        """Return a context that a test server uses to show this certificate."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        for extra in self.chain:
            context.add_extra_chain_cert(extra)
        return context


class TestCA:
    """An authority of a test's own, optionally below another one."""

    __test__ = False

    def __init__(
        self, name: str = "Test CA", parent: TestCA | None = None, path_length: int | None = None
    ) -> None:
        self.parent = parent
        self.name: str = name
        self.key: Key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, parent.name if parent else name, self.key, -30, 365)
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
        self.certificate = builder.sign(parent.key if parent else self.key, hashes.SHA256())

    def write(self, path: Path) -> str:
        """Write the certificate in PEM; return the path as text."""
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)

    def issue(
        self,
        *hosts: str,
        common_name: str = "",
        starts: float = -1,
        ends: float = 30,
        usage: Sequence[ObjectIdentifier] = (SERVER_AUTH,),
        key: Key | None = None,
        algorithm: hashes.SHA256 | hashes.SHA384 | None = None,
    ) -> Identity:
        """Return a certificate for ``hosts``; ``starts`` and ``ends`` are days from now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = _builder(common_name or (hosts or ("test",))[0], self.name, key, starts, ends)
        if hosts:
            names = x509.SubjectAlternativeName([_general(h) for h in hosts])
            builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usage)), critical=False)
        certificate = builder.sign(self.key, algorithm or hashes.SHA256())
        chain = (self.certificate,) if self.parent else ()
        expiry = certificate.not_valid_after_utc.timestamp()
        return Identity(certificate, key, chain, hosts[0] if hosts else "", expiry)

    def mint(self, host: str, identity: str = "") -> Identity:
        """Make a leaf as the gateway's own minters do."""
        return self.issue(host)


def self_signed(host: str) -> Identity:
    """Return a leaf that nobody but itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([_general(host)])
    builder = _builder(host, host, key, -1, 30).add_extension(names, critical=False)
    return Identity(builder.sign(key, hashes.SHA256()), key, host=host)


def _builder(
    subject: str, issuer: str, key: Key, starts: float, ends: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(subject))
        .issuer_name(_subject(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_days(starts))
        .not_valid_after(_days(ends))
    )
