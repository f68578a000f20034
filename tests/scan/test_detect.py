"""The request direction: nothing of a stream leaves once something forbidden is found in it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.scan.detect import Detector
from slapenir.scan.engine import Engine, Match
from slapenir.scan.forms import Pattern, patterns_of
from tests.scan.samples import literal, made_up
from tests.scan.test_engine import patterns_and_text, plain_scan
from tests.support.splits import every_split

SECRET = made_up(30, seed=31)
PLACEHOLDER = made_up(30, seed=32)


class DetectorTests(SynchronousTestCase):
    """feed, found and finish."""

    def setUp(self) -> None:
        self.engine = Engine([*patterns_of(SECRET, 0), literal(PLACEHOLDER, 1)])
        self.allowed = frozenset({len(self.engine.patterns) - 1})

    def test_nothing_of_a_secret_leaves(self) -> None:
        """T119, T183: in any form and for any cut, found, and no byte of it released."""
        for index, pattern in enumerate(self.engine.patterns):
            text = b"{" + pattern.data + b"}"
            for cut in range(1, len(text)):
                detector = Detector(self.engine)
                output = detector.feed(text[:cut]) + detector.feed(text[cut:]) + detector.finish()
                self.assertEqual(detector.found, Match(1, len(text) - 1, index))
                self.assertIn(output, (b"", b"{"))

    def test_clean(self) -> None:
        """T144: what is near a secret passes as it is, for any cut."""
        text = b"{" + SECRET[:-1] + b"!" + SECRET[1:] + b"}" + SECRET[:10]
        for pieces in every_split(text):
            detector = Detector(self.engine)
            output = b"".join([*map(detector.feed, pieces), detector.finish()])
            self.assertEqual((output, detector.found), (text, None))

    def test_eased(self) -> None:
        """What is let go passes once, and is still the beginning of what is found later."""
        for cut in range(1, 9):
            detector = Detector(self.engine)
            self.assertEqual(detector.feed(b"{" + SECRET[:cut]), b"{")
            self.assertTrue(detector.waits)
            self.assertEqual(detector.ease(8), SECRET[:cut])
            self.assertEqual((detector.waits, detector.ease(8)), (False, b""))
            self.assertEqual(detector.feed(SECRET[cut:]), b"")
            self.assertEqual(detector.found, Match(1, 1 + len(SECRET), 0))
        detector = Detector(self.engine)
        detector.feed(SECRET[:9])
        self.assertEqual(detector.ease(8), b"")
        self.assertEqual(detector.feed(b"!"), SECRET[:9] + b"!")

    @settings(max_examples=200, deadline=None)
    @given(patterns_and_text(), st.data())
    def test_eased_anywhere(self, case: tuple[list[Pattern], bytes], data: st.DataObject) -> None:
        """Clean text arrives as it is, and a match is found, whenever something is let go."""
        patterns, text = case
        engine = Engine(patterns)
        detector, output, rest = Detector(engine), b"", text
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            output += detector.feed(rest[:size])
            output += detector.ease(data.draw(st.integers(0, 9)))
            rest = rest[size:]
        output += detector.finish()
        if plain_scan(patterns, text):
            self.assertIsNotNone(detector.found)
            self.assertTrue(text.startswith(output))
        else:
            self.assertEqual((output, detector.found), (text, None))

    def test_same_object(self) -> None:
        data = b"nothing here."
        self.assertIs(Detector(self.engine).feed(data), data)

    def test_ignored(self) -> None:
        """An allowed placeholder passes; it is still a finding elsewhere; a secret always is."""
        text = b"key " + PLACEHOLDER + b" end"
        for pieces in every_split(text):
            detector = Detector(self.engine, self.allowed)
            output = b"".join([*map(detector.feed, pieces), detector.finish()])
            self.assertEqual((output, detector.found), (text, None))
        elsewhere = Detector(self.engine)
        self.assertEqual(elsewhere.feed(text), b"")
        self.assertIsNotNone(elsewhere.found)
        both = Detector(self.engine, self.allowed)
        both.feed(PLACEHOLDER + SECRET)
        self.assertEqual(both.found, Match(30, 60, 0))

    def test_after_a_finding(self) -> None:
        """T173: nothing more is released, not even at the end."""
        detector = Detector(self.engine)
        self.assertEqual(detector.feed(b"before. "), b"before. ")
        self.assertEqual(detector.feed(SECRET.hex().upper().encode()), b"")
        self.assertEqual(detector.found and detector.found.start, 8)
        self.assertEqual(detector.feed(b"after"), b"")
        self.assertEqual(detector.finish(), b"")

    def test_first_by_its_end(self) -> None:
        """T161: of nested ones the inner is complete first, in one piece as byte by byte."""
        engine = Engine([literal(b"12abcdefgh34"), literal(b"abcdefgh", 1)])
        for pieces in every_split(b"(12abcdefgh34)"):
            detector = Detector(engine)
            for piece in pieces:
                detector.feed(piece)
            self.assertEqual(detector.found, Match(3, 11, 1))

    @settings(deadline=None, max_examples=150)
    @given(patterns_and_text(), st.lists(st.integers(1, 9), min_size=1, max_size=6))
    def test_any_cut(self, case: tuple[list[Pattern], bytes], sizes: list[int]) -> None:
        """T161: what is found does not depend on the cuts, and is the first by its end."""
        patterns, text = case
        detector, output, at = Detector(Engine(patterns)), b"", 0
        while at < len(text):
            size = sizes[at % len(sizes)]
            output += detector.feed(text[at : at + size])
            at += size
        output += detector.finish()
        first = min(
            plain_scan(patterns, text), key=lambda m: (m.end, m.start, m.pattern), default=None
        )
        self.assertEqual(detector.found, first)
        if first is None:
            self.assertEqual(output, text)
        else:
            self.assertTrue(text.startswith(output))
            self.assertLessEqual(len(output), first.start)
