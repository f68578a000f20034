"""Made-up secrets and small engines for the scanner's tests; nothing here is a credential."""

from __future__ import annotations

import random
from collections.abc import Iterable

from slapenir.names import Form
from slapenir.scan.engine import Engine
from slapenir.scan.forms import Pattern, patterns_of
from slapenir.scan.rewrite import Redactions, Rewriter

LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def made_up(size: int, seed: int = 1, alphabet: bytes = LETTERS, prefix: bytes = b"") -> bytes:
    """Return ``size`` bytes: ``prefix`` and then bytes of ``alphabet`` that ``seed`` chooses."""
    source = random.Random(seed)
    return prefix + bytes(source.choice(alphabet) for _ in range(size - len(prefix)))


def literal(data: bytes, owner: int = 0, caseless: bool = False) -> Pattern:
    """Return a raw pattern filled with X."""
    return Pattern(owner, Form.RAW, data, caseless, b"X" * len(data))


def literals(*data: bytes) -> Redactions:
    """Return redactions of raw patterns, each by X."""
    engine = Engine([literal(d, owner) for owner, d in enumerate(data)])
    return Redactions(engine, [p.fill for p in engine.patterns])


def redactions_of(values: Iterable[bytes], placeholders: Iterable[bytes | None]) -> Redactions:
    """Return redactions of every form of ``values``."""
    patterns = [
        pattern
        for owner, (value, placeholder) in enumerate(zip(values, placeholders, strict=True))
        for pattern in patterns_of(value, owner, placeholder)
    ]
    engine = Engine(patterns)
    return Redactions(engine, [p.fill for p in patterns])


def rewritten(redactions: Redactions, pieces: Iterable[bytes]) -> bytes:
    """Return what a stream cut into ``pieces`` becomes."""
    rewriter = Rewriter(redactions)
    return b"".join([*map(rewriter.feed, pieces), rewriter.finish()])
