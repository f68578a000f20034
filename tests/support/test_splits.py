"""The cuts cover the whole, each byte and each place."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.splits import every_split


class EverySplitTests(SynchronousTestCase):
    """every_split loses nothing and repeats itself."""

    def test_pieces_join_to_the_data(self) -> None:
        data = b"0123456789"
        splits = list(every_split(data))
        self.assertTrue(all(b"".join(s) == data and all(s) for s in splits))
        self.assertEqual(splits[0], [data])
        self.assertEqual(len(splits[1]), 10)
        self.assertEqual(len(splits), 2 + 9 + 20)

    def test_is_the_same_each_time(self) -> None:
        self.assertEqual(list(every_split(b"abcdef")), list(every_split(b"abcdef")))

    def test_short_data(self) -> None:
        self.assertEqual(list(every_split(b"")), [[]])
        self.assertEqual({tuple(s) for s in every_split(b"a")}, {(b"a",)})
