"""Questions to ask of a HeaderList.  Names are given in lower case; matching ignores case."""

from __future__ import annotations

from slapenir.wire.messages import HeaderList

FORBIDDEN_TRAILERS = frozenset(
    b"accept-encoding age authentication-info authorization cache-control connection"
    b" content-disposition content-encoding content-language content-length content-location"
    b" content-range content-type cookie date expect expires forwarded host if-match"
    b" if-modified-since if-none-match if-range if-unmodified-since keep-alive last-modified"
    b" location max-forwards pragma proxy-authenticate proxy-authentication-info"
    b" proxy-authorization proxy-connection range retry-after set-cookie te trailer"
    b" transfer-encoding upgrade vary warning www-authenticate".split()
)


def values(headers: HeaderList, lower_name: bytes) -> list[bytes]:
    """Return every value of the header, in order; an empty list when it is absent."""
    return [value for name, value in headers if name.lower() == lower_name]


def first(headers: HeaderList, lower_name: bytes) -> bytes | None:
    """Return the header's first value, or None."""
    for name, value in headers:
        if name.lower() == lower_name:
            return value
    return None


def without(headers: HeaderList, lower_names: frozenset[bytes]) -> HeaderList:
    """Return a new list without the named headers; order and casing of the rest are kept."""
    return [pair for pair in headers if pair[0].lower() not in lower_names]


def tokens(headers: HeaderList, lower_name: bytes) -> list[bytes]:
    """Return the members of the header's comma lists in lower case (RFC 9110, 5.6.1).

    Empty members are left out.  Quoted strings are not understood: use this for lists of tokens.
    """
    return split_tokens(values(headers, lower_name))


def split_tokens(lists: list[bytes]) -> list[bytes]:
    """Return the non-empty members of some comma lists, stripped and in lower case."""
    found = [part.strip(b" \t") for part in b",".join(lists).lower().split(b",")]
    return [token for token in found if token]


def connection_named(headers: HeaderList) -> frozenset[bytes]:
    """Return what Connection lists, in lower case: hop-by-hop names and options (RFC 9110, 7.6.1).

    The caller decides which of them may be removed: a client must not use this to strip a
    header that is a control or was put in by the gateway.
    """
    return frozenset(tokens(headers, b"connection"))


def allowed_trailers(trailers: HeaderList) -> HeaderList:
    """Return the trailer fields that may be forwarded (RFC 9110, 6.5.1).

    Framing, routing, authentication, content and cache fields are dropped, also when written
    with ``_`` for ``-``.
    """
    return [
        pair for pair in trailers if pair[0].lower().replace(b"_", b"-") not in FORBIDDEN_TRAILERS
    ]
