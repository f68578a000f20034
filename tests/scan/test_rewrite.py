"""Rewriting: no secret in the output for any cut, and nothing else changed or held."""

from __future__ import annotations

import hashlib
import itertools
import random
import time

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.names import Form
from slapenir.scan.engine import Engine
from slapenir.scan.forms import patterns_of, replacements_of
from slapenir.scan.rewrite import Redactions, Rewriter, rewrite_whole
from tests.scan.samples import literal, literals, made_up, redactions_of, rewritten
from tests.scan.test_engine import patterns_and_text, plain_live_prefix, plain_scan
from tests.support.splits import every_split, random_split

SECRET = made_up(40, seed=11, prefix=b"sk-x-")
STANDS_IN = made_up(40, seed=12, prefix=b"sk-x-")
OTHER = made_up(24, seed=13)


class SplitTests(SynchronousTestCase):
    """A secret is overwritten wherever the stream is cut."""

    def setUp(self) -> None:
        self.redactions = redactions_of([SECRET, OTHER], [STANDS_IN, None])

    def test_every_offset_of_every_form(self) -> None:
        """T119, T129, T161: two pieces cut at each place of each encoded form, and one-shot."""
        for index, pattern in enumerate(self.redactions.engine.patterns):
            text = b"{<" + pattern.data + b">}"
            wanted = b"{<" + self.redactions.replacements[index] + b">}"
            self.assertEqual(rewritten(self.redactions, [text]), wanted)
            for cut in range(1, len(text)):
                self.assertEqual(rewritten(self.redactions, [text[:cut], text[cut:]]), wanted)

    def test_all_cuts_of_one_text(self) -> None:
        """T119, T161: whole, by bytes, at each place, at random places: one output."""
        text = b"a" + SECRET + b"\xff" + OTHER.hex().encode() + SECRET + OTHER + b"end"
        whole, hits = rewrite_whole(self.redactions, text)
        self.assertNotIn(SECRET[5:], whole)
        self.assertNotIn(OTHER, whole)
        self.assertEqual(hits, {(0, Form.RAW): 2, (1, Form.HEX): 1, (1, Form.RAW): 1})
        for pieces in every_split(text):
            rewriter = Rewriter(self.redactions)
            output = b"".join([*map(rewriter.feed, pieces), rewriter.finish()])
            self.assertEqual(output, whole)
            self.assertEqual(rewriter.hits, hits)

    def test_drip_feed(self) -> None:
        """T120: byte by byte nothing of the secret comes out until it is overwritten."""
        rewriter = Rewriter(self.redactions)
        for at in range(len(SECRET) - 1):
            self.assertEqual(rewriter.feed(SECRET[at : at + 1]), b"")
            self.assertEqual(rewriter.held, at + 1)
            self.assertEqual(rewriter.feed(b""), b"")
        self.assertEqual(rewriter.feed(SECRET[-1:]) + rewriter.feed(b"."), STANDS_IN + b".")

    def test_cut_short(self) -> None:
        """T144, T233: at the end what was held comes out, whole secrets overwritten."""
        for size in range(len(SECRET)):
            self.assertEqual(rewritten(self.redactions, [SECRET[:size]]), SECRET[:size])
        self.assertEqual(rewritten(self.redactions, [b"tail " + SECRET]), b"tail " + STANDS_IN)

    def test_events_are_not_delayed(self) -> None:
        """T121: an event that cannot be part of a secret passes at once, also after one held."""
        rewriter = Rewriter(self.redactions)
        event = b'data: {"delta": "hello"}\n\n'
        self.assertIs(rewriter.feed(event), event)
        self.assertEqual(rewriter.feed(b"data: " + SECRET[:9]), b"data: ")
        self.assertEqual(rewriter.feed(b"\n\n"), SECRET[:9] + b"\n\n")
        self.assertIs(rewriter.feed(event), event)

    def test_divided_by_other_text(self) -> None:
        """T122, T140: a secret in parts with other text between is not found; the page says so."""
        text = b"data: " + SECRET[:20] + b"\n\ndata: " + SECRET[20:] + b"\n\n"
        self.assertEqual(rewritten(self.redactions, [text]), text)

    def test_around_body_sizes(self) -> None:
        """T232: one byte below, at and above a mebibyte, with the secret at the very end."""
        for size in (1048575, 1048576, 1048577):
            text = b"." * (size - len(SECRET)) + SECRET
            pieces = [text[i : i + 65536] for i in range(0, size, 65536)]
            output = rewritten(self.redactions, pieces)
            self.assertEqual(output[-len(SECRET) :], STANDS_IN)
            self.assertEqual(len(output), size)

    def test_every_secret_is_known(self) -> None:
        """T158: secrets are overwritten whoever they belong to."""
        output, hits = rewrite_whole(self.redactions, SECRET + b" " + OTHER)
        self.assertEqual(output, STANDS_IN + b" " + b"X" * len(OTHER))
        self.assertEqual(set(hits), {(0, Form.RAW), (1, Form.RAW)})


