"""The streaming rewriter and detector against naive ones that have the whole text."""

from __future__ import annotations

import random
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from slapenir.names import Form
from slapenir.scan.detect import Detector
from slapenir.scan.engine import Engine
from slapenir.scan.forms import Pattern
from slapenir.scan.rewrite import _FILLERS, Redactions, Rewriter, rewrite_whole
from tests.scan.samples import literal
from tests.support.splits import random_split

CASES = 300


def places(pattern: Pattern, text: bytes) -> Iterator[int]:
    """Find a pattern by hand."""
    data = pattern.data
    if pattern.caseless:
        data, text = data.lower(), text.lower()
    at = text.find(data)
    while at >= 0:
        yield at
        at = text.find(data, at + 1)


def reference(redactions: Redactions, text: bytes) -> bytes:
    """Apply the two rules of rewrite.py to a whole text, one byte after another."""
    patterns = redactions.engine.patterns
    found = sorted(
        (at, -at - len(pattern.data), index)
        for index, pattern in enumerate(patterns)
        for at in places(pattern, text)
    )
    out, covered = bytearray(text), 0
    for start, end, index in found:
        if start >= covered:
            covered = -end
            out[start:covered] = redactions.replacements[index]
        elif -end > covered:
            out[covered:-end] = redactions.fills[index][covered - start :]
    for at in range(len(out)) if found else ():
        before = bytes(out[:at])
        if completes(patterns, before, out[at]):
            out[at] = next(
                b for b in _FILLERS if b != out[at] and not completes(patterns, before, b)
            )
    return bytes(out)


def completes(patterns: tuple[Pattern, ...], before: bytes, byte: int) -> bool:
    """Whether a pattern ends with this byte."""
    text = before + bytes([byte])
    return any(
        text.lower().endswith(p.data.lower()) if p.caseless else text.endswith(p.data)
        for p in patterns
    )


def random_redactions(source: random.Random, alphabet: bytes) -> Redactions | None:
    """Return a few short patterns that begin, end and overlap like each other."""
    patterns: list[Pattern] = []
    for owner in range(source.randint(1, 4)):
        data = bytes(source.choices(alphabet, k=source.randint(6, 11)))
        if patterns and source.random() < 0.5:
            data = patterns[-1].data[: source.randint(1, len(patterns[-1].data))] + data
        fill = bytes(source.choices(alphabet + b"Q", k=len(data)))
        patterns.append(Pattern(owner, Form.RAW, data, source.random() < 0.3, fill))
    wanted = [bytes(source.choices(alphabet + b"R", k=len(p.data))) for p in patterns]
    try:
        return Redactions(Engine(patterns), wanted)
    except ValueError:
        return None


def random_text(source: random.Random, patterns: tuple[Pattern, ...], alphabet: bytes) -> bytes:
    """Return whole patterns, beginnings of patterns and other bytes, one after another."""
    pieces = []
    for _ in range(source.randint(1, 14)):
        data = source.choice(patterns).data
        other = bytes([source.choice(alphabet)])
        pieces.append(source.choice((data, other, b"z", data[: source.randint(1, 12)])))
    return b"".join(pieces)


class Differential(SynchronousTestCase):
    """T119, T146, T147, T161: whatever the patterns, the text and the cuts."""

    def test_like_a_naive_one(self) -> None:
        """One output for any cut, the naive one's, and no pattern in it."""
        source = random.Random(20)
        for _ in range(CASES):
            alphabet = source.choice((b"ab", b"aA", b"abX", b"aAb", b"0X"))
            redactions = random_redactions(source, alphabet)
            if redactions is None:
                continue
            patterns = redactions.engine.patterns
            for _ in range(3):
                text = random_text(source, patterns, alphabet)
                wanted = reference(redactions, text)
                self.assertFalse([p for p in patterns if [*places(p, wanted)]])
                self.assertEqual(rewrite_whole(redactions, text)[0], wanted)
                rewriter = Rewriter(redactions)
                fed = [rewriter.feed(piece) for piece in random_split(text, source)]
                self.assertEqual(b"".join([*fed, rewriter.finish()]), wanted)
                self.check_detector(redactions.engine, text, source)

    def check_detector(self, engine: Engine, text: bytes, source: random.Random) -> None:
        """It stops exactly where something is, and released nothing of that."""
        found = {at for pattern in engine.patterns for at in places(pattern, text)}
        detector = Detector(engine)
        fed = [detector.feed(piece) for piece in random_split(text, source)]
        released = b"".join([*fed, detector.finish()])
        self.assertTrue(text.startswith(released))
        self.assertEqual(detector.found is not None, bool(found))
        if detector.found is None:
            self.assertEqual(released, text)
        else:
            self.assertLessEqual(len(released), detector.found.start)

    def test_fill_that_changes_nothing(self) -> None:
        """T147: what is overwritten with its own bytes counts as overwritten, however it is cut."""
        engine = Engine([Pattern(0, Form.RAW, b"baabaa", False, b"RRRbaa")])
        redactions = Redactions(engine, [b"aaabaa"])
        text = b"zbaabaabaaz"  # two that overlap: both ends are overwritten with what was there
        whole, _ = rewrite_whole(redactions, text)
        rewriter = Rewriter(redactions)
        by_bytes = b"".join([rewriter.feed(text[i : i + 1]) for i in range(len(text))])
        self.assertEqual(by_bytes + rewriter.finish(), whole)
        self.assertEqual(engine.scan(whole), [])

    def test_the_reference_can_fail(self) -> None:
        """The naive one overwrites, and leaves clean text alone."""
        engine = Engine([literal(b"ababab")])
        redactions = Redactions(engine, [b"XXXXXX"])
        self.assertEqual(reference(redactions, b"zabababab"), b"zXXXXXXXX")
        self.assertEqual(reference(redactions, b"zababazab"), b"zababazab")
