"""The question of a DNS query: what a resolver sends is read, everything else is refused."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from slapenir.wire.question import FORMERR, NOTIMP, Question, QuestionError, parse_question


def query(name: bytes, kind: int = dns.A, kind_class: int = dns.IN) -> bytes:
    """Return a query as twisted.names makes it."""
    message = dns.Message(7, recDes=1)
    message.addQuery(name, kind, kind_class)
    return message.toStr()


def raw(name: bytes, flags: int = 0x0100, questions: int = 1, tail: bytes = b"\0\1\0\1") -> bytes:
    """Return a query with a name that is written as it is."""
    return struct.pack("!6H", 7, flags, questions, 0, 0, 0) + name + tail


class QuestionTests(SynchronousTestCase):
    def test_read(self) -> None:
        asked = parse_question(query(b"API.example.test", dns.AAAA))
        self.assertEqual(asked, Question(7, b"API.example.test", dns.AAAA, dns.IN, True))
        label = b"\x3f" + b"a" * 63
        long = parse_question(raw(label * 3 + b"\x3d" + b"a" * 61 + b"\0"))
        assert long is not None
        self.assertEqual(len(long.name), 253)

    def test_with_edns(self) -> None:
        """What follows the question, such as an OPT record (RFC 6891), is not looked at."""
        opt = b"\0\0\x29\x10\0\0\0\0\0\0\0"
        self.assertIsNotNone(parse_question(query(b"a.test") + opt))

    def test_not_answered(self) -> None:
        """Responses, so that no two servers talk for ever, and less than a header."""
        response = bytearray(query(b"a.test"))
        response[2] |= 0x80
        for message in (bytes(response), b"", query(b"a.test")[:11]):
            self.assertIsNone(parse_question(message))

    def test_refused_T040_T045(self) -> None:
        """Pointers (chained, to itself), lengths that lie, long names, no or two questions."""
        label = b"\x3f" + b"a" * 63
        for message, code in (
            (raw(b"\xc0\x0c"), FORMERR),
            (raw(b"\x01a\xc0\x0c"), FORMERR),
            (raw(b"\xc0\x0e\xc0\x10\xc0\x0c"), FORMERR),
            (raw(b"\x40" + b"a" * 64 + b"\0"), FORMERR),
            (raw(label * 4 + b"\0"), FORMERR),
            (raw(b"\x05ab"), FORMERR),
            (raw(b"\x03a.b\0"), FORMERR),
            (raw(b"\x01a\0", tail=b"\0\1\0"), FORMERR),
            (raw(b"\x01a\0", questions=0), FORMERR),
            (raw(b"\x01a\0", questions=2), FORMERR),
            (raw(b"\x01a\0", flags=0x2800), NOTIMP),
            (raw(b"\x01a\0") + bytes(5000), FORMERR),
        ):
            with self.assertRaises(QuestionError) as caught:
                parse_question(message)
            self.assertEqual((caught.exception.id, caught.exception.code), (7, code), message[:60])

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=600))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes, nothing but QuestionError is raised."""
        for message in (data, raw(data)):
            try:
                parse_question(message)
            except QuestionError as error:
                self.assertIn(error.code, (FORMERR, NOTIMP))
