"""Write docs/threats.rst: every case of the threat catalogue with the tests that carry its number.

``python docs/threats.py`` rewrites the page.  The phrases and reasons are in docs/threats.toml;
which tests cover a case is read from tests/ itself.  tests/test_threats.py holds the page to it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "docs" / "threats.toml"
PAGE = ROOT / "docs" / "threats.rst"
NUMBER = re.compile(r"(?<![A-Za-z0-9])T([0-9]{3})(?![0-9])|test_t([0-9]{3})(?![0-9])")
_INTRODUCTION = """\
.. Written by docs/threats.py from docs/threats.toml and the tests.  Do not edit.

Threats
=======

The numbered cases that the gateway must withstand.  A test that covers a case carries its number
in its name or docstring, so ``grep -r T119 tests/`` finds it.  *Not yet* means that no test
carries the number, and says why.  {covered} of {total} numbers have a test.
"""


def catalogue() -> dict[str, Any]:
    """Return docs/threats.toml as it is written."""
    return tomllib.loads(CATALOGUE.read_text("utf-8"))


def cases() -> dict[str, str]:
    """Return the phrase of every number, in order."""
    return {number: phrase for _, found in _sections() for number, phrase in found.items()}


def reasons() -> dict[str, str]:
    """Return why a number has no test, for the numbers of which that is said."""
    return {n: group["why"] for group in catalogue()["not_yet"] for n in group["numbers"]}


def notes() -> dict[str, str]:
    """Return what is said beside the tests of a number."""
    return dict(catalogue()["notes"])


def covered() -> dict[str, list[str]]:
    """Return for every number found in a test file the files, as paths below tests/."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.name in ("test_threats.py", "test_docs.py"):
            continue
        numbers = {a or b for a, b in NUMBER.findall(path.read_text("utf-8"))}
        for number in numbers:
            found.setdefault(f"T{number}", []).append(path.relative_to(ROOT / "tests").as_posix())
    return found


def unexplained() -> list[str]:
    """Return the numbers that have neither a test nor a reason."""
    found, why = covered(), reasons()
    return [number for number in cases() if number not in found and number not in why]


def render() -> str:
    """Return the page."""
    found, why, beside = covered(), reasons(), notes()
    total = len(cases())
    count = sum(number in found for number in cases())
    lines = [_INTRODUCTION.format(covered=count, total=total)]
    for title, section in _sections():
        lines += [title, "-" * len(title), "", ".. list-table::", "   :header-rows: 1"]
        lines += ["   :widths: 8 46 46", "", "   * - Number", "     - Case", "     - Tests"]
        for number, phrase in section.items():
            said = ", ".join(f"``{path}``" for path in found.get(number, ()))
            if not said:
                said = f"*not yet*: {why.get(number, 'no test carries this number')}"
            if number in beside:
                said += f"; {beside[number]}"
            lines += [f"   * - {number}", f"     - {phrase}", f"     - {said}"]
        lines.append("")
    return "\n".join(lines)


def _sections() -> Iterator[tuple[str, dict[str, str]]]:
    for section in catalogue()["section"]:
        yield section["title"], section["cases"]


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
    for number in unexplained():
        sys.stdout.write(f"{number} has neither a test nor a reason: {cases()[number]}\n")
