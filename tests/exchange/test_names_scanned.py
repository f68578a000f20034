"""Secrets in host names: in the SNI, in Host, in a target, in a question; in any case (T039)."""

from __future__ import annotations

import secrets

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from slapenir.events import Decided, NameAsked, Who
from slapenir.exchange.inputs import CLIENT
from slapenir.exchange.questions import Code, Names, Reply
from slapenir.exchange.synthetic import SyntheticAddresses
from slapenir.names import Action, Authority, Reason, Scheme
from slapenir.policy.model import Destination
from slapenir.wire.question import Question
from tests.support.hello import client_hello
from tests.support.playbook import IDENTITY, Playbook, bearer, make_terms, rule

WILD = "wild.example.test"
BLIND = "blind.example.test"
HERE = Destination(Authority("203.0.113.66", 443), "")
PLAIN = Destination(Authority("203.0.113.66", 80), "")


class Bed(SynchronousTestCase):
    """A secret of both cases that fits into a label, and its placeholder."""

    def setUp(self) -> None:
        self.secret = b"sk-Q" + secrets.token_hex(6).upper().encode() + b"kZ" + b"w" * 6
        self.terms = make_terms(
            [
                rule("wild", [f"*.{WILD}"]),
                rule("plain", [f"*.{WILD}"], scheme=Scheme.HTTP, ports=(80,)),
                rule("blind", [f"*.{BLIND}"], action=Action.PASSTHROUGH),
            ],
            [bearer("key", self.secret, ["api.example.test"])],
        )
        placeholder = self.terms.protections[IDENTITY].placeholders["key"]
        half = self.secret[:9] + b"." + self.secret[9:]
        self.labels = {
            self.secret: Reason.SECRET_IN_REQUEST,
            self.secret.lower(): Reason.SECRET_IN_REQUEST,
            self.secret.upper(): Reason.SECRET_IN_REQUEST,
            half: Reason.SECRET_IN_REQUEST,
            half.lower(): Reason.SECRET_IN_REQUEST,
            self.secret.hex().encode()[:20] + b"." + self.secret.hex().encode()[20:]: (
                Reason.SECRET_IN_REQUEST
            ),
            placeholder: Reason.HONEYTOKEN,
            placeholder.swapcase(): Reason.HONEYTOKEN,
        }
        self.clean = self.secret[:-1] + b"-"

    def assert_denied(self, book: Playbook, reason: Reason, stages: int = 1) -> None:
        """Nothing is dialled, and the last record says why and not the name."""
        self.assertEqual((book.dials, len(book.decisions())), ([], stages))
        record = book.decisions()[-1]
        self.assertEqual((record.action, record.reason), (Action.DENY, reason))
        self.assertEqual((record.authority, record.path), ("", ""))
        self.assertTrue({CLIENT} & {*book.closed, *book.aborted} or b"403" in book.client)


class ConnectionTests(Bed):
    """Redirected or not, TLS or not."""

    def test_server_name_of_a_redirected_connection(self) -> None:
        """T039, T186: intercepted or passed through, the ClientHello does not go out."""
        for zone in (WILD, BLIND):
            for label, reason in self.labels.items():
                book = Playbook(self.terms, destination=HERE)
                book.client_sends(client_hello(f"{label.decode()}.{zone}"))
                self.assert_denied(book, reason)
                self.assertEqual(book.started_tls, [])
            book = Playbook(self.terms, destination=HERE)
            book.client_sends(client_hello(f"{self.clean.decode()}x.{zone}"))
            self.assertEqual(len(book.started_tls) + len(book.dials), 1, zone)

    def test_host_of_a_redirected_connection(self) -> None:
        """T039: plain HTTP by its Host field."""
        for label, reason in self.labels.items():
            book = Playbook(self.terms, destination=PLAIN)
            book.client_sends(b"GET / HTTP/1.1\r\nHost: %s.%s\r\n\r\n" % (label, WILD.encode()))
            self.assert_denied(book, reason)
        book = Playbook(self.terms, destination=PLAIN)
        book.client_sends(b"GET / HTTP/1.1\r\nHost: %sx.%s\r\n\r\n" % (self.clean, WILD.encode()))
        self.assertEqual(len(book.dials), 1)

    def test_explicit_proxy(self) -> None:
        """T039: an absolute target, a CONNECT, and the ClientHello after it."""
        for label, reason in self.labels.items():
            name = b"%s.%s" % (label, WILD.encode())
            book = Playbook(self.terms)
            book.client_sends(b"GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n" % (name, name))
            self.assert_denied(book, reason)
            for zone in (WILD, BLIND):
                book = Playbook(self.terms)
                name = b"%s.%s:443" % (label, zone.encode())
                book.client_sends(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (name, name))
                self.assert_denied(book, reason)
        name = b"%sx.%s" % (self.clean, WILD.encode())
        book = Playbook(self.terms)
        book.client_sends(b"GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n" % (name, name))
        self.assertEqual(len(book.dials), 1)


