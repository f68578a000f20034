"""The first TLS message, read before TLS starts (RFC 8446, 4.1.2; RFC 6066, 3; RFC 7301).

The hello may come in any number of records and segments.  It is read as a whole, and every length
in it must be exact: what cannot be read is refused and never taken for something else.
"""

from __future__ import annotations

import struct

import attrs

from slapenir.errors import AuthorityError, RemoteProtocolError
from slapenir.names import canonical_host, is_ipv4

MAX_RECEIVED = 65536
_MAX_RECORD = 16384
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ALPN = 16
_SESSION_TICKET = 35
_PRE_SHARED_KEY = 41
_EARLY_DATA = 42
_SUPPORTED_VERSIONS = 43
# RFC 9849, its drafts from the eighth on, and the ESNI of before.
_ECH = frozenset((0xFE0D, 0xFE0C, 0xFE0B, 0xFE0A, 0xFE09, 0xFE08, 0xFFCE))
_EXTENSION = struct.Struct(">HH").unpack_from


@attrs.frozen(slots=True)
class ClientHello:
    """What a client asks for before its TLS starts.

    ``server_name`` is canonical, or None when no name was sent, ``sent_name`` as it was sent;
    ``alpn`` the protocols offered, in order; ``ech`` whether an encrypted (or GREASE) hello is
    inside; ``resumes`` whether a session or key is offered; ``early_data`` whether 0-RTT data
    follows; ``versions`` the supported_versions list, or the legacy version alone.
    """

    server_name: str | None
    sent_name: bytes = b""
    alpn: tuple[bytes, ...] = ()
    ech: bool = False
    resumes: bool = False
    early_data: bool = False
    versions: tuple[int, ...] = ()


class _Cursor:
    """Reads vectors with a length in front; raises RemoteProtocolError when one lies."""

    __slots__ = ("_data", "_pos")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0

    def __bool__(self) -> bool:
        return self._pos < len(self._data)

    def take(self, size: int) -> bytes:
        end = self._pos + size
        if end > len(self._data):
            raise RemoteProtocolError("a length in the ClientHello is wrong")
        piece = self._data[self._pos : end]
        self._pos = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int, least: int = 0) -> bytes:
        length = self.number(size)
        if length < least:
            raise RemoteProtocolError("a list in the ClientHello is empty or too short")
        return self.take(length)

    def end(self) -> None:
        if self:
            raise RemoteProtocolError("a length in the ClientHello is wrong")


class ClientHelloReader:
    """Collects bytes until a whole ClientHello is there."""

    __slots__ = ("_handshake", "_hello", "_pos", "_received")

    def __init__(self) -> None:
        self._received = bytearray()
        self._pos = 0
        self._handshake = bytearray()
        self._hello: ClientHello | None = None

    @property
    def received(self) -> bytes:
        """Every byte so far, also those after the hello: what TLS or a tunnel must be given."""
        return bytes(self._received)

    def feed(self, data: bytes) -> ClientHello | None:
        """Read on; return the hello once it is complete, and again on each later call.

        Raises RemoteProtocolError when the bytes are not a ClientHello or grow over 64 KiB
        without completing one; the reader must not be used after that.
        """
        self._received += data
        while self._hello is None and self._read_record():
            self._read_handshake()
        read = len(self._received) if self._hello is None else self._pos
        if read > MAX_RECEIVED:
            raise RemoteProtocolError("the ClientHello is too long")
        return self._hello

    def _read_record(self) -> bool:
        """Move one complete record's content over; return whether there was one."""
        head = bytes(self._received[self._pos : self._pos + 5])
        if head[:1] not in {b"", b"\x16"} or head[1:2] not in {b"", b"\x03"}:
            raise RemoteProtocolError("not a TLS handshake")
        if len(head) < 5:
            return False
        length = int.from_bytes(head[3:5], "big")
        if not 0 < length <= _MAX_RECORD:
            raise RemoteProtocolError("a TLS record has a wrong length")
        end = self._pos + 5 + length
        if not self._handshake and len(self._received) > self._pos + 5:
            self._check_type(self._received[self._pos + 5])
        if end > len(self._received):
            return False
        self._handshake += self._received[self._pos + 5 : end]
        self._pos = end
        return True

    def _read_handshake(self) -> None:
        message = self._handshake
        self._check_type(message[0])
        if len(message) < 4:
            return
        length = int.from_bytes(message[1:4], "big")
        if length > MAX_RECEIVED:
            raise RemoteProtocolError("the ClientHello is too long")
        if len(message) > 4 + length:
            raise RemoteProtocolError("bytes follow the ClientHello in its record")
        if len(message) == 4 + length:
            self._hello = parse_client_hello(bytes(message[4:]))

    @staticmethod
    def _check_type(kind: int) -> None:
        if kind != _CLIENT_HELLO:
            raise RemoteProtocolError("the first TLS message is not a ClientHello")


