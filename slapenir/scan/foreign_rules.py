"""A rule pack: kinds of credentials that others give out, as TOML.

The shipped pack is ``foreign.toml`` beside this file; its head says how a rule is written.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import Any

import attrs

from slapenir.errors import ConfigError, ConfigErrors
from slapenir.scan.checksums import CHECKS, LONGEST_PART
from slapenir.scan.expressions import ExpressionError, Node, given, parse

SEVERITIES = ("critical", "high", "medium", "low")
EDGES = ("both", "left", "none")
SHORTEST, LONGEST, GIVEN_RUN = 12, LONGEST_PART, 3
"""The fewest bytes of a match, the most, and how many in a row must be given."""

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MOST_BITS = 8


@attrs.frozen(kw_only=True)
class Rule:
    """One kind of token.  ``example`` and ``counterexample`` are recipes, not tokens."""

    id: str
    title: str
    group: str
    source: str
    severity: str
    pattern: str
    example: str
    counterexample: str
    check: str = ""
    entropy: float = 0.0
    edges: str = "both"
    tree: Node = attrs.field(eq=False, repr=False)


_KEYS = {a.name: a for a in attrs.fields(Rule) if a.name != "tree"}
_NEEDED = frozenset(name for name, a in _KEYS.items() if a.default is attrs.NOTHING)


def shipped_rules() -> tuple[Rule, ...]:
    """Return the rules that come with the package."""
    name = "foreign.toml"
    return load_rules(resources.files("slapenir.scan").joinpath(name).read_text("utf-8"), name)


def load_rules(text: str, file: str = "") -> tuple[Rule, ...]:
    """Return the rules of a pack; raises ConfigErrors with all that is wrong with it."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors([ConfigError(f"this is not TOML: {error}", file=file)]) from None
    reader = _Reader(file)
    rules = reader.read(document)
    if reader.errors:
        raise ConfigErrors(reader.errors)
    return rules


class _Reader:
    """Goes through a document and collects what is wrong."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._place, self._name = "$", ""
        self.errors: list[ConfigError] = []

    def read(self, document: dict[str, Any]) -> tuple[Rule, ...]:
        for key in document.keys() - {"rule"}:
            self._wrong("", f"unknown table {key}", "a pack has [[rule]] only")
        tables = document.get("rule")
        if not isinstance(tables, list) or not tables:
            self._wrong("rule", "there is no rule", "write one [[rule]] at least")
            return ()
        rules: dict[str, Rule] = {}
        for number, table in enumerate(tables):
            self._place = f"$.rule[{number}]"
            self._name = f"rule {table.get('id', number)}: "
            rule = self._rule(table)
            if rule is None:
                continue
            if rule.id in rules:
                self._wrong("id", "there is another rule of this id", "give each its own")
            rules[rule.id] = rule
        return tuple(rules.values())

    def _wrong(self, key: str, message: str, remedy: str) -> None:
        path = f"{self._place}.{key}" if key else self._place
        self.errors.append(ConfigError(self._name + message, path, remedy, self._file))

    def _rule(self, table: dict[str, Any]) -> Rule | None:
        """Return a rule; None when something is wrong with its keys or its pattern."""
        before = len(self.errors)
        for key in sorted(table.keys() - _KEYS.keys()):
            self._wrong(key, "unknown key", "the keys are " + ", ".join(_KEYS))
        for key in sorted(_NEEDED - table.keys()):
            self._wrong(key, "the key is missing", "every rule has one")
        for key in sorted(table.keys() & _KEYS.keys()):
            self._value(key, table[key])
        if len(self.errors) > before:
            return None
        tree = self._tree(table["pattern"])
        if tree is None:
            return None
        rule = Rule(**{**table, "entropy": float(table.get("entropy", 0))}, tree=tree)
        self._form(rule)
        return rule

    def _value(self, key: str, value: object) -> None:
        if key == "entropy":
            if isinstance(value, bool) or not isinstance(value, int | float):
                self._wrong(key, "it is not a number", "write bits a character, such as 3.0")
            elif not 0 < value < _MOST_BITS:
                self._wrong(key, "it is no number of bits", "write one between 0 and 8")
            return
        if not isinstance(value, str) or not value:
            self._wrong(key, "it is not a text, or empty", "write it in quotes")
        elif key == "id" and _ID.fullmatch(value) is None:
            self._wrong(key, "it is not in kebab case", "write small letters, digits and -")
        elif key == "source" and not value.startswith("https://"):
            self._wrong(key, "it is not an https URL", "name the page that describes the form")
        else:
            self._known(key, value)

    def _known(self, key: str, value: str) -> None:
        allowed = {"severity": SEVERITIES, "edges": EDGES, "check": tuple(CHECKS)}.get(key)
        if allowed is not None and value not in allowed:
            self._wrong(key, f"{value} is unknown", "write one of " + ", ".join(allowed))

    def _tree(self, pattern: str) -> Node | None:
        try:
            return parse(pattern)
        except ExpressionError as error:
            self._wrong("pattern", str(error), "see slapenir/scan/expressions.py for the subset")
            return None

    def _form(self, rule: Rule) -> None:
        least, most = rule.tree.lengths
        if least < SHORTEST:
            self._wrong("pattern", f"it matches {least} bytes", f"make it {SHORTEST} at least")
        if most > LONGEST:
            self._wrong("pattern", f"it matches {most} bytes", f"make it {LONGEST} at most")
        if given(rule.tree) < GIVEN_RUN:
            self._wrong(
                "pattern",
                "no three bytes in a row are given",
                "begin with what all tokens of the kind share, or leave the kind out",
            )
