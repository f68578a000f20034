"""Records are one valid JSON line each, whatever they hold (T215)."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from slapenir import events
from slapenir.names import Form, Place, Reason
from slapenir.observe import record
from slapenir.observe.record import AUDITED, MAX_LIST, MAX_STRING, Timestamps, quote
from tests.observe.samples import HONEYTOKEN, ONE_OF_EACH, WHO, decided, finished

HOSTILE = (
    "a\r\nb",
    "\x1b[31mred\x1b[0m",
    "a\u2028b\u2029c",
    "\ud800 alone",
    '"quoted\\',
    "\x00\x7f\x9b",
    "\u202egnp",
    "x" * 1_000_000,
)

TEXTS = st.text(st.characters(codec=None), max_size=50)


class RecordTests(unittest.SynchronousTestCase):
    def test_the_fields_of_a_decision(self) -> None:
        """A decision's record holds every field under its own name."""
        self.assertEqual(
            json.loads("{" + record.decided(decided()) + "}"),
            {
                "event": "Decided",
                "connection": 7,
                "listener": "listener-1",
                "identity": "sandbox",
                "peer": "127.0.0.1:50000",
                "exchange": 3,
                "stage": "request",
                "action": "allow",
                "reason": "rule",
                "rule": "llm",
                "scheme": "https",
                "authority": "api.example.test:443",
                "method": "POST",
                "path": "/v1/chat",
                "address": "",
                "detail": "",
                "credentials": ["llm"],
                "surfaces": ["header:authorization"],
            },
        )

    def test_several_credentials_keep_their_surfaces(self) -> None:
        """Credentials and surfaces are lists of the same order; both are bounded."""
        uses = tuple(events.CredentialUse(f"c{n}", f"query:q{n}") for n in range(MAX_LIST + 5))
        read = json.loads("{" + record.decided(decided(credentials=uses)) + "}")
        self.assertEqual(read["credentials"], [f"c{n}" for n in range(MAX_LIST)])
        self.assertEqual(read["surfaces"], [f"query:q{n}" for n in range(MAX_LIST)])

    def test_what_was_found(self) -> None:
        """A honeytoken's record says which credential, where, in which form and whose."""
        read = json.loads("{" + record.decided(HONEYTOKEN) + "}")
        self.assertEqual(
            {key: read[key] for key in read if key.startswith("found_")},
            {
                "found_credential": "llm",
                "found_form": "raw",
                "found_place": "head",
                "found_owner": "sandbox",
            },
        )

    def test_every_audited_class_has_valid_fields(self) -> None:
        """Each class's fields are JSON and name the class."""
        for event in ONE_OF_EACH:
            fields = AUDITED.get(type(event))
            if fields is not None:
                read = json.loads("{" + fields(event) + "}")
                self.assertEqual(read["event"], type(event).__name__)

    def test_hostile_strings_make_one_line_t215(self) -> None:
        """T215: CRLF, ANSI, U+2028, lone surrogates, quotes, 1 MB paths: one ASCII line."""
        for text in HOSTILE:
            who = events.Who(1, text, text, text)
            lines = [
                record.decided(
                    decided(
                        who=who,
                        rule=text,
                        scheme=text,
                        authority=text,
                        method=text,
                        path=text,
                        address=text,
                        credentials=(events.CredentialUse(text, text),),
                        finding=events.Finding(text, Form.RAW, Place.BODY, text),
                    )
                ),
                record.sanitized(events.Sanitized(who, 1, text, Form.HEX, Place.BODY, 1)),
                record.exchange_finished(
                    finished(who=who, rule=text, method=text, path=text, detail=text)
                ),
                record.connection_refused(events.ConnectionRefused(who, text)),
                record.gateway_ready(events.GatewayReady(text, (text,))),
                record.reloaded(events.Reloaded(text)),
            ]
            for line in lines:
                self.assertTrue(line.isascii() and line.isprintable())
                self.assertLess(len(line), 20 * (6 * MAX_STRING + 100))
                json.loads("{" + line + "}")

    def test_an_ordinary_string_is_kept_as_it_is(self) -> None:
        """The negative control: plain text and text in any script come back equal."""
        for text in ("/v1/chat", "", "Grüße", "日本語", "🔑", "x" * MAX_STRING):
            self.assertEqual(json.loads(quote(text)), text)

    def test_a_long_string_says_how_much_is_missing(self) -> None:
        """One character too many is cut and counted."""
        self.assertEqual(json.loads(quote("x" * (MAX_STRING + 3))), "x" * MAX_STRING + "[+3]")

    @settings(deadline=None, max_examples=100)
    @given(TEXTS)
    def test_quote_is_the_json_of_the_text(self, text: str) -> None:
        """For any text the result is one line of JSON that reads back, surrogates replaced."""
        line = quote(text)
        self.assertTrue(line.isascii() and line.isprintable())
        self.assertEqual(json.loads(line), text.encode("utf-8", "replace").decode("utf-8"))

    @settings(deadline=None, max_examples=50)
    @given(TEXTS, TEXTS, TEXTS)
    def test_any_decision_is_one_object(self, path: str, method: str, identity: str) -> None:
        """For any strings the record is one object and no field takes another's place."""
        who = events.Who(1, "l", identity, "p")
        line = record.decided(decided(who=who, path=path, method=method, reason=Reason.NO_RULE))
        read = json.loads("{" + line + "}")
        self.assertEqual(read["reason"], "no_rule")
        self.assertEqual(len(read), 18)


class TimestampTests(unittest.SynchronousTestCase):
    def test_milliseconds_and_second_change(self) -> None:
        """Times are RFC 3339 in UTC; the clock may jump either way (T216)."""
        times = Timestamps()
        for now, text in (
            (0.0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000.0009, "2023-11-14T22:13:20.000Z"),
            (1_700_000_000.999, "2023-11-14T22:13:20.999Z"),
            (1_700_000_001.5, "2023-11-14T22:13:21.500Z"),
            (1_600_000_000.25, "2020-09-13T12:26:40.250Z"),
        ):
            self.assertEqual(times.text(now), text)
        self.assertEqual(WHO.connection, 7)
