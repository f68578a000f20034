"""Responses: bytes to messages (RFC 9112), refusing what two parsers could read differently."""

from __future__ import annotations

import re
from functools import lru_cache

import httptools

from slapenir.errors import RemoteProtocolError
from slapenir.wire.http1_decoder import END, Decoder, State
from slapenir.wire.http1_head import declared_framing, persists, read_fields
from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import (
    Framing,
    InformationalHead,
    Message,
    ResponseHead,
)

_STATUS_LINE = re.compile(
    rb"HTTP/(1\.[01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?", re.DOTALL
)
_START = b"HTTP/1."


@lru_cache(maxsize=64)
def _status_line(line: bytes) -> tuple[bytes, int, bytes]:
    """Return version, status and reason of a status line; remembered, for there are few."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise RemoteProtocolError("the status line is malformed", 502)
    version, code, reason = found.groups(b"")
    return version, int(code), reason


def parse_response_head(
    head: bytes, request_method: bytes, limits: WireLimits
) -> ResponseHead | InformationalHead:
    """Return the response of one complete head, which ends in an empty line.

    A response to HEAD, a 204 and a 304 have framing NONE whatever their headers say (RFC 9112,
    6.3).  Raises RemoteProtocolError.
    """
    version, status, reason = _status_line(head[: head.index(b"\r\n")])
    headers, special = read_fields(head, limits, httptools.HttpResponseParser)
    framing, length = declared_framing(special, version)
    if status < 200:
        if status == 101:
            raise RemoteProtocolError("a change of protocol that was not asked for", 502)
        return InformationalHead(status, reason, headers)
    keep_alive = version == b"1.1"
    if b"connection" in special:
        keep_alive, _ = persists(special, version)
    if request_method == b"HEAD" or status in {204, 304}:
        framing, length = Framing.NONE, 0
    elif framing is Framing.NONE:
        framing, keep_alive = Framing.CLOSE, False
    return ResponseHead(status, reason, headers, version, framing, length, keep_alive)


class ResponseDecoder(Decoder):
    """Reads the one response to one request; make a new one for each exchange.

    ``complete`` is set at its end; bytes that came after it are noted in ``rest`` (its first
    64 KiB), and the connection must then not be used again.  Every error has status 502.
    """

    __slots__ = ("_informational", "_method")

    def __init__(self, request_method: bytes, limits: WireLimits) -> None:
        super().__init__(limits)
        self._method = request_method
        self._informational = 0

    @property
    def complete(self) -> bool:
        """Whether the response has ended; it stays False after an error."""
        return self._state is State.DONE

    def finish(self, clean: bool) -> list[Message]:
        """Say that the origin will send no more, and whether it ended in an orderly way.

        Returns EndOfMessage for a close-delimited body that ended cleanly (FIN, after a
        close_notify where there is TLS); anything else unfinished sets ``error``.
        """
        if self.error is not None or self._state is State.DONE:
            return []
        if self._state is State.CLOSE and clean:
            self._state = State.DONE
            return [END]
        self._fail(RemoteProtocolError("the origin closed before the end of its response"))
        return []

    def _fail(self, error: RemoteProtocolError) -> None:
        super()._fail(RemoteProtocolError(error.reason, 502))

    def _read_head(self, data: bytes, pos: int, out: list[Message]) -> int:
        if not data.startswith(_START, pos) and not _START.startswith(data[pos:]):
            raise RemoteProtocolError("not an HTTP/1 response", 502)
        raw = self._find_head(data, pos)
        if raw is None:
            return -1
        head = parse_response_head(raw, self._method, self._limits)
        if isinstance(head, InformationalHead):
            self._informational += 1
            if self._informational > self._limits.informational:
                raise RemoteProtocolError("too many informational responses", 502)
            out.append(head)
        else:
            out.append(head)
            self._begin_body(head.framing, head.length, out)
        return pos + len(raw)

    def _end(self, out: list[Message]) -> None:
        out.append(END)
        self._state = State.DONE

    def _after_end(self, data: bytes) -> None:
        self.rest = (self.rest + data)[: self._limits.head_bytes]
