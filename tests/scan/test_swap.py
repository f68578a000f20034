"""Placeholders become secrets: whole tokens, once, for any cut."""

from __future__ import annotations

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import RemoteProtocolError
from slapenir.scan.swap import Swapper
from tests.scan.samples import made_up
from tests.support.splits import every_split

SHORT, LONG = b"SLAP_GH", b"SLAP_GH_ADMIN"
SWAPS = [(SHORT, made_up(20, 41)), (LONG, made_up(9, 42)), (b"{dummy}", made_up(33, 43))]


def model(swaps: list[tuple[bytes, bytes]], text: bytes) -> bytes:
    """Swap in all of the text at once."""
    table = dict(reversed(swaps))
    tokens = b"|".join(re.escape(t) for t in sorted(table, key=len, reverse=True))
    whole = re.compile(rb"(?<![\w-])(?:%b)(?![\w-])" % tokens)
    return whole.sub(lambda m: table[m.group()], text)


def swapped(swapper: Swapper, pieces: list[bytes]) -> bytes:
    return b"".join([*map(swapper.feed, pieces), swapper.finish()])


class SwapperTests(SynchronousTestCase):
    """feed, finish, swapped and the bound on growth."""

    def check(self, text: bytes, wanted: bytes, counts: dict[int, int]) -> None:
        for pieces in every_split(text, rounds=5):
            swapper = Swapper(SWAPS)
            self.assertEqual(swapped(swapper, pieces), wanted)
            self.assertEqual(swapper.swapped, counts)

    def test_every_cut(self) -> None:
        """T172: replaced once, wherever it is cut, at the start, inside and at the end."""
        secret = SWAPS[0][1]
        self.check(SHORT, secret, {0: 1})
        self.check(b"a " + SHORT + b"\n" + SHORT, b"a " + secret + b"\n" + secret, {0: 2})

    def test_longest_token(self) -> None:
        """T175: the one that begins like another is not taken for it."""
        self.check(
            b"(" + LONG + b"," + SHORT + b")", b"(%b,%b)" % (SWAPS[1][1], SWAPS[0][1]), {0: 1, 1: 1}
        )
        self.check(SHORT + b"_ADMI", SHORT + b"_ADMI", {})

    def test_only_whole_tokens(self) -> None:
        """T175: a word byte on either side and it is something else."""
        for beside in (b"a", b"9", b"_", b"-"):
            self.check(beside + SHORT, beside + SHORT, {})
            self.check(SHORT + beside, SHORT + beside, {})
        for beside in (b" ", b'"', b"\xff", b".", b"="):
            self.check(beside + SHORT + beside, beside + SWAPS[0][1] + beside, {0: 1})

    def test_boundary_in_an_earlier_piece(self) -> None:
        """T175: the byte before the token is remembered across pieces, and over a swap."""
        swapper = Swapper(SWAPS)
        self.assertEqual(swapped(swapper, [b"x" * 50, SHORT, b" "]), b"x" * 50 + SHORT + b" ")
        self.check(b"{dummy}" + SHORT, b"{dummy}" + SWAPS[0][1], {0: 1})
        self.check(b"{dummy} " + SHORT, SWAPS[2][1] + b" " + SWAPS[0][1], {0: 1, 2: 1})

    def test_tokens_that_overlap(self) -> None:
        """T175: the first is swapped; what began inside it is then no token."""
        swaps = [(b"x{", b"1"), (b"{ a", b"2")]
        for text, wanted in ((b"x{ a.", b"1 a."), (b".{ a.", b".2."), (b"x{ {", b"1 {")):
            for pieces in every_split(text):
                self.assertEqual(swapped(Swapper(swaps), pieces), wanted)

    def test_only_the_raw_form(self) -> None:
        """T173: percent-encoded, escaped, case-changed, UTF-16: not replaced."""
        texts = [SHORT.replace(b"_", b"%5F"), SHORT.lower(), SHORT.decode().encode("utf-16-le")]
        for text in [*texts, b"".join(b"\\u%04x" % c for c in SHORT)]:
            self.check(text, text, {})

    def test_a_secret_is_not_looked_into(self) -> None:
        """T176: what was put in is not swapped again."""
        swapper = Swapper([(b"ONE", b"TWO ONE"), (b"TWO", b"ONE")])
        self.assertEqual(swapped(swapper, [b"ONE TWO ONE"]), b"TWO ONE ONE TWO ONE")

    def test_growth_is_bounded(self) -> None:
        """T176: up to the bound it goes through and is counted; one more is refused with 413."""
        swaps = [(b"AB", b"S" * 102)]
        swapper = Swapper(swaps, max_growth=1000)
        self.assertEqual(len(swapped(swapper, [b"AB " * 10])), 103 * 10)
        self.assertEqual(swapper.swapped, {0: 10})
        refused = Swapper(swaps, max_growth=1000)
        error = self.assertRaises(RemoteProtocolError, swapped, refused, [b"AB " * 11])
        self.assertEqual(error.status, 413)
        self.assertNotIn("S" * 8, str(error))

    def test_equal_lengths_never_grow(self) -> None:
        """T176: a hundred thousand of them are swapped and counted."""
        swapper = Swapper([(b"ABCDEFGH", b"12345678")], max_growth=0)
        self.assertEqual(swapped(swapper, [b"ABCDEFGH " * 100_000]), b"12345678 " * 100_000)
        self.assertEqual(swapper.swapped, {0: 100_000})

    def test_nothing_to_swap(self) -> None:
        data = b"some bytes"
        self.assertIs(Swapper([]).feed(data), data)
        self.assertIs(Swapper(SWAPS).feed(data), data)
        self.assertEqual(Swapper(SWAPS).finish(), b"")

    def test_empty_placeholder_is_refused(self) -> None:
        self.assertRaises(ValueError, Swapper, [(b"", b"x")])

    @settings(deadline=None, max_examples=200)
    @given(
        st.lists(
            st.tuples(st.text("aB-{ ", min_size=1, max_size=5), st.text("xyz", max_size=4)),
            min_size=1,
            max_size=4,
        ),
        st.text("aB-{ .", max_size=40),
        st.integers(0, 99),
    )
    def test_same_as_at_once(self, pairs: list[tuple[str, str]], text: str, seed: int) -> None:
        """T161, T172, T175: any tokens, any cuts."""
        swaps = [(a.encode(), b.encode()) for a, b in pairs]
        data, source, pieces, at = text.encode(), random.Random(seed), [], 0
        while at < len(data):
            size = source.randint(1, 6)
            pieces.append(data[at : at + size])
            at += size
        self.assertEqual(swapped(Swapper(swaps), pieces), model(swaps, data))
