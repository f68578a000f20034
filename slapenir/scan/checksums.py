"""What a token says about itself: checksums, and what its first part decodes to.

A check gets the whole token and its marked part (the group of the rule's expression, else the
whole), and says whether the token can be genuine.  None asks anybody; none raises.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from collections.abc import Callable
from functools import reduce
from operator import xor

_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BECH32 = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = bytes.maketrans(_BECH32, bytes(range(32)))
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CRC_DIGITS = 6
_STANDARD = bytes.maketrans(b"-_", b"+/")
# What people write where a password would stand.
_STAND_INS = re.compile(
    rb"pass|pwd|secret|example|change|your|test|dummy|xxx|\*\*\*|redacted|placeholder|[<>{}$]",
    re.IGNORECASE,
)


def crc_digits(data: bytes) -> bytes:
    """Return the CRC-32 of ``data`` as six digits of base 62, as GitHub and npm end a token."""
    rest, digits = zlib.crc32(data), bytearray()
    for _ in range(_CRC_DIGITS):
        rest, digit = divmod(rest, len(_BASE62))
        digits.append(_BASE62[digit])
    return bytes(reversed(digits))


def bech32_digits(prefix: bytes, data: bytes) -> bytes:
    """Return the six characters that end a Bech32 text (BIP 173); both are in lower case."""
    rest = _polymod(_expanded(prefix) + data.translate(_VALUES) + bytes(6)) ^ 1
    return bytes(_BECH32[rest >> shift & 31] for shift in range(25, -1, -5))


def _expanded(prefix: bytes) -> bytes:
    return bytes(b >> 5 for b in prefix) + b"\0" + bytes(b & 31 for b in prefix)


def _polymod(values: bytes) -> int:
    rest = 1
    for value in values:
        rest = (rest & 0x1FFFFFF) << 5 ^ value ^ _FOLDS[rest >> 25]
    return rest


def _fold(top: int) -> int:
    return reduce(xor, (g for place, g in enumerate(_GENERATORS) if top >> place & 1), 0)


_FOLDS = [_fold(top) for top in range(32)]


def entropy(data: bytes) -> float:
    """Return the Shannon entropy of ``data`` in bits for each byte, by its own frequencies.

    ``data`` has from 1 to LONGEST_PART bytes.
    """
    size = len(data)
    return math.log2(size) - sum(map(_WEIGHTS.__getitem__, map(data.count, set(data)))) / size


LONGEST_PART = 640
"""The most bytes that ``entropy`` takes."""

_WEIGHTS = [count * math.log2(count or 1) for count in range(LONGEST_PART + 1)]


def _crc(_token: bytes, part: bytes) -> bool:
    return part[-_CRC_DIGITS:] == crc_digits(part[:-_CRC_DIGITS])


def _bech32(token: bytes, _part: bytes) -> bool:
    prefix, _, rest = token.lower().rpartition(b"1")
    return _polymod(_expanded(prefix) + rest.translate(_VALUES)) == 1


def _json(part: bytes) -> dict[str, object]:
    """Return the object that ``part`` is in base64, the padding left out or not; else {}."""
    text = part.translate(_STANDARD).rstrip(b"=")
    try:
        decoded = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        if decoded[-1:] != b"}":  # nearly all that is none shows here, at little cost
            return {}
        found = json.loads(decoded)
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _jwt(token: bytes, _part: bytes) -> bool:
    """The header names an algorithm that signs or encrypts (RFC 7515, 4.1.1)."""
    algorithm = _json(token.partition(b".")[0]).get("alg")
    return isinstance(algorithm, str) and algorithm.lower() not in ("", "none")


def _object(_token: bytes, part: bytes) -> bool:
    """The marked part is a JSON object in base64."""
    return bool(_json(part))


def _password(_token: bytes, part: bytes) -> bool:
    """The marked part is no stand-in, and not only small letters."""
    return not (part.isalpha() and part.islower()) and _STAND_INS.search(part) is None


def _no_example(_token: bytes, part: bytes) -> bool:
    """The marked part does not say of itself that it is an example, as AWS's do."""
    return b"EXAMPLE" not in part


CHECKS: dict[str, Callable[[bytes, bytes], bool]] = {
    "crc32-base62": _crc,
    "bech32": _bech32,
    "jwt": _jwt,
    "json": _object,
    "password": _password,
    "no-example": _no_example,
}
"""Every check by its name in a rule pack."""
