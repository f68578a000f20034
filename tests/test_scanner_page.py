"""docs/scanner.rst is true: what it says is found is found, and what it says passes passes.

A gap that is closed makes a test here fail: then the page changes with it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import gzip
import json
import quopri
import secrets
from urllib.parse import quote

from twisted.trial import unittest

from slapenir.scan.engine import Engine
from slapenir.scan.forms import patterns_of
from slapenir.scan.rewrite import Redactions, rewrite_whole


def _new() -> bytes:
    """Return a value with bytes that every encoder treats in its own way."""
    return b"sk-Ab/+" + secrets.token_urlsafe(30).encode("ascii") + b'"<z'


class _Case(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.secret = _new()
        engine = Engine(patterns_of(self.secret, 0))
        self.redactions = Redactions(engine, [p.fill for p in engine.patterns])

    def assert_found(self, text: bytes) -> None:
        """The text holds the secret in a form: it is overwritten, at the same length."""
        clean, hits = rewrite_whole(self.redactions, b"before " + text + b" after")
        self.assertTrue(hits, "not found")
        self.assertEqual(len(clean), len(text) + 13)
        self.assertNotIn(text, clean)

    def assert_passes(self, text: bytes) -> None:
        """The text is delivered as it is: a gap that the page admits."""
        whole = b"before " + text + b" after"
        clean, hits = rewrite_whole(self.redactions, whole)
        self.assertEqual((clean, hits), (whole, {}))


class FoundTests(_Case):
    """The table of forms."""

    def test_raw(self) -> None:
        self.assert_found(self.secret)

    def test_base64_at_three_alignments_standard_and_url(self) -> None:
        """T123, T124: also as a Basic composite and with ``\\/``."""
        for padding in (b"", b"u", b"us", b"user:"):
            text = padding + self.secret + b"tail"
            self.assert_found(base64.b64encode(text))
            self.assert_found(base64.urlsafe_b64encode(text))
            self.assert_found(base64.b64encode(text).replace(b"/", b"\\/"))

    def test_hex_in_any_case_and_with_separators(self) -> None:
        """T125."""
        digits = self.secret.hex()
        mixed = "".join(c.upper() if i % 3 else c for i, c in enumerate(digits))
        for text in (digits, digits.upper(), mixed):
            self.assert_found(text.encode("ascii"))
        for between in (":", " "):
            self.assert_found(self.secret.hex(between).encode("ascii"))
        self.assert_found("".join(f"\\x{byte:02x}" for byte in self.secret).encode("ascii"))
        for between in (",", ", "):
            literals = between.join(f"0x{byte:02X}" for byte in self.secret)
            self.assert_found(literals.encode("ascii"))

    def test_percent_of_what_must_be_and_of_every_byte(self) -> None:
        """T126."""
        self.assert_found(quote(self.secret, safe="").encode("ascii"))
        every = "".join(f"%{byte:02x}" for byte in self.secret)
        self.assert_found(every.encode("ascii"))
        self.assert_found(every.upper().encode("ascii"))
        self.assert_found(every.replace("%", "%25").encode("ascii"))
        for safe in ("/", "!'()*", "!$&'()*+,;=:@/?", "!$&'()*+,;=:@/?#"):
            self.assert_found(quote(self.secret, safe=safe).encode("ascii"))

    def test_json(self) -> None:
        """T127."""
        self.assert_found(json.dumps(self.secret.decode("ascii"))[1:-1].encode("ascii"))
        every = "".join(f"\\u{byte:04X}" for byte in self.secret)
        self.assert_found(every.encode("ascii"))
        self.assert_found(every.replace("\\", "\\\\").encode("ascii"))
        slash = self.secret.replace(b'"', b'\\"').replace(b"/", b"\\/")
        self.assert_found(slash)
        for marks in ("<>&", "<>&='"):  # Go; Gson
            text = json.dumps(self.secret.decode("ascii"))[1:-1]
            for mark in marks:
                text = text.replace(mark, f"\\u{ord(mark):04x}")
            self.assert_found(text.encode("ascii"))

    def test_utf16_and_utf32(self) -> None:
        """T131."""
        for wide in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
            self.assert_found(self.secret.decode("ascii").encode(wide))


class NotFoundTests(_Case):
    """The list of what passes."""

    def test_border_bits_of_base64_stay(self) -> None:
        """T123: at most four bits each of the first and last byte are left in the text."""
        for padding in range(3):
            text = base64.b64encode(b"\xff" * padding + self.secret + b"\xff" * 3)
            clean, _ = rewrite_whole(self.redactions, text)
            kept = [i for i, (a, b) in enumerate(zip(text, clean, strict=True)) if a == b]
            start, end = padding * 8, (padding + len(self.secret)) * 8
            inside = [i for i in kept if i * 6 + 6 > start and i * 6 < end]
            bits = sum(
                min(i * 6 + 6, end) - max(i * 6, start) for i in inside if self._edge(i, end)
            )
            self.assertLessEqual(bits, 8)

    def _edge(self, character: int, end: int) -> bool:
        """Whether a character is at a border; elsewhere the fill may agree by chance."""
        return character < 4 or character * 6 + 6 > end - 8

    def test_wrapped_base64_and_other_separators(self) -> None:
        """T123, T125."""
        text = base64.b64encode(b"x" * 30 + self.secret * 2)
        wrapped = b"\n".join(text[i : i + 16] for i in range(0, len(text), 16))
        self.assert_passes(wrapped)
        self.assert_passes(self.secret.hex("-").encode("ascii"))

    def test_two_sse_events(self) -> None:
        """T122: framing between the halves makes them no secret."""
        half = len(self.secret) // 2
        first, second = self.secret[:half], self.secret[half:]
        self.assert_passes(b"data: " + first + b"\n\ndata: " + second + b"\n\n")

    def test_two_fields(self) -> None:
        """T140."""
        half = len(self.secret) // 2
        self.assert_passes(b"X-A: " + self.secret[:half] + b"\r\nX-B: " + self.secret[half:])

    def test_some_plain_characters_escaped(self) -> None:
        """T126, T127."""
        self.assert_passes(b"%73" + quote(self.secret[1:], safe="").encode("ascii"))
        plain = json.dumps(self.secret.decode("ascii"))[2:-1]
        self.assert_passes(b"\\u0073" + plain.encode("ascii"))

    def test_encodings_of_encodings(self) -> None:
        """T124, T126, T127."""
        self.assert_passes(base64.b64encode(base64.b64encode(self.secret)))
        self.assert_passes(quote(quote(self.secret, safe=""), safe="").encode("ascii"))
        thrice = "".join(f"%2525{byte:02x}" for byte in self.secret)
        self.assert_passes(thrice.encode("ascii"))
        nested = json.dumps(json.dumps(self.secret.decode("ascii")))
        self.assert_passes(nested.encode("ascii"))

    def test_other_spellings(self) -> None:
        """T128, T130, T132."""
        text = self.secret.decode("ascii")
        spellings = [
            text.swapcase(),
            "\u200b".join(text),
            "-".join(text),
            text[::-1],
            codecs.encode(text, "rot13"),
            "".join(f"&#{ord(c)};" for c in text),
            "".join(f"&#x{ord(c):x};" for c in text),
        ]
        for spelling in spellings:
            self.assert_passes(spelling.encode("utf-8"))
        self.assert_passes(base64.b32encode(self.secret))
        self.assert_passes(base64.b85encode(self.secret))
        self.assert_passes(binascii.b2a_uu(self.secret[:40]))
        self.assert_passes(
            quopri.encodestring(b"=" + self.secret, quotetabs=True)[1:].replace(b"-", b"=2D")
        )

    def test_compressed_without_a_coding(self) -> None:
        """T134, T136: a gzip file that is the body, and gzip inside base64."""
        packed = gzip.compress(self.secret * 3)
        self.assert_passes(packed)
        self.assert_passes(base64.b64encode(packed))

    def test_plain_text_inside_other_formats_is_found(self) -> None:
        """T136: a stored entry of an archive is raw text."""
        self.assert_found(b"PK\x03\x04" + b"\0" * 26 + self.secret)

    def test_a_value_that_is_not_configured(self) -> None:
        """T160: what an origin mints is unknown."""
        self.assert_passes(_new())

    def test_short_values_are_refused(self) -> None:
        """T148."""
        self.assertRaises(ValueError, patterns_of, b"1234567", 0)
        self.assertTrue(patterns_of(b"12345678", 0))
