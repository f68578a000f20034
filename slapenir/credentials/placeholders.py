"""Minting placeholders: the value that an agent holds instead of a credential.

A placeholder has its credential's length, public prefix and alphabet, so that whatever checks
the shape accepts it and a swap changes no length, encoded or not: letters and digits take the
place of letters and digits.  It is derived (HMAC-SHA256 in counter mode, RFC 5869's expand step)
from the gateway's key, the identity and the credential's id, so every gateway with that key
mints the same one.

The alphabet is one for the whole varying part (hex, lower-case letters and digits, ...), not one
for each character: a mask that says which characters are digits would give the sandbox about a
third of a hex key, and most of a human's password.
"""

from __future__ import annotations

import hashlib
import hmac
import string
from collections.abc import Iterator

from slapenir.credentials.prefixes import public_prefix

MIN_VARYING = 8

_DIGITS = string.digits.encode("ascii")
_LOWER = string.ascii_lowercase.encode("ascii")
_UPPER = string.ascii_uppercase.encode("ascii")
_ALNUM = frozenset(_DIGITS + _LOWER + _UPPER)
# The smallest that holds the secret's letters and digits is taken.
_ALPHABETS: tuple[bytes, ...] = (
    _DIGITS,
    _DIGITS + b"abcdef",
    _DIGITS + b"ABCDEF",
    _LOWER,
    _UPPER,
    _UPPER + b"234567",
    _LOWER + b"234567",
    _DIGITS + _LOWER,
    _DIGITS + _UPPER,
    _LOWER + _UPPER,
    _DIGITS + _LOWER + _UPPER,
)


def mint(key: bytes, secret: bytes, identity: str, credential: str) -> bytes:
    """Return the placeholder of ``secret`` for one identity; never the secret itself.

    Same length; a known public prefix is kept if 8 letters or digits vary after it; bytes that
    are neither letter nor digit stay where they are.  Where fewer than 8 would vary, every byte
    does.  Of the secret only length, prefix, alphabet and those other bytes are used.  Raises
    ValueError for an empty key or a secret shorter than 8 bytes.
    """
    if not key:
        raise ValueError("the placeholder key is empty")
    if len(secret) < MIN_VARYING:
        raise ValueError("the secret is too short to have a placeholder")
    start = len(public_prefix(secret))
    varying = [i for i in range(start, len(secret)) if secret[i] in _ALNUM]
    if len(varying) < MIN_VARYING:
        varying = [i for i in range(len(secret)) if secret[i] in _ALNUM]
    if len(varying) < MIN_VARYING:
        varying = list(range(len(secret)))
    alphabet = _alphabet({secret[i] for i in varying})
    stream = _stream(key, identity, credential, len(secret))
    result = bytearray(secret)
    while True:
        for i in varying:
            result[i] = _pick(stream, alphabet)
        if result != secret:
            return bytes(result)


def _alphabet(used: set[int]) -> bytes:
    for alphabet in _ALPHABETS:
        if used.issubset(alphabet):
            return alphabet
    return _ALPHABETS[-1]


def _pick(stream: Iterator[int], alphabet: bytes) -> int:
    """Return one byte of the alphabet, each as likely as the other."""
    bound = 256 - 256 % len(alphabet)
    for byte in stream:
        if byte < bound:
            return alphabet[byte % len(alphabet)]
    raise AssertionError("the stream does not end")


def _stream(key: bytes, identity: str, credential: str, length: int) -> Iterator[int]:
    parts = (identity.encode("utf-8"), credential.encode("utf-8"), b"%d" % length)
    info = b"slapenir placeholder 1" + b"".join(b"%d:%b" % (len(p), p) for p in parts)
    block, counter = b"", 0
    while True:
        counter += 1
        block = hmac.digest(key, block + info + counter.to_bytes(4, "big"), hashlib.sha256)
        yield from block
