"""Sessions driven by bytes: what each side is sent, what is decided, how each exchange ends."""

from __future__ import annotations

import base64
import gzip
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.events import Swapped
from slapenir.exchange.commands import Emit, Send
from slapenir.exchange.inputs import (
    CLIENT,
    BytesReceived,
    DialFailed,
    DialFailure,
    Dialled,
    Drain,
    HandshakeDone,
    PeerClosed,
    Timer,
    TimerFired,
    WriteFull,
    WriteReady,
)
from slapenir.exchange.terms import Bounds, Deadlines
from slapenir.names import Action, Outcome, Reason, Scheme, Stage
from tests.support.hello import client_hello
from tests.support.playbook import (
    IDENTITY,
    OTHER,
    Playbook,
    basic,
    bearer,
    credential,
    in_body,
    make_terms,
    new_secret,
    rule,
)
from tests.support.splits import every_split

HOST = "api.example.test"


def http_rule(**more: object) -> object:
    """Return a rule that allows plain HTTP to the test host."""
    return rule("plain", [HOST], scheme=Scheme.HTTP, ports=(80,), **more)


def body_of(response: bytes) -> bytes:
    """Return what follows the head of a response."""
    return response.partition(b"\r\n\r\n")[2]


class PlainHttp(SynchronousTestCase):
    """Absolute-form requests on the explicit listener."""

    def setUp(self) -> None:
        self.book = Playbook(make_terms([http_rule(paths=("/v1/*",))]))

    def get(self, target: bytes = b"http://api.example.test/v1/x", more: bytes = b"") -> None:
        self.book.client_sends(
            b"GET %s HTTP/1.1\r\nHost: api.example.test\r\n%s\r\n" % (target, more)
        )

    def test_get(self) -> None:
        """An allowed request goes out in origin-form and its answer comes back unchanged."""
        self.get()
        self.assertEqual(
            self.book.origin,
            b"GET /v1/x HTTP/1.1\r\nHost: api.example.test\r\nAccept-Encoding: identity\r\n\r\n",
        )
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
        self.book.origin_sends(answer)
        self.assertEqual(bytes(self.book.client), answer)
        self.assertEqual(self.book.released, [1])
        (decided,) = self.book.decisions()
        self.assertEqual((decided.stage, decided.action), (Stage.REQUEST, Action.ALLOW))
        self.assertEqual((decided.rule, decided.path, decided.method), ("plain", "/v1/x", "GET"))
        (outcome,) = self.book.outcomes()
        self.assertEqual((outcome.outcome, outcome.status), (Outcome.COMPLETED, 200))

    def test_audit_before_effect(self) -> None:
        """The record of a decision is emitted before the dial and before any byte it allows."""
        self.get()
        kinds = [type(c).__name__ for c in self.book.commands]
        self.assertLess(kinds.index("Emit"), kinds.index("Dial"))
        self.assertLess(kinds.index("Emit"), kinds.index("Send"))

    def test_default_deny_T240(self) -> None:
        """What no rule allows is refused in JSON, and nothing is dialled (T164, T240)."""
        self.get(b"http://api.example.test/v2/x")
        self.assertEqual(self.book.dials, [])
        head, _, body = bytes(self.book.client).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 403 "))
        self.assertIn(b"X-Slapenir-Decision: deny; reason=no_rule", head)
        answer = json.loads(body)
        self.assertEqual((answer["decision"], answer["retry"]), ("deny", False))
        (decided,) = self.book.decisions()
        self.assertEqual((decided.action, decided.reason), (Action.DENY, Reason.NO_RULE))
        self.assertEqual(self.book.outcomes()[0].outcome, Outcome.DENIED)

    def test_pipelining_T064(self) -> None:
        """Each pipelined request is decided; answers keep their order (T064)."""
        one = b"GET http://api.example.test/v1/%d HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
        bad = b"GET http://api.example.test/no HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
        self.book.client_sends(one % 1 + bad + one % 3)
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3")
        text = bytes(self.book.client)
        self.assertEqual(
            [d.action.value for d in self.book.decisions()], ["allow", "deny", "allow"]
        )
        self.assertLess(text.index(b"\r\n\r\n1"), text.index(b"403 Forbidden"))
        self.assertTrue(text.endswith(b"\r\n\r\n3"))

    def test_every_split_is_the_same_T086(self) -> None:
        """However a request is cut, the origin is sent the same bytes (T085, T086)."""
        request = (
            b"POST http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n"
            b"Content-Length: 11\r\n\r\nhello world"
        )
        for pieces in every_split(request):
            book = Playbook(make_terms([http_rule()]))
            for piece in pieces:
                book.client_sends(piece)
            self.assertEqual(
                book.origin,
                b"POST /v1/x HTTP/1.1\r\nHost: api.example.test\r\nContent-Length: 11\r\n"
                b"Accept-Encoding: identity\r\n\r\nhello world",
            )
            self.assertEqual(len(book.decisions()), 1)

    def test_host_disagrees_T075(self) -> None:
        """Target and Host must name one authority (T075)."""
        self.book.client_sends(
            b"GET http://api.example.test/v1/x HTTP/1.1\r\nHost: evil.example.test\r\n\r\n"
        )
        self.assertEqual(self.book.decisions()[0].reason, Reason.AUTHORITY_MISMATCH)
        self.assertEqual(self.book.dials, [])

    def test_origin_form_T076(self) -> None:
        """Origin-form and ``*`` on the explicit listener are 400, not a loop (T076)."""
        for target in (b"/v1/x", b"*"):
            book = Playbook(make_terms([http_rule()]))
            book.client_sends(b"OPTIONS %s HTTP/1.1\r\nHost: api.example.test\r\n\r\n" % target)
            self.assertTrue(book.client.startswith(b"HTTP/1.1 400 "), bytes(book.client))
            self.assertEqual(book.dials, [])

    def test_https_absolute_form_T030(self) -> None:
        """Schemes other than http on the plain listener are 400 (T030)."""
        for scheme in (b"https", b"ftp", b"ws", b"file", b"gopher", b"javascript"):
            book = Playbook(make_terms([http_rule()]))
            book.client_sends(
                b"GET %s://api.example.test/ HTTP/1.1\r\nHost: api.example.test\r\n\r\n" % scheme
            )
            self.assertTrue(book.client.startswith(b"HTTP/1.1 400 "), (scheme, bytes(book.client)))
            self.assertEqual(book.dials, [])
            self.assertEqual(len(book.decisions()), 1)

    def test_steering_fields_T043(self) -> None:
        """Fields that steer proxies, claim identity or override methods end (T043, T080, T112)."""
        self.get(
            more=b"X-Target-URL: http://evil/\r\nX-Forwarded-Host: evil\r\nForwarded: host=evil\r\n"
            b"X-HTTP-Method-Override: DELETE\r\nX-Agent-Id: root\r\nProxy-Authorization: x\r\n"
            b"Connection: keep-alive, X-Mine, Authorization\r\nX-Mine: 1\r\nAuthorization: a b\r\n"
            b"Keep-Alive: 3\r\nTE: trailers\r\nX-Kept: yes\r\n"
        )
        self.assertEqual(
            self.book.origin,
            b"GET /v1/x HTTP/1.1\r\nHost: api.example.test\r\nAuthorization: a b\r\n"
            b"X-Kept: yes\r\nAccept-Encoding: identity\r\n\r\n",
        )

    def test_range_T142(self) -> None:
        """Range is not forwarded, and a partial response is refused (T142)."""
        self.get(more=b"Range: bytes=0-19\r\nIf-Range: x\r\n")
        self.assertNotIn(b"ange", self.book.origin)
        self.book.origin_sends(
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/9\r\n"
            b"Content-Length: 5\r\n\r\nhello"
        )
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 502 "))
        self.assertNotIn(b"hello", self.book.client)

    def test_upgrade_refused_T081(self) -> None:
        """Upgrade is refused with its reason (T081)."""
        for protocol in (b"h2c", b"websocket", b"foo"):
            book = Playbook(make_terms([http_rule()]))
            book.client_sends(
                b"GET http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n"
                b"Connection: Upgrade\r\nUpgrade: %s\r\n\r\n" % protocol
            )
            self.assertTrue(book.client.startswith(b"HTTP/1.1 501 "), bytes(book.client))
            self.assertEqual(book.decisions()[0].reason, Reason.UPGRADE_UNSUPPORTED)
            self.assertEqual(book.dials, [])

    def test_not_http_T044(self) -> None:
        """A client that does not speak HTTP is cut at once, with one record (T044)."""
        for data in (b"\x05\x01\x00", b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", bytes(65536)):
            book = Playbook(make_terms([http_rule()]))
            book.client_sends(data)
            if CLIENT not in book.closed:
                self.assertLessEqual(book.timers[Timer.CLOSE] - book.now, 0.5)
                book.fire(Timer.CLOSE)
            self.assertIn(CLIENT, book.closed)
            self.assertEqual([d.reason for d in book.decisions()], [Reason.PROTOCOL_ERROR])
            self.assertEqual([o.outcome for o in book.outcomes()], [Outcome.PROTOCOL_ERROR])

    def test_after_400_nothing_is_processed_T065(self) -> None:
        """Bytes pipelined after a 400 or after Connection: close are not processed (T065)."""
        good = b"GET http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
        self.book.client_sends(b"GET http://api.example.test/ HTTP/9.9\r\n\r\n" + good)
        self.book.client_sends(good)
        self.assertEqual(len(self.book.decisions()), 1)
        self.assertEqual(self.book.dials, [])
        book = Playbook(make_terms([http_rule()]))
        closing = good.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        book.client_sends(closing + good)
        book.origin_sends(b"HTTP/1.1 204 No Content\r\n\r\n")
        book.client_sends(good)
        self.assertEqual(len(book.dials), 1)
        self.assertIn(CLIENT, book.closed)

    def test_http10_client_T088(self) -> None:
        """An HTTP/1.0 client gets a chunked response without chunks, then the close (T088)."""
        self.book.client_sends(b"GET http://api.example.test/v1/x HTTP/1.0\r\n\r\n")
        self.book.origin_sends(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        self.assertEqual(
            bytes(self.book.client), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"
        )
        self.assertIn(CLIENT, self.book.closed)

    def test_truncated_response_T073(self) -> None:
        """A truncated body never ends cleanly for the client (T072, T073)."""
        for head, body, clean in (
            (b"Content-Length: 9\r\n", b"abc", True),
            (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", True),
            (b"", b"abc", False),
        ):
            book = Playbook(make_terms([http_rule()]))
            book.client_sends(
                b"GET http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
            )
            book.origin_sends(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
            book.origin_closes(clean)
            self.assertIn(CLIENT, book.aborted)
            self.assertNotIn(b"0\r\n\r\n", book.client)
            self.assertEqual(book.outcomes()[0].outcome, Outcome.ORIGIN_ABORTED)

    def test_close_delimited_becomes_chunked(self) -> None:
        """A close-delimited body that ends cleanly ends cleanly, and the client may go on."""
        self.get()
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.book.origin_closes(clean=True)
        self.assertTrue(self.book.client.endswith(b"3\r\nabc\r\n0\r\n\r\n"))
        self.assertEqual(self.book.closed, [])

    def test_two_responses_T071(self) -> None:
        """Bytes after a complete response keep the connection out of the pool (T070, T071)."""
        self.get()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
        self.book.origin_sends(answer + answer)
        self.assertEqual(self.book.released, [])
        self.assertEqual(self.book.aborted, [1])
        self.assertEqual(bytes(self.book.client), answer)

    def test_no_retry_T184(self) -> None:
        """A connection that dies after bytes went out is a 502, never a second request (T184)."""
        self.get()
        self.book.origin_closes()
        self.assertEqual(len(self.book.dials), 1)
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 502 "))

    def test_short_upload_T089(self) -> None:
        """A client that leaves mid-body aborts the origin: no short body completes (T089)."""
        self.book.client_sends(
            b"POST http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n"
            b"Content-Length: 10\r\n\r\nabc"
        )
        self.book.client_closes()
        self.assertEqual(self.book.aborted, [1])
        self.assertEqual(self.book.outcomes()[0].outcome, Outcome.CLIENT_ABORTED)

    def test_half_close_T222(self) -> None:
        """A client that shuts its sending side after the request still gets the answer (T222)."""
        self.get()
        self.book.client_closes(half=True)
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        self.assertTrue(self.book.client.endswith(b"\r\n\r\n1"))
        self.assertIn(CLIENT, self.book.closed)

    def test_informational_T069(self) -> None:
        """1xx is passed on; a flood or an unasked 101 is a 502 (T069)."""
        self.get()
        self.book.origin_sends(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        self.assertEqual(bytes(self.book.client), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        self.book.client.clear()
        self.book.origin_sends(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
        self.assertIn(b"HTTP/1.1 502 ", self.book.client)
        book = Playbook(make_terms([http_rule()]))
        book.client_sends(
            b"GET http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
        )
        book.origin_sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\n\r\n")
        self.assertTrue(book.client.startswith(b"HTTP/1.1 502 "))

    def test_expect_continue_T068(self) -> None:
        """Expect: 100-continue gets one 100 from an allowed origin and none when denied (T068)."""
        head = (
            b"POST http://api.example.test%s HTTP/1.1\r\nHost: api.example.test\r\n"
            b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        self.book.client_sends(head % b"/v1/x")
        self.book.origin_sends(b"HTTP/1.1 100 Continue\r\n\r\n" * 2)
        self.assertEqual(bytes(self.book.client), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.book.client_sends(b"ok")
        self.assertTrue(self.book.origin.endswith(b"\r\n\r\nok"))
        book = Playbook(make_terms([http_rule(paths=("/v1/*",))]))
        book.client_sends(head % b"/denied")
        self.assertTrue(book.client.startswith(b"HTTP/1.1 403 "))
        self.assertNotIn(b"100 Continue", book.client)
        waiting = Playbook(make_terms([http_rule()]))
        waiting.client_sends(head % b"/v1/x")
        waiting.fire(Timer.BODY)
        waiting.fire(Timer.BODY) if Timer.BODY in waiting.timers else None
        self.assertTrue(waiting.client.startswith(b"HTTP/1.1 408 "), bytes(waiting.client))

    def test_dial_failures(self) -> None:
        """Each way a dial can fail has its status and outcome."""
        for failure, status, outcome in (
            (DialFailure.ADDRESS_DENIED, b"403", Outcome.DENIED),
            (DialFailure.UNRESOLVABLE, b"502", Outcome.ORIGIN_UNREACHABLE),
            (DialFailure.TIMED_OUT, b"504", Outcome.TIMED_OUT),
            (DialFailure.TLS_UNTRUSTED, b"502", Outcome.ORIGIN_UNREACHABLE),
            (DialFailure.LIMIT, b"503", Outcome.ORIGIN_UNREACHABLE),
        ):
            book = Playbook(make_terms([http_rule()]), auto_dial=False)
            book.client_sends(
                b"GET http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
            )
            book.dial_fails(failure)
            self.assertEqual(bytes(book.client[9:12]), status)
            self.assertEqual(book.outcomes()[0].outcome, outcome)

    def test_drain_T208(self) -> None:
        """Draining finishes what is under way and closes what is idle (T208)."""
        idle = Playbook(make_terms([http_rule()]))
        idle.give(Drain())
        self.assertIn(CLIENT, idle.closed)
        self.get()
        self.book.give(Drain())
        self.assertEqual(self.book.closed, [])
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        self.assertIn(b"Connection: close", self.book.client)
        self.assertIn(CLIENT, self.book.closed)

    def test_deadlines_T190(self) -> None:
        """Slow heads and silent clients meet absolute deadlines (T190, T195)."""
        self.book.client_sends(b"GET http://api.example.test/v1/x HT")
        self.book.fire(Timer.HEAD)
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 408 "))
        silent = Playbook(make_terms([http_rule()]))
        silent.fire(Timer.HEAD)
        self.assertIn(CLIENT, silent.closed)
        self.assertEqual(bytes(silent.client), b"")

    def test_response_deadline_T203(self) -> None:
        """An origin that accepts and never answers ends in a 504 (T203)."""
        self.get()
        for _ in range(2):
            if Timer.RESPONSE in self.book.timers:
                self.book.fire(Timer.RESPONSE)
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 504 "))
        self.assertEqual(self.book.outcomes()[0].outcome, Outcome.TIMED_OUT)

    def test_backpressure(self) -> None:
        """A full client stops the origin's reading, a full origin stops the client's."""
        self.book.client_sends(
            b"POST http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        self.assertTrue(self.book.session.wants(CLIENT))
        self.book.give(WriteFull(1))
        self.assertFalse(self.book.session.wants(CLIENT))
        self.assertTrue(self.book.session.wants(1))
        self.book.give(WriteReady(1))
        self.assertTrue(self.book.session.wants(CLIENT))
        self.book.give(WriteFull(CLIENT))
        self.assertFalse(self.book.session.wants(1))

    def test_answers_that_nobody_reads(self) -> None:
        """A client that does not read its answers is asked for no more requests."""
        denied = b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"
        self.book.client_sends(denied)
        self.assertTrue(self.book.session.wants(CLIENT))
        self.book.give(WriteFull(CLIENT))
        self.assertFalse(self.book.session.wants(CLIENT))
        self.book.give(WriteReady(CLIENT))
        self.assertTrue(self.book.session.wants(CLIENT))
        self.book.client_sends(denied)
        self.assertEqual(self.book.client.count(b"HTTP/1.1 403 "), 2)

    def test_a_denied_body_is_read_past(self) -> None:
        """After a refusal a short body is thrown away and the connection goes on."""
        self.book.client_sends(
            b"POST http://api.example.test/no HTTP/1.1\r\nHost: api.example.test\r\n"
            b"Content-Length: 3\r\n\r\nabc"
        )
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 403 "))
        self.book.client.clear()
        self.get()
        self.assertEqual(len(self.book.dials), 1)

    def test_request_body_bound(self) -> None:
        """A body over the configured bound is refused, announced or not."""
        terms = make_terms([http_rule()], bounds=Bounds(request_body=4))
        head = b"POST http://api.example.test/v1/x HTTP/1.1\r\nHost: api.example.test\r\n"
        book = Playbook(terms)
        book.client_sends(head + b"Content-Length: 5\r\n\r\n12345")
        self.assertTrue(book.client.startswith(b"HTTP/1.1 413 "))
        self.assertEqual(book.outcomes()[0].outcome, Outcome.TOO_LARGE)
        chunked = Playbook(terms)
        chunked.client_sends(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n")
        self.assertTrue(chunked.client.startswith(b"HTTP/1.1 413 "))
        self.assertEqual(chunked.aborted, [1])
        fits = Playbook(terms)
        fits.client_sends(head + b"Content-Length: 4\r\n\r\n1234")
        self.assertTrue(fits.origin.endswith(b"\r\n\r\n1234"))


class Intercepted(SynchronousTestCase):
    """CONNECT, the ClientHello, and HTTP inside the tunnel."""

    def setUp(self) -> None:
        self.secret = new_secret()
        self.book = Playbook(
            make_terms(
                [rule("api", [HOST], credentials=("key",))], [bearer("key", self.secret, [HOST])]
            )
        )

    def send(self, fields: bytes = b"", target: bytes = b"/v1/x", body: bytes = b"") -> None:
        self.book.client_sends(
            b"POST %s HTTP/1.1\r\nHost: api.example.test\r\n%s\r\n%s" % (target, fields, body)
        )

    def test_injection(self) -> None:
        """The placeholder leaves as the real credential, audited without it."""
        self.book.intercept()
        self.send(b"Authorization: Bearer " + self.book.placeholder("key") + b"\r\n")
        self.assertIn(b"Authorization: Bearer " + self.secret + b"\r\n", self.book.origin)
        (decided,) = self.book.decisions()
        self.assertEqual([u.credential for u in decided.credentials], ["key"])
        self.assertNotIn(self.secret.decode(), repr(self.book.events))
        self.assertTrue(self.book.dials[0].tls)

    def test_own_value_is_replaced_T179(self) -> None:
        """Whatever the agent puts there, exactly one Authorization leaves, ours (T179, T180)."""
        self.book.intercept()
        self.send(b"authorization: Bearer mine\r\nAUTHORIZATION: Basic eDp5\r\n")
        self.assertEqual(self.book.origin.lower().count(b"authorization:"), 1)
        self.assertIn(self.secret, self.book.origin)

    def test_other_surfaces_T162(self) -> None:
        """A placeholder anywhere but on its surface is denied and counted (T162, T165, T166)."""
        placeholder = self.book.placeholder("key")
        chunked = b"Transfer-Encoding: chunked\r\nTrailer: x\r\n"
        for fields, target, body in (
            (b"User-Agent: " + placeholder + b"\r\n", b"/v1/x", b""),
            (b"Cookie: a=" + placeholder + b"\r\n", b"/v1/x", b""),
            (b"Authorization: " + basic(b"x", placeholder) + b"\r\nX-Y: z\r\n", b"/v1/x", b""),
            (b"", b"/v1/x?key=" + placeholder, b""),
            (b"", b"/v1/" + placeholder, b""),
            (b"Content-Length: %d\r\n" % len(placeholder), b"/v1/x", placeholder),
            (chunked, b"/v1/x", b"0\r\nx: " + placeholder + b"\r\n\r\n"),
        ):
            self.setUp()
            self.book.intercept()
            placeholder_here = self.book.placeholder("key")
            swap = (placeholder, placeholder_here)
            if b"Basic" in fields:
                fields = b"Authorization: " + basic(b"x", placeholder_here) + b"\r\n"
                self.send(fields)
                self.assertNotIn(b"Basic", self.book.origin if self.book.dials else b"")
                continue
            self.send(fields.replace(*swap), target.replace(*swap), body.replace(*swap))
            denied = [d for d in self.book.decisions() if d.action is Action.DENY]
            self.assertEqual(
                [d.reason for d in denied], [Reason.HONEYTOKEN], (fields, target, body)
            )
            self.assertEqual(denied[0].finding.credential, "key")
            self.assertTrue(self.book.client.startswith(b"HTTP/1.1 403 "))
            sent = bytes(self.book.origins.get(1, b""))
            self.assertNotIn(placeholder_here, sent)
            self.assertNotIn(self.secret, sent)
            self.assertNotIn(placeholder_here.decode(), repr(denied))

    def test_other_host_T163(self) -> None:
        """On a host whose rule has no credential nothing is swapped (T162, T163)."""
        book = Playbook(
            make_terms(
                [rule("api", [HOST], credentials=("key",)), rule("other", ["other.example.test"])],
                [bearer("key", self.secret, [HOST])],
            )
        )
        book.intercept("other.example.test:443")
        book.client_sends(
            b"GET / HTTP/1.1\r\nHost: other.example.test\r\nAuthorization: Bearer "
            + book.placeholder("key")
            + b"\r\n\r\n"
        )
        self.assertEqual(book.dials, [])
        self.assertEqual(book.decisions()[0].reason, Reason.HONEYTOKEN)

    def test_another_identitys_placeholder(self) -> None:
        """A placeholder is worthless to another identity, and the record says whose it was."""
        self.book.intercept()
        theirs = self.book.placeholder("key", OTHER)
        self.send(b"X-Stolen: " + theirs + b"\r\n")
        (decided,) = self.book.decisions()
        self.assertEqual(decided.reason, Reason.HONEYTOKEN)
        self.assertEqual(decided.finding.owner, OTHER)

    def test_real_secret_leaving(self) -> None:
        """A request that would carry the real secret out is denied, in each form (T188)."""
        for form in (
            self.secret,
            base64.b64encode(b"x" + self.secret),
            self.secret.hex().encode(),
            b"".join(b"%%%02X" % c for c in self.secret),
        ):
            self.setUp_with(self.secret)
            self.book.intercept()
            self.send(b"Content-Length: %d\r\n" % len(form), body=form)
            denied = [d for d in self.book.decisions() if d.action is Action.DENY]
            self.assertEqual([d.reason for d in denied], [Reason.SECRET_IN_REQUEST])
            self.assertNotIn(form[8:], self.book.origin)
            self.assertEqual(self.book.aborted, [1])

    def setUp_with(self, secret: bytes) -> None:
        self.secret = secret
        self.book = Playbook(
            make_terms([rule("api", [HOST], credentials=("key",))], [bearer("key", secret, [HOST])])
        )

    def test_gzip_request_body_T183(self) -> None:
        """A coded request body is decoded to be scanned; unknown codings are 415 (T183)."""
        for text, ok in ((b"a" * 5000, True), (b"a" * 5000 + self.secret, False)):
            self.setUp_with(self.secret)
            self.book.intercept()
            body = gzip.compress(text)
            self.send(b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(body), body=body)
            sent = self.book.origin.partition(b"\r\n\r\n")[2]
            self.assertEqual(sent, body if ok else b"")
        self.setUp_with(self.secret)
        self.book.intercept()
        self.send(b"Content-Encoding: lzma\r\nContent-Length: 1\r\n", body=b"x")
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 415 "))

    def test_body_swap_T172(self) -> None:
        """A body surface is swapped at every cut, re-framed when lengths differ (T172, T178)."""
        for placeholder in (None, b"DUMMY_KEY_1"):
            terms = make_terms(
                [rule("api", [HOST], credentials=("key",))],
                [in_body("key", self.secret, [HOST], placeholder=placeholder)],
            )
            text = b'{"k": "' + (placeholder or Playbook(terms).placeholder("key")) + b'"}'
            want = b'{"k": "' + self.secret + b'"}'
            for pieces in every_split(text):
                book = Playbook(terms)
                book.intercept()
                book.client_sends(
                    b"POST /v1/x HTTP/1.1\r\nHost: api.example.test\r\nContent-Length: %d\r\n\r\n"
                    % len(text)
                )
                for piece in pieces:
                    book.client_sends(piece)
                sent = book.origin.partition(b"\r\n\r\n")
                swapped = [e for e in book.events if isinstance(e, Swapped)]
                self.assertEqual([(e.credential, e.count) for e in swapped], [("key", 1)])
                if placeholder is None:
                    self.assertEqual(sent[2], want)
                else:
                    self.assertIn(b"Transfer-Encoding: chunked", sent[0])
                    self.assertEqual(unchunk(sent[2]), want)

    def test_echo_is_redacted_T167(self) -> None:
        """An echo of the credential comes back as the placeholder, at the same length (T167)."""
        placeholder = self.book.placeholder("key")
        answer = (
            b"HTTP/1.1 200 " + self.secret + b"\r\nX-Echo: " + self.secret + b"\r\n"
            b"Content-Length: %d\r\n\r\n<%s>" % (len(self.secret) + 2, self.secret)
        )
        for pieces in every_split(answer):
            book = Playbook(self.book.terms)
            book.intercept()
            book.client_sends(b"GET / HTTP/1.1\r\nHost: api.example.test\r\n\r\n")
            for piece in pieces:
                book.origin_sends(piece)
            self.assertEqual(bytes(book.client), answer.replace(self.secret, placeholder))
            self.assertEqual(sum(s.count for s in book.sanitized()), 3)

    def test_gzip_response_T133(self) -> None:
        """A coded response is redacted inside, and a clean one arrives as it was sent (T133)."""
        for text, clean in ((b"hello" * 99, True), (b"x" + self.secret + b"y", False)):
            body = gzip.compress(text)
            for framing in (b"Content-Length: %d\r\n\r\n" % len(body) + body, chunks(body)):
                book = Playbook(self.book.terms)
                book.intercept()
                book.client_sends(
                    b"GET / HTTP/1.1\r\nHost: api.example.test\r\nAccept-Encoding: gzip\r\n\r\n"
                )
                self.assertIn(b"Accept-Encoding: gzip\r\n", book.origin)
                book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + framing)
                head, _, got = bytes(book.client).partition(b"\r\n\r\n")
                got = unchunk(got) if b"chunked" in head else got
                self.assertEqual(
                    gzip.decompress(got), text.replace(self.secret, book.placeholder("key"))
                )
                if clean and b"chunked" not in head:
                    self.assertEqual(got, body)

    def test_sse_is_not_delayed_T121(self) -> None:
        """An event that is no live prefix is delivered in the same turn (T121)."""
        self.book.intercept()
        self.send()
        self.book.origin_sends(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        event = b"data: hello\n\n"
        for _ in range(3):
            self.book.client.clear()
            self.book.origin_sends(b"%x\r\n%s\r\n" % (len(event), event))
            self.assertIn(event, self.book.client)

    def test_drip_T120(self) -> None:
        """A secret that drips in byte by byte is never let go by a timer (T120)."""
        self.book.intercept()
        self.send()
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in self.secret:
            self.book.now += 2
            self.book.origin_sends(b"1\r\n%c\r\n" % byte)
            for timer in list(self.book.timers):
                if timer is Timer.PROGRESS:
                    self.book.give(TimerFired(timer))
        self.book.origin_sends(b"0\r\n\r\n")
        self.assertEqual(unchunk(body_of(bytes(self.book.client))), self.book.placeholder("key"))

    def test_trailers_T063(self) -> None:
        """Response trailers are redacted and framing fields among them dropped (T063, T138)."""
        self.book.intercept()
        self.send()
        self.book.origin_sends(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
            b"X-T: " + self.secret + b"\r\nContent-Length: 5\r\n\r\n"
        )
        text = bytes(self.book.client)
        self.assertTrue(text.endswith(b"X-T: " + self.book.placeholder("key") + b"\r\n\r\n"))
        self.assertNotIn(b"Content-Length", text)

    def test_sni_T090_T091(self) -> None:
        """SNI must be the CONNECT host; none means the CONNECT host (T090, T091)."""
        self.book.client_sends(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n")
        self.book.client_sends(client_hello("evil.example.test"))
        self.assertEqual(self.book.started_tls, [])
        self.assertEqual(self.book.decisions()[-1].reason, Reason.SNI_MISMATCH)
        self.assertIn(CLIENT, self.book.closed)
        bare = Playbook(self.book.terms)
        bare.client_sends(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n")
        bare.client_sends(client_hello(None))
        self.assertEqual(bare.started_tls[0].host, HOST)

    def test_alpn_T100(self) -> None:
        """An offer without http/1.1 gets no_application_protocol (T100)."""
        for offer, ok in (((b"h2",), False), ((b"h2", b"http/1.1"), True), ((), True)):
            book = Playbook(self.book.terms)
            book.client_sends(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n")
            book.client.clear()
            book.client_sends(client_hello(HOST, offer))
            self.assertEqual(bool(book.started_tls), ok, offer)
            if not ok:
                self.assertEqual(bytes(book.client), b"\x15\x03\x01\x00\x02\x02\x78")

    def test_not_tls_T097(self) -> None:
        """What is not TLS inside a CONNECT is closed, never passed (T097, T182)."""
        for data in (b"GET / HTTP/1.1\r\nHost: api.example.test\r\n\r\n", b"\x16garbage....."):
            book = Playbook(self.book.terms)
            book.client_sends(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n")
            book.client_sends(data)
            self.assertEqual(book.started_tls, [])
            self.assertEqual(book.dials, [])
            self.assertIn(CLIENT, book.closed)
            self.assertEqual(book.decisions()[-1].action, Action.DENY)

    def test_early_bytes_feed_tls_T066(self) -> None:
        """Bytes sent ahead of the 200 feed TLS, never HTTP (T066)."""
        self.book.client_sends(
            b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n" + client_hello()
        )
        self.assertEqual(len(self.book.started_tls), 1)
        other = Playbook(self.book.terms)
        other.client_sends(
            b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET http://evil.example.test/ HTTP/1.1\r\nHost: evil.example.test\r\n\r\n"
        )
        self.assertEqual(other.dials, [])
        self.assertEqual(other.decisions()[-1].reason, Reason.NOT_TLS)

    def test_inner_request_is_pinned_T077(self) -> None:
        """Inside the tunnel Host must be the CONNECT host, on every request (T077)."""
        for first_ok in (False, True):
            for bad in (
                b"GET / HTTP/1.1\r\nHost: evil.example.test\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: api.example.test:8443\r\n\r\n",
                b"GET http://evil.example.test/ HTTP/1.1\r\nHost: api.example.test\r\n\r\n",
                b"CONNECT evil.example.test:443 HTTP/1.1\r\nHost: evil.example.test\r\n\r\n",
            ):
                book = Playbook(self.book.terms)
                book.intercept()
                if first_ok:
                    book.client_sends(b"GET / HTTP/1.1\r\nHost: api.example.test\r\n\r\n")
                    book.origin_sends(b"HTTP/1.1 204 No Content\r\n\r\n")
                dials = len(book.dials)
                book.client_sends(bad)
                self.assertEqual(len(book.dials), dials, bad)
                self.assertEqual(book.decisions()[-1].action, Action.DENY)

    def test_denied_connect_T038(self) -> None:
        """A denied CONNECT is a 403 before anything is resolved or dialled (T029, T038)."""
        for authority in (b"evil.example.test:443", b"api.example.test:22", b"api.example.test:80"):
            book = Playbook(self.book.terms)
            book.client_sends(b"CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n" % authority)
            self.assertTrue(book.client.startswith(b"HTTP/1.1 403 "))
            self.assertEqual((book.dials, book.started_tls), ([], []))
            self.assertEqual(len(book.decisions()), 1)

    def test_plain_http_never_injects_T181(self) -> None:
        """Over http:// the placeholder is not swapped, even by a rule that names it (T181)."""
        book = Playbook(
            make_terms(
                [rule("p", [HOST], scheme=Scheme.HTTP, ports=(80,), credentials=("key",))],
                [bearer("key", self.secret, [HOST])],
            )
        )
        book.client_sends(
            b"GET http://api.example.test/ HTTP/1.1\r\nHost: api.example.test\r\n"
            b"Authorization: Bearer " + book.placeholder("key") + b"\r\n\r\n"
        )
        self.assertEqual(book.dials, [])
        self.assertEqual(book.decisions()[0].reason, Reason.HONEYTOKEN)

    def test_secret_in_names_is_not_recorded_T157(self) -> None:
        """A secret in the target, the method or the CONNECT host is in no record (T157)."""
        name = self.secret.lower().replace(b"_", b"-")
        terms = make_terms(
            [rule("api", [HOST, "*.example.test"])], [bearer("key", b"sk" + name[2:], [HOST])]
        )
        for target in (b"/" + b"sk" + name[2:], b"/?x=sk" + name[2:]):
            book = Playbook(terms)
            book.intercept()
            book.client_sends(b"GET %s HTTP/1.1\r\nHost: api.example.test\r\n\r\n" % target)
            self.assertEqual(book.decisions()[0].reason, Reason.SECRET_IN_REQUEST)
            self.assertNotIn(name[2:].decode(), repr(book.events))
            self.assertNotIn(name[2:], book.client)
        book = Playbook(terms)
        host = b"sk" + name[2:] + b".example.test:443"
        book.client_sends(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (host, host))
        self.assertEqual(book.dials, [])
        self.assertNotIn(name[2:].decode(), repr(book.events))

    def test_per_surface_query(self) -> None:
        """A query surface is swapped, percent-encoded, and only there (T170)."""
        from slapenir.credentials.model import QuerySurface

        book = Playbook(
            make_terms(
                [rule("api", [HOST], credentials=("key",))],
                [credential("key", self.secret, [HOST], [QuerySurface(b"key")])],
            )
        )
        book.intercept()
        placeholder = book.placeholder("key")
        book.client_sends(
            b"GET /v1?a=1&key=" + placeholder + b"&b=2 HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
        )
        self.assertTrue(
            book.origin.startswith(b"GET /v1?a=1&key=" + self.secret + b"&b=2 HTTP/1.1\r\n")
        )
        self.assertEqual(book.decisions()[0].path, "/v1")


class Passthrough(SynchronousTestCase):
    """CONNECT by a passthrough rule: dialled first, SNI checked, then a blind relay."""

    def setUp(self) -> None:
        self.terms = make_terms([rule("pass", [HOST], action=Action.PASSTHROUGH)])
        self.book = Playbook(self.terms, auto_dial=False)
        self.book.client_sends(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n")

    def test_relay(self) -> None:
        """After the 200 the bytes pass both ways and are counted."""
        self.assertEqual(bytes(self.book.client), b"")
        self.book.dial_succeeds()
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 200 "))
        hello = client_hello()
        self.book.client_sends(hello)
        self.book.client_sends(b"more")
        self.assertEqual(self.book.origin, hello + b"more")
        self.book.client.clear()
        self.book.origin_sends(b"answer")
        self.assertEqual(bytes(self.book.client), b"answer")
        self.book.client_closes(half=True)
        self.book.origin_closes()
        (outcome,) = self.book.outcomes()
        self.assertEqual(
            (outcome.outcome, outcome.request_bytes, outcome.response_bytes),
            (Outcome.COMPLETED, len(hello) + 4, 6),
        )

    def test_honest_failure(self) -> None:
        """A failed dial is a 502 and not a 200."""
        self.book.dial_fails(DialFailure.REFUSED)
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 502 "))

    def test_sni_must_match(self) -> None:
        """Another SNI, or none, is refused (T090)."""
        for name in ("evil.example.test", None):
            book = Playbook(self.terms)
            book.client_sends(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n")
            book.client_sends(client_hello(name))
            self.assertEqual(book.origin, b"")
            self.assertEqual(book.aborted, [1])
            self.assertEqual(book.decisions()[-1].reason, Reason.SNI_MISMATCH)

    def test_idle_tunnel(self) -> None:
        """A tunnel in which nothing moves is ended."""
        self.book.dial_succeeds()
        self.book.client_sends(client_hello())
        self.book.fire(Timer.TUNNEL)
        self.book.fire(Timer.TUNNEL)
        self.assertEqual(self.book.outcomes()[0].outcome, Outcome.TIMED_OUT)


class Totality(SynchronousTestCase):
    """The session takes any inputs in any order."""

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_never_raises(self, data: st.DataObject) -> None:
        """Session.receive never raises, and sends nothing after it has finished."""
        secret = new_secret()
        terms = make_terms(
            [rule("api", [HOST], credentials=("key",)), http_rule()],
            [bearer("key", secret, [HOST])],
            deadlines=Deadlines(),
        )
        book = Playbook(terms, auto_dial=data.draw(st.booleans()))
        pieces = [
            b"GET http://api.example.test/ HTTP/1.1\r\nHost: api.example.test\r\n\r\n",
            b"POST http://api.example.test/ HTTP/1.1\r\nHost: api.example.test\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            client_hello(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"\x00",
            b"GET",
        ]
        for _ in range(data.draw(st.integers(1, 14))):
            connection = data.draw(st.integers(0, 3))
            event = data.draw(
                st.sampled_from(
                    [
                        *[BytesReceived(connection, p) for p in pieces],
                        Dialled(connection or 1, "192.0.2.1:443", False),
                        DialFailed(connection or 1, DialFailure.REFUSED),
                        HandshakeDone(),
                        PeerClosed(connection, True),
                        PeerClosed(connection, False),
                        PeerClosed(CLIENT, True, True),
                        WriteFull(connection),
                        WriteReady(connection),
                        *[TimerFired(t) for t in Timer],
                        Drain(),
                    ]
                )
            )
            for number in range(4):
                book.origins.setdefault(number, bytearray())
            done = book.session.finished
            commands = book.give(event)
            if done:
                self.assertEqual(commands, [])
            for command in commands:
                if isinstance(command, Send | Emit):
                    self.assertNotIn(secret.decode(), repr(command))
            book.session.wants(CLIENT)
        per_exchange = [o.exchange for o in book.outcomes()]
        self.assertEqual(len(per_exchange), len(set(per_exchange)))


def chunks(body: bytes) -> bytes:
    """Return a chunked body with its header."""
    return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def unchunk(data: bytes) -> bytes:
    """Return the content of a complete chunked body without trailers."""
    out = bytearray()
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return bytes(out)
        out += data[:length]
        data = data[length + 2 :]


assert IDENTITY