class CleanTests(SynchronousTestCase):
    """What has no secret passes unchanged."""

    def test_same_object(self) -> None:
        redactions = literals(b"abcdefgh")
        data = b"nothing here."
        self.assertIs(Rewriter(redactions).feed(data), data)
        self.assertIs(rewrite_whole(redactions, data)[0], data)

    def test_binary(self) -> None:
        """T144: random bytes, cut anywhere, come out with the same digest."""
        redactions = redactions_of([made_up(40, seed) for seed in range(20)], [None] * 20)
        source = random.Random(5)
        text = source.randbytes(300_000)
        rewriter = Rewriter(redactions)
        digest = hashlib.sha256()
        for piece in random_split(text, source):
            digest.update(rewriter.feed(piece))
        digest.update(rewriter.finish())
        self.assertEqual(digest.digest(), hashlib.sha256(text).digest())
        self.assertEqual(rewriter.hits, {})

    def test_no_patterns(self) -> None:
        redactions = Redactions(Engine([]), [])
        self.assertEqual(rewritten(redactions, [b"some ", b"bytes"]), b"some bytes")

    def test_length_frames_survive(self) -> None:
        """T145: a length-prefixed body keeps its lengths, so its frames stay whole."""
        redactions = redactions_of([SECRET], [STANDS_IN])
        frames = [b"hello", SECRET, SECRET.hex().encode(), b"x" + SECRET + b"y"]
        text = b"".join(b"\0" + len(f).to_bytes(4) + f for f in frames)
        output = rewritten(redactions, [text])
        at = 0
        for frame in frames:
            self.assertEqual(int.from_bytes(output[at + 1 : at + 5]), len(frame))
            at += 5 + len(frame)
        self.assertEqual(at, len(output))
        self.assertNotIn(SECRET, output)


