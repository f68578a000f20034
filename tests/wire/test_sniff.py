"""The first bytes of a connection."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.wire.sniff import Protocol, sniff


class SniffTests(SynchronousTestCase):
    """What each protocol starts with."""

    def test_t097_known(self) -> None:
        """T097: TLS is told from everything else."""
        for data, protocol in (
            (b"\x16\x03\x01\x02\x00", Protocol.TLS),
            (b"\x16\x03", Protocol.TLS),
            (b"\x16\x02\x01", Protocol.UNKNOWN),
            (b"GET / HTTP/1.1\r\n", Protocol.HTTP),
            (b"M-SEARCH * HTTP/1.1", Protocol.HTTP),
            (b"\r\nGET /", Protocol.HTTP),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol.HTTP2_PREFACE),
            (b"PRI * HTTP/1.1", Protocol.HTTP),
            (b"\x04\x01", Protocol.SOCKS4),
            (b"\x05\x01\x00", Protocol.SOCKS5),
            (b"SSH-2.0-x", Protocol.SSH),
            (b"SSHX y", Protocol.HTTP),
            (b"220 mail", Protocol.UNKNOWN),
            (b"\x80\x2e\x01", Protocol.UNKNOWN),
            (b"\x00", Protocol.UNKNOWN),
            (b"GET\r\n", Protocol.UNKNOWN),
            (b"A" * 40, Protocol.UNKNOWN),
            (b"", Protocol.INCOMPLETE),
        ):
            self.assertIs(sniff(data), protocol, data)

    def test_prefixes_wait(self) -> None:
        for whole in (b"\x16\x03", b"PRI * HTTP/2.0\r\n", b"SSH-", b"\r\nGET "):
            for size in range(1, len(whole)):
                self.assertIn(sniff(whole[:size]), {Protocol.INCOMPLETE, Protocol.HTTP})
            self.assertIsNot(sniff(whole), Protocol.INCOMPLETE)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(min_size=1, max_size=60))
    def test_total_and_bounded(self, data: bytes) -> None:
        self.assertIs(sniff(data), sniff(data[:36]))
        self.assertIsNot(sniff(data + b"\x00" * 40), Protocol.INCOMPLETE)
