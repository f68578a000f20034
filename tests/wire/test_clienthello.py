"""Reading a ClientHello before TLS starts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import RemoteProtocolError
from slapenir.wire.clienthello import MAX_RECEIVED, ClientHello, ClientHelloReader
from tests.support.hellos import (
    extension,
    handshake,
    hello,
    hello_body,
    real_hello,
    records,
    server_name,
    vector,
)
from tests.support.splits import every_split


def read(data: bytes) -> ClientHello | None:
    """Return what a new reader makes of the data, given whole."""
    return ClientHelloReader().feed(data)


class ReadingTests(SynchronousTestCase):
    """How the bytes may come."""

    def test_a_real_client(self) -> None:
        found = read(real_hello("Api.Example", ("h2", "http/1.1")))
        assert found is not None
        self.assertEqual(found.server_name, "api.example")
        self.assertEqual(found.alpn, (b"h2", b"http/1.1"))
        self.assertIn(0x0304, found.versions)
        self.assertFalse(found.ech or found.early_data)
        bare = read(real_hello(None))
        assert bare is not None
        self.assertIsNone(bare.server_name)

    def test_t096_every_split(self) -> None:
        """T096: any segmentation gives the same hello, exactly when it is complete."""
        data = hello(server_name(b"api.example"), extension(21, bytes(40)))
        expected = read(data)
        for pieces in every_split(data):
            reader = ClientHelloReader()
            results = [reader.feed(piece) for piece in pieces]
            self.assertEqual(results[-1], expected)
            self.assertEqual(results[:-1], [None] * (len(pieces) - 1))
            self.assertEqual(reader.received, data)

    def test_t096_records_of_one_byte(self) -> None:
        """T096: records of any size give the same hello, fed whole or byte by byte."""
        message = handshake(hello_body(server_name(b"api.example")))
        for size in (1, 2, 3, 4, 5, 50):
            data = records(message, size)
            self.assertEqual(read(data), read(hello(server_name(b"api.example"))))
            reader = ClientHelloReader()
            results = [reader.feed(data[i : i + 1]) for i in range(len(data))]
            self.assertEqual(results[-1], read(data))
            self.assertEqual(set(results[:-1]), {None})

    def test_t096_long_hello(self) -> None:
        """T096: a hello of over 16 KiB is read; one of over 64 KiB is refused."""
        big = hello_body(server_name(b"api.example"), extension(51, bytes(30_000)))
        found = read(records(handshake(big)))
        assert found is not None
        self.assertEqual(found.server_name, "api.example")
        too_big = handshake(hello_body(extension(51, bytes(60_000)), extension(52, bytes(5_000))))
        for size in (100, 300):
            self.assertEqual(read(records(too_big, size)[:65_000]), None)
            self.assertRaises(RemoteProtocolError, read, records(too_big, size)[:65_600])
        self.assertRaises(RemoteProtocolError, read, records(b"\x01\x01\x00\x01"))

    def test_t096_received_is_bounded(self) -> None:
        """T096: records of one byte cannot make the reader hold more than 64 KiB."""
        reader = ClientHelloReader()
        fed = 0
        data = records(b"\x01" + vector(3, bytes(40_000)), 1)
        try:
            for i in range(0, len(data), 600):
                reader.feed(data[i : i + 600])
                fed += 600
        except RemoteProtocolError:
            self.assertTrue(MAX_RECEIVED - 600 <= fed <= MAX_RECEIVED)
        else:
            self.fail("no bound was hit")
        whole = records(handshake(hello_body(extension(51, bytes(20_000)))), 1)
        self.assertRaises(RemoteProtocolError, read, whole)

    def test_bytes_after_the_hello_are_kept(self) -> None:
        data = hello(server_name(b"api.example"))
        reader = ClientHelloReader()
        self.assertIsNotNone(reader.feed(data + b"\x17\x03\x03\x00\x01x"))
        self.assertIsNotNone(reader.feed(b"more"))
        self.assertEqual(reader.received, data + b"\x17\x03\x03\x00\x01xmore")

    def test_t096_t097_garbage(self) -> None:
        """T096 T097: what is not a ClientHello is refused as soon as that shows."""
        message = handshake(hello_body(server_name(b"api.example")))
        good = records(message)
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"\x80\x2e\x01\x03\x01",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x00\x05\x02",
            b"\x16" + b"garbage" * 10,
            records(message[:20]) + b"\x14\x03\x03\x00\x01\x01" + records(message[20:]),
            records(message[:20]) + b"\x16\x03\x01\x00\x00" + records(message[20:]),
            records(message + b"\x01"),
            good[:5] + b"\x01\x00\x00\x01" + good[9:],
            records(b"\x01" + vector(3, message[4:] + b"\x00")),
            records(b"\x01" + vector(3, message[4:-1])),
        ):
            self.assertRaises(RemoteProtocolError, read, data)
        self.assertIsNotNone(read(good))

    def test_t096_every_length_lie_is_refused_or_incomplete(self) -> None:
        """T096: changing any one length byte never gives another name."""
        data = hello(server_name(b"api.example"), extension(16, vector(2, vector(1, b"h2"))))
        for place in range(len(data)):
            for delta in (1, 255, 16):
                broken = bytearray(data)
                broken[place] = (broken[place] + delta) % 256
                try:
                    found = read(bytes(broken))
                except RemoteProtocolError:
                    continue
                if found is not None and found.server_name is not None:
                    self.assertEqual(len(found.server_name), 11)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 60))
    def test_only_protocol_errors(self, noise: bytes, keep: int) -> None:
        """Arbitrary bytes, also behind a good beginning, raise nothing else."""
        good = hello(server_name(b"api.example"))
        bodies = (noise, good[:keep] + noise, records(handshake(noise)) if noise else b"\x16")
        for data in bodies:
            reader = ClientHelloReader()
            try:
                reader.feed(data)
            except RemoteProtocolError as error:
                self.assertEqual(error.status, 400)


class ContentTests(SynchronousTestCase):
    """What the hello may say."""

    def test_t095_names(self) -> None:
        """T095: one DNS name, made canonical; a wildcard, an address or anything odd is refused."""
        for raw, name in ((b"api.example", "api.example"), (b"API.example.", "api.example"),
                          (b"a" * 63 + b".example", "a" * 63 + ".example")):  # fmt: skip
            found = read(hello(server_name(raw)))
            assert found is not None
            self.assertEqual(found.server_name, name)
        bad = [
            server_name(b"192.0.2.1"), server_name(b"[::1]"), server_name(b"::1"),
            server_name(b"*.example"), server_name(b"api.example\x00.evil.example"),
            server_name(b"a." * 127 + b"bc"), server_name(b""), server_name(),
            server_name(b"api.example", b"evil.example"), server_name(b"a.example", b"a.example"),
            server_name(b"api.example", kind=1), extension(0, b""),
            server_name(b"api.example:443"), server_name(b"127.1"), server_name(b"a..example"),
            server_name(b"\xe9.example"), server_name(b"api.example") * 2,
        ]  # fmt: skip
        for piece in bad:
            self.assertRaises(RemoteProtocolError, read, hello(piece))

    def test_no_extensions(self) -> None:
        self.assertEqual(read(hello()), ClientHello(None, versions=(0x0303,)))

    def test_t099_encrypted_hello(self) -> None:
        """T099: an encrypted or GREASE hello is noted."""
        for draft in (0xFE08, 0xFE09, 0xFE0A, 0xFE0B, 0xFE0C, 0xFFCE):  # of ECH, and ESNI
            found = read(hello(server_name(b"api.example"), extension(draft, b"\x00" * 10)))
            self.assertTrue(found.ech)
        found = read(hello(server_name(b"api.example"), extension(0xFE0D, b"\x00" * 10)))
        assert found is not None
        self.assertTrue(found.ech)
        plain = read(hello(server_name(b"api.example")))
        assert plain is not None
        self.assertFalse(plain.ech)

    def test_t100_protocols(self) -> None:
        """T100: the list is given as offered; an absent one is empty, a broken one refused."""
        names = (b"acme-tls/1", b"foo", b"h3")
        wire = extension(16, vector(2, b"".join(vector(1, name) for name in names)))
        found = read(hello(wire))
        assert found is not None
        self.assertEqual(found.alpn, names)
        for broken in (b"", b"\x00\x00", b"\x00\x01\x00", vector(2, b"\x03h2"), b"\x00\x09\x02h2"):
            self.assertRaises(RemoteProtocolError, read, hello(extension(16, broken)))

    def test_resumption_and_early_data(self) -> None:
        cases = (
            (extension(41, b"x"), True, False),
            (extension(42, b""), False, True),
            (extension(35, b""), False, False),
            (extension(35, b"ticket"), True, False),
        )
        for wire, resumes, early in cases:
            found = read(hello(wire))
            assert found is not None
            self.assertEqual((found.resumes, found.early_data), (resumes, early))
