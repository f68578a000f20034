"""Where a secret could still be: its literal forms, to search what a client or a log was given."""

from __future__ import annotations

import base64
from urllib.parse import quote_from_bytes


def forms(secret: str) -> dict[str, bytes]:
    """Return each plain form of a secret by name.

    A base64 form is the middle that does not depend on what stands before and after it.
    """
    raw = secret.encode("ascii")
    found = {
        "raw": raw,
        "hex": raw.hex().encode("ascii"),
        "hex upper": raw.hex().upper().encode("ascii"),
        "percent": quote_from_bytes(raw, safe="").encode("ascii"),
        "utf-16-le": secret.encode("utf-16-le"),
        "utf-16-be": secret.encode("utf-16-be"),
        "reversed json": secret.replace("/", "\\/").encode("ascii"),
    }
    for before in range(3):
        usable = len(raw) - (before + len(raw)) % 3
        coded = base64.b64encode(b"\0" * before + raw[:usable])[(0, 2, 3)[before] :]
        found[f"base64 at {before}"] = coded
        found[f"base64url at {before}"] = coded.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def traces(data: bytes, secret: str) -> list[str]:
    """Return the names of the forms in which ``secret`` is in ``data``; empty is what one wants."""
    return [name for name, form in forms(secret).items() if form in data]
