"""Content codings (RFC 9110, 8.4): undone so that bodies can be scanned, done again after.

gzip (RFC 1952) with any number of members, deflate as zlib (RFC 1950) or bare (RFC 1951), br
(RFC 7932) and zstd (RFC 8878) with any number of frames and a window of at most 8 MiB (RFC 9659).
What is sent on is our own coding of what was scanned, so names, comments and extra fields of
gzip, skippable frames of zstd and the like do not pass.

A decoder's output is at most ``max_ratio`` times its input once it is over a mebibyte, for each
layer and for all together; more is taken for a bomb.  That is less than what gzip can reach
(1032) and much less than br and zstd can.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import brotli
import zstandard

from slapenir.errors import CodingError
from slapenir.scan.layers import (
    LIBRARY_ERRORS,
    Brotli,
    Deflate,
    Gzip,
    Identity,
    Layer,
    Measured,
    Stack,
    Zstd,
)

SUPPORTED = ("gzip", "deflate", "br", "zstd")
_MOST = 2
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")


def parse_codings(values: Sequence[bytes]) -> tuple[str, ...]:
    """Return the codings that Content-Encoding fields name, in the order they were applied.

    Case does not matter, ``x-gzip`` is ``gzip`` and ``identity`` is left out (RFC 9110, 8.4.1).
    Raises CodingError for a malformed or unknown coding and for more than two.
    """
    codings: list[str] = []
    for element in b",".join(values).lower().split(b","):
        name = element.strip(b" \t")
        if not name or name == b"identity":
            continue
        if _TOKEN.fullmatch(name) is None:
            raise CodingError("the content coding is malformed")
        coding = "gzip" if name == b"x-gzip" else name.decode("ascii")
        if coding not in SUPPORTED:
            raise CodingError("the content coding is not supported")
        codings.append(coding)
    if len(codings) > _MOST:
        raise CodingError("there are too many content codings")
    return tuple(codings)


_DECODERS: dict[str, type[Gzip | Deflate | Brotli | Zstd]] = {
    "gzip": Gzip,
    "deflate": Deflate,
    "br": Brotli,
    "zstd": Zstd,
}


class Decoder:
    """Undo ``codings``, given in the order they were applied.

    ``max_output`` bounds all output in bytes, None for no bound.  A body without a single byte is
    taken for an empty one, whatever its coding.
    """

    def __init__(
        self, codings: Sequence[str], max_output: int | None = None, max_ratio: int = 200
    ) -> None:
        stack: Layer = Identity()
        for number, coding in enumerate(reversed(codings)):
            layer = Measured(_DECODERS[coding](), max_ratio)
            stack = layer if number == 0 else Measured(Stack(stack, layer), max_ratio)
        self._stack = stack
        self._max_output = max_output
        self._given = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to in pieces of at most PIECE bytes.

        The caller must take all pieces before it feeds again.  Raises CodingError for corrupt
        data, data after the end, too much output and bombs; the decoder is then of no more use.
        """
        try:
            for piece in self._stack.feed(data):
                self._given += len(piece)
                if self._max_output is not None and self._given > self._max_output:
                    raise CodingError("the decoded body is too large")
                yield piece
        except LIBRARY_ERRORS:
            raise CodingError("the coded body is corrupt") from None

    def finish(self) -> None:
        """Raise CodingError when the coded data ended too early.  All output was yielded before."""
        self._stack.finish()


class _Compressor(Protocol):
    """One coding being done; ``compress(data, True)`` gives out all there is."""

    def compress(self, data: bytes, flush: bool) -> bytes:
        """Return what of the coded data is ready."""

    def finish(self) -> bytes:
        """Return the rest."""


class _Deflater:
    def __init__(self, wbits: int) -> None:
        self._stream = zlib.compressobj(1, zlib.DEFLATED, wbits)

    def compress(self, data: bytes, flush: bool) -> bytes:
        coded = self._stream.compress(data)
        return coded + self._stream.flush(zlib.Z_SYNC_FLUSH) if flush else coded

    def finish(self) -> bytes:
        return self._stream.flush()


class _BrotliCompressor:
    def __init__(self) -> None:
        self._stream = brotli.Compressor(quality=1, lgwin=18)

    def compress(self, data: bytes, flush: bool) -> bytes:
        coded: bytes = self._stream.process(data)
        return coded + self._stream.flush() if flush else coded

    def finish(self) -> bytes:
        coded: bytes = self._stream.finish()
        return coded


class _ZstdCompressor:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(level=1).compressobj()

    def compress(self, data: bytes, flush: bool) -> bytes:
        coded = self._stream.compress(data)
        return coded + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) if flush else coded

    def finish(self) -> bytes:
        return self._stream.flush()


_ENCODERS: dict[str, Callable[[], _Compressor]] = {
    "gzip": partial(_Deflater, 31),
    "deflate": partial(_Deflater, 15),
    "br": _BrotliCompressor,
    "zstd": _ZstdCompressor,
}


class Encoder:
    """Do ``codings`` in the order given, at each one's fastest setting."""

    def __init__(self, codings: Sequence[str]) -> None:
        self._layers = [_ENCODERS[coding]() for coding in codings]

    def feed(self, data: bytes, flush: bool = True) -> bytes:
        """Return coded bytes; with ``flush`` all of ``data`` can be decoded from them.

        Without ``flush`` more may be kept, for when the rest of an event follows at once.
        """
        if not data:
            return b""
        for layer in self._layers:
            data = layer.compress(data, flush)
        return data

    def finish(self) -> bytes:
        """Return what ends the coded data; without any ``feed`` that is an empty body, coded."""
        data = b""
        for layer in self._layers:
            data = layer.compress(data, False) + layer.finish()
        return data
