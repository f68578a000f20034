"""Paths: globs, and the other paths that an origin may read out of the one that is sent.

Origins disagree about ``//``, ``;x``, ``%2e``, ``%2f``, ``\\`` and dot segments.  The path is
forwarded as it came, so a rule has to hold whichever way the origin reads it: a deny looks at
every reading, and an allow that is limited to some paths is not given to a path whose reading
could climb out of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ODD = re.compile(r"[%;\\]|//|/\.")
_ESCAPE = re.compile(r"%(?:[uU]00)?([0-9A-Fa-f]{2})")
_OVERLONG = re.compile("(?:[\xc0\xc1]|\xe0[\x80\x81])[\x80-\xbf]")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]", re.ASCII)
_SLASHES = re.compile(r"[/\\]+")
_DOTS = frozenset({".", ".."})
_MAX_DECODINGS = 3


def compile_globs(globs: Sequence[str], ignore_case: bool) -> re.Pattern[str]:
    """Return one pattern for ``fullmatch`` of any of the globs, in time linear in the path.

    ``*`` is any run of characters, ``/`` included; all else is literal.  Each literal between
    two stars is matched once and never tried again (an atomic group), so no path is slow.
    """
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return re.compile("|".join(f"(?:{_translate(glob)})" for glob in globs), flags)


def _translate(glob: str) -> str:
    first, *rest = (re.escape(part) for part in glob.split("*"))
    if not rest:
        return first
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    return f"{first}{middle}.*{rest[-1]}"


def readings(path: str) -> tuple[str, ...]:
    """Return the path as sent and then, where they differ, the ways an origin may read it.

    One follows RFC 3986 (6.2.2): unreserved escapes decoded, dot segments removed, and slashes
    collapsed.  One decodes every escape, up to three times, takes overlong UTF-8 (RFC 3629, 10)
    for what it is meant to be and ``\\`` for ``/``, and drops ``;params``.
    """
    if _ODD.search(path) is None:
        return (path,)
    strict = _resolve(_ESCAPE.sub(_decode_unreserved, path).split("/"))
    loose = _resolve([part.partition(";")[0] for part in _SLASHES.split(_decode(path))])
    return tuple(dict.fromkeys((path, strict, loose)))


def climbs(path: str) -> bool:
    """Whether an origin may find a dot segment in the path, in plain or in disguise."""
    if _ODD.search(path) is None:
        return False
    return any(part.partition(";")[0] in _DOTS for part in _SLASHES.split(_decode(path)))


def _decode_unreserved(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if _UNRESERVED.match(char) else match[0].upper()


def _decode_overlong(match: re.Match[str]) -> str:
    """Return the ASCII character that two or three bytes stand for where one would do."""
    return chr((ord(match[0][-2]) & 1) << 6 | ord(match[0][-1]) & 0x3F)


def _decode(path: str) -> str:
    for _ in range(_MAX_DECODINGS):
        decoded = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), path)
        decoded = _OVERLONG.sub(_decode_overlong, decoded)
        if decoded == path:
            break
        path = decoded
    return path


def _resolve(parts: list[str]) -> str:
    """Join segments without empty and dot segments (RFC 3986, 5.2.4); a last slash stays."""
    kept: list[str] = []
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    tail = "/" if kept and parts[-1] in ("", ".", "..") else ""
    return "/" + "/".join(kept) + tail
