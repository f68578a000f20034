"""Keys, certificates and requests in files: rubbish is an error that names the file."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import PkiError
from slapenir.pki.authority import read_certificate
from slapenir.pki.held import (
    Wanted,
    from_pem,
    new_key,
    read_chain,
    read_key,
    to_pem,
)
from slapenir.pki.issue_files import read_request
from slapenir.pki.key_files import key_pem, read_signing_key
from tests.support.tls import TestCA

LEAF = TestCA().issue("a.internal").certificate
DER = LEAF.public_bytes(Encoding.DER)
REQUEST = Wanted("agent-1").request(new_key())


def pem(kind: str, der: bytes) -> bytes:
    """Return DER as PEM text of a kind."""
    body = base64.encodebytes(der)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (kind.encode(), body, kind.encode())


class HeldCase(SynchronousTestCase):
    """One file, and what reads it."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def write(self, data: bytes, mode: int = 0o600) -> None:
        Path(self.path).write_bytes(data)
        os.chmod(self.path, mode)

    def refuses(self, phrase: str, call: Callable[[str], object]) -> None:
        with self.assertRaises(PkiError) as caught:
            call(self.path)
        self.assertIn(phrase, str(caught.exception))
        self.assertIn(self.path, str(caught.exception))


class CertificateTests(HeldCase):
    """read_chain, read_certificate."""

    def test_rubbish(self) -> None:
        """A certificate of no known version, cut off, in DER, or no certificate at all."""
        version = bytes.fromhex("a003020102")
        self.assertEqual(DER.count(version), 1)
        odd = DER.replace(version, version[:-1] + b"\x07")
        for data in (
            b"",
            b"\0",
            DER,
            to_pem((LEAF,))[:-30],
            pem("CERTIFICATE", odd),
            pem("CERTIFICATE", DER[:-1]),
            pem("CERTIFICATE REQUEST", DER),
        ):
            self.write(data)
            self.refuses("certificate", read_chain)
            self.refuses("certificate", read_certificate)
        self.write(to_pem((LEAF, LEAF)))
        self.assertEqual(read_chain(self.path), (LEAF, LEAF))
        self.refuses("holds 2 certificates", read_certificate)

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_fuzz(self, data: st.DataObject) -> None:
        text = bytearray(DER)
        for _ in range(data.draw(st.integers(1, 4))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
        for candidate in (pem("CERTIFICATE", bytes(text)), data.draw(st.binary(max_size=99))):
            try:
                found = from_pem(candidate, "it")
            except PkiError:
                continue
            self.assertEqual(len(found), 1)

    def test_names_that_are_said(self) -> None:
        """Whether a certificate still says what is wanted: the same names, none besides."""
        ca = TestCA()
        leaf = ca.issue("a.internal", "127.0.0.1").certificate
        for wanted, good in (
            (Wanted(dns=("a.internal",), addresses=("127.0.0.1",)), True),
            (Wanted(dns=("a.internal",)), False),
            (Wanted(dns=("a.internal", "b.internal"), addresses=("127.0.0.1",)), False),
            (Wanted("a.internal"), False),
        ):
            self.assertEqual(wanted.is_said_by(leaf), good)
        self.assertTrue(Wanted("x").is_said_by(ca.issue(common_name="x").certificate))


class KeyTests(HeldCase):
    """read_key, read_signing_key (T115, T239)."""

    def test_t115_kinds(self) -> None:
        """EC keys; RSA where they are allowed; nothing else."""
        small = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        for key, reads in (
            (new_key(), 2),
            (ec.generate_private_key(ec.SECP384R1()), 2),
            (small, 1),
        ):
            self.write(key_pem(key))
            read_signing_key(self.path)
            if reads == 2:
                read_key(self.path)
            else:
                self.refuses("is not an EC key", read_key)
        edwards = ed25519.Ed25519PrivateKey.generate()
        self.write(
            edwards.private_bytes(
                Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.refuses("neither an EC nor an RSA key", read_key)

    def test_t115_rubbish(self) -> None:
        key = new_key()
        encrypted = key.private_bytes(
            Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(os.urandom(8).hex().encode()),
        )
        self.write(encrypted)
        self.refuses("is encrypted", read_key)
        unknown = key_pem(key).replace(b"PRIVATE", b"STRANGE PRIVATE")
        # PKCS #8 of an algorithm that nobody has (1.2.3.4).
        strange = pem("PRIVATE KEY", bytes.fromhex("300e020100300506032a030404020500"))
        for data in (b"", b"x" * 100, unknown, key_pem(key)[:-40], to_pem((LEAF,)), strange):
            self.write(data)
            self.refuses("is not a private key in PEM", read_key)

    def test_t239_modes(self) -> None:
        """Anything for others is too much."""
        for mode in (0o640, 0o604, 0o620, 0o610):
            self.write(key_pem(new_key()), mode)
            self.refuses("chmod 600", read_key)
        for mode in (0o600, 0o400):
            self.write(key_pem(new_key()), 0o600)
            os.chmod(self.path, mode)
            read_key(self.path)


class RequestTests(HeldCase):
    """read_request: of a request only its key counts."""

    def test_good(self) -> None:
        self.write(REQUEST.public_bytes(Encoding.PEM))
        self.assertEqual(read_request(self.path), REQUEST.public_key())

    def test_refused(self) -> None:
        self.refuses("does not exist", read_request)
        der = REQUEST.public_bytes(Encoding.DER)
        version = bytes.fromhex("020100")
        odd = der.replace(version, b"\x02\x01\x07", 1)
        spoilt = der[:-1] + bytes([der[-1] ^ 1])
        for data, phrase in (
            (b"", "is not a certificate request"),
            (der, "is not a certificate request"),
            (to_pem((LEAF,)), "is not a certificate request"),
            (pem("CERTIFICATE REQUEST", odd), "request"),
            (pem("CERTIFICATE REQUEST", spoilt), "is not signed by its own key"),
        ):
            self.write(data)
            self.refuses(phrase, read_request)
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
        named = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        self.write(named.sign(weak, hashes.SHA256()).public_bytes(Encoding.PEM))
        self.refuses("of a kind that is not signed", read_request)