def parse_client_hello(body: bytes) -> ClientHello:
    """Return what the body of a ClientHello says; raises RemoteProtocolError."""
    hello = _Cursor(body)
    legacy = hello.number(2)
    hello.take(32)
    if len(hello.vector(1)) > 32:
        raise RemoteProtocolError("a length in the ClientHello is wrong")
    if len(hello.vector(2, 2)) % 2:
        raise RemoteProtocolError("a length in the ClientHello is wrong")
    hello.vector(1, 1)
    extensions = _extensions(hello.vector(2)) if hello else {}
    hello.end()
    name = extensions.get(_SERVER_NAME)
    alpn = extensions.get(_ALPN)
    versions = extensions.get(_SUPPORTED_VERSIONS)
    server_name, sent_name = (None, b"") if name is None else _server_name(name)
    return ClientHello(
        server_name=server_name,
        sent_name=sent_name,
        alpn=() if alpn is None else _protocols(alpn),
        ech=not _ECH.isdisjoint(extensions),
        resumes=_PRE_SHARED_KEY in extensions or bool(extensions.get(_SESSION_TICKET)),
        early_data=_EARLY_DATA in extensions,
        versions=(legacy,) if versions is None else _versions(versions),
    )


def _extensions(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at, size = 0, len(data)
    while at < size:
        if size - at < 4:
            raise RemoteProtocolError("a length in the ClientHello is wrong")
        kind, length = _EXTENSION(data, at)
        if kind in found:
            raise RemoteProtocolError("an extension of the ClientHello is repeated")
        end = at + 4 + length
        if end > size:
            raise RemoteProtocolError("a length in the ClientHello is wrong")
        found[kind] = data[at + 4 : end]
        at = end
    return found


def _server_name(data: bytes) -> tuple[str, bytes]:
    """Return the one name of an extension (RFC 6066, 3), in canonical form and as it was sent."""
    outer = _Cursor(data)
    names = _Cursor(outer.vector(2, 1))
    outer.end()
    if names.number(1) != 0:
        raise RemoteProtocolError("the server name is not a host name")
    raw = names.vector(2, 1)
    if names:
        raise RemoteProtocolError("more than one server name")
    try:
        host = canonical_host(raw)
    except AuthorityError:
        raise RemoteProtocolError("the server name is not a host name") from None
    if ":" in host or is_ipv4(host):
        raise RemoteProtocolError("the server name is an IP address")
    return host, raw


def _protocols(data: bytes) -> tuple[bytes, ...]:
    outer = _Cursor(data)
    names = _Cursor(outer.vector(2, 2))
    outer.end()
    found: list[bytes] = []
    while names:
        found.append(names.vector(1, 1))
    return tuple(found)


def _versions(data: bytes) -> tuple[int, ...]:
    outer = _Cursor(data)
    raw = outer.vector(1, 2)
    outer.end()
    if len(raw) % 2:
        raise RemoteProtocolError("a length in the ClientHello is wrong")
    return tuple(int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2))
