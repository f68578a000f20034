"""The PROXY protocol's header, version 2: whom a load balancer speaks for (haproxy.org, 2.2).

Version 1 is not read: its text form has more than one reading.  Twisted has a parser of its own,
but in a private module, for both versions, and one that trusts whoever connects.
"""

from __future__ import annotations

import ipaddress

import attrs

from slapenir.errors import RemoteProtocolError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16
MAX_BYTES = _FIXED + 2048
_LOCAL, _PROXY = 0, 1
_TCP4, _TCP6 = 0x11, 0x21
_NEEDED = {_TCP4: 12, _TCP6: 36}


@attrs.frozen(slots=True)
class Forwarded:
    """The client that a load balancer names; ``host`` is empty for a connection of its own."""

    host: str = ""
    port: int = 0


class ProxyHeaderReader:
    """Collects bytes until a whole header is there; it must be the first thing that arrives."""

    __slots__ = ("_received",)

    def __init__(self) -> None:
        self._received = b""

    def feed(self, data: bytes) -> tuple[Forwarded, bytes] | None:
        """Return the header and the bytes after it, or None when more are needed.

        Raises RemoteProtocolError when it is no version 2 header of a TCP connection, is longer
        than MAX_BYTES, or has a length that is too short for its addresses.
        """
        self._received = received = self._received + data
        if not SIGNATURE.startswith(received[:12]) and received[:12] != SIGNATURE:
            raise RemoteProtocolError("the load balancer sent no PROXY protocol header")
        if len(received) < _FIXED:
            return None
        version, command = received[12] >> 4, received[12] & 15
        length = int.from_bytes(received[14:16], "big")
        if version != 2 or command not in (_LOCAL, _PROXY):
            raise RemoteProtocolError("the PROXY protocol header is not of version 2")
        if _FIXED + length > MAX_BYTES:
            raise RemoteProtocolError("the PROXY protocol header is too long")
        if len(received) < _FIXED + length:
            return None
        rest = received[_FIXED + length :]
        if command == _LOCAL:
            return Forwarded(), rest
        return _client(received[13], received[_FIXED : _FIXED + length]), rest


def _client(kind: int, addresses: bytes) -> Forwarded:
    needed = _NEEDED.get(kind)
    if needed is None:
        raise RemoteProtocolError("the PROXY protocol header is not about a TCP connection")
    if len(addresses) < needed:
        raise RemoteProtocolError("the PROXY protocol header is too short for its addresses")
    size = 4 if kind == _TCP4 else 16
    host = ipaddress.ip_address(addresses[:size])
    return Forwarded(str(host), int.from_bytes(addresses[2 * size : 2 * size + 2], "big"))
