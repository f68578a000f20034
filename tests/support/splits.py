"""Ways to cut a byte string into the pieces that a socket might deliver."""

from __future__ import annotations

import random
from collections.abc import Iterator


def every_split(data: bytes, rounds: int = 20, seed: int = 1) -> Iterator[list[bytes]]:
    """Yield lists of non-empty pieces that join to ``data``.

    First whole, then byte by byte, then cut once at every place, then ``rounds`` seeded random
    cuts.  The order and the cuts are the same in every run.  Empty data yields one empty list.
    """
    if not data:
        yield []
        return
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]
    source = random.Random(seed)
    for _ in range(rounds):
        yield random_split(data, source)


def random_split(data: bytes, source: random.Random) -> list[bytes]:
    """Return ``data`` cut at up to eight places that ``source`` chooses; no piece is empty."""
    count = min(len(data) - 1, source.randint(1, 8))
    cuts = sorted(source.sample(range(1, len(data)), count)) if count > 0 else []
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
