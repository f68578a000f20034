"""Proxy-Authorization: the token in it, by either scheme that clients send (RFC 9110, 11)."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Sequence

import attrs

from slapenir.errors import RemoteProtocolError

_MAX = 4096


@attrs.frozen(slots=True)
class ProxyCredentials:
    """Who a client says it is (empty with Bearer) and the digest of its token."""

    user: str
    token: str


def parse_proxy_authorization(values: Sequence[bytes]) -> ProxyCredentials | None:
    """Return what the field's values say, or None when there is none.

    ``Bearer TOKEN`` (RFC 6750, 2.1) or ``Basic`` with the token as the password (RFC 7617).  Raises
    RemoteProtocolError for more than one field, another scheme, and what cannot be decoded.
    """
    if not values:
        return None
    if len(values) != 1 or len(values[0]) > _MAX:
        raise RemoteProtocolError("the Proxy-Authorization field is repeated or too long")
    scheme, _, value = values[0].partition(b" ")
    value = value.strip(b" ")
    if scheme.lower() == b"bearer" and value:
        return ProxyCredentials("", token_digest(value))
    if scheme.lower() != b"basic":
        raise RemoteProtocolError("the Proxy-Authorization scheme is neither Basic nor Bearer")
    try:
        decoded = binascii.a2b_base64(value, strict_mode=True)
    except binascii.Error:
        raise RemoteProtocolError("the Proxy-Authorization value is not base64") from None
    user, colon, token = decoded.partition(b":")
    if not colon or not token:
        raise RemoteProtocolError("the Proxy-Authorization value has no token")
    return ProxyCredentials(user.decode("utf-8", "replace"), token_digest(token))


def token_digest(token: bytes) -> str:
    """Return the form in which the configuration keeps a token: ``sha256:`` and hex digits."""
    return "sha256:" + hashlib.sha256(token).hexdigest()
