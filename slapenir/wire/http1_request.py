"""Requests: bytes to messages (RFC 9112), refusing what two parsers could read differently."""

from __future__ import annotations

import re

import httptools

from slapenir.errors import AuthorityError, RemoteProtocolError
from slapenir.wire.http1_decoder import END, Decoder, State
from slapenir.wire.http1_head import Special, declared_framing, persists, read_fields
from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import Framing, Message, RequestHead
from slapenir.wire.target import host_authority

_METHOD = re.compile(rb"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]{0,31}")
_USUAL = frozenset({b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"})
_VERSION = re.compile(rb"HTTP/[0-9](\.[0-9])?")
_VERSIONS = {b"HTTP/1.1": b"1.1", b"HTTP/1.0": b"1.0"}


def parse_request_line(line: bytes, limits: WireLimits) -> tuple[bytes, bytes, bytes]:
    """Return method, target and version (``1.0`` or ``1.1``) of a request line without its CRLF.

    Raises RemoteProtocolError with 400, 414 for a long target or 505 for another version.
    """
    parts = line.split(b" ")
    if len(parts) != 3:
        raise RemoteProtocolError("the request line is not method, target and version")
    method, target, protocol = parts
    if method not in _USUAL and _METHOD.fullmatch(method) is None:
        raise RemoteProtocolError("the method is not an upper-case token")
    if len(target) > limits.target_bytes:
        raise RemoteProtocolError("the request target is too long", 414)
    if not target or not target.isascii():
        raise RemoteProtocolError("the request target is empty or not ASCII")
    version = _VERSIONS.get(protocol)
    if version is None:
        known = _VERSION.fullmatch(protocol) is not None
        raise RemoteProtocolError("not HTTP/1.0 or HTTP/1.1", 505 if known else 400)
    return method, target, version


def parse_request_head(head: bytes, limits: WireLimits) -> RequestHead:
    """Return the request of one complete head, which ends in an empty line.

    Raises RemoteProtocolError with 400, 414, 417, 431, 501 or 505.
    """
    line = head[: head.index(b"\r\n")]
    method, target, version = parse_request_line(line, limits)
    headers, special = read_fields(head, limits, httptools.HttpRequestParser)
    _check_host(special, version)
    if len(special) < 2 and method != b"CONNECT":  # nothing but Host: all else is at its default
        return RequestHead(method, target, headers, version, keep_alive=version == b"1.1")
    framing, length = declared_framing(special, version)
    if method == b"CONNECT":
        if length or framing is Framing.CHUNKED:
            raise RemoteProtocolError("CONNECT with a body")
        framing = Framing.NONE
    keep_alive, upgrade = persists(special, version)
    return RequestHead(
        method,
        target,
        headers,
        version,
        framing,
        length,
        keep_alive,
        _expects_continue(special, version),
        upgrade,
    )


def _check_host(special: Special, version: bytes) -> None:
    """Demand exactly one Host that is an authority (RFC 9112, 3.2); HTTP/1.0 may have none."""
    hosts = special.get(b"host")
    if hosts is None:
        if version == b"1.1":
            raise RemoteProtocolError("no Host header")
        return
    if len(hosts) != 1:
        raise RemoteProtocolError("more than one Host header")
    try:
        host_authority(hosts[0], 80)
    except AuthorityError:
        raise RemoteProtocolError("the Host header is not a host and port") from None


def _expects_continue(special: Special, version: bytes) -> bool:
    """Whether ``Expect: 100-continue`` was sent; HTTP/1.0 clients cannot (RFC 9110, 10.1.1)."""
    expectations = special.get(b"expect")
    if expectations is None:
        return False
    if len(expectations) != 1 or expectations[0].lower() != b"100-continue":
        raise RemoteProtocolError("an expectation other than 100-continue", 417)
    return version == b"1.1"


class RequestDecoder(Decoder):
    """Reads the requests of one client connection.

    ``feed`` may return several pipelined requests; more than ``limits.pipelined`` heads in one
    call are an error after that many.  After a request that is not ``keep_alive``
    everything more is thrown away.  A CONNECT ends HTTP: what follows its head is in ``rest``,
    never decoded, and grows with further calls of ``feed``; the caller takes it when the tunnel
    is open and must close when it refuses the tunnel.
    """

    __slots__ = ("_blank", "_connect", "_keep")

    def __init__(self, limits: WireLimits) -> None:
        super().__init__(limits)
        self._blank = False
        self._connect = False
        self._keep = True

    @property
    def idle(self) -> bool:
        """Whether no byte of a next request has come and one may still come."""
        return self._state is State.HEAD and not self._pending and self.error is None

    @property
    def buffered(self) -> int:
        """How many bytes of an incomplete head are held."""
        return len(self._pending) if self._state is State.HEAD else 0

    def finish(self) -> list[Message]:
        """Say that the client will send no more; set ``error`` when that cuts a request short.

        Always returns an empty list: a request's end never depends on the connection's.
        """
        if self.error is None and self._state is not State.DONE and not self.idle:
            self._fail(RemoteProtocolError("the client closed inside a request"))
        return []

    def _read_head(self, data: bytes, pos: int, out: list[Message]) -> int:
        while data.startswith(b"\r\n", pos):
            if self._blank:
                raise RemoteProtocolError("more than one empty line before a request")
            self._blank = True
            pos += 2
        if pos == len(data):
            self._scanned = 0
            return -1
        raw = self._find_head(data, pos)
        if raw is None:
            return -1
        self._heads += 1
        if self._heads > self._limits.pipelined:
            raise RemoteProtocolError("too many pipelined requests")
        head = parse_request_head(raw, self._limits)
        self._blank = False
        self._keep = head.keep_alive
        out.append(head)
        if head.method == b"CONNECT":
            self._connect = True
            self._state = State.DONE
            out.append(END)
        elif head.framing is Framing.NONE:
            out.append(END)
            if not self._keep:
                self._state = State.DONE
        else:
            self._begin_body(head.framing, head.length, out)
        return pos + len(raw)

    def _end(self, out: list[Message]) -> None:
        out.append(END)
        self._state = State.HEAD if self._keep else State.DONE

    def _after_end(self, data: bytes) -> None:
        if not self._connect:
            return
        if len(self.rest) + len(data) > self._limits.early_bytes:
            raise RemoteProtocolError("too many bytes before the tunnel is open")
        self.rest += data
