"""Leaves: what is in them, for how long, and for whom they are never made."""

from __future__ import annotations

import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import AuthorityError, PkiError
from slapenir.pki.authority import CertificateAuthority
from slapenir.pki.leaves import LeafMinter
from tests.pki.test_authority import write_pair

DAY = 86400.0


class LeafTests(SynchronousTestCase):
    """What LeafMinter signs and what it refuses."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory, 0o700)
        self.authority = CertificateAuthority.create(self.directory, "Test CA", days=365)
        self.now = self.authority.not_before + 10 * DAY
        self.minter = LeafMinter(self.authority, lambda: self.now)

    def names(self, host: str) -> x509.SubjectAlternativeName:
        leaf = self.minter.mint(host)
        found = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(found.critical, len(leaf.host) > 64)
        self.assertEqual(len(found.value), 1)
        return found.value

    def test_t113_names(self) -> None:
        """T113: every kind of host is in the SAN, in its canonical form, and nothing else is."""
        long = ".".join(["a" * 60] * 4) + ".example"
        self.assertEqual(len(long), 251)
        for host, name in (
            ("api.example.com", "api.example.com"),
            ("API.Example.com.", "api.example.com"),
            ("foo_bar.com", "foo_bar.com"),
            ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
            ("a" * 63 + ".example", "a" * 63 + ".example"),
            (long, long),
        ):
            self.assertEqual(self.names(host).get_values_for_type(x509.DNSName), [name])
        for host, address in (
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:DB8:0:0::1]", "2001:db8::1"),
        ):
            self.assertEqual(
                self.names(host).get_values_for_type(x509.IPAddress),
                [ipaddress.ip_address(address)],
            )

    def test_t113_common_name(self) -> None:
        """T113: the common name is there up to 64 characters and left out above."""
        for length, expected in ((64, 1), (65, 0)):
            host = "a" * (length - 33) + "." + "b" * 32
            self.assertEqual(len(list(self.minter.mint(host).certificate.subject)), expected)

    def test_t113_times(self) -> None:
        """T113: backdated two days, 30 days in all, within the authority's own life."""
        certificate = self.minter.mint("a.example").certificate
        self.assertEqual(certificate.not_valid_before_utc.timestamp(), self.now - 2 * DAY)
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        self.assertEqual(life.days, 30)
        self.now = self.authority.not_after - 3 * DAY
        leaf = self.minter.mint("a.example")
        self.assertEqual(leaf.expiry, self.authority.not_after)
        self.assertEqual(leaf.certificate.not_valid_after_utc.timestamp(), leaf.expiry)
        self.now = self.authority.not_before + 5
        start = self.minter.mint("a.example").certificate.not_valid_before_utc
        self.assertEqual(start.timestamp(), self.authority.not_before)
        self.now = self.authority.not_after
        self.assertRaises(PkiError, self.minter.mint, "a.example")

    def test_t114_never_minted(self) -> None:
        """T114, T018, T095: what is no canonical host gets no certificate; its neighbour does."""
        for host in (
            "*.com",
            "*",
            "a..b",
            "ex ample",
            "",
            ".",
            "a.com..",
            "a\x00b.com",
            "a/b",
            "a:b",
            "[::1",
            "fe80::1%eth0",
            "0x7f.1",
            "m\u00fcnchen.de",
            "a" * 64 + ".com",
            "-a.com",
            "a" * 254,
        ):
            with self.assertRaises(AuthorityError, msg=repr(host)):
                self.minter.mint(host)
        self.assertEqual(self.minter.mint("a.com").host, "a.com")

    def test_chain_verifies(self) -> None:
        """A client that trusts the authority accepts the leaf for its host and no other."""
        store = Store([self.authority.certificate])
        for host in ("a.example.com", "192.0.2.1"):
            leaf = self.minter.mint(host)
            subject: x509.DNSName | x509.IPAddress = (
                x509.DNSName(host) if host[0] == "a" else x509.IPAddress(ipaddress.ip_address(host))
            )
            when = leaf.certificate.not_valid_before_utc
            policy = PolicyBuilder().store(store).time(when)
            policy.build_server_verifier(subject).verify(leaf.certificate, [])
            with self.assertRaises(x509.verification.VerificationError):
                policy.build_server_verifier(x509.DNSName("b.example")).verify(leaf.certificate, [])

    def test_extensions(self) -> None:
        """Not an authority, serverAuth only, and the key identifiers link leaf and authority."""
        find = self.minter.mint("a.example").certificate.extensions.get_extension_for_class
        self.assertEqual(list(find(x509.ExtendedKeyUsage).value), [ExtendedKeyUsageOID.SERVER_AUTH])
        self.assertFalse(find(x509.BasicConstraints).value.ca)
        self.assertFalse(find(x509.KeyUsage).value.key_cert_sign)
        parent = self.authority.certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        )
        self.assertEqual(
            find(x509.AuthorityKeyIdentifier).value.key_identifier, parent.value.digest
        )

    def test_serials_differ_and_the_key_is_shared(self) -> None:
        """One key for the process, one serial number for each leaf."""
        first, second = self.minter.mint("a.example"), self.minter.mint("a.example")
        self.assertNotEqual(first.certificate.serial_number, second.certificate.serial_number)
        self.assertIs(first.key, second.key)
        self.assertEqual(first.certificate.public_key(), first.key.public_key())

    def test_forms(self) -> None:
        """PEM and DER are the same certificate; neither repr nor str shows the key."""
        leaf = self.minter.mint("a.example")
        pem = x509.load_pem_x509_certificate(leaf.certificate_pem)
        self.assertEqual(pem, x509.load_der_x509_certificate(leaf.certificate_der))
        key = serialization.load_pem_private_key(leaf.key_pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.assertEqual(key.public_key(), leaf.key.public_key())
        self.assertEqual(f"{leaf!r} {leaf}", "<Leaf a.example> <Leaf a.example>")

    def test_authority_without_an_identifier(self) -> None:
        """An authority made elsewhere, without a subject key identifier, still signs."""
        directory = self.mktemp()
        os.mkdir(directory)
        write_pair(directory)
        leaf = LeafMinter(CertificateAuthority.load(directory)).mint("a.example")
        leaf.certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
