"""The chunked coding, read strictly (RFC 9112, 7.1).

httptools does not say where in its input a chunked body ends, and pipelined requests must be cut
exactly there, so this part is ours: a size line is one regular expression, everything that is not
exactly it is refused, extensions are dropped and counted.
"""

from __future__ import annotations

import re
from enum import Enum

from slapenir.errors import RemoteProtocolError
from slapenir.wire.headers import allowed_trailers
from slapenir.wire.http1_head import BAD_PARTIAL
from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import BodyChunk, Message, Trailers

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_PARTIAL_SIZE_LINE = re.compile(rb"[0-9A-Fa-f]{1,15}(;[\t\x20-\x7e\x80-\xff]*)?\r?")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_PLAIN_DIGITS = 8


class _Part(Enum):
    SIZE = 1
    DATA = 2
    DATA_END = 3
    TRAILERS = 4


class ChunkedReader:
    """Reads one chunked body and its trailers; ``done`` is set once the message is complete."""

    __slots__ = ("_left", "_limits", "_overhead", "_part", "_scanned", "done")

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._part = _Part.SIZE
        self._left = 0
        self._overhead = 0
        self._scanned = 0
        self.done = False

    def read(self, data: bytes, pos: int, out: list[Message]) -> int:
        """Read on from ``data[pos]`` and return the first position that was not used.

        What is left must be given again in front of the next data.  The chunks' data comes as at
        most one BodyChunk, then Trailers when there are any.  Raises RemoteProtocolError; data
        before the mistake is in ``out`` all the same.
        """
        parts: list[bytes] = []
        try:
            pos = self._read_chunks(data, pos, parts)
        finally:
            if parts:
                out.append(BodyChunk(parts[0] if len(parts) == 1 else b"".join(parts)))
        if self._part is _Part.TRAILERS:
            pos = self._read_trailers(data, pos, out)
        return pos

    def _read_chunks(self, data: bytes, pos: int, parts: list[bytes]) -> int:
        size = len(data)
        while pos < size:
            part = self._part
            if part is _Part.DATA:
                end = pos + self._left
                if end > size:
                    parts.append(data[pos:])
                    self._left = end - size
                    return size
                parts.append(data[pos:end])
                pos = end
                self._part = _Part.DATA_END
            elif part is _Part.DATA_END:
                if not data.startswith(b"\r\n", pos):
                    if data[pos:] == b"\r":
                        return pos
                    raise RemoteProtocolError("chunk data is not followed by CRLF")
                pos += 2
                self._part = _Part.SIZE
            elif part is _Part.SIZE:
                found = _SIZE_LINE.match(data, pos)
                if found is None:
                    self._check_partial_size(data, pos)
                    return pos
                self._start_chunk(found)
                pos = found.end()
                end = pos + self._left
                if self._left and data.startswith(b"\r\n", end):  # the whole chunk is here
                    parts.append(data[pos:end])
                    pos = end + 2
                    self._part = _Part.SIZE
            else:
                return pos
        return pos

    def _start_chunk(self, found: re.Match[bytes]) -> None:
        digits, extension = found.groups()
        if extension or len(digits) > _PLAIN_DIGITS:
            self._overhead += len(extension or b"") + max(0, len(digits) - _PLAIN_DIGITS)
            if self._overhead > self._limits.chunk_overhead:
                raise RemoteProtocolError("too many bytes in chunk size lines")
        self._left = int(digits, 16)
        self._part = _Part.DATA if self._left else _Part.TRAILERS

    def _check_partial_size(self, data: bytes, pos: int) -> None:
        if len(data) - pos > self._limits.chunk_overhead + 32:
            raise RemoteProtocolError("too many bytes in chunk size lines")
        if _PARTIAL_SIZE_LINE.fullmatch(data, pos) is None:
            raise RemoteProtocolError("a chunk size line is malformed")

    def _read_trailers(self, data: bytes, pos: int, out: list[Message]) -> int:
        if data.startswith(b"\r\n", pos):
            self.done = True
            return pos + 2
        end = data.find(b"\r\n\r\n", pos)
        if (end if end >= 0 else len(data)) - pos > self._limits.trailer_bytes:
            raise RemoteProtocolError("the trailers are too long", 431)
        if end < 0:
            if BAD_PARTIAL.search(data, max(pos, pos + self._scanned - 1)) is not None:
                raise RemoteProtocolError("the trailers are malformed")
            self._scanned = len(data) - pos
            return pos
        lines = data[pos:end].split(b"\r\n")
        if len(lines) > self._limits.trailer_count:
            raise RemoteProtocolError("too many trailers", 431)
        trailers = allowed_trailers([_trailer(line) for line in lines])
        if trailers:
            out.append(Trailers(trailers))
        self.done = True
        return end + 4


def _trailer(line: bytes) -> tuple[bytes, bytes]:
    found = _TRAILER.fullmatch(line)
    if found is None:
        raise RemoteProtocolError("the trailers are malformed")
    name, value = found.groups()
    return name, value.rstrip(b" \t")
