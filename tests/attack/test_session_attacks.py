"""Requests and responses made to get around the policy, the scanner or the framing."""

from __future__ import annotations

import gzip

from twisted.trial.unittest import SynchronousTestCase

from slapenir.exchange.inputs import DialFailure
from slapenir.names import Action, Form, Outcome, Place, Reason
from tests.support.playbook import (
    IDENTITY,
    Playbook,
    bearer,
    in_body,
    make_terms,
    new_secret,
    rule,
)
from tests.support.splits import every_split

HOST = "api.example.test"
POST = b"POST /ok HTTP/1.1\r\nHost: api.example.test\r\n"


def sized(body: bytes) -> bytes:
    """Return a POST with a Content-Length."""
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    """Return a POST with one chunk."""
    return POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


class Pipelined(SynchronousTestCase):
    """T064: what follows a request on the connection is another request, and is judged."""

    def setUp(self) -> None:
        self.secret = new_secret()
        self.terms = make_terms(
            [rule("api", [HOST], methods=("POST",), paths=("/ok",), credentials=("key",))],
            [in_body("key", self.secret, [HOST])],
        )

    def book(self) -> Playbook:
        """Return a session inside a tunnel whose dials wait."""
        book = Playbook(self.terms, auto_dial=False)
        book.intercept()
        return book

    def test_a_second_body_is_not_sent_after_the_first(self) -> None:
        """Pipelined behind a body while the dial is under way: its bytes forge no request."""
        book = self.book()
        forged = b"DELETE /admin?%b HTTP/1.1\r\nHost: api.example.test\r\n\r\n" % (
            book.placeholder("key")
        )
        for first in (sized(b"hi"), chunked(b"hi")):
            for second in (sized(forged), chunked(forged)):
                book = self.book()
                book.client_sends(first + second)
                book.dial_succeeds()
                self.assertTrue(book.origin.startswith(b"POST /ok "))
                self.assertIn(b"hi", book.origin)
                self.assertNotIn(b"DELETE", book.origin)
                self.assertEqual(book.origin.count(b"0\r\n\r\n"), first.count(b"0\r\n\r\n"))
                book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                book.dial_succeeds()
                self.assertEqual(len(book.decisions()), 2)
                self.assertIn(
                    b"DELETE /admin?" + self.secret, book.origin.partition(b"\r\n\r\n")[2]
                )

    def test_the_request_after_a_failed_dial(self) -> None:
        """It has its own exchange and answer."""
        book = self.book()
        book.client_sends(sized(b"hi") + sized(b"ho"))
        book.dial_fails(DialFailure.REFUSED)
        book.dial_succeeds()
        self.assertIn(b"ho", book.origin)
        self.assertEqual(bytes(book.client).count(b"HTTP/1.1 502"), 1)

    def test_the_request_after_a_body_refused_at_its_end(self) -> None:
        """A coded body that ends too early is refused, and the next request is not swallowed."""
        book = Playbook(self.terms)
        book.intercept()
        short = gzip.compress(b"hello" * 10)[:-4]
        coded = POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(short) + short
        book.client_sends(coded + sized(b"next"))
        self.assertIn(b"HTTP/1.1 415", book.client)
        self.assertEqual(book.origin.partition(b"\r\n\r\n")[2], b"next")


class BodySwap(SynchronousTestCase):
    """T162, T175: a placeholder that is not swapped in a body does not leave in it."""

    def test_part_of_another_word(self) -> None:
        """Beside a word byte it is no token: refused, counted, and nothing of it was sent."""
        for chosen in (None, b"DUMMY_KEY_1"):
            terms = make_terms(
                [rule("api", [HOST], credentials=("key",))],
                [in_body("key", new_secret(), [HOST], placeholder=chosen)],
            )
            placeholder = Playbook(terms).placeholder("key")
            for text in (b"x%b", b"%b1", b"-%b", b"%b_", b"%b %ba", b"%b%b"):
                body = text.replace(b"%b", placeholder)
                for pieces in every_split(body, rounds=2):
                    book = Playbook(terms)
                    book.intercept()
                    book.client_sends(POST + b"Content-Length: %d\r\n\r\n" % len(body))
                    for piece in pieces:
                        book.client_sends(piece)
                    last = book.decisions()[-1]
                    self.assertEqual((last.action, last.reason), (Action.DENY, Reason.HONEYTOKEN))
                    found = last.finding
                    assert found is not None
                    self.assertEqual((found.form, found.place), (Form.RAW, Place.BODY))
                    self.assertEqual(found.owner, "*" if chosen else IDENTITY)
                    self.assertNotIn(placeholder, book.origin)
                    self.assertEqual(len(book.aborted), 1)


