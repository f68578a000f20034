"""Make text of the recipes in a rule pack, as the head of slapenir/scan/foreign.toml says."""

from __future__ import annotations

import base64
import json
import random
import re
import string

from slapenir.scan.checksums import bech32_digits, crc_digits

_LETTERS = string.ascii_letters + string.digits
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
ALPHABETS = {
    "alnum": _LETTERS,
    "alpha": string.ascii_letters,
    "digit": string.digits,
    "hex": "0123456789abcdef",
    "HEX": "0123456789ABCDEF",
    "base32": string.ascii_uppercase + "234567",
    "base36": string.ascii_lowercase + string.digits,
    "BASE36": string.ascii_uppercase + string.digits,
    "base58": "".join(c for c in _LETTERS if c not in "0OIl"),
    "base64": _LETTERS + "+/",
    "base64url": _LETTERS + "-_",
    "word": _LETTERS + "_",
}
_PART = re.compile(r"\{([^{}]*)\}")


def rendered(recipe: str, seed: str) -> bytes:
    """Return the text of a recipe; the same for the same ``seed``.  Raises ValueError."""
    source = random.Random(seed)
    text, made, at = "", "", 0
    for part in _PART.finditer(recipe):
        text += recipe[at : part.start()]
        made = _made(part[1], text, made, source)
        text, at = text + made, part.end()
    return (text + recipe[at:]).encode("ascii")


def _made(part: str, text: str, before: str, source: random.Random) -> str:
    """Return what a part in braces stands for, after ``text`` and the last part, ``before``."""
    if part.startswith("="):
        return part[1:]
    if part == "nl":
        return "\n"
    if part == "crc":
        return crc_digits(before.encode()).decode()
    name, _, value = part.partition(":")
    if name == "json":
        pairs = dict(pair.split("=", 1) for pair in value.split(","))
        data = json.dumps(pairs, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")
    if name.lower() == "bech32":
        return _checked(name, text, int(value), source)
    if len(name) == 1:
        return name * int(value)
    if name not in ALPHABETS:
        raise ValueError(f"{part} is not in the language of recipes")
    return "".join(source.choices(ALPHABETS[name], k=int(value)))


def _checked(name: str, text: str, count: int, source: random.Random) -> str:
    data = "".join(source.choices(_BECH32, k=count))
    prefix = text.lower().rpartition("1")[0].encode()
    whole = data + bech32_digits(prefix, data.encode()).decode()
    return whole.upper() if name.isupper() else whole
