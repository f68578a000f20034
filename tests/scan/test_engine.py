"""The engine and the hold-back question, held against the plainest possible models of both."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import hyperscan
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import SlapenirError
from slapenir.scan.engine import LITERAL, Engine, Match
from slapenir.scan.forms import Pattern
from slapenir.scan.literals import SHORTEST_LITERAL
from tests.scan.samples import literal, made_up

ALPHABET = b"abAX%5\\u\0"


def plain_scan(patterns: Sequence[Pattern], data: bytes) -> set[Match]:
    found = set()
    for index, pattern in enumerate(patterns):
        size = len(pattern.data)
        for at in range(len(data) - size + 1):
            text = data[at : at + size]
            if text == pattern.data or (pattern.caseless and text.lower() == pattern.data.lower()):
                found.add(Match(at, at + size, index))
    return found


def plain_live_prefix(patterns: Sequence[Pattern], data: bytes) -> int:
    for at in range(len(data)):
        rest = data[at:]
        for pattern in patterns:
            start = pattern.data[: len(rest)]
            same = start == rest or (pattern.caseless and start.lower() == rest.lower())
            if len(rest) < len(pattern.data) and same:
                return at
    return len(data)


def words(alphabet: bytes, least: int, most: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(alphabet), min_size=least, max_size=most).map(bytes)


@st.composite
def patterns_and_text(draw: st.DrawFn) -> tuple[list[Pattern], bytes]:
    """Few letters, so that patterns overlap themselves and each other; text made of their parts."""
    alphabet = draw(st.sampled_from((b"ab", b"aA", b"abX", ALPHABET)))
    data = draw(st.lists(words(alphabet, SHORTEST_LITERAL, 16), min_size=1, max_size=5))
    patterns = [literal(d, i, draw(st.booleans())) for i, d in enumerate(data)]
    parts = st.one_of(
        st.sampled_from(data),
        st.sampled_from(data).map(bytes.swapcase),
        st.sampled_from(data).map(lambda d: d[:-1]),
        st.sampled_from(data).map(lambda d: d[1:]),
        words(alphabet, 0, 4),
    )
    return patterns, b"".join(draw(st.lists(parts, max_size=8)))


class EngineTests(SynchronousTestCase):
    """scan and live_prefix."""

    @settings(deadline=None, max_examples=300)
    @given(patterns_and_text())
    def test_same_as_the_plain_models(self, case: tuple[list[Pattern], bytes]) -> None:
        """T146, T161: every match, overlapping ones too, and exactly the longest live suffix."""
        patterns, text = case
        engine = Engine(patterns)
        self.assertEqual(set(engine.scan(text)), plain_scan(patterns, text))
        self.assertEqual(engine.live_prefix(text), plain_live_prefix(patterns, text))

    def test_every_cut_of_long_patterns(self) -> None:
        """T129: for each proper prefix, after anything, the answer is where it starts."""
        patterns = [literal(made_up(300, 1)), literal(made_up(90, 2)), literal(b"0a" * 40, 0, True)]
        engine = Engine(patterns)
        for pattern in patterns:
            for size in range(1, len(pattern.data)):
                text = b"!!" + pattern.data[:size]
                self.assertEqual(engine.live_prefix(text), 2, size)
            self.assertEqual(engine.live_prefix(b"!!" + pattern.data + b"!"), len(pattern.data) + 3)

    def test_nul_bytes(self) -> None:
        """T131: a pattern is matched beyond its NUL bytes, not up to the first."""
        engine = Engine([literal(b"a\0b\0c\0d\0"), literal(b"\0e\0f\0g\0h")])
        self.assertEqual(engine.scan(b"a\0b\0c\0d\0"), [Match(0, 8, 0)])
        self.assertEqual(engine.scan(b"\0e\0f\0g\0h"), [Match(0, 8, 1)])
        self.assertEqual(engine.scan(b"a\0b\0c\0e\0"), [])

    def test_long_literals_are_verified(self) -> None:
        """T148: what differs only before the part that Hyperscan sees is no match."""
        data = made_up(LITERAL * 3)
        folded = made_up(400, seed=2).lower()
        engine = Engine([literal(data), literal(folded + b"Z", 1, True)])
        self.assertEqual(engine.scan(b"-" + data), [Match(1, 1 + len(data), 0)])
        self.assertEqual(engine.scan(b"-" + data[1:]), [])
        self.assertEqual(engine.scan(data[-LITERAL:]), [])
        self.assertEqual(engine.scan(folded.upper() + b"z"), [Match(0, 401, 1)])
        self.assertEqual(engine.scan(b"!" + folded[1:] + b"z"), [])

    def test_no_patterns(self) -> None:
        engine = Engine([])
        self.assertEqual(engine.scan(b"anything"), [])
        self.assertEqual(engine.live_prefix(b"anything"), 8)
        self.assertEqual(engine.longest, 0)

    def test_short_patterns_are_refused(self) -> None:
        """T148: an empty one would match everywhere, one below six bytes is not safely found."""
        for size in range(SHORTEST_LITERAL):
            self.assertRaises(ValueError, Engine, [literal(b"abcdefgh"), literal(b"x" * size)])
        self.assertEqual(len(Engine([literal(b"x" * SHORTEST_LITERAL)]).scan(b"x" * 6)), 1)

    def test_nothing_is_missed_at_any_offset(self) -> None:
        """T119: sets of one to forty literals, each found at every offset of short blocks."""
        source = random.Random(6)
        for count in (1, 2, 3, 5, 12, 40):
            for alphabet in (b"ab", bytes(range(256))):
                sizes = [source.choice((6, 7, 8, 12, 20)) for _ in range(count)]
                data = [bytes(source.choices(alphabet, k=size)) for size in sizes]
                engine = Engine([literal(d, i) for i, d in enumerate(data)])
                for offset in range(70):
                    text = b"X" * offset + data[0] + b"X" * source.choice((0, 0, 1, 40))
                    self.assertIn(Match(offset, offset + sizes[0], 0), engine.scan(text))

    def test_a_scanner_that_misses_is_refused(self) -> None:
        """T119: a compiled database that does not find its own literals is not used."""

        class Blind:
            def __init__(self, mode: int) -> None:
                self.mode = mode

            def compile(self, **_options: object) -> None:
                pass

            def scan(self, _data: bytes, _handler: object) -> None:
                pass

        self.patch(hyperscan, "Database", Blind)
        self.assertRaises(SlapenirError, Engine, [literal(b"abcdefgh")])

    def test_empty_data(self) -> None:
        engine = Engine([literal(b"abcdefgh")])
        self.assertEqual(engine.scan(b""), [])
        self.assertEqual(engine.live_prefix(b""), 0)

    def test_time_is_counted(self) -> None:
        engine = Engine([literal(b"abcdefgh")])
        engine.scan(b"x" * 10000)
        self.assertGreater(engine.seconds, 0)

    def test_after_an_error_nothing_is_left_over(self) -> None:
        """A scan that failed leaves no match behind for the next one's caller."""
        engine = Engine([literal(b"abcdefgh")])
        self.assertRaises(TypeError, engine.scan, "text")
        self.assertEqual(engine.scan(b"nothing"), [])