class OverlapTests(SynchronousTestCase):
    """T146: leftmost-longest, and no rest of any secret."""

    def check(self, patterns: list[bytes], text: bytes, wanted: bytes) -> None:
        redactions = literals(*patterns)
        for pieces in every_split(text):
            self.assertEqual(rewritten(redactions, pieces), wanted)

    def test_one_begins_like_another(self) -> None:
        """T146: the longer one is taken; alone or cut off, the shorter one."""
        both = [b"abc12345", b"abc12345def"]
        self.check(both, b"(abc12345def)", b"(XXXXXXXXXXX)")
        self.check(both, b"(abc12345)", b"(XXXXXXXX)")
        self.check(both, b"(abc12345de", b"(XXXXXXXXde")
        self.check(both[::-1], b"(abc12345deg)", b"(XXXXXXXXdeg)")

    def test_the_longest_has_its_replacement(self) -> None:
        """T146: of two at one place it is the longer one's placeholder that is put in."""
        engine = Engine([literal(b"abc12345"), literal(b"abc12345def", 1)])
        redactions = Redactions(engine, [b"-shorter", b"-the-longer"])
        for pieces in every_split(b"(abc12345def abc12345)"):
            self.assertEqual(rewritten(redactions, pieces), b"(-the-longer -shorter)")

    def test_end_of_one_starts_another(self) -> None:
        """T146: the second is overwritten beyond the first."""
        self.check([b"xyz12abc", b"abc34def"], b"(xyz12abc34def)", b"(XXXXXXXXXXXXX)")
        self.check([b"xyz12abc", b"abc34def"], b"(xyz12abc34deg)", b"(XXXXXXXX34deg)")

    def test_chain(self) -> None:
        """T146: three in a row, each overlapping the next."""
        chain = [b"aaaaabbb", b"bbbccccc", b"cccddddd"]
        self.check(chain, b"(aaaaabbbcccccddddd)", b"(XXXXXXXXXXXXXXXXXX)")

    def test_nested(self) -> None:
        """T146: one inside another, which does or does not come to its end."""
        self.check([b"12abcdefgh34", b"abcdefgh"], b"(12abcdefgh34)", b"(XXXXXXXXXXXX)")
        self.check([b"12abcdefgh34", b"abcdefgh"], b"(12abcdefgh35)", b"(12XXXXXXXX35)")

    def test_overlapping_itself(self) -> None:
        """T146: a run of one byte longer than the secret."""
        self.check([b"aaaaaaaa"], b"(" + b"a" * 19 + b")", b"(" + b"X" * 19 + b")")
        self.check([b"aaaaaaaa"], b"(aaaaaaa)", b"(aaaaaaa)")

    def test_two_beside_each_other(self) -> None:
        """T147: no byte between them."""
        self.check([b"abcdefgh", b"ijklmnop"], b"abcdefghijklmnop", b"X" * 16)

    def test_same_value_twice(self) -> None:
        """Two owners with one value: the first is the one counted."""
        output, hits = rewrite_whole(literals(b"abcdefgh", b"abcdefgh"), b"abcdefgh")
        self.assertEqual((output, hits), (b"X" * 8, {(0, Form.RAW): 1}))


class SeamTests(SynchronousTestCase):
    """T147: what is put in makes no secret, alone or with its neighbours."""

    def test_fill_joins_neighbours(self) -> None:
        """T147: ``12`` and ``34`` around eight X would spell the other secret."""
        redactions = literals(b"abcdefgh", b"12XXXXXXXX34")
        text = b"(12abcdefgh34)12"
        whole, _ = rewrite_whole(redactions, text)
        self.assertNotIn(b"12XXXXXXXX34", whole)
        self.assertEqual(whole[:12], b"(12XXXXXXXX3")
        for pieces in every_split(text):
            self.assertEqual(rewritten(redactions, pieces), whole)
        self.assertEqual(rewrite_whole(redactions, whole), (whole, {}))

    def test_placeholder_contains_a_secret(self) -> None:
        """T147: such a placeholder is not used."""
        engine = Engine([literal(b"abcdefghijkl"), literal(b"PLACEHOLD")])
        redactions = Redactions(engine, [b"_PLACEHOLD__", b"XXXXXXXXX"])
        output, _ = rewrite_whole(redactions, b"abcdefghijkl PLACEHOLD")
        self.assertEqual(output, b"XXXXXXXXXXXX XXXXXXXXX")

    def test_secret_is_the_marker(self) -> None:
        """T147: a secret made of the fill's own byte is overwritten with another."""
        output, _ = rewrite_whole(literals(b"X" * 10), b"(" + b"X" * 10 + b")")
        self.assertEqual(output, b"(" + b"0" * 10 + b")")

    def test_secret_made_of_many_fills(self) -> None:
        """T147: runs of several bytes at once are secrets."""
        redactions = literals(b"X" * 8, b"0" * 8, b"x" * 8, b"abcdefgh")
        text = b"abcdefgh" + b"X" * 9 + b"0" * 9 + b"x" * 17
        whole, _ = rewrite_whole(redactions, text)
        self.assertEqual(redactions.engine.scan(whole), [])
        for pieces in every_split(text):
            self.assertEqual(rewritten(redactions, pieces), whole)

    def test_many_seams_in_one_block(self) -> None:
        """T200: a block full of seams that must be broken one by one stays quick."""
        redactions = literals(b"abcdefgh", b"1XXXXXXXX2")
        began = time.perf_counter()
        output, hits = rewrite_whole(redactions, b"1abcdefgh2" * 3000)
        self.assertLess(time.perf_counter() - began, 2)
        self.assertEqual(hits, {(0, Form.RAW): 3000})
        self.assertEqual(redactions.engine.scan(output), [])

    def test_lengths_must_agree(self) -> None:
        self.assertRaises(ValueError, Redactions, Engine([literal(b"abcdefgh")]), [b"short"])
        self.assertRaises(ValueError, Redactions, Engine([literal(b"abcdefgh")]), [])


