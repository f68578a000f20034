"""What the request and the response decoder share: the loop over heads and bodies."""

from __future__ import annotations

from enum import Enum

from slapenir.errors import RemoteProtocolError
from slapenir.wire.http1_body import ChunkedReader
from slapenir.wire.http1_head import check_partial
from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import BodyChunk, EndOfMessage, Framing, Message

END = EndOfMessage()
"""The end of every message: all are alike, so there is one."""


class State(Enum):
    """What a decoder waits for."""

    HEAD = 1
    LENGTH = 2
    CHUNKED = 3
    CLOSE = 4
    DONE = 5


# A member is found in its class ten times slower than a name of the module.
_HEAD, _LENGTH, _CHUNKED, _CLOSE = State.HEAD, State.LENGTH, State.CHUNKED, State.CLOSE


class Decoder:
    """Turns bytes into messages; the subclasses know what a head is.

    Nothing here raises for what a peer sends.  ``feed`` returns the messages that were good, and
    ``error`` is set when what followed them was not: handle the messages first, then the error.
    After an error nothing more is decoded.
    """

    __slots__ = (
        "_chunks",
        "_heads",
        "_left",
        "_limits",
        "_pending",
        "_scanned",
        "_state",
        "error",
        "rest",
    )

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._state = _HEAD
        self._pending = b""
        self._scanned = 0
        self._left = 0
        self._heads = 0  # heads in this call of feed
        self._chunks: ChunkedReader | None = None
        self.error: RemoteProtocolError | None = None
        self.rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Decode more bytes; return the messages in order and look at ``error`` after them."""
        self._heads = 0
        out: list[Message] = []
        if self.error is None:
            try:
                self._advance(data, out)
            except RemoteProtocolError as error:
                self._fail(error)
        return out

    def _fail(self, error: RemoteProtocolError) -> None:
        self.error = error
        self._pending = b""

    def _advance(self, data: bytes, out: list[Message]) -> None:
        if self._pending:
            data = self._pending + data
            self._pending = b""
        pos, size = 0, len(data)
        while pos < size:
            state = self._state
            if state is _HEAD:
                at = self._read_head(data, pos, out)
                if at < 0:
                    return
                pos = at
            elif state is _LENGTH:
                pos = self._read_length(data, pos, out)
            elif self._chunks is not None:
                pos = self._chunks.read(data, pos, out)
                if not self._chunks.done:
                    self._pending = data[pos:]
                    return
                self._chunks = None
                self._end(out)
            elif state is _CLOSE:
                out.append(BodyChunk(data[pos:]))
                return
            else:
                self._after_end(data[pos:])
                return

    def _read_length(self, data: bytes, pos: int, out: list[Message]) -> int:
        end = pos + self._left
        if end > len(data):
            end = len(data)
        out.append(BodyChunk(data[pos:end]))
        self._left -= end - pos
        if not self._left:
            self._end(out)
        return end

    def _find_head(self, data: bytes, pos: int) -> bytes | None:
        """Return the head that starts at ``pos``; None, and keep what there is, without its end."""
        end = data.find(b"\r\n\r\n", max(pos, self._scanned - 3))
        if end < 0:
            check_partial(data, pos, self._scanned, self._limits)
            self._pending = data[pos:]
            self._scanned = len(data) - pos
            return None
        self._scanned = 0
        return data[pos : end + 4]

    def _begin_body(self, framing: Framing, length: int, out: list[Message]) -> None:
        if framing is Framing.CHUNKED:
            self._chunks = ChunkedReader(self._limits)
            self._state = _CHUNKED
        elif framing is Framing.CLOSE:
            self._state = _CLOSE
        elif length:
            self._left = length
            self._state = _LENGTH
        else:
            self._end(out)

    def _end(self, out: list[Message]) -> None:
        out.append(END)

    def _read_head(self, data: bytes, pos: int, out: list[Message]) -> int:
        """Read one head and return where it ends, or -1 when it is not complete."""
        raise NotImplementedError

    def _after_end(self, data: bytes) -> None:
        raise NotImplementedError
