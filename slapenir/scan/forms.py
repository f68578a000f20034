r"""How a secret may be written: each form of it as a literal pattern with a same-length overwrite.

Covered, for every value: raw; base64 and base64url at the three alignments, also with ``/``
written ``\/`` as JSON encoders do; hex in any case, plain or as ``\x41\x42``, ``0x41,0x42``,
``41:42`` and ``41 42``; percent-encoding (RFC 3986, 2.1) of what must be encoded (in a component,
a path or a query, by JavaScript's rules or a form's), of every byte, and of every byte twice;
JSON strings (RFC 8259, 7) with every character as ``\uXXXX``, also inside another JSON string,
and with only what an encoder must or may escape; UTF-16 and UTF-32 in both orders.  A rendered
composite (``Basic`` user and password, a token in a query) contains one of these.

Base64 packs three bytes into four characters, so the characters at the edges of a value may also
hold bits of its neighbours.  A pattern has only the characters that the value alone determines:
the edge characters, with at most four bits each of the first and last byte, are left in place.

Not covered: other nestings (base64 of base64), a value with only some of its plain characters
escaped, base64 wrapped in lines, HTML references, base32, quoted-printable, compression inside a
body, changed case, characters put in between, a value in parts that other text divides.

How many forms there are costs time to compile and nearly none to scan.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import attrs

from slapenir.names import Form

SHORTEST = 8
"""The fewest bytes a watched value may have; a shorter one would be found by accident."""

_MASK = b"X"
_WORD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"
# What percent-encoders leave as it is.
_SAFE = (
    frozenset(_WORD + b"~"),  # RFC 3986, 2.3
    frozenset(_WORD + b"~/"),  # Python's quote
    frozenset(_WORD + b"~!'()*"),  # encodeURIComponent
    frozenset(_WORD + b"~!$&'()*+,;=:@/?"),  # RFC 3986, 3.4: a path or a query
    frozenset(_WORD + b"~!$&'()*+,;=:@/?#"),  # encodeURI
)
_FORM_SAFE = frozenset(_WORD + b"* ")  # application/x-www-form-urlencoded, with a space as +
# How encoders of JSON write marks that HTML could take for its own, and what is not ASCII.
_LOWER, _UPPER = "\\u%04x", "\\u%04X"
_FIRST_CHARACTER = (0, 2, 3)  # the first base64 character that lies wholly in the value

_SPELLINGS = (
    (Form.HEX, b"%02x", b""),
    (Form.HEX, b"\\x%02x", b""),
    (Form.HEX, b"0x%02x", b","),
    (Form.HEX, b"0x%02x", b", "),
    (Form.HEX, b"%02x", b":"),
    (Form.HEX, b"%02x", b" "),
    (Form.PERCENT, b"%%%02x", b""),
    (Form.PERCENT, b"%%25%02x", b""),
)


@attrs.frozen(slots=True, repr=False)
class Pattern:
    """One form of one watched value.

    ``owner`` is the index of the value in the caller's list.  ``data`` is matched byte for byte,
    or without regard to ASCII case when ``caseless``.  ``fill`` has the length of ``data`` and
    overwrites it when no better replacement is known.
    """

    owner: int
    form: Form
    data: bytes
    caseless: bool
    fill: bytes

    def __repr__(self) -> str:
        return f"<Pattern owner={self.owner} form={self.form.value}>"


def patterns_of(value: bytes, owner: int, placeholder: bytes | None = None) -> list[Pattern]:
    """Return a pattern for every form of ``value``, each text once, in an order set by ``value``.

    ``fill`` is the same form of ``placeholder``, else of a run of ``X``, whichever first has the
    form's length; else a run of ``X``.  Raises ValueError for less than SHORTEST bytes.
    """
    if len(value) < SHORTEST:
        raise ValueError(f"a watched value has fewer than {SHORTEST} bytes")
    mask = _MASK * len(value)
    stands_in = mask if placeholder is None or len(placeholder) != len(value) else placeholder
    found: dict[bytes, Pattern] = {}
    rows = zip(_forms(value), _forms(stands_in), _forms(mask), strict=True)
    for (form, caseless, data), (_, _, first), (_, _, second) in rows:
        if data in found:
            continue
        fill = next((f for f in (first, second) if len(f) == len(data)), _MASK * len(data))
        found[data] = Pattern(owner, form, data, caseless, fill)
    return list(found.values())


def replacements_of(value: bytes, placeholder: bytes) -> list[bytes]:
    """Return what each of ``patterns_of(value, ...)`` becomes for one placeholder, in its order.

    One engine serves every identity; this is the part that differs between them.
    """
    return [pattern.fill for pattern in patterns_of(value, 0, placeholder)]


def _forms(value: bytes) -> Iterator[tuple[Form, bool, bytes]]:
    """Yield form, caselessness and text; the same number of them, in one order, for any value."""
    yield Form.RAW, False, value
    for alignment in range(3):
        for form, characters in _base64(value, alignment):
            yield form, False, characters
    for form, spelling, between in _SPELLINGS:
        yield form, True, between.join(spelling % byte for byte in value)
    for escape in (b"%%%02X", b"%%%02x"):
        for safe in _SAFE:
            yield Form.PERCENT, False, _quote(value, escape, safe)
        yield Form.PERCENT, False, _quote(value, escape, _FORM_SAFE).replace(b" ", b"+")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    units = text.encode("utf-16-be")
    pairs = [*zip(units[::2], units[1::2], strict=True)]
    yield Form.JSON, True, b"".join(b"\\u%02x%02x" % pair for pair in pairs)
    yield Form.JSON, True, b"".join(b"\\\\u%02x%02x" % pair for pair in pairs)
    for written in _json(value):
        yield Form.JSON, False, written
        yield Form.JSON, False, _ascii(written, _LOWER)
        yield Form.JSON, False, _ascii(written, _UPPER)
    for wide in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        yield Form.UTF16, False, text.encode(wide)


def _base64(value: bytes, alignment: int) -> Iterator[tuple[Form, bytes]]:
    """Yield the base64 characters that ``value`` determines after ``alignment`` other bytes."""
    padded = b"\0" * alignment + value
    part = slice(_FIRST_CHARACTER[alignment], len(padded) * 8 // 6)
    standard = base64.b64encode(padded)[part]
    yield Form.BASE64, standard
    yield Form.BASE64, standard.replace(b"/", b"\\/")
    yield Form.BASE64URL, base64.urlsafe_b64encode(padded)[part]


def _quote(value: bytes, escape: bytes, safe: frozenset[int]) -> bytes:
    """Return ``value`` with all but the safe characters percent-encoded."""
    return b"".join(bytes([c]) if c in safe else escape % c for c in value)


def _json(value: bytes) -> Iterator[bytes]:
    """Yield a JSON string as different encoders write it, with what is not ASCII as it is."""
    slashed = value.replace(b"\\", b"\\\\")
    plain = slashed.replace(b'"', b'\\"')
    yield plain
    yield plain.replace(b"/", b"\\/")  # PHP
    yield _escape(plain, b"<>&", _LOWER)  # Go, Rails
    yield _escape(plain, b"<>&='", _LOWER)  # Gson
    yield _escape(slashed, b"<>&'+`\"", _UPPER)  # .NET
    yield _escape(slashed, b"<>&'\"", _UPPER).replace(b"/", b"\\/")  # PHP with JSON_HEX_*


def _escape(text: bytes, marks: bytes, escape: str) -> bytes:
    """Return a JSON string with ``marks`` escaped too."""
    for mark in marks:
        text = text.replace(bytes([mark]), (escape % mark).encode("ascii"))
    return text


def _ascii(text: bytes, escape: str) -> bytes:
    """Return a JSON string with what is not ASCII escaped; as it is where it is not UTF-8."""
    if text.isascii():
        return text
    try:
        units = text.decode("utf-8").encode("utf-16-be")
    except UnicodeDecodeError:
        return text
    numbers = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
    return "".join(chr(n) if n < 0x80 else escape % n for n in numbers).encode("ascii")
