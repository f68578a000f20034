"""Lists of revoked certificates: what is read, what is refused, and what they say when (T105)."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from slapenir.errors import PkiError
from slapenir.pki.authority import AUTHORITY_USAGE, LEAF_USAGE
from slapenir.pki.key_files import key_pem
from slapenir.pki.revocation import Revocations, Standing

NOW = float(int(time.time()))
HOUR = 3600.0
SHA256 = hashes.SHA256()
Extension = tuple[x509.ExtensionType, bool]


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    subject: str,
    issuer: str,
    public: Any,
    key: Any,
    usage: x509.KeyUsage | None = AUTHORITY_USAGE,
    serial: int = 0,
) -> x509.Certificate:
    """Return a certificate of the test's own making."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(_utc(NOW - HOUR))
        .not_valid_after(_utc(NOW + 24 * HOUR))
    )
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256)


@attrs.frozen(eq=False)
class Issuer:
    """A CA that signs lists as it is told."""

    key: Any
    certificate: x509.Certificate

    @classmethod
    def make(
        cls, name: str = "CA", key: Any = None, usage: x509.KeyUsage | None = AUTHORITY_USAGE
    ) -> Issuer:
        key = key or ec.generate_private_key(ec.SECP256R1())
        return cls(key, certificate(name, name, key.public_key(), key, usage))

    def leaf(self, serial: int = 0) -> x509.Certificate:
        """Return a certificate that it signed."""
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        name = self.certificate.subject.rfc4514_string().removeprefix("CN=")
        return certificate("leaf", name, public, self.key, LEAF_USAGE, serial)

    def crl(
        self,
        *serials: int,
        starts: float = NOW - HOUR,
        ends: float = NOW + HOUR,
        extensions: Sequence[Extension] = (),
        entry: Sequence[Extension] = (),
        encoding: Encoding = Encoding.PEM,
        name: str = "",
        algorithm: Any = SHA256,
    ) -> bytes:
        """Return a list of ``serials``; ``entry`` are the extensions of each."""
        revoked = []
        for serial in serials:
            one = x509.RevokedCertificateBuilder().serial_number(serial)
            one = one.revocation_date(_utc(NOW - HOUR))
            for extension, critical in entry:
                one = one.add_extension(extension, critical)
            revoked.append(one.build())
        builder = x509.CertificateRevocationListBuilder(revoked_certificates=revoked)
        builder = builder.issuer_name(_name(name) if name else self.certificate.subject)
        builder = builder.last_update(_utc(starts)).next_update(_utc(ends))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, algorithm).public_bytes(encoding)


CA = Issuer.make()
BAD, FINE = CA.leaf(), CA.leaf()


def point(**options: Any) -> x509.IssuingDistributionPoint:
    """Return an issuing distribution point with some of its flags."""
    fields: dict[str, Any] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**fields | options)


class RevocationCase(SynchronousTestCase):
    """What every test here asks."""

    def refuses(self, phrase: str, data: bytes, *issuers: Issuer) -> None:
        with self.assertRaises(PkiError) as caught:
            Revocations.parse(data, [one.certificate for one in issuers or (CA,)])
        self.assertIn(phrase, str(caught.exception))

    def standing(
        self,
        data: bytes,
        leaf: x509.Certificate,
        issuer: Issuer = CA,
        now: float = NOW,
        others: Sequence[Issuer] = (),
    ) -> Standing:
        found = Revocations.parse(data, [one.certificate for one in (issuer, *others)])
        return found.standing(leaf, issuer.certificate, now)


