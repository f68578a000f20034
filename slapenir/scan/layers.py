"""The layers of which a decoder is made: each undoes one content coding or wraps others.

A layer's ``feed`` yields pieces of at most PIECE bytes and its caller takes them all before it
feeds again.  Errors are CodingError or those of the library below.  Memory: one piece, the window
(br up to 16 MiB, zstd 8 MiB, others 32 KiB) and, for zstd, whose binding cannot bound its output,
what 256 bytes of input can hold: at most 11 MiB.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli
import zstandard

from slapenir.errors import CodingError

PIECE = 65536
"""The most bytes in one piece of decoded output."""

LIBRARY_ERRORS = (zlib.error, brotli.error, zstandard.ZstdError)

_RATIO_FLOOR = 1 << 20
_ZSTD_SLICE = 256
_ZSTD_WINDOW = 8 << 20


class Layer(Protocol):
    """One coding being undone."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to, in pieces of at most PIECE bytes."""

    def finish(self) -> None:
        """Raise CodingError when the end was not reached."""


class Gzip:
    """Members one after another; zero bytes may follow the last."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._members = 0
        self._padded = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        while True:
            if self._member is None:
                if self._members:
                    rest = data.lstrip(b"\0")
                    self._padded = self._padded or len(rest) < len(data)
                    data = rest
                if not data:
                    return
                if self._padded:
                    raise CodingError("the body goes on after its gzip data")
                self._member = zlib.decompressobj(31)
            member = self._member
            piece = member.decompress(data, PIECE)
            if piece:
                yield piece
            if member.eof:
                data = member.unused_data
                self._member = None
                self._members += 1
            else:
                data = member.unconsumed_tail
                if not data and len(piece) < PIECE:
                    return

    def finish(self) -> None:
        """Raise CodingError when the end was not reached."""
        if self._member is not None:
            raise CodingError("the gzip data ends too early")


class Deflate:
    """With the zlib wrapper that the RFC asks for, or without, as some origins send it."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None
        self._start = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        if self._stream is None:
            self._start += data
            if len(self._start) < 2:
                return
            data, self._start = self._start, b""
            wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
            self._stream = zlib.decompressobj(15 if wrapped else -15)
        stream = self._stream
        while data or not stream.eof:
            if stream.eof:
                raise CodingError("the body goes on after its deflate data")
            piece = stream.decompress(data, PIECE)
            if piece:
                yield piece
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            if not data and len(piece) < PIECE:
                return

    def finish(self) -> None:
        """Raise CodingError when the end was not reached."""
        if self._start or (self._stream is not None and not self._stream.eof):
            raise CodingError("the deflate data ends too early")


class Brotli:
    """One br stream; the binding refuses what comes after it."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        if not data:
            return
        if self._stream.is_finished():
            raise CodingError("the body goes on after its br data")
        self._begun = True
        piece = self._stream.process(data, output_buffer_limit=PIECE)
        yield from sliced(piece)
        # It may have taken all input and still have output, also after a short piece.
        while piece or not self._stream.can_accept_more_data():
            piece = self._stream.process(b"", output_buffer_limit=PIECE)
            yield from sliced(piece)

    def finish(self) -> None:
        """Raise CodingError when the end was not reached."""
        if self._begun and not self._stream.is_finished():
            raise CodingError("the br data ends too early")


class Zstd:
    """Frames one after another; skippable ones decode to nothing."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        for start in range(0, len(data), _ZSTD_SLICE):
            rest = data[start : start + _ZSTD_SLICE]
            while rest:
                if self._frame is None:
                    self._frame = self._context.decompressobj()
                frame = self._frame
                yield from sliced(frame.decompress(rest))
                rest = b""
                if frame.eof:
                    rest, self._frame = frame.unused_data, None

    def finish(self) -> None:
        """Raise CodingError when the end was not reached."""
        if self._frame is not None:
            raise CodingError("the zstd data ends too early")


def sliced(data: bytes) -> Iterator[bytes]:
    """Yield ``data`` in pieces of at most PIECE bytes, itself when it is one."""
    if len(data) <= PIECE:
        if data:
            yield data
        return
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


class Measured:
    """A layer that is stopped when it makes too much of its input."""

    def __init__(self, layer: Layer, max_ratio: int) -> None:
        self._layer = layer
        self._max_ratio = max_ratio
        self._taken = 0
        self._given = 0
        self.finish = layer.finish

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        self._taken += len(data)
        for piece in self._layer.feed(data):
            self._given += len(piece)
            if self._given > max(_RATIO_FLOOR, self._max_ratio * self._taken):
                raise CodingError("the body expands too much")
            yield piece


class Stack:
    """One layer's output into the next."""

    def __init__(self, first: Layer, second: Layer) -> None:
        self._first = first
        self._second = second

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        for piece in self._first.feed(data):
            yield from self._second.feed(piece)

    def finish(self) -> None:
        """Raise CodingError when the end was not reached."""
        self._first.finish()
        self._second.finish()


class Identity:
    """No coding: the bytes themselves, in pieces."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        return sliced(data)

    def finish(self) -> None:
        """Do nothing: there is no end to be missed."""
