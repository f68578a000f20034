"""Finding placeholders as whole tokens, and reading the two values that hide them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

_BASIC = re.compile(rb"(?i:basic) +([A-Za-z0-9+/]+={0,2})")
_NOTHING = re.compile(rb"(?!)")


def token_pattern(placeholders: Iterable[bytes]) -> re.Pattern[bytes]:
    """Return a pattern that finds any of the placeholders where it stands alone.

    A letter, digit, ``_`` or ``-`` on either side makes it part of another word.  Where one
    placeholder begins another the longer is found.  Raises ValueError for an empty one.
    """
    ordered = sorted(set(placeholders), key=lambda p: (-len(p), p))
    if not ordered:
        return _NOTHING
    if not ordered[-1]:
        raise ValueError("a placeholder is empty")
    words = b"|".join(re.escape(p) for p in ordered)
    return re.compile(rb"(?<![A-Za-z0-9_-])(?:%b)(?![A-Za-z0-9_-])" % words)


def swap(tokens: re.Pattern[bytes], text: bytes, placeholder: bytes, new: bytes) -> bytes:
    """Replace each whole-token occurrence of one placeholder; the others stay."""
    return tokens.sub(lambda match: new if match[0] == placeholder else match[0], text)


def decode_basic(value: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return user name, password and the encoded text of a Basic value (RFC 7617, 2).

    None for another scheme, for what is not base64, and for text without a colon.
    """
    match = _BASIC.fullmatch(value)
    if match is None or len(match[1]) % 4:  # the decoder would let a stray pad pass
        return None
    try:
        text = base64.b64decode(match[1], validate=True)
    except binascii.Error:
        return None
    username, colon, password = text.partition(b":")
    return (username, password, match[1]) if colon else None


def encode_basic(username: bytes, password: bytes) -> bytes:
    """Return the Basic value of a user name without colon and a password."""
    return b"Basic " + base64.b64encode(username + b":" + password)