class Framing(SynchronousTestCase):
    """T147: what is overwritten in a response's head does not change how long its body is."""

    def test_a_secret_that_is_the_length(self) -> None:
        """Content-Length spells a secret of digits: nothing is sent but a 502."""
        secret = b"20261125"
        terms = make_terms(
            [rule("api", [HOST], credentials=("key",))], [bearer("key", secret, [HOST])]
        )
        for length, status in ((secret, b"502"), (b"20261126", b"200")):
            book = Playbook(terms)
            book.intercept()
            book.client_sends(b"GET /ok HTTP/1.1\r\nHost: api.example.test\r\n\r\n")
            book.origin_sends(
                b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: %b\r\n\r\nabc" % (secret, length)
            )
            self.assertEqual(book.client[9:12], status)
            self.assertNotIn(secret, book.client)
            if status == b"502":
                self.assertEqual(book.outcomes()[-1].outcome, Outcome.ORIGIN_ABORTED)


class AfterTheEnd(SynchronousTestCase):
    """T073: once the client is cut off, nothing more is answered, judged or dialled."""

    def test_pipelined_behind_a_broken_response(self) -> None:
        """The request behind it gets neither a decision nor bytes."""
        terms = make_terms([rule("api", [HOST])])
        get = b"GET /%d HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
        for clean, asked in ((False, ["/1"]), (True, ["/1", "/2"])):
            book = Playbook(terms)
            book.intercept()
            book.client_sends(get % 1 + get % 2)
            book.origin_sends(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            book.origin_closes(clean)
            self.assertEqual([one.path for one in book.decisions()], asked)
            self.assertEqual(len(book.dials), len(asked))
            self.assertEqual(book.session.finished, not clean)


class Heads(SynchronousTestCase):
    """What an agent can put into a head or a trailer section."""

    def sent(self, request: bytes, secret: bytes = b"") -> Playbook:
        """Return the session after one request to a host with a credential."""
        terms = make_terms(
            [rule("api", [HOST], credentials=("key",))],
            [bearer("key", secret or new_secret(), [HOST])],
        )
        book = Playbook(terms)
        book.intercept()
        book.client_sends(request)
        return book

    def test_steering_fields_with_underscores(self) -> None:
        """T043, T080: dropped in every spelling that a CGI takes for the same name; others pass."""
        names = (
            b"X_HTTP_Method_Override",
            b"X-HTTP_Method-Override",
            b"X_Forwarded_For",
            b"X_Real-IP",
        )
        for name in names:
            book = self.sent(
                POST + name + b": DELETE\r\nX_Own_Name: 1\r\nContent-Length: 0\r\n\r\n"
            )
            self.assertNotIn(name.lower(), book.origin.lower())
            self.assertIn(b"X_Own_Name: 1\r\n", book.origin)

    def test_steering_trailers(self) -> None:
        """T043, T063: what is dropped as a header field is dropped as a trailer."""
        fields = (b"X-HTTP-Method-Override", b"X_Forwarded_For", b"Via", b"X-Original-URL")
        trailers = b"".join(b"%b: 1\r\n" % name for name in fields)
        book = self.sent(
            POST
            + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n"
            + trailers
            + b"\r\n"
        )
        self.assertTrue(book.origin.endswith(b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"))

    def test_a_secret_over_name_and_value(self) -> None:
        """T162: a secret that looks like a field is found where it stands as one."""
        secret = b"X-Key: " + new_secret("")
        book = self.sent(POST + secret + b"\r\nContent-Length: 0\r\n\r\n", secret)
        self.assertEqual(book.decisions()[-1].reason, Reason.SECRET_IN_REQUEST)
        self.assertEqual(book.dials, [])
