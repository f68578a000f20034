"""Which protocol a client speaks, from its first bytes."""

from __future__ import annotations

import re
from enum import Enum


class Protocol(Enum):
    """What a connection starts with; INCOMPLETE asks for more bytes, UNKNOWN is to be refused."""

    TLS = "tls"
    HTTP = "http"
    HTTP2_PREFACE = "http2_preface"
    SOCKS4 = "socks4"
    SOCKS5 = "socks5"
    SSH = "ssh"
    UNKNOWN = "unknown"
    INCOMPLETE = "incomplete"


_PREFACE = b"PRI * HTTP/2.0\r\n"
_SSH = b"SSH-"
_METHOD = re.compile(rb"(?:\r\n)?[A-Z][A-Z0-9!#$%&'*+.^_`|~-]{0,31}")


def sniff(data: bytes) -> Protocol:
    """Return the protocol of the bytes a client sent first; at most 36 of them are looked at.

    TLS needs a handshake record of major version 3 (RFC 8446, 5.1), HTTP a method token and a
    space.  Raises nothing.
    """
    if not data:
        return Protocol.INCOMPLETE
    first = data[0]
    if first == 0x16:
        if len(data) == 1:
            return Protocol.INCOMPLETE
        return Protocol.TLS if data[1] == 3 else Protocol.UNKNOWN
    if first == 4 or first == 5:
        return Protocol.SOCKS4 if first == 4 else Protocol.SOCKS5
    if data.startswith(_PREFACE):
        return Protocol.HTTP2_PREFACE
    if data.startswith(_SSH):
        return Protocol.SSH
    if _PREFACE.startswith(data) or _SSH.startswith(data) or data == b"\r" or data == b"\r\n":
        return Protocol.INCOMPLETE
    found = _METHOD.match(data)
    if found is None:
        return Protocol.UNKNOWN
    if found.end() == len(data):
        return Protocol.INCOMPLETE if len(data) <= 34 else Protocol.UNKNOWN
    return Protocol.HTTP if data[found.end()] == 0x20 else Protocol.UNKNOWN
