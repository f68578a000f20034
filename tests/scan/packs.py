"""The shipped rule pack, compiled once for all tests, and small packs made at run time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from slapenir.scan.foreign import ForeignDetector, ForeignEngine, ForeignMatch
from slapenir.scan.foreign_rules import Rule, load_rules, shipped_rules
from tests.scan.recipes import rendered


@cache
def pack() -> tuple[Rule, ...]:
    return shipped_rules()


@cache
def pack_engine() -> ForeignEngine:
    return ForeignEngine(pack())


def example(rule: Rule) -> bytes:
    return rendered(rule.example, rule.id)


def counterexample(rule: Rule) -> bytes:
    return rendered(rule.counterexample, rule.id)


def rule_text(pattern: str, name: str = "some-kind", /, **more: str) -> str:
    """Return a rule as TOML; a key of ``more`` is written as it is, an empty one left out."""
    keys = {
        "id": f'"{name}"',
        "title": '"Some kind"',
        "group": '"Some"',
        "source": '"https://example.test/"',
        "severity": '"high"',
        "pattern": f"'''{pattern}'''",
        "example": '"x"',
        "counterexample": '"x"',
        **more,
    }
    return "[[rule]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value)


def small_engine(*patterns: str, edges: str = "both") -> ForeignEngine:
    """Return an engine of rules named kind-0, kind-1, ..."""
    texts = [rule_text(p, f"kind-{n}", edges=f'"{edges}"') for n, p in enumerate(patterns)]
    return ForeignEngine(load_rules("".join(texts)))


def detected(engine: ForeignEngine, pieces: Iterable[bytes]) -> tuple[bytes, ForeignMatch | None]:
    """Return what a stream cut into ``pieces`` releases, and what is found in it."""
    detector = ForeignDetector(engine)
    released = b"".join([*map(detector.feed, pieces), detector.finish()])
    return released, detector.found
