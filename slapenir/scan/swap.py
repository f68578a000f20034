"""Put secrets in the place of placeholders in a stream."""

from __future__ import annotations

import re
from collections.abc import Sequence

from slapenir.errors import RemoteProtocolError

_WORD = rb"[A-Za-z0-9_-]"


class Swapper:
    """Replace whole tokens in one stream.

    A token is replaced only where the bytes beside it are not ``[A-Za-z0-9_-]``, the longest
    first, so a placeholder that begins like another is never taken for it.  Only the raw form is
    replaced.  ``swapped`` counts by the index of the pair.  ``stray`` is the index of a pair whose
    token was found as a part of another word, and so not replaced.  ``max_growth`` bounds by how
    many bytes the output may outgrow the input; a swap of equal lengths never comes near it.
    """

    __slots__ = (
        "_anywhere",
        "_context",
        "_growth",
        "_held",
        "_max_growth",
        "_swaps",
        "_token",
        "stray",
        "swapped",
    )

    def __init__(self, swaps: Sequence[tuple[bytes, bytes]], max_growth: int = 1 << 20) -> None:
        if any(not token for token, _ in swaps):
            raise ValueError("a placeholder is empty")
        self._swaps = {token: (secret, i) for i, (token, secret) in reversed([*enumerate(swaps)])}
        choices = b"|".join(re.escape(t) for t in sorted(self._swaps, key=len, reverse=True))
        self._token = re.compile(b"(?<!%b)(?:%b)(?!%b)" % (_WORD, choices or b"(?!)", _WORD))
        self._anywhere = re.compile(choices or b"(?!)")
        self._held = b""
        self._context = b""
        self._growth = 0
        self._max_growth = max_growth
        self.swapped: dict[int, int] = {}
        self.stray: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return what is settled; raises RemoteProtocolError (413)."""
        if not data or not self._swaps:
            return data
        return self._advance(self._held + data if self._held else data, False)

    def finish(self) -> bytes:
        """Return what was held, swapped where the end of the stream makes it a token."""
        return self._advance(self._held, True) if self._held else b""

    def _advance(self, body: bytes, last: bool) -> bytes:
        """Swap what begins before the first place that more input could change."""
        hold = len(body) if last else self._live(body, 0)
        if not any(token in body for token in self._swaps):
            self._keep(body, hold)
            return body if hold == len(body) else body[:hold]
        window, offset = self._context + body, len(self._context)
        pieces: list[bytes] = []
        done = 0
        while match := self._token.search(window, done + offset):
            start = match.start() - offset
            if start >= hold:
                break
            secret, index = self._swaps[match.group()]
            self._count(index, len(secret) - len(match.group()))
            self._look(body, done, start)
            pieces += (body[done:start], secret)
            done = match.end() - offset
        if done > hold:
            hold = len(body) if last else self._live(body, done)
        self._look(body, done, hold)
        pieces.append(body[done:hold])
        self._keep(body, hold)
        return b"".join(pieces)

    def _keep(self, body: bytes, hold: int) -> None:
        self._held = body[hold:]
        if hold:
            self._context = body[hold - 1 : hold]

    def _look(self, body: bytes, start: int, end: int) -> None:
        """Note a token that begins in ``body[start:end]``, where none is swapped."""
        found = self._anywhere.search(body, start)
        if found is not None and found.start() < end and self.stray is None:
            self.stray = self._swaps[found.group()][1]

    def _count(self, index: int, growth: int) -> None:
        self._growth += growth
        if self._growth > self._max_growth:
            raise RemoteProtocolError("placeholders would make the body too large", 413)
        self.swapped[index] = self.swapped.get(index, 0) + 1

    def _live(self, body: bytes, start: int) -> int:
        """Return the first place from ``start`` on from which all is the start, or all, of a token.

        All of one counts: whether a word byte follows is not yet known.
        """
        least = len(body)
        for token in self._swaps:
            at = body.find(token[:1], max(start, len(body) - len(token)))
            while 0 <= at < least:
                if token.startswith(body[at:]):
                    least = at
                at = body.find(token[:1], at + 1)
        return least
