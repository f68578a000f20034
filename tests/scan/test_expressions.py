"""The subset of regular expressions, held against ``re`` reading the same text."""

from __future__ import annotations

import random
import re

from hypothesis import given as given_by
from hypothesis import settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.scan.expressions import (
    ExpressionError,
    chosen,
    endings,
    given,
    heads,
    parse,
)
from tests.scan.packs import counterexample, example, pack

ATOMS = st.sampled_from(["a", "b", r"\.", "[ab]", "[^b]", "[a-c-]", r"[\n\]^]", r"\n"])


def counted(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    wrapped = inner.map("(?:{})".format) | inner.map("(?i:{})".format)
    count = st.sampled_from(["", "?", "{2}", "{0,2}", "{1,3}"])
    one = st.tuples(wrapped | ATOMS, count).map("".join)
    return st.lists(one, min_size=1, max_size=3).map("".join) | st.tuples(inner, inner).map(
        "|".join
    )


EXPRESSIONS = st.recursive(ATOMS, counted, max_leaves=6)
TEXTS = st.lists(st.sampled_from(b"abcAB.\n-]^"), max_size=7).map(bytes)


class SubsetTests(SynchronousTestCase):
    """parse, text and begun."""

    @settings(deadline=None, max_examples=300)
    @given_by(EXPRESSIONS, TEXTS)
    def test_means_what_it_says(self, expression: str, text: bytes) -> None:
        """The text made of the tree takes what ``re`` takes for the expression as written."""
        tree = parse(expression)
        written = re.compile(expression.encode())
        self.assertEqual(
            bool(re.fullmatch(tree.text(), text)), bool(written.fullmatch(text)), expression
        )

    @settings(deadline=None, max_examples=300)
    @given_by(EXPRESSIONS, TEXTS, st.data())
    def test_beginnings(self, expression: str, text: bytes, data: st.DataObject) -> None:
        """Of a match every beginning is one; lengths and heads hold for it."""
        tree = parse(expression)
        if re.fullmatch(tree.text(), text) is None:
            return
        cut = data.draw(st.integers(0, len(text)))
        self.assertIsNotNone(re.fullmatch(tree.begun(), text[:cut]))
        least, most = tree.lengths
        self.assertTrue(least <= len(text) <= most)
        head = text[:3]
        found = heads(tree, 3)
        self.assertTrue(any(_spells(h, head) for h in found), (expression, text))
        if text:
            self.assertIn(text[-1], endings(tree) | chosen(tree) | set(text[-1:]))

    def test_only_beginnings(self) -> None:
        """What begins no match is none, also in the middle of a branch and of a count."""
        begun = parse("ab(?:cd|e[0-9]{2,3}){2}f?").begun()
        for text in (b"", b"a", b"ab", b"abc", b"abcd", b"abcde1", b"abe123cdf", b"abe12e123f"):
            self.assertIsNotNone(re.fullmatch(begun, text), text)
        for text in (
            b"b",
            b"abd",
            b"abf",
            b"abcdf",
            b"abe1c",
            b"abe1234",
            b"abcdcdcd",
            b"abcdcdff",
        ):
            self.assertIsNone(re.fullmatch(begun, text), text)

    def test_pack_patterns_are_plain_expressions(self) -> None:
        """Each pattern of the pack, as written, means to ``re`` what the tree means."""
        for rule in pack():
            written, ours = re.compile(rule.pattern.encode()), re.compile(rule.tree.text())
            self.assertEqual(written.groups, ours.groups, rule.id)
            for text in (example(rule), counterexample(rule)):
                spans = [[m.span() for m in p.finditer(text)] for p in (written, ours)]
                self.assertEqual(spans[0], spans[1], rule.id)

    def test_refused(self) -> None:
        for text in (
            *("a.", "a*", "a+", "^a", "a$", "a{,3}", "a{3,}", "a{3,2}", "a{0}", "a{x}", "a{2"),
            *("(a", "a)", "(?P<x>a)", "(?=a)", "(?<!a)", "[a", "[]", r"\d", r"[\w]", r"\x41", "\\"),
            *("a||b", "", "()", "a??", "a{2}?", "a{2}{3}", "\u00e4", "a\n", "[^\x00]", "?", "|"),
        ):
            self.assertRaises(ExpressionError, parse, text)


def _spells(head: tuple[frozenset[int], ...], text: bytes) -> bool:
    return len(head) == len(text) and all(b in c for b, c in zip(text, head, strict=True))


class QuestionTests(SynchronousTestCase):
    """given, chosen and endings."""

    def test_given(self) -> None:
        for text, run in (
            ("ghp_[a-z]{36}", 4),
            ("gh[pousr]_[a-z]{36}", 4),
            ("[a-z]{3}8Q~[a-z]{3}", 3),
            ("(?:abc|de)[a-z]", 2),
            ("a(?:bc)?d", 1),
            ("(?:ab){3}[a-z]", 6),
            ("x[a-z]yz", 2),
            ("(?i:key)[=:][a-z]{3}", 4),
        ):
            self.assertEqual(given(parse(text)), run, text)

    def test_chosen_and_endings(self) -> None:
        tree = parse("sk-[a-z0-9-]{9}(?:\\.[A-Z]{3})?")
        self.assertEqual(
            chosen(tree),
            frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        )
        self.assertEqual(endings(tree), chosen(tree))
        self.assertEqual(endings(parse("[a-z]{9}=")), frozenset(b"="))

    def test_heads_are_as_long_as_asked(self) -> None:
        source = random.Random(5)
        for rule in source.sample(pack(), 30):
            for size in (3, 7, 12):
                self.assertEqual({len(head) for head in heads(rule.tree, size)}, {size}, rule.id)
