"""Random pipelines, cuts, dials and origins: what an origin gets is one judged request each."""

from __future__ import annotations

import gzip
import random

from twisted.trial.unittest import SynchronousTestCase

from slapenir.exchange.inputs import DialFailure
from slapenir.exchange.terms import Bounds
from slapenir.names import Action, Stage
from slapenir.wire.http1 import RequestDecoder
from slapenir.wire.limits import WireLimits
from slapenir.wire.messages import EndOfMessage, RequestHead
from tests.support.playbook import Playbook, bearer, in_body, make_terms, new_secret, rule

HOST = "api.example.test"
FIELDS = b"Host: api.example.test\r\n"
SMUGGLED = b"0\r\n\r\nDELETE /admin HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
CASES = 500
STEPS = 50


class Storm(SynchronousTestCase):
    """T064, T071, T086, T161: whatever is sent in whatever order and pieces."""

    def setUp(self) -> None:
        self.in_body, self.in_head = new_secret(), new_secret()
        self.terms = make_terms(
            [
                rule(
                    "api",
                    [HOST],
                    methods=("GET", "POST"),
                    paths=("/ok*",),
                    credentials=("body", "head"),
                )
            ],
            [in_body("body", self.in_body, [HOST]), bearer("head", self.in_head, [HOST])],
            bounds=Bounds(discard=64, request_body=4000, coding_hold=300),
        )
        self.placeholder = Playbook(self.terms).placeholder("body")
        self.random = random.Random(64)

    def request(self, number: int) -> bytes:
        """Return a request, good or bad, with a body that tries to be another one."""
        choose = self.random.choice
        method, path = choose((b"GET", b"POST", b"POST", b"DELETE")), choose((b"ok", b"ok", b"no"))
        head = b"%b /%b%d HTTP/1.1\r\n%b" % (method, path, number, FIELDS)
        if self.random.random() < 0.2:
            head += b"Expect: 100-continue\r\n"
        if method == b"GET":
            return head + b"\r\n"
        body = choose(
            (b"", b"hi", SMUGGLED, b"k " + self.placeholder, b"x" + self.placeholder, b"z" * 200)
        )
        if self.random.random() < 0.2:
            head += b"Content-Encoding: gzip\r\n"
            body = gzip.compress(body)[: choose((-3, None))]
        if self.random.random() < 0.5:
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        chunks = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        trailer = choose((b"", b"X-T: 1\r\n", b"X-T: " + self.placeholder + b"\r\n"))
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"

    def response(self) -> bytes:
        """Return a response that echoes secrets, and now and then another one after it."""
        choose = self.random.choice
        body = choose((b"", b"ok", self.in_body, b"a" + self.in_head + b"b"))
        head = b"HTTP/1.1 %d X\r\nX-E: %b\r\n" % (choose((200, 404)), choose((b"1", self.in_head)))
        after = b"HTTP/1.1 200 OK\r\n\r\n" if self.random.random() < 0.1 else b""
        framing = choose((b"Content-Length: %d\r\n\r\n" % len(body), b"\r\n"))
        return head + framing + body + after

    def test_one_judged_request_for_each_connection(self) -> None:
        """And no secret for the client, no placeholder for the origin, one outcome for each."""
        completed = 0
        for _ in range(CASES):
            book = Playbook(self.terms, auto_dial=self.random.random() < 0.3)
            book.intercept()
            self.play(book)
            self.check(book)
            completed += len(book.released)
        self.assertGreater(completed, CASES / 20)

    def play(self, book: Playbook) -> None:
        """Let client and origin act in a random order until somebody has had enough."""
        chance, choose = self.random.random, self.random.choice
        unsent = b"".join(map(self.request, range(self.random.randint(1, 5))))
        answers: dict[int, bytes] = {}
        for _ in range(STEPS):
            if book.session.finished:
                return
            newest = book.dials[-1].connection if book.dials else 0
            gone = newest in [*book.released, *book.aborted, *book.closed]
            if unsent and chance() < 0.5:
                size = choose((1, 30, 200, 10000))
                book.client_sends(unsent[:size])
                unsent = unsent[size:]
            elif newest and newest not in book.origins and not gone:
                if chance() < 0.9:
                    book.dial_succeeds()
                else:
                    book.dial_fails(DialFailure.REFUSED)
                    book.closed.append(newest)
            elif newest in book.origins and not gone:
                left = answers.setdefault(newest, self.response())
                size = choose((1, 40, 5000))
                if left:
                    book.origin_sends(left[:size])
                    answers[newest] = left[size:]
                elif chance() < 0.5:
                    book.closed.append(newest)
                    book.origin_closes(chance() < 0.8)

    def check(self, book: Playbook) -> None:
        """Read what origins and client got as they would."""
        for secret in (self.in_body, self.in_head):
            self.assertNotIn(secret, book.client)
        allowed = [
            (one.method.encode(), one.path.encode())
            for one in book.decisions()
            if one.stage is Stage.REQUEST and one.action is Action.ALLOW
        ]
        for number, data in book.origins.items():
            decoder = RequestDecoder(WireLimits())
            messages = decoder.feed(bytes(data))
            heads = [one for one in messages if isinstance(one, RequestHead)]
            self.assertIsNone(decoder.error)
            self.assertLessEqual(len(heads), 1)
            self.assertNotIn(self.placeholder, data)
            for head in heads:
                self.assertIn((head.method, head.target), allowed)
            if messages and isinstance(messages[-1], EndOfMessage):
                self.assertTrue(decoder.idle)
            if number in book.released:
                self.assertIsInstance(messages[-1], EndOfMessage)
        numbers = [one.exchange for one in book.outcomes()]
        self.assertEqual(len(numbers), len(set(numbers)))
