"""The names that a certificate claims, as they are written in it (RFC 5280, 4.1.2.6, 4.2.1.6)."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID

from slapenir.errors import PkiError
from slapenir.evidence import CertificateNames


def names_of(certificate: x509.Certificate) -> CertificateNames:
    """Return the URI, DNS and common names of a certificate; raises PkiError."""
    try:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        try:
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return CertificateNames(common=tuple(str(one.value) for one in common))
        names = found.value
        return CertificateNames(
            tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
            tuple(names.get_values_for_type(x509.DNSName)),
            tuple(str(one.value) for one in common),
        )
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise PkiError("its names cannot be read") from None
