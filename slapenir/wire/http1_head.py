"""The gate before and around llhttp: what a head's raw bytes may be, and how it is framed.

llhttp (through httptools) splits a complete head into fields and refuses most malformed ones.
What it accepts and we do not is decided here on the raw bytes: controls, bare CR or LF, obs-fold,
bounds, names that other parsers take for framing fields.  A parser lives for one head only, so
nothing of one message can leak into the next, and no leniency flag is ever set.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

import httptools

from slapenir.errors import RemoteProtocolError
from slapenir.wire.headers import split_tokens
from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import Framing, HeaderList

VISIBLE = bytes(c for c in range(256) if c == 9 or 32 <= c != 127)

_SPECIAL = frozenset(b"host content-length transfer-encoding connection expect upgrade".split())
_CONFUSABLE = frozenset(
    b"content-length transfer-encoding host authorization proxy-authorization connection".split()
)
_UNDERSCORE = ord("_")  # a number is found in bytes ten times faster than a string of one byte
_FOLD = re.compile(rb"\n[ \t]")
BAD_PARTIAL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
_MAX_LENGTH = 2**63 - 1
_LENGTH_FRAMED, _UNFRAMED = Framing.LENGTH, Framing.NONE

_Parser: TypeAlias = type[httptools.HttpRequestParser] | type[httptools.HttpResponseParser]


Special: TypeAlias = dict[bytes, list[bytes]]
"""The fields that steer us: the lower-case name and every value."""


class _Fields:
    """What llhttp calls back with: the headers, and apart from them those that steer us.

    ``confusable`` is set for a name that some servers read as a framing, routing or
    authentication field.
    """

    __slots__ = ("complete", "confusable", "headers", "special")

    def __init__(self) -> None:
        self.headers: HeaderList = []
        self.special: Special = {}
        self.confusable = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header line (called by llhttp)."""
        value = value.strip(b" \t")
        self.headers.append((name, value))
        lower = name.lower()
        if lower in _SPECIAL:
            if lower in self.special:
                self.special[lower].append(value)
            else:
                self.special[lower] = [value]
        elif _UNDERSCORE in lower and lower.replace(b"_", b"-") in _CONFUSABLE:
            self.confusable = True

    def on_headers_complete(self) -> None:
        """Note that llhttp agrees that the head ends here (called by llhttp)."""
        self.complete = True


def check_partial(data: bytes, start: int, scanned: int, limits: WireLimits) -> None:
    """Refuse an incomplete head that can no longer become a good one.

    ``data[start:]`` is the head so far; before ``scanned`` it was looked at already.  Raises
    RemoteProtocolError with 400, 414 or 431.
    """
    if BAD_PARTIAL.search(data, max(start, scanned - 1)) is not None:
        raise RemoteProtocolError("a head has a bare CR, bare LF or control byte")
    size = len(data) - start
    if size > limits.target_bytes + 64:
        end = start + limits.target_bytes + 64
        if data.find(b"\r\n", start, end) < 0:
            raise RemoteProtocolError("the start line is too long", 414)
    if size > limits.head_bytes:
        raise RemoteProtocolError("the head is too long", 431)


def read_fields(head: bytes, limits: WireLimits, parser: _Parser) -> tuple[HeaderList, Special]:
    """Return the header lines of one complete head, which ends in an empty line.

    Raises RemoteProtocolError with 400 or 431, or 501 for a method that llhttp does not know.
    """
    count = head.count(b"\r\n")
    if len(head) > limits.head_bytes:
        raise RemoteProtocolError("the head is too long", 431)
    if count - 2 > limits.header_count:
        raise RemoteProtocolError("the head has too many headers", 431)
    if len(head.translate(None, VISIBLE)) != 2 * count:
        raise RemoteProtocolError("a head has a bare CR, bare LF or control byte")
    if _FOLD.search(head) is not None:
        raise RemoteProtocolError("a header line is folded or starts with whitespace")
    fields = _Fields()
    try:
        parser(fields).feed_data(head)
    except httptools.HttpParserUpgrade as upgrade:
        # CONNECT or Upgrade: the head is done, and bodies are not llhttp's anyway.
        agreed = fields.complete and upgrade.args[0] == len(head)
    except httptools.HttpParserInvalidMethodError:
        raise RemoteProtocolError("the method is not known", 501) from None
    except httptools.HttpParserError:
        raise RemoteProtocolError("the head is malformed") from None
    else:
        agreed = fields.complete
    if not agreed:
        raise RemoteProtocolError("the head is malformed")
    if fields.confusable:
        raise RemoteProtocolError("a header name imitates another with an underscore")
    return fields.headers, fields.special


def declared_framing(special: Special, version: bytes) -> tuple[Framing, int]:
    """Return how the head says its body is framed: CHUNKED, LENGTH with its bytes, or NONE.

    Raises RemoteProtocolError for everything two parsers could read differently (RFC 9112, 6.1
    and 6.3): both fields at once, a repeated field, a coding other than ``chunked``, any coding
    on HTTP/1.0, a length that is not plain digits below 2**63.
    """
    codings = special.get(b"transfer-encoding")
    lengths = special.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise RemoteProtocolError("both Transfer-Encoding and Content-Length")
        if version != b"1.1":
            raise RemoteProtocolError("Transfer-Encoding on HTTP/1.0")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise RemoteProtocolError("a Transfer-Encoding other than chunked")
        return Framing.CHUNKED, 0
    if lengths is not None:
        if len(lengths) != 1 or _LENGTH.fullmatch(lengths[0]) is None:
            raise RemoteProtocolError("Content-Length is not one plain number")
        length = int(lengths[0])
        if length > _MAX_LENGTH:
            raise RemoteProtocolError("Content-Length is too large")
        return _LENGTH_FRAMED, length
    return _UNFRAMED, 0


def persists(special: Special, version: bytes) -> tuple[bool, bool]:
    """Return whether the connection may be kept and whether a change of protocol is asked for.

    HTTP/1.1 persists unless ``close``, HTTP/1.0 only with ``keep-alive`` (RFC 9112, 9.3); an
    upgrade needs the header and the connection option (RFC 9110, 7.8).
    """
    connection = special.get(b"connection")
    if connection is None:
        return version == b"1.1", False
    options = _options(b",".join(connection))
    keep = b"close" not in options and (version == b"1.1" or b"keep-alive" in options)
    return keep, b"upgrade" in options and b"upgrade" in special


@lru_cache(maxsize=256)
def _options(value: bytes) -> frozenset[bytes]:
    """Return the options that a Connection value lists, in lower case."""
    return frozenset(split_tokens([value]))
