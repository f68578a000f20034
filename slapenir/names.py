"""The vocabulary: enumerations, authorities and canonical host names.

A host is made canonical once, here, and every later step (policy, dial, SNI, leaf, pool key,
label) uses that form.  Host syntax is that of RFC 9110 (4.2) and RFC 3986 (3.2.2), narrowed to
what can be judged: dotted-quad IPv4, bracketed IPv6 without zone, or an ASCII DNS name
(RFC 1123, with ``_`` allowed, as in ``_dmarc``).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from enum import Enum
from typing import TypeVar, dataclass_transform

import attrs

from slapenir.errors import AuthorityError

_Value = TypeVar("_Value")


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def value(kind: type[_Value]) -> type[_Value]:
    """Make a class of values that come and go with every request: slots, compared by content.

    The type checker holds them frozen.  A guard at run time, as ``attrs.frozen`` has, would make
    each four times as expensive to make; what is kept or shared has that guard.
    """
    return attrs.define(slots=True, eq=True, unsafe_hash=True)(kind)


class Scheme(Enum):
    """How an origin is spoken to; ``port`` is its default port (RFC 9110, 4.2.1 and 4.2.2)."""

    port: int

    HTTP = "http"
    HTTPS = "https"

    def __init__(self, text: str) -> None:
        self.port = 443 if text == "https" else 80


class Action(Enum):
    """What a decision lets happen.

    PASSTHROUGH is a blind relay of TLS, TUNNEL a relay of anything, scanned in both directions.
    """

    ALLOW = "allow"
    DENY = "deny"
    PASSTHROUGH = "passthrough"
    TUNNEL = "tunnel"


class Stage(Enum):
    """Where a decision was made; IDENTIFY is about a connection, NAME about a question for one."""

    IDENTIFY = "identify"
    NAME = "name"
    CONNECT = "connect"
    REQUEST = "request"
    ADDRESS = "address"


class Side(Enum):
    """Which connection is meant; LISTENER is the client's own TLS with a TLS listener."""

    CLIENT = "client"
    ORIGIN = "origin"
    LISTENER = "listener"


class Place(Enum):
    """Where in a message something was found."""

    HEAD = "head"
    BODY = "body"
    TRAILERS = "trailers"


class Form(Enum):
    """How a secret was written where it was found."""

    RAW = "raw"
    BASE64 = "base64"
    BASE64URL = "base64url"
    HEX = "hex"
    PERCENT = "percent"
    JSON = "json"
    UTF16 = "utf16"
    BASIC = "basic"


REFUSED_TRAFFIC = ("direct", "udp443", "udp", "icmp", "other")
"""What a sandbox's packet filter refuses: a dial of the gateway's own port, QUIC, and so on."""


class Outcome(Enum):
    """How an exchange ended; exactly one for each."""

    COMPLETED = "completed"
    DENIED = "denied"
    CLIENT_ABORTED = "client_aborted"
    ORIGIN_ABORTED = "origin_aborted"
    ORIGIN_UNREACHABLE = "origin_unreachable"
    PROTOCOL_ERROR = "protocol_error"
    TIMED_OUT = "timed_out"
    TOO_LARGE = "too_large"
    INTERNAL_ERROR = "internal_error"


class Reason(Enum):
    """Why a decision is what it is.  The value goes into audit records and denials."""

    IDENTITY_UNKNOWN = "identity_unknown"
    IDENTITY_AMBIGUOUS = "identity_ambiguous"
    IDENTITY_CHANGED = "identity_changed"
    IDENTITY_REQUIRED = "identity_required"
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - a reason's name, not a secret
    CERTIFICATE_REFUSED = "certificate_refused"
    CERTIFICATE_REVOKED = "certificate_revoked"
    CERTIFICATE_EXPIRED = "certificate_expired"
    REVOCATION_UNKNOWN = "revocation_unknown"
    RULE_REMOVED = "rule_removed"
    RULE = "rule"
    NO_RULE = "no_rule"
    DENY_RULE = "deny_rule"
    AUTHORITY_MISMATCH = "authority_mismatch"
    SNI_MISMATCH = "sni_mismatch"
    NAME_MISSING = "name_missing"
    PROTOCOL_UNKNOWN = "protocol_unknown"
    SCHEME_MISMATCH = "scheme_mismatch"
    METHOD_REFUSED = "method_refused"
    PATH_REFUSED = "path_refused"
    ADDRESS_PUBLIC = "address_public"
    ADDRESS_PERMITTED = "address_permitted"
    ADDRESS_SPECIAL = "address_special_purpose"
    ADDRESS_METADATA = "address_metadata"
    ADDRESS_OWN_LISTENER = "address_own_listener"
    HONEYTOKEN = "honeytoken"
    SECRET_IN_REQUEST = "secret_in_request"  # noqa: S105 - a reason's name, not a secret
    SECRET_IN_RESPONSE = "secret_in_response"  # noqa: S105 - a reason's name, not a secret
    UPGRADE_UNSUPPORTED = "upgrade_unsupported"
    CODING_UNSUPPORTED = "coding_unsupported"
    NOT_TLS = "not_tls"
    CLIENT_HELLO_REFUSED = "client_hello_refused"
    LIMIT = "limit"
    PROTOCOL_ERROR = "protocol_error"
    BODY_TOO_LARGE = "body_too_large"


