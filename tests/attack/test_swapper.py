"""The swapper against a regular expression that has the whole text."""

from __future__ import annotations

import random
import re

from twisted.trial.unittest import SynchronousTestCase

from slapenir.scan.swap import Swapper
from tests.support.splits import random_split

CASES = 4000


class Differential(SynchronousTestCase):
    """T172, T175: every token is swapped, or the swapper says that one is not."""

    def test_no_token_stays_unseen(self) -> None:
        """Tokens that begin, end and overlap like each other, at any cut."""
        source = random.Random(21)
        strays = 0
        for _ in range(CASES):
            alphabet = source.choice((b"ab", b"a-", b"a.", b"ab."))
            tokens: list[bytes] = []
            for _ in range(source.randint(1, 3)):
                token = bytes(source.choices(alphabet, k=source.randint(2, 6)))
                tokens.append(tokens[-1] + token if tokens and source.random() < 0.4 else token)
            text = b"".join(
                source.choice((source.choice(tokens), bytes([source.choice(alphabet)]), b" ", b"/"))
                for _ in range(source.randint(1, 10))
            )
            swapper = Swapper([(token, b"<%d>" % i) for i, token in enumerate(tokens)])
            fed = [swapper.feed(piece) for piece in random_split(text, source)]
            swapped = b"".join([*fed, swapper.finish()])
            either = b"|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True))
            whole = re.compile(rb"(?<![\w-])(?:%b)(?![\w-])" % either)
            if swapper.stray is None:
                wanted = whole.sub(lambda m: b"<%d>" % tokens.index(m.group()), text)  # noqa: B023
                self.assertEqual(swapped, wanted)
                for gap in whole.split(text):
                    self.assertIsNone(re.search(either, gap), (tokens, text))
            else:
                strays += 1
                self.assertIsNotNone(re.search(either, text))
        self.assertGreater(strays, 100)
        self.assertLess(strays, CASES * 0.7)