class StandingTests(RevocationCase):
    """What is said of a certificate."""

    def test_t105_revoked_and_not(self) -> None:
        for encoding in (Encoding.PEM, Encoding.DER):
            data = CA.crl(BAD.serial_number, 17, encoding=encoding)
            self.assertIs(self.standing(data, BAD), Standing.REVOKED)
            self.assertIs(self.standing(data, FINE), Standing.GOOD)
            found = Revocations.parse(data, [CA.certificate])
            self.assertEqual((found.count, found.next_update), (2, NOW + HOUR))

    def test_t105_the_time_of_a_list(self) -> None:
        """Unknown from the second in which it ends, and up to five minutes before it begins.

        What it names is revoked at any time.
        """
        data = CA.crl(BAD.serial_number)
        for now, standing in (
            (NOW + HOUR - 1, Standing.GOOD),
            (NOW + HOUR, Standing.UNKNOWN),
            (NOW - HOUR - 299, Standing.GOOD),
            (NOW - HOUR - 301, Standing.UNKNOWN),
            (NOW + 400 * 24 * HOUR, Standing.UNKNOWN),
            (NOW - 400 * 24 * HOUR, Standing.UNKNOWN),
        ):
            self.assertIs(self.standing(data, CA.leaf(), now=now), standing)
            self.assertIs(self.standing(data, BAD, now=now), Standing.REVOKED)

    def test_a_serial_is_one_issuers(self) -> None:
        """The same number of another CA is another certificate."""
        other = Issuer.make("Other")
        leaf, twin = CA.leaf(serial=4711), other.leaf(serial=4711)
        data = CA.crl(4711) + other.crl()
        self.assertIs(self.standing(data, leaf, CA, others=[other]), Standing.REVOKED)
        self.assertIs(self.standing(data, twin, other, others=[CA]), Standing.GOOD)
        self.assertIs(self.standing(other.crl(), leaf, CA, others=[other]), Standing.UNKNOWN)

    def test_the_newest_list_counts(self) -> None:
        """In either order, an older list of the same CA does not bring a certificate back."""
        old, new = CA.crl(starts=NOW - 2 * HOUR), CA.crl(BAD.serial_number)
        for data in (old + new, new + old):
            self.assertIs(self.standing(data, BAD), Standing.REVOKED)

    def test_large_serials(self) -> None:
        for serial in (1, (1 << 159) - 1):
            self.assertIs(self.standing(CA.crl(serial), CA.leaf(serial)), Standing.REVOKED)

    def test_keys_of_each_kind(self) -> None:
        for key in (
            rsa.generate_private_key(public_exponent=65537, key_size=2048),
            ec.generate_private_key(ec.SECP384R1()),
        ):
            issuer = Issuer.make("K", key)
            leaf = issuer.leaf()
            self.assertIs(
                self.standing(issuer.crl(leaf.serial_number), leaf, issuer), Standing.REVOKED
            )
        edwards = Issuer.make("E", ed25519.Ed25519PrivateKey.generate())
        self.assertIs(self.standing(edwards.crl(7, algorithm=None), FINE, edwards), Standing.GOOD)

    def test_many(self) -> None:
        """A list of 20,000 is read within a second, and asked at once."""
        data = CA.crl(*range(1, 20_001))
        began = time.process_time()
        found = Revocations.parse(data, [CA.certificate])
        self.assertLess(time.process_time() - began, 1.0)
        self.assertEqual(found.count, 20_000)
        leaf = CA.leaf(serial=19_999)
        began = time.process_time()
        for _ in range(1000):
            self.assertIs(found.standing(leaf, CA.certificate, NOW), Standing.REVOKED)
        self.assertLess(time.process_time() - began, 0.5)


