"""The PROXY protocol's version 2 header, cut anywhere; what is none is refused."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import RemoteProtocolError
from slapenir.wire.proxyprotocol import MAX_BYTES, SIGNATURE, Forwarded, ProxyHeaderReader
from tests.support.splits import every_split


def header(
    source: str = "192.0.2.7",
    port: int = 40000,
    command: int = 0x21,
    more: bytes = b"",
    kind: int | None = None,
) -> bytes:
    """Return a header; ``more`` are TLVs behind the addresses."""
    address = ipaddress.ip_address(source)
    other = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    body = address.packed + other.packed + port.to_bytes(2, "big") + (8443).to_bytes(2, "big")
    family = kind if kind is not None else (0x11 if address.version == 4 else 0x21)
    body += more
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


def read(pieces: list[bytes]) -> tuple[Forwarded, bytes]:
    """Return what a reader makes of pieces; bytes after the header are put together."""
    reader = ProxyHeaderReader()
    for number, piece in enumerate(pieces):
        found = reader.feed(piece)
        if found is not None:
            return found[0], found[1] + b"".join(pieces[number + 1 :])
    raise AssertionError("the header never ended")


class HeaderTests(SynchronousTestCase):
    """What a load balancer sends."""

    def test_every_cut(self) -> None:
        for source, more in (("192.0.2.7", b""), ("2001:db8::7", b"\x04\x00\x03abc")):
            data = header(source, 40000, more=more) + b"CONNECT"
            for pieces in every_split(data):
                self.assertEqual(read(pieces), (Forwarded(source, 40000), b"CONNECT"))

    def test_a_connection_of_its_own(self) -> None:
        """LOCAL is a health check: the balancer speaks for itself (2.2)."""
        self.assertEqual(read([header(command=0x20) + b"x"]), (Forwarded(), b"x"))
        self.assertEqual(read([SIGNATURE + b"\x20\x00\x00\x00"]), (Forwarded(), b""))

    def test_what_is_refused(self) -> None:
        good = header()
        for data, phrase in (
            (b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n", "no PROXY protocol header"),
            (b"GET / HTTP/1.1\r\n", "no PROXY protocol header"),
            (b"\x16\x03\x01", "no PROXY protocol header"),
            (good[:11] + b"\r" + good[12:], "no PROXY protocol header"),
            (header(command=0x11), "not of version 2"),
            (header(command=0x2F), "not of version 2"),
            (header(kind=0x12), "not about a TCP connection"),
            (header(kind=0x31), "not about a TCP connection"),
            (header(kind=0x21), "too short"),
            (header(more=bytes(MAX_BYTES)), "too long"),
        ):
            with self.assertRaisesRegex(RemoteProtocolError, phrase):
                ProxyHeaderReader().feed(data)

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=80))
    def test_rubbish(self, data: bytes) -> None:
        """Anything is read, waited for or refused; nothing else is raised."""
        for start in (b"", SIGNATURE, SIGNATURE + b"\x21\x11"):
            try:
                ProxyHeaderReader().feed(start + data)
            except RemoteProtocolError:
                continue
