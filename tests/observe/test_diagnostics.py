"""The log for people: fixed texts, quoted fields, bounded."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel, formatEvent
from twisted.trial import unittest

from slapenir import events
from slapenir.names import Action, Form, Place, Reason, Side
from slapenir.observe.diagnostics import LINES_PER_SECOND, Diagnostics
from slapenir.observe.publisher import Publisher
from tests.observe.samples import HONEYTOKEN, ONE_OF_EACH, WHO, FakeClock, decided
from tests.observe.test_metrics import NoAudit


class DiagnosticsTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.clock = FakeClock()
        logger = Logger(namespace="slapenir", observer=self.observe)
        self.publisher = Publisher(NoAudit(), [Diagnostics(logger, self.clock)])

    def observe(self, event: object) -> None:
        self.lines.append((event["log_level"].name, formatEvent(event)))  # type: ignore[index]

    def test_what_is_said_of_each_event(self) -> None:
        """Events worth a line get one line of fixed text; the others none."""
        for event in (*ONE_OF_EACH, HONEYTOKEN):
            self.publisher.publish(event)
        self.assertEqual(
            self.lines,
            [
                (
                    "warn",
                    'Refused a connection from "127.0.0.1:50000" on "listener-1": '
                    'limit "connections" is reached',
                ),
                (
                    "error",
                    'Unexpected "ValueError" in "edge.client"; what it was doing was aborted',
                ),
                (
                    "critical",
                    'An audit record could not be written, requests are refused: "disk full"',
                ),
                ("info", 'SLAPENIR "0.1.0" is ready on "tcp:8080"'),
                ("info", "Stopping; connections that are left in 30.0 seconds are cut"),
                ("info", "Reloaded the configuration"),
                ("info", 'Certificate "ca" ends in 3472.2 days'),
                ("info", 'Renewed certificate "managed"; the new one ends in 3472.22 days'),
                ("info", 'Certificate "identity-root-2" is not used any more'),
                (
                    "error",
                    'Certificate "managed" was not renewed: "the CA cannot be reached"; '
                    "next try in 60 s",
                ),
                ("info", 'Issued a certificate to "agent-1" at "127.0.0.1:50000", by "token"'),
                (
                    "warn",
                    'Refused a certificate to "127.0.0.1:50000": "the token is not known"',
                ),
                ("info", 'A sandbox of "sandbox" joined, run by user 1000'),
                ("info", 'A sandbox of "sandbox" is served no more: "its runner is gone"'),
                ("warn", 'The sandbox of "sandbox" was refused 3 packets ("udp443")'),
                ("info", 'The revocation list of "listener-1" names 3 certificates'),
                (
                    "warn",
                    'Denied: the "placeholder" of credential "llm" was in the "head" of a '
                    '"request" of identity "sandbox" and "api.example.test:443"',
                ),
            ],
        )
        self.assertEqual(self.publisher.lost, 0)

    def test_a_real_secret_on_its_way_out(self) -> None:
        """It is named by its credential's id only."""
        finding = events.Finding("llm", Form.BASE64, Place.BODY)
        reason = Reason.SECRET_IN_REQUEST
        self.publisher.publish(decided(action=Action.DENY, reason=reason, finding=finding))
        ((level, line),) = self.lines
        self.assertEqual(level, "warn")
        self.assertIn('the "secret" of credential "llm" was in the "body"', line)

    def test_alarms(self) -> None:
        """A failed reload is critical; a certificate that ends soon is a warning (T210, T217)."""
        self.publisher.publish(events.Reloaded("unknown key"))
        self.publisher.publish(events.CertificateLoaded("ca", self.clock.now + 86400))
        self.assertEqual(
            self.lines,
            [
                (
                    "critical",
                    'Reload failed, the old configuration stays in force: "unknown key"',
                ),
                ("warn", 'Certificate "ca" ends in 1.0 days'),
            ],
        )

    def test_a_peer_cannot_write_lines_of_its_own_t215(self) -> None:
        """T215: line breaks, terminal codes and format fields arrive quoted."""
        text = "x\r\nSLAPENIR is ready\x1b[2J{log_level}\u2028"
        self.publisher.publish(events.TlsHandshake(Side.CLIENT, text, 1.0, text))
        ((_, line),) = self.lines
        self.assertEqual(line.splitlines(), [line])
        self.assertNotIn("\x1b", line)
        self.assertIn("{log_level}", line)

    def test_a_flood_is_bounded_t197(self) -> None:
        """T197: ten lines a second and class; the rest is counted in the next second's."""
        for _ in range(1000):
            self.publisher.publish(events.ConnectionRefused(WHO, "connections"))
        self.assertEqual(len(self.lines), LINES_PER_SECOND)
        self.publisher.publish(events.Reloaded())
        self.assertEqual(len(self.lines), LINES_PER_SECOND + 1)
        self.clock.now += 1
        self.publisher.publish(events.ConnectionRefused(WHO, "connections"))
        self.assertIn(f"({1000 - LINES_PER_SECOND} more like it", self.lines[-1][1])

    def test_levels_are_known(self) -> None:
        """Every level used is one of twisted.logger's."""
        for event in ONE_OF_EACH:
            self.publisher.publish(event)
        for level, _ in self.lines:
            LogLevel.lookupByName(level)
