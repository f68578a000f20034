"""Tokens on requests to the proxy, and what a change of terms does to what is open."""

from __future__ import annotations

import base64
import json
import secrets

from twisted.trial.unittest import SynchronousTestCase

from slapenir.evidence import Evidence
from slapenir.exchange.authentication import Authenticator
from slapenir.exchange.inputs import HandshakeDone, Revised
from slapenir.names import Action, Outcome, Reason, Scheme, Stage
from slapenir.policy.identities import IdentityTable, Marks
from slapenir.policy.model import Rule
from slapenir.wire.proxyauth import token_digest
from tests.support.hello import client_hello
from tests.support.playbook import IDENTITY, OTHER, Playbook, bearer, make_terms, new_secret, rule

HOST = "api.example.test"
PLAIN = "plain.example.test"
CONNECT = b"CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n" % ((HOST.encode(),) * 2)


class TokenTests(SynchronousTestCase):
    """Each request to the proxy itself proves whose it is; those inside a tunnel do not."""

    def setUp(self) -> None:
        self.token = secrets.token_urlsafe(32).encode()
        self.other = secrets.token_urlsafe(32).encode()
        table = IdentityTable(
            [
                Marks(IDENTITY, tokens=frozenset({token_digest(self.token)})),
                Marks(OTHER, tokens=frozenset({token_digest(self.other)})),
            ]
        )
        plain = Rule("plain", (IDENTITY, OTHER), (PLAIN,), ports=(80,), scheme=Scheme.HTTP)
        self.secret = new_secret()
        terms = make_terms([rule("api", [HOST], credentials=("api",)), plain],
                           [bearer("api", self.secret, [HOST])])  # fmt: skip
        asks = Authenticator(Evidence(), table.identify)
        self.book = Playbook(terms, identity="", authenticator=asks)

    def get(self, *lines: bytes) -> None:
        """Send a plain request with extra header lines."""
        self.book.client.clear()
        self.book.client_sends(
            b"\r\n".join([b"GET http://%s/ HTTP/1.1" % PLAIN.encode(),
                          b"Host: %s" % PLAIN.encode(), *lines, b"", b""])
        )  # fmt: skip

    def basic(self, user: str, token: bytes) -> bytes:
        value = base64.b64encode(user.encode() + b":" + token)
        return b"Proxy-Authorization: Basic " + value

    def assert_refused(self, status: int, reason: Reason) -> None:
        """One record without an identity, nothing dialled, nothing of the request kept."""
        book = self.book
        head, _, body = bytes(book.client).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), head)
        self.assertEqual(b"\r\nProxy-Authenticate: Basic realm=" in head, status == 407)
        self.assertEqual(json.loads(body)["reason"], reason.value)
        (record,) = book.decisions()
        self.assertEqual((record.stage, record.action), (Stage.IDENTIFY, Action.DENY))
        self.assertEqual((record.reason, record.path, record.authority), (reason, "", ""))
        self.assertEqual(book.dials, [])
        self.assertEqual(len(book.outcomes()), 1)
        self.assertIn(b"\r\nConnection: close", head)

    def test_basic_and_bearer(self) -> None:
        for user in ("", IDENTITY, None):
            self.setUp()
            bearer_line = b"Proxy-Authorization: Bearer " + self.token
            self.get(bearer_line if user is None else self.basic(user, self.token))
            self.assertEqual(self.book.session.who.identity, IDENTITY)
            self.assertEqual(self.book.decisions()[0].who.identity, IDENTITY)
            self.assertNotIn(self.token, self.book.origin)
            self.assertNotIn(b"roxy-", self.book.origin)
            (admitted,) = self.book.admitted
            self.assertEqual(admitted.evidence.token, token_digest(self.token))

    def test_no_token(self) -> None:
        self.get()
        self.assert_refused(407, Reason.IDENTITY_REQUIRED)
        self.assertTrue(self.book.session.finished)

    def test_wrong_tokens(self) -> None:
        wrong = secrets.token_urlsafe(32).encode()
        for line in (
            b"Proxy-Authorization: Bearer " + wrong,
            b"Proxy-Authorization: Digest x",
            self.basic(IDENTITY, wrong),
            self.basic(OTHER, self.token),  # somebody's token under another's name
            b"Proxy-Authorization: Bearer %b\r\nProxy-Authorization: Bearer %b"
            % (self.token, self.token),
        ):
            fresh = Playbook(
                self.book.terms, identity="", authenticator=self.book.session.authenticator
            )
            self.book = fresh
            self.get(line)
            self.assert_refused(407, Reason.TOKEN_REFUSED)

    def test_connect_needs_one_too(self) -> None:
        """A CONNECT without a token gets 407 and is closed; with one, what is inside needs none."""
        self.book.client_sends(CONNECT + b"\r\n")
        self.assert_refused(407, Reason.IDENTITY_REQUIRED)
        self.assertTrue(self.book.session.finished)
        self.setUp()
        book = self.book
        book.client_sends(CONNECT + self.basic(IDENTITY, self.token) + b"\r\n\r\n")
        self.assertTrue(book.client.startswith(b"HTTP/1.1 200 "))
        book.client_sends(client_hello(HOST))
        book.give(HandshakeDone())
        placeholder = book.placeholder("api")
        book.client_sends(
            b"GET / HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n"
            % (HOST.encode(), placeholder)
        )
        self.assertIn(self.secret, book.origin)
        self.assertEqual({one.who.identity for one in book.decisions()}, {IDENTITY})

    def test_a_connection_keeps_its_identity(self) -> None:
        """Another's token on the same connection is a refusal; its own again is not."""
        self.get(self.basic(IDENTITY, self.token))
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.get(self.basic(IDENTITY, self.token))
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(len(self.book.admitted), 1)
        count = len(self.book.dials)
        self.get(self.basic(OTHER, self.other))
        self.assertIn(b"identity_changed", bytes(self.book.client))
        self.assertEqual(len(self.book.dials), count)
        record = self.book.decisions()[-1]
        self.assertEqual((record.reason, record.who.identity), (Reason.IDENTITY_CHANGED, IDENTITY))
        self.assertTrue(self.book.session.finished)

    def test_each_request_is_asked(self) -> None:
        """A second request without a token is not the first one's."""
        self.get(self.basic(IDENTITY, self.token))
        self.book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        count = len(self.book.dials)
        self.get()
        self.assertTrue(self.book.client.startswith(b"HTTP/1.1 407 "))
        self.assertEqual(len(self.book.dials), count)

    def test_pipelined_behind_a_refusal(self) -> None:
        """T065: what follows a request that proved nobody is not looked at."""
        request = b"GET http://%s/ HTTP/1.1\r\nHost: %s\r\n" % ((PLAIN.encode(),) * 2)
        good = request + self.basic(IDENTITY, self.token) + b"\r\n\r\n"
        self.book.client_sends(request + b"\r\n" + good)
        self.assert_refused(407, Reason.IDENTITY_REQUIRED)


