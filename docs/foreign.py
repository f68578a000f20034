"""Write docs/foreign.rst: every kind of foreign credential that the shipped rule pack finds.

``python docs/foreign.py`` rewrites the page from slapenir/scan/foreign.toml.
tests/test_foreign_page.py holds the page to it.
"""

from __future__ import annotations

import sys
import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACK = ROOT / "slapenir" / "scan" / "foreign.toml"
PAGE = ROOT / "docs" / "foreign.rst"
_INTRODUCTION = """\
.. Written by docs/foreign.py from slapenir/scan/foreign.toml.  Do not edit.

Foreign credentials
===================

The :doc:`scanner <scanner>` knows the values in the configuration.  A sandbox may also have learnt
credentials that are not in it: from a file, from an answer, from a user.  The rule pack knows
{count} kinds of them by their form.  It is not in use yet: no request is stopped by it.

A kind is found wherever a token of it stands as a word of its own, however the text is cut.
Escapes of JSON (``\\n``, ``\\u0022``) and percent-encoding count as what stands beside a word.
What else tells a token from other text is in the column *Judged by*: a checksum in it, what its
first part decodes to, or how random it is.

Never are more than {longest} bytes held back, the length of the longest token that a rule
describes.  To keep that small, the rules for private keys, JSON Web Tokens and some other long
ones describe only how they begin.  A byte that cannot be part of a token is not held.


What is not found
-----------------

**Encoded tokens.**
   Base64, hexadecimal, UTF-16 or compression of a token, characters in between, a token in two
   parts.

**Tokens without a form.**
   Keys that are only hexadecimal, a UUID or random letters, unless the name of the service stands
   beside them.  Guesses by randomness alone would stop too much that is no credential.

**Public values.**
   Publishable keys, ids of clients and accounts, AWS access key ids.  The head of the rule pack
   lists what was left out, and why.

**Stand-ins.**
   ``xxxx``, ``changeme``, ``${{PASSWORD}}``: a random part that is not random is none.

**Coloured text.**
   A token right behind an escape sequence of a terminal, whose last letter looks like a word.


The kinds
---------

"critical" acts for its owner or gives others access; "high" acts for its owner in one service;
"medium" may do little, soon ends, or is known by many; "low" is for tests and sandboxes.  The id is
linked to the page that describes the token or its form.

"""
_CHECKS = {
    "crc32-base62": "CRC-32 in its last six characters",
    "bech32": "Bech32 checksum",
    "jwt": "a header that names an algorithm",
    "json": "JSON in its first part",
    "password": "a password that is no stand-in",
    "no-example": "not called an example",
}


def rules() -> list[dict[str, Any]]:
    """Return the rules as they are written."""
    return list(tomllib.loads(PACK.read_text("utf-8"))["rule"])


def render(longest: int) -> str:
    """Return the page; ``longest`` is the most bytes of any token."""
    found = rules()
    lines = [_INTRODUCTION.format(count=len(found), longest=longest)]
    for title, members in groupby(found, lambda rule: str(rule["group"])):
        lines += [title, "~" * len(title), "", ".. list-table::", "   :header-rows: 1"]
        lines += ["   :widths: 26 44 10 20", "", "   * - Kind", "     - What it is"]
        lines += ["     - Severity", "     - Judged by"]
        for rule in members:
            lines += [f"   * - `{rule['id']} <{rule['source']}>`__", f"     - {rule['title']}"]
            lines += [f"     - {rule['severity']}", f"     - {_judged(rule)}"]
        lines += ["", ""]
    return "\n".join(lines).rstrip() + "\n"


def _judged(rule: dict[str, Any]) -> str:
    said = [_CHECKS[rule["check"]]] if "check" in rule else []
    said += [f"{rule['entropy']} bits a character"] if "entropy" in rule else []
    return "; ".join(said) or "its form"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from slapenir.scan.foreign_rules import shipped_rules

    PAGE.write_text(render(max(rule.tree.lengths[1] for rule in shipped_rules())), "utf-8")
