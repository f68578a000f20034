"""Compile literals for Hyperscan, and do not trust the result unseen.

Two faults of what is below make this more than a call.  The binding (0.9.1) measures literals
with ``strlen``, so its literal interface cuts a pattern at a NUL byte; here they are given as
expressions with every byte escaped, of which the compiler makes the same.  Vectorscan 5.4.12
misses a two-byte literal that ends a block of 17 to 34 bytes (an accelerator that skips the last
pair of bytes, mended after that release); none of three bytes or more was missed in millions of
random trials.  So shorter than SHORTEST_LITERAL is refused, block mode is used and not streaming
mode, and every database must first find each of its own literals.
"""

from __future__ import annotations

from collections.abc import Sequence

import hyperscan

from slapenir.errors import SlapenirError

SHORTEST_LITERAL = 6
_OFFSETS = (0, 1, 9, 15, 24, 40)


def compile_literals(literals: Sequence[tuple[bytes, bool]]) -> hyperscan.Database:
    """Return a block-mode database that reports the index of each (bytes, caseless) literal.

    Raises ValueError for a literal of less than SHORTEST_LITERAL bytes and SlapenirError when
    the database does not find one of them.  Takes a fraction of a millisecond for each.
    """
    if any(len(data) < SHORTEST_LITERAL for data, _ in literals):
        raise ValueError(f"a pattern has fewer than {SHORTEST_LITERAL} bytes")
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[b"".join(b"\\x%02x" % byte for byte in data) for data, _ in literals],
        ids=list(range(len(literals))),
        elements=len(literals),
        flags=[
            hyperscan.HS_FLAG_DOTALL | (hyperscan.HS_FLAG_CASELESS if caseless else 0)
            for _, caseless in literals
        ],
    )
    _check(database, literals)
    return database


def _check(database: hyperscan.Database, literals: Sequence[tuple[bytes, bool]]) -> None:
    """Raise SlapenirError unless each literal is found at the end and in the middle of a block."""
    found: list[tuple[int, int]] = []

    def record(index: int, _from: int, end: int, _flags: int, _context: object) -> None:
        found.append((index, end))

    for index, (data, _) in enumerate(literals):
        for offset in _OFFSETS:
            for after in (b"", b"\xff" * offset):
                found.clear()
                database.scan(b"\xff" * offset + data + after, record)
                if (index, offset + len(data)) not in found:
                    raise SlapenirError("the pattern scanner of this machine misses a pattern")
