"""Content codings: the whole matrix, corrupt and truncated data, and bombs."""

from __future__ import annotations

import gzip
import random
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterable
from pathlib import Path

import brotli
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import slapenir
from slapenir.errors import CodingError
from slapenir.scan.codings import SUPPORTED, Decoder, Encoder, parse_codings
from slapenir.scan.layers import PIECE
from tests.support.splits import every_split

TEXT = b"".join(b'{"n": %d, "text": "hello"}\n' % n for n in range(40))


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(data)


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(6, zlib.DEFLATED, -15)
    return coder.compress(data) + coder.flush()


CODERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd}
SKIPPED = struct.pack("<II", 0x184D2A50, 12) + b"hidden-token"


def decoded(decoder: Decoder, pieces: Iterable[bytes]) -> bytes:
    output = b"".join(part for piece in pieces for part in decoder.feed(piece))
    decoder.finish()
    return output


class ParseTests(SynchronousTestCase):
    """T133, T134: which codings a message has."""

    def test_names(self) -> None:
        """T133: case, x-gzip, identity, lists over one or more fields."""
        cases: list[tuple[list[bytes], tuple[str, ...]]] = [
            ([], ()),
            ([b""], ()),
            ([b"identity"], ()),
            ([b"GZIP"], ("gzip",)),
            ([b"X-Gzip"], ("gzip",)),
            ([b"gzip, br"], ("gzip", "br")),
            ([b"gzip", b"br"], ("gzip", "br")),
            ([b" deflate\t,, identity , zstd"], ("deflate", "zstd")),
        ]
        for values, wanted in cases:
            self.assertEqual(parse_codings(values), wanted)

    def test_refused(self) -> None:
        """T133, T134: unknown, malformed, with parameters, or more than two."""
        for value in (b"foo", b"compress", b"gzip;q=1", b"gzip br", b'"gzip"', b"g\xffzip"):
            self.assertRaises(CodingError, parse_codings, [value])
        self.assertRaises(CodingError, parse_codings, [b"gzip, gzip, gzip"])
        self.assertRaises(CodingError, parse_codings, [b"gzip"] * 10)

    def test_reason_quotes_nothing(self) -> None:
        """T157: the peer's bytes are not in the error."""
        error = self.assertRaises(CodingError, parse_codings, [b"peers-own-word"])
        self.assertNotIn("peers", error.reason)


