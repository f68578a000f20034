"""Lists of revoked certificates (RFC 5280, 5): read once, asked often.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import attrs
from cryptography import x509

from slapenir.errors import PkiError

_SKEW = 300.0
_MARK = b"-----BEGIN X509 CRL-----"
_END = b"-----END X509 CRL-----"


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
    """The lists of one or more issuers; immutable."""

    def __init__(self, lists: Sequence[_List]) -> None:
        self._lists = {one.issuer: one for one in lists}
        self.count = sum(len(one.serials) for one in lists)
        self.next_update = min(one.ends for one in lists)

    @classmethod
    def parse(cls, data: bytes, issuers: Sequence[x509.Certificate]) -> Revocations:
        """Read PEM (several) or DER; raises PkiError."""
        found = []
        for crl in _load(data):
            issuer = next(
                (
                    o
                    for o in issuers
                    if o.subject == crl.issuer and crl.is_signature_valid(o.public_key())
                ),  # type: ignore[arg-type]
                None,
            )
            if issuer is None:
                raise PkiError("the list is signed by none of the CAs")
            ends = crl.next_update_utc
            if ends is None:
                raise PkiError("the list does not say when it ends")
            found.append(
                _List(
                    issuer,
                    frozenset(one.serial_number for one in crl),
                    crl.last_update_utc.timestamp(),
                    ends.timestamp(),
                )
            )
        return cls(found)

    def standing(
        self, certificate: x509.Certificate, issuer: x509.Certificate, now: float
    ) -> Standing:
        """Return what the lists say."""
        known = self._lists.get(issuer)
        if known is None or now >= known.ends or now < known.begins - _SKEW:
            return Standing.UNKNOWN
        return Standing.REVOKED if certificate.serial_number in known.serials else Standing.GOOD


def _load(data: bytes) -> list[x509.CertificateRevocationList]:
    try:
        if _MARK not in data:
            return [x509.load_der_x509_crl(data)]
        return [x509.load_pem_x509_crl(part + _END) for part in data.split(_END)[:-1]]
    except ValueError:
        raise PkiError("the list cannot be read") from None
