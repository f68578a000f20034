"""What a token says about itself."""

from __future__ import annotations

import base64
import json
import math
import string

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.scan.checksums import CHECKS, bech32_digits, crc_digits, entropy
from tests.scan.samples import made_up

SMALL = b"abcdefghijklmnopqrstuvwxyz"


def coded(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


class ChecksumTests(SynchronousTestCase):
    """CRC-32 in base 62, and Bech32."""

    def test_crc(self) -> None:
        """The digits of CRC-32, most significant first, with leading zeros; one change is seen."""
        self.assertEqual(crc_digits(b""), b"000000")
        order = string.digits + string.ascii_uppercase + string.ascii_lowercase
        value = 0
        for digit in crc_digits(b"123456789").decode():
            value = value * 62 + order.index(digit)
        self.assertEqual(value, 0xCBF43926)  # the check value of CRC-32
        part = made_up(30)
        self.assertTrue(CHECKS["crc32-base62"](b"", part + crc_digits(part)))
        self.assertFalse(CHECKS["crc32-base62"](b"", part + crc_digits(part[:-1])))
        self.assertFalse(CHECKS["crc32-base62"](b"", part[::-1] + crc_digits(part)))

    def test_bech32(self) -> None:
        """Valid texts of BIP 173, in either case; one other character is seen at every place."""
        check = CHECKS["bech32"]
        for text in (b"A12UEL5L", b"abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw"):
            self.assertTrue(check(text, b""), text)
            for at in range(text.rindex(b"1") + 1, len(text)):
                other = b"q" if text[at : at + 1].lower() != b"q" else b"p"
                self.assertFalse(check(text[:at] + other + text[at + 1 :], b""), text)
        self.assertEqual(bech32_digits(b"a", b""), b"2uel5l")


class ContentTests(SynchronousTestCase):
    """What a part decodes to."""

    def test_jwt(self) -> None:
        check = CHECKS["jwt"]
        for header in ({"alg": "HS256"}, {"typ": "JWT", "alg": "EdDSA"}):
            self.assertTrue(check(coded(header) + b".eyJ", b""), header)
        for other in ({"alg": "none"}, {"alg": ""}, {"alg": 5}, {"typ": "JWT"}, ["alg"], "alg"):
            self.assertFalse(check(coded(other) + b".eyJ", b""), other)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=60) | st.text('eyJ-_=+/Aa0 {"}', max_size=40).map(str.encode))
    def test_anything(self, part: bytes) -> None:
        """No check raises, whatever it is given."""
        for check in CHECKS.values():
            self.assertIn(check(part, part), (True, False))

    def test_deep_json(self) -> None:
        """What would nest without end is no object, and no exception."""
        deep = base64.b64encode(b'{"a":' + b"[" * 100_000 + b"}")
        self.assertFalse(CHECKS["json"](b"", deep))

    def test_both_base64(self) -> None:
        for text in (coded({"a": "??>>"}), base64.b64encode(b'{"a":"??>>"}')):
            self.assertTrue(CHECKS["json"](b"", text), text)
        self.assertFalse(CHECKS["json"](b"", coded({})))

    def test_passwords(self) -> None:
        """What people write instead of one is none."""
        for part in (b"password1", b"YourSecret", b"changeme9", b"${DB_PASS}", b"<token>", SMALL):
            self.assertFalse(CHECKS["password"](b"", part), part)
        self.assertTrue(CHECKS["password"](b"", made_up(12)))


class EntropyTests(SynchronousTestCase):
    """Shannon's bits for each byte."""

    def test_known(self) -> None:
        self.assertEqual(entropy(b"xxxxxxxx"), 0.0)
        self.assertEqual(entropy(b"abababab"), 1.0)
        self.assertAlmostEqual(entropy(bytes(range(64))), 6.0)
        self.assertAlmostEqual(entropy(b"aab"), math.log2(3) - 2 / 3)
