"""Tokens that are in no configuration: every kind, every split, every surrounding, and the cost."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.scan.foreign import ForeignDetector, ForeignEngine, ForeignMatch
from slapenir.scan.foreign_rules import Rule
from tests.scan.packs import counterexample, detected, example, pack, pack_engine, small_engine
from tests.scan.recipes import rendered
from tests.scan.samples import made_up
from tests.support.splits import every_split, random_split


def kinds(data: bytes) -> list[str]:
    return [match.kind for match in pack_engine().scan(data)]


def surrounded(token: bytes) -> Iterator[bytes]:
    """Yield a token where it may stand in what a client sends."""
    text = token.decode()
    yield token
    yield token + b"\n"
    yield b"first line\n" + token
    yield json.dumps({"a": [1, {"key": text}], "b": "c"}).encode()
    yield json.dumps({"file": f"# settings\n{text}\nend\t"}).encode()
    yield b"GET /v1/things?page=2&key=" + token + b"&q=x HTTP/1.1\r\n"
    yield b"Authorization: Bearer " + token + b"\r\nAccept: */*\r\n"
    yield b"export TOKEN=" + token + b" # " + b"x" * 300
    yield b"a%3D" + token + b"%26b"
    yield b'"' + token + b'",' + b"\xff\x00" * 40


class KindTests(SynchronousTestCase):
    """Each rule by its example and its counterexample."""

    def test_every_example_is_found_everywhere(self) -> None:
        for rule in pack():
            token = example(rule)
            for text in surrounded(token):
                found = [m for m in pack_engine().scan(text) if m.kind == rule.id]
                self.assertEqual(len(found), 1, (rule.id, text))

    def test_as_that_kind_alone(self) -> None:
        """An example is of one kind, so a finding says what it is; and it is found whole."""
        for rule in pack():
            token = example(rule)
            (match,) = pack_engine().scan(token)
            self.assertEqual(match.kind, rule.id)
            if rule.edges == "both":
                self.assertIn(match.end, (len(token), len(token) - 1), rule.id)

    def test_no_counterexample_is(self) -> None:
        for rule in pack():
            for text in surrounded(counterexample(rule)):
                self.assertEqual(kinds(text), [], (rule.id, text))

    def test_inside_a_longer_word(self) -> None:
        """A token with edges is none as a part of a word, before, behind or on both sides."""
        for rule in pack():
            (match,) = pack_engine().scan(example(rule))
            token = example(rule)[match.start : match.end]
            if rule.edges == "none":
                continue
            self.assertNotIn(rule.id, kinds(b"x" + token), rule.id)
            self.assertNotIn(rule.id, kinds(b"_" + token + b" "), rule.id)
            if rule.edges == "both" and not _may_go_on(rule):
                self.assertNotIn(rule.id, kinds(token + b"_0"), rule.id)

    def test_after_an_escape(self) -> None:
        """What an escape ends with is no part of a word; what is no escape is."""
        for rule in pack():
            token = example(rule)[pack_engine().scan(example(rule))[0].start :]
            for before in (rb"\n", rb"\t", rb"\x0a", rb"\u0022", rb"\u000A", b"%0A", b"%3d"):
                self.assertIn(rule.id, kinds(b"see" + before + token), (rule.id, before))
            if rule.edges != "none":
                for before in (b"n", b"u0022", b"x0a", b"0A", b"%A", rb"\u22", rb"\q"):
                    self.assertNotIn(rule.id, kinds(b"see" + before + token), (rule.id, before))

    def test_stand_ins(self) -> None:
        """A random part that is one letter again and again is none."""
        tried = 0
        for rule in pack():
            found = re.search(rule.tree.text(), example(rule))
            if found is None or not rule.entropy:
                continue
            start, end = found.span(1)
            for letter in (b"x", b"X", b"0"):
                text = example(rule)[:start] + letter * (end - start) + example(rule)[end:]
                tried += re.search(rule.tree.text(), text) is not None
                self.assertEqual(kinds(text), [], rule.id)
        self.assertGreater(tried, 200)

    def test_random_tokens(self) -> None:
        """Other tokens of a recipe are found too: entropy and checks refuse no genuine one."""
        for rule in pack():
            for seed in range(20):
                text = b" " + rendered(rule.example, f"{rule.id} {seed}") + b" "
                self.assertIn(rule.id, kinds(text), (rule.id, text))

    def test_checksums_decide(self) -> None:
        """One changed character is no token where a checksum covers it."""
        checked = [r for r in pack() if r.check in ("crc32-base62", "bech32")]
        self.assertGreater(len(checked), 4)
        for rule in checked:
            token = bytearray(example(rule))
            token[-3] = token[-3] ^ 1 if chr(token[-3] ^ 1).isalnum() else token[-3] ^ 3
            self.assertEqual(kinds(bytes(token)), [], rule.id)


def _may_go_on(rule: Rule) -> bool:
    """Whether a longer token of the kind may be what stands there."""
    least, most = rule.tree.lengths
    return least != most


class PlaceTests(SynchronousTestCase):
    """scan."""

    def test_places(self) -> None:
        """Every token with its place, sorted; also two of one kind side by side."""
        rule = next(r for r in pack() if r.id == "github-personal-token")
        token = example(rule)
        text = b"a " + token + b"," + token + b"; " + token[:-1]
        size = len(token)
        found = [ForeignMatch(2, 2 + size, rule.id), ForeignMatch(3 + size, 3 + 2 * size, rule.id)]
        self.assertEqual(pack_engine().scan(text), found)

    def test_a_token_within_another(self) -> None:
        """Both are found: a URL with a token as its password is of two kinds."""
        token = example(next(r for r in pack() if r.id == "github-personal-token"))
        text = b"postgres://app:" + token + b"@db.example.test/"
        self.assertEqual(kinds(text), ["postgres-url", "github-personal-token"])

    def test_places_of_one_kind_may_overlap(self) -> None:
        """There is one answer for each place where a token may begin."""
        engine = small_engine("key:[a-z:]{12}[0-9]", edges="none")
        text = b"key:key:abcdefghijkl0"
        self.assertEqual(engine.scan(b"key:abcdkey:efgh1jkl9"), [ForeignMatch(0, 17, "kind-0")])
        self.assertEqual(engine.scan(text), [ForeignMatch(4, 21, "kind-0")])

    def test_nothing_is_missed_at_any_offset(self) -> None:
        """The filter reports every example wherever it stands in blocks of any size."""
        for rule in pack():
            token = example(rule)
            for before in (0, 1, 7, 15, 16, 17, 31, 33, 63, 64):
                for after in (0, 1, 9, 40):
                    text = b"\n" * before + token + b"\n" * after
                    self.assertIn(rule.id, kinds(text), (rule.id, before, after))

    def test_same_as_plain_expressions(self) -> None:
        """Held against ``re`` alone, tried at every place of text made of pieces of tokens."""
        source = random.Random(11)
        tokens = [example(rule) for rule in pack()]
        for _ in range(150):
            parts = [_piece(source, source.choice(tokens)) for _ in range(6)]
            text = source.choice((b" ", b"", b"=", b"-", b"\\n")).join(parts)
            self.assertEqual(pack_engine().scan(text), plain_scan(pack_engine(), text), text)

    def test_no_rules(self) -> None:
        engine = ForeignEngine([])
        self.assertEqual((engine.scan(b"anything"), engine.longest), ([], 0))
        self.assertEqual(detected(engine, [b"any", b"thing"]), (b"anything", None))


def _piece(source: random.Random, token: bytes) -> bytes:
    return token if source.random() < 0.5 else token[: source.randrange(len(token))]


def plain_scan(engine: ForeignEngine, text: bytes) -> list[ForeignMatch]:
    """Ask every rule at every place; this is what ``scan`` has to return."""
    return sorted(
        ForeignMatch(at, end, shape.kind)
        for shape in engine.shapes
        for at in range(len(text))
        if (end := shape.match(text, at)) >= 0
    )


class DetectorTests(SynchronousTestCase):
    """feed, found, finish, waits and ease."""

    def check(self, text: bytes, pieces: list[bytes], engine: ForeignEngine) -> None:
        """What is found is the first of the one-shot result, and nothing of it was released."""
        expected = engine.scan(text)
        released, found = detected(engine, pieces)
        if expected:
            self.assertEqual(found, expected[0], pieces)
            self.assertTrue(text.startswith(released))
            self.assertLessEqual(len(released), expected[0].start, pieces)
        else:
            self.assertEqual((released, found), (text, None), pieces)

    def test_every_split_of_every_example(self) -> None:
        for rule in pack():
            token = example(rule)
            for text in (b"{" + token + b"}", token, b"\\n" + token):
                self.check(text, [text[i : i + 1] for i in range(len(text))], pack_engine())
                for cut in range(1, len(text), 5):
                    self.check(text, [text[:cut], text[cut:]], pack_engine())

    def test_every_split_of_counterexamples(self) -> None:
        """What is none passes byte for byte."""
        for rule in pack():
            text = b"{" + counterexample(rule) + b"}"
            self.check(text, [text[i : i + 1] for i in range(len(text))], pack_engine())
            self.check(text, random_split(text, random.Random(rule.id)), pack_engine())

    def test_mixtures(self) -> None:
        """Tokens and beginnings of tokens in a row, cut at random."""
        source = random.Random(12)
        tokens = [example(rule) for rule in pack()] + [counterexample(rule) for rule in pack()]
        for _ in range(400):
            text = b"".join(
                _piece(source, source.choice(tokens)) + source.choice((b" ", b"", b"%2", b"."))
                for _ in range(source.randint(1, 5))
            )
            self.check(text, random_split(text, source) if text else [], pack_engine())

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.sampled_from([b"key-", b"abcd", b"ab", b"-", b"9", b".", b"k", b"\\n"])))
    def test_any_split(self, parts: list[bytes]) -> None:
        """Rules that overlap themselves and each other, each text cut at every place."""
        text = b"".join(parts)[:60]
        for pieces in every_split(text, rounds=5):
            self.check(text, pieces, overlapping())

    def test_the_end_is_an_edge(self) -> None:
        """A token that ends the stream is found by finish, and not released before."""
        token = example(pack()[0])
        detector = ForeignDetector(pack_engine())
        self.assertEqual(detector.feed(b"x " + token), b"x ")
        self.assertIsNone(detector.found)
        self.assertTrue(detector.waits)
        self.assertEqual(detector.finish(), b"")
        self.assertEqual(detector.found, ForeignMatch(2, 2 + len(token), pack()[0].id))

    def test_after_a_finding(self) -> None:
        detector = ForeignDetector(pack_engine())
        self.assertEqual(detector.feed(b"before "), b"before ")
        self.assertEqual(detector.feed(b"and " + example(pack()[0]) + b" after"), b"")
        self.assertIsNotNone(detector.found)
        self.assertEqual((detector.feed(b"more"), detector.finish()), (b"", b""))
        self.assertFalse(detector.waits)

    def test_same_object(self) -> None:
        """A clean piece is not copied, whatever came before it."""
        detector = ForeignDetector(pack_engine())
        for data in (b"nothing here.", b"nor here!"):
            self.assertIs(detector.feed(data), data)

    def test_a_clean_byte_is_not_held(self) -> None:
        """A line end, a brace and most of text leave at once; so does the middle of a word."""
        for text in (b"data: {}\n\n", b'{"a": 1}', b"a sentence.", b"x" * 50, b"AAAA" * 90):
            detector = ForeignDetector(pack_engine())
            self.assertEqual(detector.feed(text), text)
            self.assertFalse(detector.waits)

    def test_what_is_held_goes_with_the_byte_that_shows_it(self) -> None:
        for rule in pack():
            token = example(rule)[:9]
            detector = ForeignDetector(pack_engine())
            output = detector.feed(b"=" + token) + detector.feed(b"\x00")
            self.assertEqual(output, b"=" + token + b"\x00", rule.id)

    def test_the_bound(self) -> None:
        """Never is more held than the longest token has bytes; that bound is reached nearly."""
        most = 0
        for rule in pack():
            detector, text = ForeignDetector(pack_engine()), example(rule) + b"a" * 700
            for at in range(len(text)):
                given_out = detector.feed(text[at : at + 1])
                self.assertLessEqual(len(given_out), pack_engine().longest + 1)
                most = max(most, len(detector._held))
        self.assertLessEqual(most, pack_engine().longest)
        self.assertGreater(most, 200)

    def test_eased(self) -> None:
        """What is let go passes once, and is still the beginning of what is found later."""
        token = example(pack()[0])
        for cut in range(1, 9):
            detector = ForeignDetector(pack_engine())
            self.assertEqual(detector.feed(b"=" + token[:cut]), b"=")
            self.assertEqual(detector.ease(8), token[:cut])
            self.assertEqual((detector.waits, detector.ease(8)), (False, b""))
            self.assertEqual(detector.feed(token[cut:] + b"\n"), b"")
            self.assertEqual(detector.found, ForeignMatch(1, 1 + len(token), pack()[0].id))
        detector = ForeignDetector(pack_engine())
        detector.feed(token[:9])
        self.assertEqual(detector.ease(8), b"")
        self.assertEqual(detector.feed(b"!") + detector.finish(), token[:9] + b"!")


_OVERLAPPING: list[ForeignEngine] = []


def overlapping() -> ForeignEngine:
    """Return an engine of small rules whose tokens overlap; it is compiled once."""
    if not _OVERLAPPING:
        rules = ("key-[a-z-]{8,14}", "key-[a-d]{8}(?:9key-)?", "abcd(?:abcd){2,4}[.9]")
        _OVERLAPPING.append(small_engine(*rules))
    return _OVERLAPPING[0]


class WorkTests(SynchronousTestCase):
    """Worst cases, by how many places are looked at singly: one costs about a microsecond."""

    SIZE = 60_000

    def looked(self, data: bytes, piece: int = 0) -> int:
        """Return how many places are looked at in one scan, or by a detector in pieces."""
        engine = pack_engine()
        before = engine.examined
        if piece:
            self.assertIsNone(detected(engine, cut_in(data, piece))[1])
        else:
            self.assertEqual(engine.scan(data), [])
        return engine.examined - before

    def test_repeated_beginnings(self) -> None:
        """What only begins like a token is not looked at, whatever stands between."""
        for rule in pack():
            for unit in beginnings(rule):
                data = unit * (self.SIZE // len(unit))
                self.assertLessEqual(self.looked(data), 1 + near(unit, data), (rule.id, unit))

    def test_repeated_beginnings_in_pieces(self) -> None:
        """A detector looks at the last bytes of each piece: at most at one in two of them."""
        bound = (self.SIZE // 8192 + 1) * (pack_engine().longest // 2)
        for rule in pack():
            for unit in beginnings(rule)[::5]:
                data = unit * (self.SIZE // len(unit))
                most = bound + near(unit, data)
                self.assertLessEqual(self.looked(data, 8192), most, (rule.id, unit))

    def test_long_runs(self) -> None:
        for byte in b"Aa0-_./+=x%\\ \n\x00":
            self.assertEqual(self.looked(bytes([byte]) * self.SIZE), 0)
            self.assertLessEqual(self.looked(bytes([byte]) * self.SIZE, 8192), self.SIZE // 8)
        run = made_up(self.SIZE)
        self.assertLessEqual(self.looked(run), 2)
        self.assertLessEqual(self.looked(b"sk-ant-api03-" + run), 2)

    def test_near_tokens(self) -> None:
        """What has the form but not the checksum is looked at once for each, not more."""
        for rule in pack():
            if rule.check in ("crc32-base62", "bech32", "jwt", "password"):
                unit = counterexample(rule) + b" "
                count = self.SIZE // len(unit)
                self.assertLessEqual(self.looked(unit * count), 2 * count, rule.id)

    def test_byte_by_byte(self) -> None:
        """A piece of one byte is looked at at most at a few places."""
        data = made_up(3000, alphabet=b"sk-antghp_eyJ. ")
        self.assertLessEqual(self.looked(data, 1), 10 * len(data))


def beginnings(rule: Rule) -> list[bytes]:
    """Return beginnings of a token with something after them; no row of one holds a token."""
    token, least = example(rule), rule.tree.lengths[0]
    units = [
        token[:size] + between
        for size in (5, least // 3, least // 2)
        for between in (b"", b" ", b".", b"-", b"\\n")
    ]
    return [unit for unit in units if not pack_engine().scan(unit * 30)]


def near(unit: bytes, data: bytes) -> int:
    """Return how many places have the form of a JSON Web Token, only the header is no JSON."""
    return len(data) // len(unit) if b".eyJ" in unit else 0


def cut_in(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
