"""docs/foreign.rst lists what the shipped rule pack has, and stays true."""

from __future__ import annotations

from twisted.trial import unittest

from slapenir.scan.checksums import CHECKS
from slapenir.scan.foreign_rules import shipped_rules
from tests.support.scripts import load_script

foreign = load_script("docs/foreign.py")


class PageTests(unittest.SynchronousTestCase):
    """The page is what the pack renders."""

    def test_the_page_is_true(self) -> None:
        longest = max(rule.tree.lengths[1] for rule in shipped_rules())
        written = foreign.PAGE.read_text("utf-8").splitlines()
        self.assertEqual(
            written, foreign.render(longest).splitlines(), "run: python docs/foreign.py"
        )

    def test_every_kind_is_on_it(self) -> None:
        page = foreign.PAGE.read_text("utf-8")
        missing = [
            rule.id for rule in shipped_rules() if f"`{rule.id} <{rule.source}>`__" not in page
        ]
        self.assertEqual(missing, [])

    def test_every_check_is_explained(self) -> None:
        self.assertEqual(set(foreign._CHECKS), set(CHECKS))
