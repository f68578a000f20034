"""Lists of revoked certificates (RFC 5280, 5): read once, asked often.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from slapenir.errors import PkiError

_SKEW = 300.0
_BEGIN = b"-----BEGIN X509 CRL-----"
_END = b"-----END X509 CRL-----"
_MOST = 64
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class Standing(Enum):
    """What is known about a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@attrs.frozen(slots=True)
class _List:
    issuer: x509.Certificate
    serials: frozenset[int]
    begins: float
    ends: float


class Revocations:
    """The lists of one or more issuers; immutable.

    ``count`` is how many certificates they name, ``next_update`` when the first of them ends.
    """

    def __init__(self, lists: Sequence[_List]) -> None:
        self._lists = {one.issuer: one for one in lists}
        self.count = sum(len(one.serials) for one in lists)
        self.next_update = min(one.ends for one in lists)

    @classmethod
    def parse(cls, data: bytes, issuers: Sequence[x509.Certificate]) -> Revocations:
        """Return the lists in PEM, any number, or one in DER; each signed by one of ``issuers``.

        Raises PkiError for what cannot be read, is signed by nobody here or with SHA-1, does not
        say when it ends, or is not a whole list of one issuer (delta, indirect, partitioned).
        """
        return cls([_checked(crl, issuers) for crl in _load(data)])

    def standing(
        self, certificate: x509.Certificate, issuer: x509.Certificate, now: float
    ) -> Standing:
        """Return what the list of ``issuer`` says about a certificate at Unix time ``now``.

        UNKNOWN where there is none, or none that is in force.
        """
        known = self._lists.get(issuer)
        if known is None or now >= known.ends or now < known.begins - _SKEW:
            return Standing.UNKNOWN
        return Standing.REVOKED if certificate.serial_number in known.serials else Standing.GOOD


def _load(data: bytes) -> list[x509.CertificateRevocationList]:
    try:
        if _BEGIN not in data:
            return [x509.load_der_x509_crl(data)]
        parts = data.split(_END)
        if len(parts) - 1 > _MOST or _BEGIN in parts[-1]:
            raise PkiError("the revocation list cannot be read")
        return [x509.load_pem_x509_crl(part + _END) for part in parts[:-1]]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PkiError("the revocation list cannot be read") from None


def _checked(crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate]) -> _List:
    try:
        issuer = next((one for one in issuers if _signed(crl, one)), None)
        if issuer is None:
            raise PkiError("the revocation list is signed by none of the CAs")
        for extension in crl.extensions:
            whole = _is_whole(extension.value)
            if whole is False or (whole is None and extension.critical):
                raise PkiError("the revocation list is not a whole list of one CA")
        begins, ends = crl.last_update_utc, crl.next_update_utc
        if ends is None:
            raise PkiError("the revocation list does not say when it ends")
        serials = frozenset(one.serial_number for one in crl)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise PkiError("the revocation list cannot be read") from None
    return _List(issuer, serials, begins.timestamp(), ends.timestamp())


def _is_whole(extension: x509.ExtensionType) -> bool | None:
    """Whether a list with this extension speaks of all that its CA issued; None: it says nothing.

    A distribution point that only says where the list is found bounds nothing (step-ca has one).
    """
    if isinstance(extension, x509.IssuingDistributionPoint):
        return not (
            extension.indirect_crl
            or extension.only_contains_ca_certs
            or extension.only_contains_attribute_certs
            or extension.only_some_reasons
        )
    return False if isinstance(extension, x509.DeltaCRLIndicator) else None


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if crl.issuer != issuer.subject or not isinstance(crl.signature_hash_algorithm, _HASHES):
        return False
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, InvalidSignature):
        return False