class DecoderTests(SynchronousTestCase):
    """Every coding, whole and in pieces."""

    def test_every_cut(self) -> None:
        """T133: each coding, cut anywhere."""
        for coding, coder in CODERS.items():
            for pieces in every_split(coder(TEXT), rounds=5):
                self.assertEqual(decoded(Decoder([coding]), pieces), TEXT, coding)

    def test_raw_deflate(self) -> None:
        """T133: deflate without the zlib wrapper, cut anywhere."""
        for pieces in every_split(raw_deflate(TEXT), rounds=5):
            self.assertEqual(decoded(Decoder(["deflate"]), pieces), TEXT)

    def test_two_codings(self) -> None:
        """T133: all pairs; the last applied is undone first."""
        for first in SUPPORTED:
            for second in SUPPORTED:
                coded = CODERS[second](CODERS[first](TEXT))
                self.assertEqual(decoded(Decoder([first, second]), [coded]), TEXT)

    def test_none(self) -> None:
        self.assertEqual(decoded(Decoder([]), [b"plain", b"", b" text"]), b"plain text")

    def test_pieces_are_small(self) -> None:
        """T137: no piece of output is longer than PIECE, whatever went in at once."""
        source = random.Random(1)
        text = source.randbytes(5000) * 60
        for coding, coder in CODERS.items():
            decoder = Decoder([coding])
            parts = list(decoder.feed(coder(text)))
            decoder.finish()
            self.assertEqual(b"".join(parts), text)
            self.assertLessEqual(max(map(len, parts)), PIECE)
        self.assertLessEqual(max(map(len, Decoder([]).feed(text))), PIECE)

    def test_nothing_is_kept_back(self) -> None:
        """T121: large flushed data is decoded at once and not when more arrives."""
        text = random.Random(2).randbytes(200_000)
        for coding in SUPPORTED:
            flushed = Encoder([coding]).feed(text)
            self.assertEqual(b"".join(Decoder([coding]).feed(flushed)), text, coding)

    def test_members(self) -> None:
        """T135: gzip members and zstd frames after the first are decoded too."""
        members = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
        for pieces in every_split(members, rounds=2):
            self.assertEqual(decoded(Decoder(["gzip"]), pieces), b"one two")
        frames = zstd(b"one ") + SKIPPED + zstd(b"two") + SKIPPED
        for pieces in every_split(frames, rounds=2):
            self.assertEqual(decoded(Decoder(["zstd"]), pieces), b"one two")

    def test_gzip_padding(self) -> None:
        """T135: zero bytes after the end are ignored, anything after them is refused."""
        coded = gzip.compress(TEXT)
        for pieces in every_split(coded + b"\0" * 5, rounds=2):
            self.assertEqual(decoded(Decoder(["gzip"]), pieces), TEXT)
        for pieces in ([coded + b"\0" + coded], [coded, b"\0", coded]):
            self.assertRaises(CodingError, decoded, Decoder(["gzip"]), pieces)

    def test_trailing_bytes(self) -> None:
        """T135: what follows the end is never passed over."""
        for coding, coder in [*CODERS.items(), ("deflate", raw_deflate)]:
            coded = coder(TEXT)
            for pieces in ([coded + b"junk"], [coded, b"junk"]):
                self.assertRaises(CodingError, decoded, Decoder([coding]), pieces)

    def test_truncated(self) -> None:
        """T134: every proper prefix is refused at the end."""
        for coding, coder in [*CODERS.items(), ("deflate", raw_deflate)]:
            coded = coder(TEXT)
            for size in range(1, len(coded)):
                self.assertRaises(CodingError, decoded, Decoder([coding]), [coded[:size]])

    def test_truncated_inside(self) -> None:
        """T134: the inner of two codings ends too early though the outer is whole."""
        coded = gzip.compress(brotli.compress(TEXT)[:-2])
        self.assertRaises(CodingError, decoded, Decoder(["br", "gzip"]), [coded])

    def test_not_coded(self) -> None:
        """T134: a plain body that claims a coding is refused."""
        for coding in SUPPORTED:
            self.assertRaises(CodingError, decoded, Decoder([coding]), [TEXT])

    def test_no_bytes(self) -> None:
        """An empty body is empty in every coding."""
        for coding in SUPPORTED:
            self.assertEqual(decoded(Decoder([coding]), []), b"")
            self.assertEqual(decoded(Decoder([coding]), [b""]), b"")

    def test_checksum(self) -> None:
        """T134: a flipped bit in gzip's check is noticed."""
        coded = bytearray(gzip.compress(TEXT))
        coded[-6] ^= 1
        self.assertRaises(CodingError, decoded, Decoder(["gzip"]), [bytes(coded)])


class BombTests(SynchronousTestCase):
    """T137: what expands too much is stopped, with bounded memory."""

    def test_ratio(self) -> None:
        """T137: 32 MiB of zeros are stopped soon after the first mebibyte; 1 MiB passes."""
        for coding, coder in CODERS.items():
            self.assertEqual(len(decoded(Decoder([coding]), [coder(bytes(1 << 20))])), 1 << 20)
            decoder, given = Decoder([coding]), 0
            coded = coder(bytes(32 << 20))

            def take(decoder: Decoder = decoder, coded: bytes = coded) -> None:
                nonlocal given
                for part in decoder.feed(coded):
                    given += len(part)

            self.assertRaises(CodingError, take)
            self.assertLessEqual(given, max(1 << 20, 200 * len(coded)))

    def test_ratio_of_two(self) -> None:
        """T137: each of two layers within the ratio, both together not."""
        inner = gzip.compress(bytes(100_000) + random.Random(1).randbytes(1000))
        members = inner * 150
        coded = zstd(members)
        self.assertEqual(decoded(Decoder(["zstd"]), [coded]), members)
        self.assertEqual(len(decoded(Decoder(["gzip"]), [members])), 150 * 101_000)
        self.assertRaises(CodingError, decoded, Decoder(["gzip", "zstd"]), [coded])

    def test_ratio_can_be_set(self) -> None:
        coded = gzip.compress(bytes(4 << 20))
        self.assertEqual(len(decoded(Decoder(["gzip"], max_ratio=2000), [coded])), 4 << 20)

    def test_output_cap(self) -> None:
        """T137: at the cap it passes, one byte more it does not."""
        for coding, coder in CODERS.items():
            self.assertEqual(len(decoded(Decoder([coding], 100), [coder(b"x" * 100)])), 100)
            self.assertRaises(CodingError, decoded, Decoder([coding], 100), [coder(b"x" * 101)])
        self.assertRaises(CodingError, decoded, Decoder([], 4), [b"12345"])

    def test_window(self) -> None:
        """T137: zstd frames that want a window over 8 MiB are refused (RFC 9659)."""
        wide = zstandard.ZstdCompressionParameters(window_log=24, strategy=1)
        coder = zstandard.ZstdCompressor(compression_params=wide).compressobj()
        coded = coder.compress(b"hello") + coder.flush()
        self.assertRaises(CodingError, decoded, Decoder(["zstd"]), [coded])

    def test_memory(self) -> None:
        """T137: a process that meets a 256 MiB bomb in each coding grows by less than 64 MiB."""
        program = textwrap.dedent("""
            import resource, zlib, brotli, zstandard
            from slapenir.errors import CodingError
            from slapenir.scan.codings import Decoder
            peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            step, steps = bytes(1 << 20), 256
            gz = zlib.compressobj(9, zlib.DEFLATED, 31)
            br = brotli.Compressor(quality=5, lgwin=18)
            zs = zstandard.ZstdCompressor(level=1).compressobj()
            bombs = {
                "gzip": b"".join(gz.compress(step) for _ in range(steps)) + gz.flush(),
                "br": b"".join(br.process(step) for _ in range(steps)) + br.finish(),
                "zstd": b"".join(zs.compress(step) for _ in range(steps)) + zs.flush(),
            }
            before = peak()
            for ratio in (200, 10**9):
                for coding, bomb in bombs.items():
                    decoder, size = Decoder([coding], max_ratio=ratio), 0
                    try:
                        for part in decoder.feed(bomb):
                            size += len(part)
                    except CodingError:
                        assert ratio == 200
                    else:
                        assert size == steps << 20
            print(peak() - before)
        """)
        root = Path(slapenir.__file__).parents[1]
        grown = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, cwd=root
        )
        self.assertLess(int(grown.stdout), 64 * 1024)


