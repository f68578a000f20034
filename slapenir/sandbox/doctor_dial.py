"""How the doctor's probes speak to the network: with a second's patience and no proxy.

This file runs inside sandboxes, so it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
from typing import NamedTuple

SECONDS = 1.0
"""A refusal takes less than that; silence ends with it."""

MARK = b"x-slapenir-decision:"
"""What an HTTP answer of the gateway's own has in its head."""

_A, _AAAA = 1, 28
NAME_ERROR, REFUSED = 3, 5


class Outcome(NamedTuple):
    """What became of an attempt: it came through or it did not, and how."""

    through: bool
    detail: str


def reason(error: OSError) -> str:
    """Return an error in a few words."""
    if isinstance(error, TimeoutError):
        return "silence"
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "TLS failed").lower().replace("_", " ")
    return (error.strerror or str(error)).lower()


def tcp(address: str, port: int, said: bytes) -> bytes:
    """Say something to a TCP server; return what came until it ended.  Raises OSError."""
    with socket.create_connection((address, port), SECONDS) as conn:
        conn.sendall(said)
        return _until_end(conn)


def udp(address: str, port: int, said: bytes) -> bytes:
    """Send a datagram; return the answer.  Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as conn:
        conn.settimeout(SECONDS)
        conn.connect((address, port))
        conn.send(said)
        return conn.recv(65536)


def unix(path: str) -> None:
    """Connect to a UNIX socket, abstract with an ``@`` in front.  Raises OSError."""
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(SECONDS)
        conn.connect("\0" + path[1:] if path.startswith("@") else path)


def _until_end(conn: socket.socket) -> bytes:
    data = b""
    while len(data) < 65536:
        try:
            more = conn.recv(65536)
        except ConnectionResetError:
            break
        if not more:
            break
        data += more
        if b"\r\n\r\n" in data or data.endswith(b"\n"):
            break
    return data


def tls(address: str, port: int, name: str, ours: str, said: bytes) -> bytes:
    """Speak TLS with a server that has to have a certificate of our own CA; return its answer.

    The name in the certificate is not looked at.  Raises OSError, SSLCertVerificationError when
    somebody else than the gateway answered.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ours)
    with socket.create_connection((address, port), SECONDS) as conn:
        with context.wrap_socket(conn, server_hostname=name) as inner:
            inner.sendall(said)
            with contextlib.suppress(ssl.SSLEOFError):
                return _until_end(inner)
    return b""


def question(name: str, kind: int = _A) -> bytes:
    """Return a DNS question (RFC 1035, 4.1)."""
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
    return (
        os.urandom(2)
        + struct.pack("!5H", 0x0100, 1, 0, 0, 0)
        + labels
        + struct.pack("!BHH", 0, kind, 1)
    )


def answered(message: bytes) -> tuple[int, int]:
    """Return the code of a DNS answer and how many records are in it."""
    if len(message) < 12:
        return -1, 0
    return message[3] & 0xF, int.from_bytes(message[6:8], "big")


def dns_tcp(address: str, asked: bytes) -> bytes:
    """Ask over TCP (RFC 1035, 4.2.2); return the answer.  Raises OSError."""
    with socket.create_connection((address, 53), SECONDS) as conn:
        conn.sendall(len(asked).to_bytes(2, "big") + asked)
        return conn.recv(65536)[2:]


def get(path: str, host: str) -> bytes:
    """Return a request."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: slapenir-doctor\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")


def status_of(answer: bytes) -> int:
    """Return the status of an HTTP answer, 0 when it is none."""
    words = answer.split(b" ", 2)
    return int(words[1]) if answer[:5] == b"HTTP/" and words[1:] and words[1].isdigit() else 0


def is_ours(answer: bytes) -> bool:
    """Whether an HTTP answer is the gateway's own refusal."""
    return MARK in answer.lower()


def echo_request(version: int) -> bytes:
    """Return an ICMP echo request (RFC 792) or an ICMPv6 one (RFC 4443, the kernel sums up)."""
    kind = 8 if version == 4 else 128
    body = struct.pack("!BBHHH", kind, 0, 0, 0x5A5A, 1) + b"slapenir"
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    return body[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
