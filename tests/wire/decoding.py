"""Run a decoder over some bytes and say what came out, in few words."""

from __future__ import annotations

from collections.abc import Iterable

from slapenir.errors import RemoteProtocolError
from slapenir.wire.http1 import RequestDecoder, ResponseDecoder
from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import BodyChunk, Message, RequestHead

LIMITS = WireLimits()
HOST = b"Host: api.example\r\n"


def merged(messages: Iterable[Message]) -> list[Message]:
    """Return the messages with neighbouring BodyChunks joined."""
    out: list[Message] = []
    for message in messages:
        last = out[-1] if out else None
        if isinstance(message, BodyChunk) and isinstance(last, BodyChunk):
            out[-1] = BodyChunk(last.data + message.data)
        else:
            out.append(message)
    return out


def decode_requests(
    pieces: Iterable[bytes], limits: WireLimits = LIMITS
) -> tuple[list[Message], RequestDecoder]:
    """Feed a new request decoder; return the merged messages and the decoder."""
    decoder = RequestDecoder(limits)
    out: list[Message] = []
    for piece in pieces:
        out += decoder.feed(piece)
    return merged(out), decoder


def decode_response(
    pieces: Iterable[bytes], method: bytes = b"GET", limits: WireLimits = LIMITS
) -> tuple[list[Message], ResponseDecoder]:
    """Feed a new response decoder; return the merged messages and the decoder."""
    decoder = ResponseDecoder(method, limits)
    out: list[Message] = []
    for piece in pieces:
        out += decoder.feed(piece)
    return merged(out), decoder


def request_error(data: bytes, limits: WireLimits = LIMITS) -> RemoteProtocolError | None:
    """Return the error of one request decoder over the data, whole; None when there is none."""
    return decode_requests([data], limits)[1].error


def request_status(data: bytes, limits: WireLimits = LIMITS) -> int | None:
    """Return the status of the request's error, or None."""
    error = request_error(data, limits)
    return None if error is None else error.status


def response_status(data: bytes, method: bytes = b"GET", limits: WireLimits = LIMITS) -> int | None:
    """Return the status of the response's error, or None."""
    error = decode_response([data], method, limits)[1].error
    return None if error is None else error.status


def get(*lines: bytes, version: bytes = b"1.1", host: bytes = HOST) -> bytes:
    """Return a GET with these extra header lines."""
    return (
        b"GET / HTTP/" + version + b"\r\n" + host + b"".join(b"%b\r\n" % x for x in lines) + b"\r\n"
    )


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """Return a POST with these extra header lines and this body, exactly as given."""
    head = b"POST /v1 HTTP/" + version + b"\r\n" + HOST + b"".join(b"%b\r\n" % x for x in lines)
    return head + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    """Return a chunked POST whose body is written exactly like this."""
    return post(b"Transfer-Encoding: chunked", body=body)


def ok(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """Return a 200 with these header lines and this body, exactly as given."""
    head = b"HTTP/" + version + b" 200 OK\r\n" + b"".join(b"%b\r\n" % x for x in lines)
    return head + b"\r\n" + body


def targets(messages: Iterable[Message]) -> list[bytes]:
    """Return the targets of the request heads."""
    return [m.target for m in messages if isinstance(m, RequestHead)]


def body_of(messages: Iterable[Message]) -> bytes:
    """Return the body bytes of all messages, joined."""
    return b"".join(m.data for m in messages if isinstance(m, BodyChunk))
