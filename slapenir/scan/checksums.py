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

_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BECH32 = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CRC_DIGITS = 6
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
    expanded = [byte >> 5 for byte in prefix] + [0] + [byte & 31 for byte in prefix]
    rest = _polymod([*expanded, *(_BECH32.index(byte) for byte in data), *[0] * 6]) ^ 1
    return bytes(_BECH32[(rest >> 5 * (5 - place)) & 31] for place in range(6))


def _polymod(values: list[int]) -> int:
    rest = 1
    for value in values:
        top = rest >> 25
        rest = (rest & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            rest ^= generator if top >> place & 1 else 0
    return rest


def entropy(data: bytes) -> float:
    """Return the Shannon entropy of ``data`` in bits for each byte, by its own frequencies."""
    size = len(data)
    counts = [data.count(byte) for byte in set(data)]
    return -sum(count / size * math.log2(count / size) for count in counts)


def _crc(_token: bytes, part: bytes) -> bool:
    return part[-_CRC_DIGITS:] == crc_digits(part[:-_CRC_DIGITS])


def _bech32(token: bytes, _part: bytes) -> bool:
    prefix, _, rest = token.lower().rpartition(b"1")
    if any(byte not in _BECH32 for byte in rest):
        return False
    return rest[-6:] == bech32_digits(prefix, rest[:-6])


def _json(part: bytes) -> dict[str, object]:
    """Return the object that ``part`` is in either base64, the padding left out or not."""
    try:
        text = base64.urlsafe_b64decode(part.rstrip(b"=") + b"=" * (-len(part.rstrip(b"=")) % 4))
        decoded = json.loads(text)
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


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


CHECKS: dict[str, Callable[[bytes, bytes], bool]] = {
    "crc32-base62": _crc,
    "bech32": _bech32,
    "jwt": _jwt,
    "json": _object,
    "password": _password,
}
"""Every check by its name in a rule pack."""
