"""The HTTP/1 codec in one place: decoders for both directions and the writers (RFC 9112)."""

from __future__ import annotations

from slapenir.wire.http1_request import RequestDecoder
from slapenir.wire.http1_response import ResponseDecoder
from slapenir.wire.http1_write import (
    encode_chunk,
    encode_end,
    encode_informational,
    encode_request,
    encode_request_head,
    encode_response_head,
)

__all__ = [
    "RequestDecoder",
    "ResponseDecoder",
    "encode_chunk",
    "encode_end",
    "encode_informational",
    "encode_request",
    "encode_request_head",
    "encode_response_head",
]