class RevisedTests(SynchronousTestCase):
    """T211: a change of the terms ends the tunnels that they no longer allow."""

    def setUp(self) -> None:
        self.terms = make_terms([rule("api", [HOST])])

    def passthrough(self) -> Playbook:
        """Return a blind tunnel that is up."""
        blind = make_terms([rule("blind", [HOST], action=Action.PASSTHROUGH)])
        book = Playbook(blind)
        book.client_sends(CONNECT + b"\r\n")
        hello = client_hello(HOST)
        book.client_sends(hello)
        self.assertEqual(book.origin, hello)
        book.events.clear()
        return book

    def revise(self, book: Playbook, *rules: Rule) -> None:
        book.terms = make_terms(list(rules))
        book.give(Revised())

    def test_t211_a_blind_tunnel_is_cut(self) -> None:
        book = self.passthrough()
        self.revise(book, rule("else", ["other.example.test"]))
        (record,) = book.decisions()
        self.assertEqual((record.action, record.reason), (Action.DENY, Reason.RULE_REMOVED))
        (ended,) = book.outcomes()
        self.assertEqual(ended.outcome, Outcome.DENIED)
        self.assertEqual(sorted(book.aborted), [0, 1])
        self.assertTrue(book.session.finished)

    def test_t211_a_blind_tunnel_that_is_no_longer_blind_is_cut(self) -> None:
        """The rule now says that the host is to be looked into."""
        book = self.passthrough()
        self.revise(book, rule("blind", [HOST]))
        self.assertTrue(book.session.finished)

    def test_t211_control(self) -> None:
        """What is still allowed goes on, whatever else changed."""
        book = self.passthrough()
        self.revise(book, rule("new", [HOST], action=Action.PASSTHROUGH), rule("more", ["x.test"]))
        book.client_sends(b"more")
        self.assertTrue(book.origin.endswith(b"more"))
        self.assertEqual(book.events, [])

    def test_t211_an_intercepted_tunnel(self) -> None:
        """It ends, with the exchange that is under way in it; a plain exchange is let be."""
        book = Playbook(self.terms)
        book.intercept(f"{HOST}:443")
        book.client_sends(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % HOST.encode())
        book.origin_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        book.events.clear()
        self.revise(book, rule("api", [HOST]))
        self.assertEqual(book.events, [])
        self.revise(book)
        self.assertEqual([one.reason for one in book.decisions()], [Reason.RULE_REMOVED])
        self.assertEqual([one.outcome for one in book.outcomes()], [Outcome.DENIED])
        self.assertEqual(sorted(book.aborted), [0, 1])

    def test_t211_while_the_handshake_is_under_way(self) -> None:
        book = Playbook(self.terms)
        book.client_sends(CONNECT + b"\r\n")
        self.revise(book)
        self.assertTrue(book.session.finished)
        self.assertEqual(book.decisions()[-1].reason, Reason.RULE_REMOVED)
