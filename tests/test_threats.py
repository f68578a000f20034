"""docs/threats.rst lists all 240 cases with the tests that carry their numbers, and stays true."""

from __future__ import annotations

from twisted.trial import unittest

from tests.support.scripts import load_script

threats = load_script("docs/threats.py")


class CatalogueTests(unittest.SynchronousTestCase):
    """The catalogue is whole."""

    def test_every_number_once_and_in_order(self) -> None:
        self.assertEqual(list(threats.cases()), [f"T{n:03d}" for n in range(1, 241)])

    def test_every_number_has_a_test_or_a_reason(self) -> None:
        self.assertEqual(
            threats.unexplained(), [], "write a test, or say why not in docs/threats.toml"
        )

    def test_reasons_and_notes_are_for_numbers_that_exist(self) -> None:
        known = set(threats.cases())
        self.assertEqual(set(threats.reasons()) - known, set())
        self.assertEqual(set(threats.notes()) - known, set())

    def test_tests_carry_only_numbers_that_exist(self) -> None:
        self.assertEqual(set(threats.covered()) - set(threats.cases()), set())


class NumberTests(unittest.SynchronousTestCase):
    """What counts as a number in a test."""

    def _found(self, text: str) -> list[str]:
        return [a or b for a, b in threats.NUMBER.findall(text)]

    def test_names_and_docstrings(self) -> None:
        self.assertEqual(
            self._found('def test_T046_x(self): "(T047, T048)"'), ["046", "047", "048"]
        )
        self.assertEqual(self._found("def test_t049_x"), ["049"])

    def test_other_words(self) -> None:
        self.assertEqual(self._found("T1234 AT046 GT046 T04 at_t046 UT100"), [])


class PageTests(unittest.SynchronousTestCase):
    """The page is what the scan renders."""

    def test_the_page_is_true(self) -> None:
        written = threats.PAGE.read_text("utf-8").splitlines()
        self.assertEqual(written, threats.render().splitlines(), "run: python docs/threats.py")