class PropertyTests(SynchronousTestCase):
    """For any patterns, replacements, text and cuts."""

    @settings(deadline=None, max_examples=250)
    @given(patterns_and_text(), st.data())
    def test_any_cut(self, case: tuple, data: st.DataObject) -> None:  # type: ignore[type-arg]
        """T119, T146, T147, T161: clean, idempotent, cut-independent, holding only what it must."""
        patterns, text = case
        alphabet = st.sampled_from(b"abX%Q0")
        replacements = [
            bytes(data.draw(st.lists(alphabet, min_size=len(p.data), max_size=len(p.data))))
            for p in patterns
        ]
        try:
            redactions = Redactions(Engine(patterns), replacements)
        except ValueError:
            assume(False)
        whole, hits = rewrite_whole(redactions, text)
        self.assertEqual(len(whole), len(text))
        self.assertEqual(plain_scan(patterns, whole), set())
        self.assertEqual(rewrite_whole(redactions, whole), (whole, {}))
        self.assertEqual(bool(hits), bool(plain_scan(patterns, text)))
        sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
        rewriter, output, at = Rewriter(redactions), b"", 0
        for size in itertools.cycle(sizes):
            if at >= len(text):
                break
            output += rewriter.feed(text[at : at + size])
            at = min(at + size, len(text))
            self.assertEqual(len(output), plain_live_prefix(patterns, text[:at]))
        self.assertEqual(output + rewriter.finish(), whole)
        self.assertEqual(rewriter.hits, hits)

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.binary(min_size=8, max_size=20), min_size=1, max_size=3), st.data())
    def test_real_forms(self, values: list[bytes], data: st.DataObject) -> None:
        """T119, T147: any bytes as secrets, in any of their forms, one after another."""
        redactions = redactions_of(values, [None] * len(values))
        patterns = redactions.engine.patterns
        chosen = data.draw(st.lists(st.sampled_from(patterns), max_size=4))
        text = data.draw(st.binary(max_size=6)).join(p.data for p in chosen)
        whole, _ = rewrite_whole(redactions, text)
        self.assertEqual(redactions.engine.scan(whole), [])
        pieces = random_split(text, random.Random(data.draw(st.integers(0, 99)))) if text else []
        self.assertEqual(rewritten(redactions, pieces), whole)


class IdentityTests(SynchronousTestCase):
    """One engine, one table for each identity."""

    def test_each_identity_sees_its_own_placeholder(self) -> None:
        engine = Engine(patterns_of(SECRET, 0))
        mine, yours = made_up(40, seed=21), made_up(40, seed=22)
        for placeholder in (mine, yours):
            redactions = Redactions(engine, replacements_of(SECRET, placeholder))
            self.assertEqual(rewrite_whole(redactions, SECRET)[0], placeholder)

    def test_many_small_pieces(self) -> None:
        """T200: a hundred thousand pieces of one byte."""
        redactions = redactions_of([SECRET], [STANDS_IN])
        rewriter = Rewriter(redactions)
        began = time.perf_counter()
        for _ in range(2500):
            for byte in b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaas":
                rewriter.feed(bytes([byte]))
        self.assertLess(time.perf_counter() - began, 5)