class RefusalTests(RevocationCase):
    """T105: a list that is not to be relied on is none."""

    def test_t105_what_cannot_be_read(self) -> None:
        good = CA.crl(BAD.serial_number)
        pem = CA.certificate.public_bytes(Encoding.PEM)
        der = CA.crl(encoding=Encoding.DER)
        for data in (b"", b"\n", b"garbage", pem, good[:-40], good.replace(b"M", b"*"), der[:-1]):
            self.refuses("list", data)
        version = bytes.fromhex("020101300a06082a8648ce3d040302")
        self.assertEqual(der.count(version), 1)
        for number in (0, 2, 200):  # there is only version 2, which is written as 1
            changed = version[:2] + bytes([number]) + version[3:]
            self.refuses("cannot be read", der.replace(version, changed))
        self.refuses("is cut off", good + good[: len(good) // 2])
        self.refuses("cannot be read", good * 65)
        self.assertIs(self.standing(good * 2, BAD), Standing.REVOKED)

    def test_t105_signed_by_somebody_else(self) -> None:
        """Another key under the same name; the right key under another name; bits turned."""
        twin = Issuer.make()
        self.refuses("signed by none", twin.crl(BAD.serial_number))
        self.refuses("signed by none", CA.crl(name="Other"))
        self.refuses("signed by none", CA.crl(), Issuer.make("Other"))
        self.assertIs(self.standing(CA.crl(), FINE, CA, others=[twin]), Standing.GOOD)
        spoilt = bytearray(CA.crl(BAD.serial_number, encoding=Encoding.DER))
        spoilt[-1] ^= 1
        with self.assertRaises(PkiError):
            Revocations.parse(bytes(spoilt), [CA.certificate])
        # One good list does not carry another one in.
        self.refuses("signed by none", CA.crl() + twin.crl())

    def test_who_may_sign_lists(self) -> None:
        """A CA without cRLSign may not (RFC 5280, 6.3.3); one that does not say may."""
        no_lists = x509.KeyUsage(
            **{
                name: name in ("key_cert_sign", "digital_signature")
                for name in (
                    "digital_signature", "content_commitment", "key_encipherment",
                    "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
                    "encipher_only", "decipher_only",
                )
            }
        )  # fmt: skip
        forbidden = Issuer.make("No lists", usage=no_lists)
        self.refuses("signed by none", forbidden.crl(), forbidden)
        silent = Issuer.make("Silent", usage=None)
        self.assertIs(self.standing(silent.crl(), FINE, silent), Standing.GOOD)

    def test_sha1(self) -> None:
        """A list that OpenSSL signed with SHA-1 is signed by nobody; with SHA-256 it is good."""
        self.refuses("signed by none", openssl_list(self.mktemp(), "sha1"))
        data = openssl_list(self.mktemp(), "sha256")
        self.assertIs(self.standing(data, FINE, now=time.time()), Standing.GOOD)

    def test_lists_that_are_not_whole(self) -> None:
        """Delta, indirect and partitioned ones, whether critical or not; and what is unknown."""
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
        reasons = frozenset({x509.ReasonFlags.key_compromise})
        for extension in (
            x509.DeltaCRLIndicator(1),
            point(indirect_crl=True),
            point(only_contains_ca_certs=True),
            point(only_contains_attribute_certs=True),
            point(only_some_reasons=reasons),
        ):
            for critical in (True, False):
                self.refuses("not a whole list", CA.crl(extensions=[(extension, critical)]))
        self.refuses("not a whole list", CA.crl(extensions=[(unknown, True)]))
        where = [x509.UniformResourceIdentifier("http://ca.example.org/1.0/crl")]
        for extension, critical in (
            (unknown, False),
            (x509.CRLNumber(3), False),
            (point(only_contains_user_certs=True), True),
            (point(full_name=where), True),
        ):
            data = CA.crl(BAD.serial_number, extensions=[(extension, critical)])
            self.assertIs(self.standing(data, BAD), Standing.REVOKED)

    def test_an_entry_that_says_more(self) -> None:
        """Whatever its reason or other extensions, it is revoked."""
        for entry in (
            x509.CRLReason(x509.ReasonFlags.remove_from_crl),
            x509.CRLReason(x509.ReasonFlags.certificate_hold),
            x509.CertificateIssuer([x509.DirectoryName(_name("Other"))]),
        ):
            for critical in (True, False):
                data = CA.crl(BAD.serial_number, entry=[(entry, critical)])
                self.assertIs(self.standing(data, BAD), Standing.REVOKED)

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_fuzz(self, data: st.DataObject) -> None:
        """Rubbish and good lists with some bytes changed raise PkiError or say what is signed."""
        encoding = data.draw(st.sampled_from([Encoding.PEM, Encoding.DER]))
        text = bytearray(LISTS[encoding])
        for _ in range(data.draw(st.integers(0, 4))):
            place = data.draw(st.integers(0, len(text) - 1))
            text[place] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(text)) | st.just(len(text)))
        for candidate in (bytes(text[:cut]), data.draw(st.binary(max_size=64))):
            try:
                found = Revocations.parse(candidate, [CA.certificate])
            except PkiError:
                continue
            standing = found.standing(BAD, CA.certificate, NOW)
            self.assertIs(standing, Standing.REVOKED)


LISTS = {
    encoding: CA.crl(BAD.serial_number, 5, encoding=encoding)
    for encoding in (Encoding.PEM, Encoding.DER)
}


def openssl_list(directory: str, algorithm: str) -> bytes:
    """Return a list of the CA that ``openssl`` signed."""
    if shutil.which("openssl") is None:
        raise SkipTest("openssl is not installed")
    place = Path(directory)
    place.mkdir(parents=True)
    (place / "ca.pem").write_bytes(CA.certificate.public_bytes(Encoding.PEM))
    (place / "ca.key").write_bytes(key_pem(CA.key))
    (place / "index.txt").touch()
    (place / "ca.cnf").write_text("[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\n")
    subprocess.run(
        ["openssl", "ca", "-gencrl", "-config", "ca.cnf", "-md", algorithm, "-crlhours", "1",
         "-cert", "ca.pem", "-keyfile", "ca.key", "-out", "crl.pem"],
        cwd=place, check=True, capture_output=True,
    )  # fmt: skip
    return (place / "crl.pem").read_bytes()
