"""Version-neutral HTTP messages: what every codec reads and writes (RFC 9110, 6).

Headers are a plain ``list[tuple[bytes, bytes]]`` in wire order with the name's casing kept;
values have no leading or trailing whitespace.  wire/headers.py has the questions to ask of it.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import attrs

HeaderList: TypeAlias = list[tuple[bytes, bytes]]


class Framing(Enum):
    """How the end of a body is known (RFC 9112, 6)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@attrs.define(slots=True, eq=True)
class RequestHead:
    """A request's line and headers.

    ``length`` is the Content-Length in bytes when ``framing`` is LENGTH, else 0.  ``keep_alive``
    is what version and Connection header say.  ``expect_continue`` is set for
    ``Expect: 100-continue``; any other expectation was refused by the decoder with 417.
    ``upgrade`` is set when the head asks to change protocol (RFC 9110, 7.8).
    """

    method: bytes
    target: bytes
    headers: HeaderList
    version: bytes = b"1.1"
    framing: Framing = Framing.NONE
    length: int = 0
    keep_alive: bool = True
    expect_continue: bool = False
    upgrade: bool = False
    stream_id: int = 0


@attrs.define(slots=True, eq=True)
class ResponseHead:
    """A final response's line and headers; ``keep_alive`` says the connection may be reused."""

    status: int
    reason: bytes
    headers: HeaderList
    version: bytes = b"1.1"
    framing: Framing = Framing.NONE
    length: int = 0
    keep_alive: bool = True
    stream_id: int = 0


@attrs.define(slots=True, eq=True)
class InformationalHead:
    """A 1xx response other than 101 (RFC 9110, 15.2)."""

    status: int
    reason: bytes
    headers: HeaderList
    stream_id: int = 0


@attrs.define(slots=True, eq=True)
class BodyChunk:
    """Some bytes of a body, never empty; chunked framing and extensions are gone."""

    data: bytes
    stream_id: int = 0


@attrs.define(slots=True, eq=True)
class Trailers:
    """The trailer fields after a chunked body; only sent when there are any."""

    headers: HeaderList
    stream_id: int = 0


@attrs.define(slots=True, eq=True)
class EndOfMessage:
    """The message is complete."""

    stream_id: int = 0


Message: TypeAlias = (
    RequestHead | ResponseHead | InformationalHead | BodyChunk | Trailers | EndOfMessage
)