class QuestionTests(Bed):
    """DNS: what holds a secret is found before anything else is asked of it."""

    def setUp(self) -> None:
        super().setUp()
        self.table = SyntheticAddresses([], 100, secrets.token_bytes(32))
        self.names = Names(lambda: self.terms, self.table, 5)

    def ask(self, name: bytes, now: float = 0.0) -> tuple[Reply, str, list[Decided]]:
        """Return the answer, the word for it, and the records."""
        who = Who(1, "dns", IDENTITY, "127.0.0.1:5")
        reply, events = self.names.ask(who, Question(1, name, dns.A, dns.IN, True), now)
        (asked,) = (one for one in events if isinstance(one, NameAsked))
        return reply, asked.answer, [one for one in events if isinstance(one, Decided)]

    def test_in_any_case(self) -> None:
        """T039: each label is recorded once, without the name."""
        for label, reason in self.labels.items():
            name = b"%s.%s" % (label, WILD.encode())
            reply, word, (record,) = self.ask(name)
            self.assertEqual((reply.code, word), (Code.NXDOMAIN, "denied"))
            self.assertEqual((record.reason, record.authority), (reason, ""))
            self.assertEqual(self.ask(name)[2], [])
        self.assertEqual(self.ask(b"%sx.%s" % (self.clean, WILD.encode()))[2], [])

    def test_names_that_are_none(self) -> None:
        """T039: a name that is malformed is looked at, too; without a secret it is only counted."""
        for shape in (b"-%s.test", b"a=%s.test", b"%s.123", b"a %s"):
            (record,) = self.ask(shape % self.secret)[2]
            self.assertEqual(record.reason, Reason.SECRET_IN_REQUEST)
            self.assertEqual(self.ask(shape % b"nothing")[1:], ("malformed", []))

    def test_beyond_the_limit(self) -> None:
        """T039: junk names do not hide a secret that follows; that there were many is recorded."""
        records = [r for number in range(30) for r in self.ask(b"junk%d.test" % number)[2]]
        self.assertEqual([r.reason for r in records], [Reason.NO_RULE] * 5 + [Reason.LIMIT])
        self.assertEqual(records[-1].authority, "")
        (record,) = self.ask(b"%s.test" % self.secret)[2]
        self.assertEqual(record.reason, Reason.SECRET_IN_REQUEST)

    def test_many_secrets(self) -> None:
        """The records of secrets are bounded in a minute, and go on after it."""
        found = [
            len(self.ask(b"%s.a%d.test" % (self.secret, number), now)[2])
            for now in (0.0, 61.0)
            for number in range(200)
        ]
        self.assertEqual((sum(found[:200]), sum(found[200:])), (64, 64))

    def test_once_a_minute(self) -> None:
        """A denied name that is asked for again and again is recorded each minute."""
        times = [50.0 * number for number in range(20)]
        records = [len(self.ask(b"evil.test", now)[2]) for now in times]
        self.assertEqual(sum(records), 10)
