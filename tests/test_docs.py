"""The pages say what the code has: every configuration key with its default, and none invented."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
from twisted.trial import unittest

from slapenir.config.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.rst"
EXAMPLE = ROOT / "etc" / "slapenir.toml"
_CONFVAL = re.compile(r"^\.\. confval:: (\S+)\n(?:   :default: ``(.+)``\n)?", re.MULTILINE)
# Attributes whose table is written in the singular.
_TABLES = {
    "listeners": "listener",
    "credentials": "credential",
    "rules": "rule",
    "agents": "identity",
}
_NO_KEY = {"managed", "file"}  # what the file says in another way, or not at all


def _table_of(kind: Any) -> type | None:
    """Return the settings class that an attribute holds, alone or in a tuple."""
    for candidate in (kind, *get_args(kind)):
        if isinstance(candidate, type) and attrs.has(candidate):
            return candidate
    return None


def _keys(kind: type, prefix: str) -> Iterator[tuple[str, attrs.Attribute[Any]]]:
    """Yield every key below a settings class as ``table.key`` with its attribute."""
    hints = get_type_hints(kind)
    for attribute in attrs.fields(kind):
        if attribute.name in _NO_KEY:
            continue
        inner = _table_of(hints[attribute.name])
        if kind is not Settings:
            yield f"{prefix}{attribute.name}", attribute
        if inner is not None:
            name = (
                _TABLES.get(attribute.name, attribute.name) if kind is Settings else attribute.name
            )
            yield from _keys(inner, f"{prefix}{name}.")


def _written(value: Any) -> str | None:
    """Return a default as TOML, as the page shows it; None for what has none."""
    if value is attrs.NOTHING or value is None:
        return None
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        value = value.factory()
    return _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if attrs.has(type(value)):
        value = {k: v for k, v in attrs.asdict(value, recurse=False).items() if v is not None}
    if isinstance(value, dict):
        inside = ", ".join(f"{k} = {_toml(v)}" for k, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return str(value)


class ConfigurationPageTests(unittest.SynchronousTestCase):
    """docs/configuration.rst and the settings classes are about the same keys."""

    def setUp(self) -> None:
        self.page = _CONFVAL.findall(PAGE.read_text("utf-8"))
        self.code = {
            name: _written(attribute.default) or "" for name, attribute in _keys(Settings, "")
        }

    def test_every_key_is_documented_and_none_is_invented(self) -> None:
        self.assertEqual(sorted(name for name, _ in self.page), sorted(self.code))

    def test_defaults_are_those_of_the_code(self) -> None:
        self.assertEqual(dict(self.page), self.code)

    def test_the_walk_finds_nested_tables(self) -> None:
        for name in ("gateway.admin", "limits.head_bytes", "credential.inject.header", "rule.id"):
            self.assertIn(name, self.code)


class ExampleTests(unittest.SynchronousTestCase):
    """etc/slapenir.toml names every key, written or commented out."""

    def test_every_key_is_in_the_example(self) -> None:
        text = EXAMPLE.read_text("utf-8")
        missing = [
            name
            for name, _ in _keys(Settings, "")
            if re.search(rf"\b{name.rpartition('.')[2]}\s*=", text) is None
        ]
        self.assertEqual(missing, [])

    def test_the_example_is_toml(self) -> None:
        tomllib.loads(EXAMPLE.read_text("utf-8"))


class IncludedPageTests(unittest.SynchronousTestCase):
    """What the pages point at is there."""

    def test_files_named_in_pages_exist(self) -> None:
        pages = [*(ROOT / "docs").glob("*.rst"), *ROOT.glob("*.rst")]
        pattern = re.compile(r"``((?:docs|tests|etc|slapenir|systemd|bench|demo)/[\w./-]+\.\w+)``")
        missing = [
            f"{page.name}: {path}"
            for page in pages
            for path in pattern.findall(page.read_text("utf-8"))
            if not (ROOT / path).exists()
        ]
        self.assertEqual(missing, [])
