"""Whole-token search and Basic values."""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.credentials.tokens import decode_basic, encode_basic, swap, token_pattern


class TokenTests(SynchronousTestCase):
    """token_pattern and swap."""

    def test_T175_longest_and_whole(self) -> None:
        """T175: one placeholder that begins another never matches inside it."""
        tokens = token_pattern([b"SLAP_GH", b"SLAP_GH_ADMIN", b"SLAP_GH.X"])
        text = b"SLAP_GH SLAP_GH_ADMIN SLAP_GH.X SLAP_GH. xSLAP_GH SLAP_GH- SLAP_GH1 (SLAP_GH)"
        self.assertEqual(
            tokens.findall(text),
            [b"SLAP_GH", b"SLAP_GH_ADMIN", b"SLAP_GH.X", b"SLAP_GH", b"SLAP_GH"],
        )

    def test_T175_swap_one_of_them(self) -> None:
        """T175: the others and the parts of words stay."""
        tokens = token_pattern([b"SLAP_GH", b"SLAP_GH_ADMIN"])
        self.assertEqual(
            swap(tokens, b"SLAP_GH,SLAP_GH_ADMIN,SLAP_GHX,SLAP_GH", b"SLAP_GH", rb"\g<0>"),
            rb"\g<0>,SLAP_GH_ADMIN,SLAP_GHX,\g<0>",
        )

    def test_none_and_empty(self) -> None:
        """No placeholders match nothing; an empty one is refused."""
        self.assertEqual(token_pattern([]).findall(b"anything"), [])
        self.assertRaises(ValueError, token_pattern, [b"a", b""])

    def test_signs_are_literal(self) -> None:
        """A placeholder is text, not a pattern."""
        tokens = token_pattern([b"a.c+(x)", b".*"])
        self.assertEqual(tokens.findall(b"abc a.c+(x) .*"), [b"a.c+(x)", b".*"])


class BasicTests(SynchronousTestCase):
    """decode_basic and encode_basic."""

    def test_T171_forms(self) -> None:
        """T171: any case of the scheme and any number of spaces; the first colon divides."""
        blob = base64.b64encode(b"me:pass:word")
        for value in (b"Basic " + blob, b"basic " + blob, b"BASIC   " + blob):
            self.assertEqual(decode_basic(value), (b"me", b"pass:word", blob))
        self.assertEqual(decode_basic(b"Basic " + base64.b64encode(b":")), (b"", b"", b"Og=="))

    def test_what_is_no_basic_value(self) -> None:
        """Other schemes, bad base64 and a missing colon."""
        good = base64.b64encode(b"me:password")
        for value in (
            b"Bearer " + good,
            b"Basic" + good,
            b"Basic",
            b"Basic ",
            b"Basic " + good[:-1],
            b"Basic !" + good,
            b"Basic " + good + b" x",
            b"Basic " + good + b", Basic " + good,
            b"Basic " + base64.b64encode(b"nocolon"),
            b"Basic\t" + good,
            b"\xc5\xbfBasic " + good,
        ):
            self.assertIsNone(decode_basic(value), value)

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=40).filter(lambda name: b":" not in name), st.binary(max_size=40))
    def test_round_trip(self, username: bytes, password: bytes) -> None:
        """Decoding gives back what was encoded."""
        decoded = decode_basic(encode_basic(username, password))
        self.assertIsNotNone(decoded)
        self.assertEqual((decoded or ())[:2], (username, password))