class EncoderTests(SynchronousTestCase):
    """What was decoded is coded again."""

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from(SUPPORTED), st.booleans())
    def test_there_and_back(self, pieces: list[bytes], coding: str, flush: bool) -> None:
        encoder = Encoder([coding])
        coded = [encoder.feed(piece, flush) for piece in pieces] + [encoder.finish()]
        self.assertEqual(decoded(Decoder([coding]), coded), b"".join(pieces))

    def test_other_decoders_agree(self) -> None:
        plain = {
            "gzip": gzip.decompress,
            "deflate": zlib.decompress,
            "br": brotli.decompress,
            "zstd": lambda c: zstandard.ZstdDecompressor().decompressobj().decompress(c),
        }
        for coding, decode in plain.items():
            encoder = Encoder([coding])
            self.assertEqual(decode(encoder.feed(TEXT) + encoder.finish()), TEXT)
            self.assertEqual(decode(Encoder([coding]).finish()), b"")

    def test_two(self) -> None:
        """T133: applied in the order given, so that undone in reverse it is the text."""
        for codings in (("gzip", "br"), ("zstd", "deflate")):
            encoder = Encoder(codings)
            coded = encoder.feed(TEXT) + encoder.finish()
            self.assertEqual(decoded(Decoder(codings), [coded]), TEXT)

    def test_an_event_is_not_kept(self) -> None:
        """T121: after each feed everything fed can be decoded from what came out."""
        for codings in [(c,) for c in SUPPORTED] + [("gzip", "br"), ("zstd", "gzip")]:
            encoder, decoder = Encoder(codings), Decoder(codings)
            for number in range(3):
                event = b"data: %d\n\n" % number
                self.assertEqual(b"".join(decoder.feed(encoder.feed(event))), event)
            self.assertEqual(encoder.feed(b""), b"")

    def test_no_codings(self) -> None:
        encoder = Encoder([])
        self.assertEqual(encoder.feed(b"same") + encoder.finish(), b"same")

    def test_hidden_fields_are_dropped(self) -> None:
        """T136: text in gzip's name, comment or extra field does not come out again."""
        hidden = b"hidden-token"
        coded = gzip.compress(TEXT, mtime=0)
        extra = struct.pack("<H", len(hidden)) + hidden
        fields = coded[:3] + b"\x1c" + coded[4:10] + extra + hidden + b"\0" + hidden + b"\0"
        for source, coding in ((fields + coded[10:], "gzip"), (SKIPPED + zstd(TEXT), "zstd")):
            self.assertIn(hidden, source)
            text = decoded(Decoder([coding]), [source])
            encoder = Encoder([coding])
            again = encoder.feed(text) + encoder.finish()
            self.assertEqual(text, TEXT)
            self.assertNotIn(hidden, again)
            self.assertEqual(decoded(Decoder([coding]), [again]), TEXT)