class WorstCaseTests(SynchronousTestCase):
    """T200: inputs made to be slow cost a bounded time; the bounds here are generous."""

    def seconds(self, engine: Engine, data: bytes) -> float:
        began = time.perf_counter()
        engine.scan(data)
        engine.live_prefix(data)
        return time.perf_counter() - began

    def test_one_byte_repeated(self) -> None:
        """T200: ``a^k b`` with ``a^n``: nothing matches; only the tail is compared."""
        engine = Engine([literal(b"a" * k + b"b") for k in (8, 64, 500, 8000)])
        self.assertEqual(engine.scan(b"a" * 65536), [])
        self.assertEqual(engine.live_prefix(b"a" * 65536), 65536 - 8000)
        self.assertLess(self.seconds(engine, b"a" * 65536), 0.5)

    def test_tail_that_nearly_repeats(self) -> None:
        """T200: every place of the tail starts like the pattern and fails late."""
        engine = Engine([literal(b"a" * 8000 + b"b")])
        data = b"a" * 7000 + b"c" + b"a" * 10
        self.assertEqual(engine.live_prefix(data), 7001)
        self.assertLess(self.seconds(engine, data), 0.5)

    def test_self_overlapping(self) -> None:
        """T200: one match for each byte."""
        engine = Engine([literal(b"a" * 8)])
        self.assertEqual(len(engine.scan(b"a" * 16384)), 16384 - 7)
        self.assertLess(self.seconds(engine, b"a" * 16384), 0.5)

    def test_percent_run(self) -> None:
        """T200: 500 times ``%25`` beside a pattern that begins so."""
        engine = Engine([literal(b"%25" * 100 + b"%41"), literal(b"%25%25%25%40", 1, True)])
        self.assertEqual(engine.scan(b"%25" * 500), [])
        self.assertEqual(engine.live_prefix(b"%25" * 500), 1200)
        self.assertLess(self.seconds(engine, b"%25" * 500), 0.5)
