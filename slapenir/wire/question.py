"""The question of a DNS query (RFC 1035, 4.1): what a stub resolver sends, and no more.

Only the header and the one question are read.  A name in a question has no compression; one that
has is refused, so no pointer is ever followed.
"""

from __future__ import annotations

import struct

import attrs

from slapenir.errors import RemoteProtocolError

MAX_MESSAGE = 4096
IN = 1
A, AAAA = 1, 28
_HEADER = struct.Struct("!6H")
_RESPONSE, _OPCODE = 0x8000, 0x7800
_MAX_NAME = 255


@attrs.frozen(slots=True)
class Question:
    """What is asked.  ``name`` has its labels as they came, joined by dots, without the last one.

    ``recursion`` is the RD bit, to be said back.
    """

    id: int
    name: bytes
    kind: int
    kind_class: int
    recursion: bool


class QuestionError(RemoteProtocolError):
    """A query that cannot be answered as asked; ``code`` is the RCODE, ``id`` the query's."""

    def __init__(self, reason: str, id: int, code: int) -> None:
        super().__init__(reason)
        self.id = id
        self.code = code


FORMERR, NOTIMP = 1, 4


def parse_question(message: bytes) -> Question | None:
    """Return the question of a query; None for what must not be answered at all.

    That is a response, which would make two servers talk to each other for ever, and less than a
    header.  Raises QuestionError for whatever else is not a query with one question.
    """
    if len(message) < _HEADER.size:
        return None
    id, flags, questions, *_ = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        return None
    if len(message) > MAX_MESSAGE:
        raise QuestionError("the query is too long", id, FORMERR)
    if flags & _OPCODE:
        raise QuestionError("not a standard query", id, NOTIMP)
    if questions != 1:
        raise QuestionError("not one question", id, FORMERR)
    labels: list[bytes] = []
    at, size = _HEADER.size, 0
    while True:
        length = message[at] if at < len(message) else 0xFF
        if length == 0:
            break
        label = message[at + 1 : at + 1 + length]
        size += length + 1
        if length > 63 or len(label) != length or size >= _MAX_NAME or b"." in label:
            raise QuestionError("the name is malformed", id, FORMERR)
        labels.append(label)
        at += 1 + length
    if len(message) < at + 5:
        raise QuestionError("the question is cut short", id, FORMERR)
    kind, kind_class = struct.unpack_from("!2H", message, at + 1)
    return Question(id, b".".join(labels), kind, kind_class, bool(flags & 0x0100))
