"""Lists of revoked certificates (RFC 5280, 5): read once, asked often.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from slapenir.errors import PkiError

MAX_BYTES = 32 << 20
"""What a file of lists may hold; 100,000 revoked certificates are about 5 MB in PEM."""

_SKEW = 300.0
_BEGIN = b"-----BEGIN X509 CRL-----"
_END = b"-----END X509 CRL-----"
_MOST = 64
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_EDWARDS = (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)  # they hash by themselves


class Standing(Enum):
    """What is known about a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


# A CA is its name and its key: it may have several certificates (RFC 5280, 6.3.3).
_Ca = tuple[x509.Name, bytes]


@attrs.frozen(slots=True)
class _List:
    issuer: _Ca
    serials: frozenset[int]
    begins: float
    ends: float


class Revocations:
    """The lists of one or more issuers; immutable.

    ``count`` is how many certificates they name, ``next_update`` when the first of them ends.
    """

    def __init__(self, lists: Sequence[_List]) -> None:
        # Of several lists of one issuer the newest is the one that counts.
        self._lists = {one.issuer: one for one in sorted(lists, key=lambda one: one.begins)}
        self.count = sum(len(one.serials) for one in self._lists.values())
        self.next_update = min(one.ends for one in self._lists.values())

    @classmethod
    def parse(cls, data: bytes, issuers: Sequence[x509.Certificate]) -> Revocations:
        """Return the lists in PEM, any number, or one in DER; each signed by one of ``issuers``.

        Raises PkiError for what cannot be read, is signed by nobody here or with SHA-1, does not
        say when it ends, or is not a whole list of one issuer (delta, indirect, partitioned).
        """
        return cls([_checked(crl, issuers) for crl in _load(data)])

    def after(self, before: Revocations | None, issuers: Sequence[x509.Certificate]) -> Revocations:
        """Return these lists, and of each of ``issuers`` the one of ``before`` if that is newer.

        Whoever serves lists cannot make a certificate good again with an old one, or with none.
        """
        if before is None:
            return self
        known = {_ca(one) for one in issuers}
        kept = [one for one in before._lists.values() if one.issuer in known]
        return Revocations([*self._lists.values(), *kept])

    def standing(
        self, certificate: x509.Certificate, issuer: x509.Certificate, now: float
    ) -> Standing:
        """Return what the list of ``issuer`` says about a certificate at Unix time ``now``.

        UNKNOWN where there is none, or none that is in force.  What a list names stays revoked
        when the list has ended.
        """
        known = self._lists.get(_ca(issuer))
        if known is not None and certificate.serial_number in known.serials:
            return Standing.REVOKED
        if known is None or now >= known.ends or now < known.begins - _SKEW:
            return Standing.UNKNOWN
        return Standing.GOOD


def _ca(issuer: x509.Certificate) -> _Ca:
    return issuer.subject, issuer.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


def split_lists(data: bytes) -> list[bytes]:
    """Return each list in PEM text by itself; raises PkiError when one is cut off."""
    parts = data.split(_END)
    if len(parts) - 1 > _MOST or any(_BEGIN not in part for part in parts[:-1]):
        raise PkiError("the revocation list cannot be read")
    if _BEGIN in parts[-1]:
        raise PkiError("the revocation list is cut off")
    return [part.lstrip() + _END + b"\n" for part in parts[:-1]]


def issuer_of(data: bytes) -> x509.Name:
    """Return whose list one in PEM is; raises PkiError.  Its signature is not looked at."""
    try:
        return x509.load_pem_x509_crl(data).issuer
    except _UNREADABLE:
        raise PkiError("the revocation list cannot be read") from None


def _load(data: bytes) -> list[x509.CertificateRevocationList]:
    try:
        if _BEGIN not in data:
            return [x509.load_der_x509_crl(data)]
        return [x509.load_pem_x509_crl(one) for one in split_lists(data)]
    except _UNREADABLE:
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
    except (*_UNREADABLE, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise PkiError("the revocation list cannot be read") from None
    return _List(_ca(issuer), serials, begins.timestamp(), ends.timestamp())


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
    """Whether a list is signed by an issuer that may sign lists (RFC 5280, 6.3.3)."""
    if crl.issuer != issuer.subject or not _may_sign_lists(issuer):
        return False
    key = issuer.public_key()
    if not (isinstance(crl.signature_hash_algorithm, _HASHES) or isinstance(key, _EDWARDS)):
        return False
    try:
        return crl.is_signature_valid(key)  # type: ignore[arg-type]
    except (TypeError, InvalidSignature):
        return False


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    """Whether its key usage has cRLSign, or does not say (RFC 5280, 4.2.1.3)."""
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True
