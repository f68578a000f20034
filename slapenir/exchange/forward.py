"""Which header fields cross the gateway, in each direction (RFC 9110, 7.6.1).

Hop-by-hop fields end here.  Fields with which an agent could steer a proxy or claim to be
somebody are dropped, and so is everything that would move a client off the inspected path.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

from slapenir.names import Authority, Scheme
from slapenir.scan.codings import SUPPORTED
from slapenir.wire.headers import connection_named
from slapenir.wire.messages import HeaderList

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade"}
    | {b"http2-settings", b"proxy-authenticate", b"proxy-authentication-info"}
)


def _spellings(name: bytes) -> Iterator[bytes]:
    """Yield a name with each ``-`` as it is and as ``_``, which CGI cannot tell from it."""
    for marks in product(b"-_", repeat=name.count(b"-")):
        rest = iter(marks)
        yield bytes(next(rest) if byte == 0x2D else byte for byte in name)


_REQUEST_DROPPED = frozenset(
    spelling
    for name in _HOP_BY_HOP
    | {b"host", b"range", b"if-range", b"accept-encoding", b"forwarded", b"via"}
    | {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port"}
    | {b"x-forwarded-client-cert", b"x-real-ip", b"x-agent-id", b"x-pipelock-agent"}
    | {b"x-target-url", b"x-upstream-https-proxy", b"x-original-url", b"x-rewrite-url"}
    | {b"x-http-method-override", b"x-http-method", b"x-method-override"}
    for spelling in _spellings(name)
)
_RESPONSE_DROPPED = _HOP_BY_HOP | {
    b"alt-svc",
    b"x-slapenir-decision",
    b"content-md5",
    b"digest",
    b"content-digest",
    b"repr-digest",
}
# Names that Connection may not remove: what an agent must not be able to switch off.
_KEPT = frozenset({b"authorization", b"cookie", b"content-length", b"transfer-encoding"})
_HARMLESS = frozenset({b"close", b"keep-alive"})


def request_fields(headers: HeaderList, authority: Authority, scheme: Scheme) -> HeaderList:
    """Return the fields to send to the origin, Host first, rebuilt from the decided authority.

    Range and If-Range are dropped: two halves of one secret could be fetched apart.
    Accept-Encoding is narrowed to the codings that can be scanned.
    """
    out: HeaderList = [(b"Host", _host(authority.host, authority.port, scheme is Scheme.HTTPS))]
    append = out.append
    named: frozenset[bytes] = frozenset()
    accept: list[bytes] = []
    for field in headers:
        name = field[0].lower()
        if name in _REQUEST_DROPPED:
            if name == b"accept-encoding":
                accept.append(field[1])
            elif name == b"connection" and field[1].lower() not in _HARMLESS:
                named = frozenset(connection_named(headers)) - _KEPT
            continue
        append(field)
    if named:
        out = out[:1] + [f for f in out[1:] if f[0].lower() not in named]
    out.append((b"Accept-Encoding", _narrowed(b", ".join(accept)) if accept else b"identity"))
    return out


def request_trailers(trailers: HeaderList) -> HeaderList:
    """Return the trailer fields to send to the origin: none that is dropped as a header field."""
    return [field for field in trailers if field[0].lower() not in _REQUEST_DROPPED]


@lru_cache(maxsize=1024)
def _host(host: str, port: int, tls: bool) -> bytes:
    """Return the Host value of an authority; remembered, for it is the same on a connection."""
    return Authority(host, port).header(Scheme.HTTPS if tls else Scheme.HTTP)


@lru_cache(maxsize=256)
def _narrowed(value: bytes) -> bytes:
    """Return the members of an Accept-Encoding value that can be scanned (RFC 9110, 12.5.3)."""
    kept = []
    for member in value.split(b","):
        name = member.split(b";", 1)[0].strip().lower().decode("latin-1")
        if name in SUPPORTED or name in ("identity", "x-gzip"):
            kept.append(member.strip())
    return b", ".join(kept) or b"identity"


def response_fields(headers: HeaderList) -> HeaderList:
    """Return the fields to send to the client.

    Digest fields are dropped because a redaction in a body that streams would make them false.
    """
    out = [field for field in headers if field[0].lower() not in _RESPONSE_DROPPED]
    if len(out) == len(headers):
        return out
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name.lower() == b"connection" and value.lower() not in _HARMLESS:
            named = connection_named(headers) - _KEPT
    return [f for f in out if f[0].lower() not in named] if named else out
