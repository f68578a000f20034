"""Messages to bytes (RFC 9112), with exactly one framing.

The version written is always HTTP/1.1.  Content-Length and Transfer-Encoding follow the head's
``framing`` and ``length``: an agreeing header stays where it is, any other goes, a missing one is
added last.  Everything else keeps its order and casing; Connection is the caller's to set.
"""

from __future__ import annotations

from operator import itemgetter

from slapenir.errors import LocalProtocolError
from slapenir.wire.http1_head import VISIBLE
from slapenir.wire.messages import (
    Framing,
    HeaderList,
    InformationalHead,
    RequestHead,
    ResponseHead,
)

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SPACE = ord(" ")
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
# A member is found in its class ten times slower than a name of the module.
_NONE, _LENGTH = Framing.NONE, Framing.LENGTH
_CHUNKED, _CLOSE = Framing.CHUNKED, Framing.CLOSE
_name = itemgetter(0)
_line = b": ".join


def encode_request_head(head: RequestHead) -> bytes:
    """Return the request line and headers; raises what ``encode_request`` does."""
    return encode_request(head.method, head.target, head.headers, head.framing, head.length)


def encode_request(
    method: bytes, target: bytes, headers: HeaderList, framing: Framing, length: int
) -> bytes:
    """Return the request line and headers of a request that is given in its parts.

    Raises LocalProtocolError for bytes that cannot stand in a head and for framing CLOSE, which
    a request cannot have.
    """
    if framing is _CLOSE:
        raise LocalProtocolError("a request cannot be delimited by close")
    if not target or _SPACE in target or _SPACE in method:
        raise LocalProtocolError("a request line with an empty or spaced part")
    return _encode_framed(b"%b %b HTTP/1.1" % (method, target), headers, framing, length)


def encode_response_head(head: ResponseHead) -> bytes:
    """Return the status line and headers of a final response.

    With framing NONE (a response to HEAD, a 304) one Content-Length header is kept as it is: it
    describes a body that is not sent; a 204 carries neither field (RFC 9110, 8.6).  The caller
    must add ``Connection: close`` where framing is CLOSE.  Raises LocalProtocolError.
    """
    line = b"HTTP/1.1 %03d %b" % (head.status, head.reason)
    if head.framing is _NONE and head.status != 204:
        return _encode_head(line, _describing(head.headers))
    return _encode_framed(line, head.headers, head.framing, head.length)


def encode_informational(head: InformationalHead) -> bytes:
    """Return a 1xx head, which carries neither framing field; raises LocalProtocolError."""
    line = b"HTTP/1.1 %03d %b" % (head.status, head.reason)
    return _encode_framed(line, head.headers, _NONE, 0)


def encode_chunk(data: bytes, framing: Framing) -> bytes:
    """Return some body bytes as the framing wants them; nothing for no data.

    Raises LocalProtocolError when the message cannot have a body.
    """
    if not data:
        return b""
    if framing is _CHUNKED:
        return b"%x\r\n%b\r\n" % (len(data), data)
    if framing is _NONE:
        raise LocalProtocolError("body bytes for a message without a body")
    return data


def encode_end(framing: Framing, trailers: HeaderList) -> bytes:
    """Return what ends a body: the last chunk with the trailers, or nothing.

    Trailers of a message that is not chunked cannot be sent and are left out (RFC 9110, 6.5.1).
    Raises LocalProtocolError.
    """
    if framing is not _CHUNKED:
        return b""
    if not trailers:
        return b"0\r\n\r\n"
    return _encode_head(b"0", trailers)


def _encode_framed(line: bytes, headers: HeaderList, framing: Framing, length: int) -> bytes:
    """Return the head with exactly the framing field that is wanted.

    The head is written as it stands and kept when it says what it should; only else are its
    framing fields put right.
    """
    head = _encode_head(line, headers)
    lower = head.lower()
    lengths = lower.count(b"\r\ncontent-length:")
    codings = lower.count(b"\r\ntransfer-encoding:")
    if framing is _LENGTH:
        said = lower.find(b"\r\ncontent-length: %d\r\n" % length) >= 0
        good = said and lengths == 1 and not codings
    elif framing is _CHUNKED:
        good = codings == 1 and not lengths and b"\r\ntransfer-encoding: chunked\r\n" in lower
    else:
        good = not lengths and not codings
    return head if good else _encode_head(line, _framed(headers, framing, length))


def _framed(headers: HeaderList, framing: Framing, length: int) -> HeaderList:
    """Return the headers with exactly the framing field that is wanted, or none."""
    if framing is _LENGTH:
        name, value = b"content-length", b"%d" % length
    elif framing is _CHUNKED:
        name, value = b"transfer-encoding", b"chunked"
    else:
        name = value = b""
    kept: HeaderList = []
    missing = bool(name)
    for pair in headers:
        lower = pair[0].lower()
        if lower in _FRAMING:
            if not missing or lower != name or pair[1].lower() != value:
                continue
            missing = False
        kept.append(pair)
    if missing:
        kept.append((name.title(), value))
    return kept


def _describing(headers: HeaderList) -> HeaderList:
    """Return the headers with the first plain Content-Length and without Transfer-Encoding."""
    kept: HeaderList = []
    seen = False
    for pair in headers:
        lower = pair[0].lower()
        if lower == b"transfer-encoding":
            continue
        if lower == b"content-length":
            if seen or not pair[1].isdigit():
                continue
            seen = True
        kept.append(pair)
    return kept


def _encode_head(line: bytes, headers: HeaderList) -> bytes:
    """Return line and headers; raise LocalProtocolError when any part holds what it must not."""
    names = list(map(_name, headers))
    if b"" in names or b"".join(names).translate(None, _TOKEN):
        raise LocalProtocolError("a header name is not a token")
    head = b"\r\n".join((line, *map(_line, headers), b"\r\n"))
    if len(head.translate(None, VISIBLE)) != 2 * len(names) + 4:
        raise LocalProtocolError("a head would hold a control byte")
    return head