@attrs.frozen(slots=True)
class Authority:
    """A canonical host (no brackets, lower case, no trailing dot) and a port."""

    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address and not a name."""
        return ":" in self.host or is_ipv4(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def header(self, scheme: Scheme) -> bytes:
        """Return the Host header value for this authority: the default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == scheme.port else f"{host}:{self.port}").encode("ascii")


_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_PORT = re.compile(rb"[0-9]{1,5}")
_IPV4 = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}", re.ASCII)
_NUMBERISH = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.ASCII)


def source_network(host: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 one (RFC 4291)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def is_ipv4(host: str) -> bool:
    """Whether ``host`` is a dotted quad without leading zeros."""
    return _IPV4.fullmatch(host) is not None and all(int(p) < 256 for p in host.split("."))


def canonical_host(raw: bytes) -> str:
    """Return the one form of a host, or raise AuthorityError.

    Bracketed IPv6 comes back compressed and without brackets; a name in lower case without its
    trailing dot.  Numbers that some resolvers take for addresses (``127.1``, ``0x7f000001``,
    ``2130706433``, ``0177.0.0.1``) are refused: they are neither a name nor a dotted quad.
    """
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise AuthorityError("the host is not ASCII") from None
    if text[:1] == "[":
        if text[-1:] != "]" or "%" in text:
            raise AuthorityError("the host is not an IPv6 address in brackets")
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise AuthorityError("the host is not an IPv6 address in brackets") from None
    text = text.lower()
    if text[-1:] == ".":
        text = text[:-1]
    if is_ipv4(text):
        return text
    if not text or len(text) > 253:
        raise AuthorityError("the host is empty or longer than 253 bytes")
    labels = text.split(".")
    for label in labels:
        if _LABEL.fullmatch(label) is None:
            raise AuthorityError("the host has a label that is not a DNS label")
        if label.startswith("xn--"):
            _check_a_label(label)
    if _NUMBERISH.fullmatch(labels[-1]) is not None:
        raise AuthorityError("the host looks like a number and is not a dotted quad")
    return text


# What RFC 5892 lets into a label, by general category, and symbols for the emoji names in use.
_LABEL_CATEGORIES = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd", "Nl", "So"})
_LABEL_EXTRA = frozenset("-\u00b7\u0375\u05f3\u05f4\u0f0b\u30fb")


def _check_a_label(label: str) -> None:
    """Refuse an ``xn--`` label that is not punycode for lower-case non-ASCII text (RFC 5891, 4.4).

    Control, format (joiners included) and unassigned characters are refused, and so is text that
    is not in normalisation form C: such a name has a second spelling.
    """
    try:
        decoded = label[4:].encode("ascii").decode("punycode")
        again = decoded.encode("punycode").decode("ascii")
    except (UnicodeError, ValueError, OverflowError):
        raise AuthorityError("the host has a label that is not punycode") from None
    valid = all(c in _LABEL_EXTRA or unicodedata.category(c) in _LABEL_CATEGORIES for c in decoded)
    if (
        not valid
        or decoded.isascii()
        or again != label[4:]
        or unicodedata.normalize("NFC", decoded) != decoded
    ):
        raise AuthorityError("the host has a label that is not punycode")


def parse_port(raw: bytes) -> int:
    """Return a port from 1 to 65535 written in plain digits, or raise AuthorityError."""
    if _PORT.fullmatch(raw) is None or (raw[:1] == b"0"):
        raise AuthorityError("the port is not a number from 1 to 65535")
    port = int(raw)
    if not 1 <= port <= 65535:
        raise AuthorityError("the port is not a number from 1 to 65535")
    return port


def parse_authority(raw: bytes, default_port: int | None) -> Authority:
    """Return the authority written as ``host[:port]``, or raise AuthorityError.

    With ``default_port`` None the port must be written (CONNECT, RFC 9110, 9.3.6).  Userinfo is
    refused: it has no meaning here and hides hosts (RFC 9110, 4.2.4).
    """
    if raw[:1] == b"[":
        end = raw.find(b"]") + 1
        if end == 0:
            raise AuthorityError("the host is not an IPv6 address in brackets")
        host, tail = raw[:end], raw[end:]
        if tail and tail[:1] != b":":
            raise AuthorityError("the authority has bytes after the host")
        has_port, port = bool(tail), tail[1:]
    else:
        host, colon, port = raw.partition(b":")
        has_port = bool(colon)
    if b"@" in raw:
        raise AuthorityError("the authority has userinfo")
    if not has_port:
        if default_port is None:
            raise AuthorityError("the authority has no port")
        return Authority(canonical_host(host), default_port)
    return Authority(canonical_host(host), parse_port(port))


def parse_host_pattern(raw: bytes) -> str:
    """Return the canonical form of a host or of ``*.`` and a DNS name; raises AuthorityError.

    The star stands for one or more whole labels and only at the front; there is no pattern for
    every host, none with a star inside a label, and none over IP addresses.
    """
    if raw[:2] != b"*.":
        return canonical_host(raw)
    base = canonical_host(raw[2:])
    if ":" in base or is_ipv4(base):
        raise AuthorityError("a wildcard cannot stand before an IP address")
    return f"*.{base}"


def host_matches(pattern: str, host: str) -> bool:
    """Whether a canonical host is covered by a pattern that parse_host_pattern returned.

    ``*.x.org`` covers ``a.x.org`` and ``a.b.x.org``, never ``x.org`` or ``ax.org``.
    """
    if pattern[:2] == "*.":
        return len(host) >= len(pattern) and host.endswith(pattern[1:])
    return pattern == host
