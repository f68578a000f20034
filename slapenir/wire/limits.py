"""The bounds of the HTTP/1 codec: every buffer and count has a number here."""

from __future__ import annotations

import attrs


@attrs.frozen(slots=True)
class WireLimits:
    """How much of each part of a message a decoder takes before it refuses the peer.

    ``head_bytes`` bounds start line and headers together, ``header_count`` the header lines,
    ``target_bytes`` the request target; ``trailer_bytes`` and ``trailer_count`` the trailer
    section.  ``chunk_overhead`` bounds, per message, the bytes of chunk extensions plus the hex
    digits beyond eight in each size line: plain chunks cost nothing, so a stream of small events
    of any length passes, and padding does not.  ``pipelined`` is how many requests one call of
    ``feed`` may complete, ``informational`` how many 1xx heads may come before a response.
    ``early_bytes`` bounds what is kept of bytes sent after a CONNECT head.
    """

    head_bytes: int = 65536
    header_count: int = 256
    target_bytes: int = 16384
    trailer_bytes: int = 16384
    trailer_count: int = 64
    chunk_overhead: int = 4096
    pipelined: int = 64
    informational: int = 16
    early_bytes: int = 131072
