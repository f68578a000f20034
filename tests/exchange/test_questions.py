"""What a sandbox is told when it asks for a name."""

from __future__ import annotations

import secrets
from ipaddress import ip_network

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from slapenir.events import Decided, NameAsked, Who
from slapenir.exchange.questions import Code, Names, Reply
from slapenir.exchange.synthetic import SyntheticAddresses
from slapenir.names import Action, Reason, Scheme, Stage
from slapenir.wire.question import Question
from tests.support.playbook import IDENTITY, OTHER, Playbook, bearer, make_terms, rule

NETWORKS = [ip_network("198.18.0.0/15"), ip_network("fd00:5a::/64")]
HTTPS, SVCB = 65, 64


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.secret = b"k" + secrets.token_hex(15).encode()
        self.terms = make_terms(
            [
                rule("no", ["denied.test"], action=Action.DENY),
                rule("part", ["part.test"], action=Action.DENY, paths=("/x",)),
                rule("allow", ["api.test", "denied.test", "part.test"], credentials=("key",)),
                rule("plain", ["plain.test"], scheme=Scheme.HTTP),
                rule("blind", ["blind.test"], action=Action.PASSTHROUGH),
                rule("raw", ["raw.test"], action=Action.TUNNEL, ports=(22,)),
                rule("wild", ["*.wild.test"]),
                rule("metadata", ["metadata.google.internal"]),
            ],
            [bearer("key", self.secret, ["api.test"])],
        )
        self.table = SyntheticAddresses(NETWORKS, 100, secrets.token_bytes(32))
        self.names = Names(lambda: self.terms, self.table, 5)

    def ask(
        self,
        name: bytes,
        kind: int = dns.A,
        kind_class: int = dns.IN,
        identity: str = IDENTITY,
        now: float = 0.0,
    ) -> tuple[Reply, str, list[Decided]]:
        """Return the answer, the word for it, and the records."""
        who = Who(1, "dns", identity, "127.0.0.1:5")
        reply, events = self.names.ask(who, Question(1, name, kind, kind_class, True), now)
        (asked,) = (one for one in events if isinstance(one, NameAsked))
        return reply, asked.answer, [one for one in events if isinstance(one, Decided)]


class AskTests(Case):
    def test_allowed(self) -> None:
        """Any rule but a deny: an address that stands for the name, the same each time."""
        for name in (
            "api.test",
            "part.test",
            "plain.test",
            "blind.test",
            "raw.test",
            "a.wild.test",
        ):
            for kind, version in ((dns.A, 4), (dns.AAAA, 6)):
                reply, word, records = self.ask(name.upper().encode(), kind)
                self.assertEqual((reply.code, word, records), (Code.NOERROR, "address", []))
                self.assertEqual(self.table.name_of(IDENTITY, reply.address), name)
                self.assertEqual(":" in reply.address, version == 6)
                self.assertEqual(self.ask(name.encode(), kind)[0], reply)

    def test_denied(self) -> None:
        """T016, T037: what no rule could allow does not exist, single labels and metadata too."""
        for number, name in enumerate(
            "evil.test denied.test wild.test api localhost metadata.google.internal".split()
        ):
            reply, word, (record,) = self.ask(name.encode(), now=60.0 * number)
            self.assertEqual((reply, word), (Reply(Code.NXDOMAIN), "denied"), name)
            self.assertEqual(
                (record.stage, record.action, record.reason, record.authority),
                (Stage.NAME, Action.DENY, Reason.NO_RULE, name),
            )
        self.assertEqual(self.ask(b"api.test", identity=OTHER)[0].code, Code.NXDOMAIN)

    def test_other_types_T042(self) -> None:
        """HTTPS and SVCB records would lead a client to QUIC or ECH: there are none."""
        for kind in (HTTPS, SVCB, dns.MX, dns.TXT, dns.ALL_RECORDS, dns.NS, dns.CNAME):
            self.assertEqual(self.ask(b"api.test", kind)[:2], (Reply(Code.NOERROR), "empty"))
            self.assertEqual(self.ask(b"evil.test", kind)[0].code, Code.NXDOMAIN)
        self.assertEqual(self.ask(b"api.test", dns.A, 3)[:2], (Reply(Code.REFUSED), "refused"))

    def test_malformed_T040(self) -> None:
        for name in (b"", b"a..b", b"-a.test", b"*.wild.test", b"a b.test", b"1.2.3.4", b"0x7f.1",
                     b"\xff.test", b"api.test\0", b"[::1]"):  # fmt: skip
            self.assertEqual(self.ask(name)[:2], (Reply(Code.NXDOMAIN), "malformed"), name)
        self.assertEqual(self.ask(b"_dmarc.x.wild.test")[1], "address")

    def test_a_secret_in_the_name_T039(self) -> None:
        """Whole, or cut by dots; the record says what it was and not where."""
        half = len(self.secret) // 2
        placeholder = Playbook(self.terms).placeholder("key")
        for label, reason in (
            (self.secret, Reason.SECRET_IN_REQUEST),
            (self.secret[:half] + b"." + self.secret[half:], Reason.SECRET_IN_REQUEST),
            (placeholder, Reason.HONEYTOKEN),
        ):
            reply, word, (record,) = self.ask(label + b".wild.test")
            self.assertEqual((reply.code, word), (Code.NXDOMAIN, "denied"))
            self.assertEqual((record.reason, record.authority), (reason, ""))
            again = self.ask(label + b".wild.test")
            self.assertEqual((again[1], again[2]), ("denied", []), "recorded once a minute")
        self.assertEqual(self.ask(self.secret[:-1] + b".wild.test")[1], "address")

    def test_budget_T039(self) -> None:
        """Names that no rule writes out are few a minute; those written out are free."""
        for number in range(5):
            name = b"n%d.wild.test" % number if number % 2 else b"n%d.evil.test" % number
            self.assertNotEqual(self.ask(name)[1], "limit")
        self.assertEqual(self.ask(b"n9.wild.test")[:2], (Reply(Code.REFUSED), "limit"))
        self.assertEqual(self.ask(b"n1.wild.test")[1], "address")
        self.assertEqual(self.ask(b"api.test")[1], "address")
        self.assertEqual(self.ask(b"n9.wild.test", now=61.0)[1], "address")

    def test_one_record_a_minute(self) -> None:
        """The same denied name again is counted and not recorded again."""
        self.assertEqual(len(self.ask(b"evil.test")[2]), 1)
        reply, word, records = self.ask(b"EVIL.test", now=1.0)
        self.assertEqual((reply.code, word, records), (Code.NXDOMAIN, "denied", []))
        self.assertEqual(len(self.ask(b"evil.test", now=62.0)[2]), 1)
