"""The names of a certificate are read as they are written, or not at all (T111)."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import PkiError
from slapenir.evidence import CertificateNames
from slapenir.pki.certificate_names import names_of

KEY = ec.generate_private_key(ec.SECP256R1())
SPIFFE = "spiffe://example.org/agent/1"


def certificate(
    *common: str,
    names: list[x509.GeneralName] | None = None,
    raw: bytes | None = None,
    **types: Any,
) -> x509.Certificate:
    """Return a certificate; ``raw`` is what its alternative names are instead of ``names``."""
    kind = types.get("kind", _ASN1Type.UTF8String)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, one, _type=kind) for one in common]
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if "issuer_names" in types:
        other = x509.IssuerAlternativeName(types["issuer_names"])
        builder = builder.add_extension(other, critical=False)
    if raw is not None:
        extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256())


class NameTests(SynchronousTestCase):
    """What is read."""

    def test_each_kind(self) -> None:
        """URI and DNS names and common names, in order; other kinds are no names here."""
        names: list[x509.GeneralName] = [
            x509.DNSName("b.internal"),
            x509.UniformResourceIdentifier(SPIFFE),
            x509.DNSName("a.internal"),
            x509.RFC822Name("agent@example.org"),
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "inner")])),
        ]
        self.assertEqual(
            names_of(certificate("one", "two", names=names)),
            CertificateNames((SPIFFE,), ("b.internal", "a.internal"), ("one", "two")),
        )
        self.assertEqual(names_of(certificate("one")), CertificateNames(common=("one",)))
        self.assertEqual(names_of(certificate()), CertificateNames())
        self.assertEqual(names_of(certificate(names=[])), CertificateNames())

    def test_t111_nothing_is_folded(self) -> None:
        """T111: NUL, newline, another CN inside one, 10 KB, look-alikes: as they are written."""
        for text in (
            "agent-1\0.evil",
            "agent-1\n",
            " agent-1",
            "agent-1,CN=agent-2",
            "AGENT-1",
            "\u0430gent-1",
            "agent\u00ad-1",
            "agent-1\u2028",
        ):
            self.assertEqual(names_of(certificate(text)).common, (text,))
        for text in ("agent-1\0.evil", "AGENT-1.internal", "agent-1.internal.", " agent-1", ""):
            found = names_of(certificate(names=[x509.DNSName(text)]))
            self.assertEqual(found.dns, (text,))
            found = names_of(certificate(names=[x509.UniformResourceIdentifier(SPIFFE + text)]))
            self.assertEqual(found.spiffe, (SPIFFE + text,))
        look_alike = certificate(raw=b"\x30\x05\x86\x03\xd0\xb0b")  # which no CA should sign
        self.assertEqual(names_of(look_alike).spiffe, ("\u0430b",))
        long = "spiffe://example.org/" + "a" * 10240
        found = names_of(certificate(names=[x509.UniformResourceIdentifier(long)]))
        self.assertEqual(found.spiffe, (long,))

    def test_t111_string_types(self) -> None:
        """T111: the same text in another string type is the same name."""
        for kind in (
            _ASN1Type.PrintableString,
            _ASN1Type.IA5String,
            _ASN1Type.BMPString,
            _ASN1Type.UniversalString,
        ):
            self.assertEqual(names_of(certificate("agent-1", kind=kind)).common, ("agent-1",))


class RefusalTests(SynchronousTestCase):
    """What cannot be read is nobody's name."""

    def refuses(self, one: x509.Certificate) -> None:
        with self.assertRaises(PkiError) as caught:
            names_of(one)
        self.assertEqual(str(caught.exception), "its names cannot be read")

    def test_t111_alternative_names_that_are_broken(self) -> None:
        """T111: then its common name does not count either."""
        good = certificate("agent-1", raw=b"\x30\x05\x82\x03a.b")
        self.assertEqual(names_of(good).dns, ("a.b",))
        for raw in (
            b"",
            b"\x00",
            b"\x30\x80",
            b"\x30\x05\x82\x04a.b",
            b"\x30\x05\x82\x03a\xff\xfe",
            b"\x30\x05\x86\x03\xd0\xffb",
            b"\x30\x05\x8f\x03a.b",
            b"\x30\x05\x87\x03abc",
            b"\x30\x05\x82\x03a.b\x00",
        ):
            self.refuses(certificate("agent-1", raw=raw))

    def test_two_extensions_of_alternative_names(self) -> None:
        """RFC 5280, 4.2: one extension of a kind only."""
        names = [x509.DNSName("a.internal")]
        one = certificate("agent-1", names=names, issuer_names=names)
        self.assertEqual(names_of(one).dns, ("a.internal",))
        der = one.public_bytes(Encoding.DER)
        subject, issuer = bytes.fromhex("0603551d11"), bytes.fromhex("0603551d12")
        self.assertEqual((der.count(subject), der.count(issuer)), (1, 1))
        self.refuses(x509.load_der_x509_certificate(der.replace(issuer, subject)))

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_fuzz(self, data: st.DataObject) -> None:
        """A certificate with changed bytes has names, or none that can be read."""
        text = bytearray(FUZZED)
        for _ in range(data.draw(st.integers(1, 4))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
        try:
            one = x509.load_der_x509_certificate(bytes(text))
        except (ValueError, x509.InvalidVersion):
            return
        try:
            found = names_of(one)
        except PkiError:
            return
        self.assertIsInstance(found, CertificateNames)


FUZZED = certificate(
    "agent-1", names=[x509.DNSName("a.internal"), x509.UniformResourceIdentifier(SPIFFE)]
).public_bytes(Encoding.DER)
