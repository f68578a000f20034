"""Request targets: the four forms of RFC 9112 (3.2) and what a path may be.

A path is never rewritten here.  What two servers could read as different paths is refused, so
that what policy judges is what is sent.
"""

from __future__ import annotations

import re
from functools import lru_cache

import attrs

from slapenir.errors import AuthorityError, RemoteProtocolError
from slapenir.names import Authority, Scheme, parse_authority

_ABSOLUTE = re.compile(rb"(https?)://([^/?#\\]*)([/?][^#\\]*)?", re.IGNORECASE)
_TARGET = re.compile(rb"[\x21-\x7e]+")
_ORIGIN = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_ODD = re.compile(rb"[\\%]|/\.")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")


@attrs.frozen(slots=True)
class AbsoluteTarget:
    """An absolute-form target; ``path`` is its origin-form, with the query, at least ``/``."""

    scheme: Scheme
    authority: Authority
    path: bytes


@lru_cache(maxsize=1024)
def host_authority(value: bytes, default_port: int) -> Authority:
    """Return ``parse_authority(value, default_port)``, remembered for the last 1,024 values.

    For Host headers, which repeat.  Raises AuthorityError.
    """
    return _same(parse_authority(value, default_port))


@lru_cache(maxsize=1024)
def _same(authority: Authority) -> Authority:
    """Return the one object for equal authorities, so that comparing them costs nothing."""
    return authority


def parse_absolute(target: bytes) -> AbsoluteTarget:
    """Return the parts of an ``http://`` or ``https://`` target (RFC 9112, 3.2.2).

    Raises RemoteProtocolError (400) for any other scheme, userinfo, an empty or doubtful host, a
    fragment, a backslash, a space, a control or a byte that is not ASCII.
    """
    found = _ABSOLUTE.fullmatch(target)
    if found is None or _TARGET.fullmatch(target) is None:
        raise RemoteProtocolError("the target is not an http or https address")
    scheme = Scheme.HTTPS if found[1].lower() == b"https" else Scheme.HTTP
    authority = _authority(found[2], scheme.port)
    path = found[3] or b"/"
    return AbsoluteTarget(scheme, authority, path if path[:1] == b"/" else b"/" + path)


def parse_connect(target: bytes) -> Authority:
    """Return the authority of a CONNECT target, which must have a port (RFC 9112, 3.2.3).

    Raises RemoteProtocolError (400).
    """
    return _authority(target, None)


def parse_origin(target: bytes) -> bytes:
    """Return an origin-form target as it is (RFC 9112, 3.2.1).

    Raises RemoteProtocolError (400) when it does not start with ``/`` or has a fragment, a space,
    a control or a byte that is not ASCII.
    """
    if _ORIGIN.fullmatch(target) is None:
        raise RemoteProtocolError("the target is not a path")
    return target


def checked_path(target: bytes) -> str:
    """Return the path of an origin-form target, without its query and still percent-encoded.

    Raises RemoteProtocolError (400) for a dot segment, raw or percent-encoded, an encoded slash
    or backslash, a raw backslash, an encoded control, and an escape that is not ``%`` and two hex
    digits.  ``//`` and ``;`` pass as they are; the query is not looked at.
    """
    return checked_origin(parse_origin(target))


def checked_origin(target: bytes) -> str:
    """Return what ``checked_path`` does of a target that ``parse_origin`` returned."""
    path = target.partition(b"?")[0]
    if _ODD.search(path) is None:
        return path.decode("ascii")
    if b"\\" in path:
        raise RemoteProtocolError("the path has a backslash")
    plain = path
    if b"%" in path:
        plain = _ESCAPE.sub(_unescape, path)
    if b"/." in plain and any(_is_dots(segment) for segment in plain.split(b"/")):
        raise RemoteProtocolError("the path has a dot segment")
    return path.decode("ascii")


def _is_dots(segment: bytes) -> bool:
    """Whether a decoded segment is ``.`` or ``..``, also with a parameter (``..;x``)."""
    return segment.partition(b";")[0] in {b".", b".."}


def _unescape(found: re.Match[bytes]) -> bytes:
    """Return the byte an escape stands for, or raise when it must not be escaped or is broken."""
    digits = found[1]
    if digits is None:
        raise RemoteProtocolError("the path has a malformed escape")
    byte = int(digits, 16)
    if byte < 32 or byte == 127 or byte in b"/\\":
        raise RemoteProtocolError("the path has an encoded slash, backslash or control")
    return bytes((byte,))


def _authority(raw: bytes, default_port: int | None) -> Authority:
    if default_port is not None:
        return host_authority(raw, default_port)
    try:
        return _same(parse_authority(raw, None))
    except AuthorityError as error:
        raise RemoteProtocolError(error.reason) from None
