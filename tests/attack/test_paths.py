"""Paths that an old or lenient origin reads in another way than the policy would."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.names import Action, Reason
from slapenir.policy.paths import climbs, readings
from tests.support.playbook import Playbook, make_terms, rule

HOST = "api.example.test"


class Overlong(SynchronousTestCase):
    """T078: dots, slashes and letters in UTF-8 that is longer than it must be (RFC 3629, 10)."""

    def test_readings(self) -> None:
        for path in ("/v1/%c0%ae%c0%ae/x", "/v1/%C0%AE./x", "/v1/..%c0%afx", "/v1/%e0%80%ae./x"):
            self.assertTrue(climbs(path), path)
        self.assertIn("/admin", readings("/%c1%a1dmin"))
        self.assertIn("/admin", readings("/%25c1%25a1dmin"))
        for path in ("/v1/%c3%80/x", "/%e2%82%ac", "/%ce%b1.", "/%e0%a4%85"):
            self.assertFalse(climbs(path), path)

    def test_an_allow_that_is_limited_to_paths(self) -> None:
        terms = make_terms([rule("api", [HOST], paths=("/v1/*",))])
        for path, reason in (
            (b"/v1/%c0%ae%c0%ae/admin", Reason.PATH_REFUSED),
            (b"/v1/%c3%80/admin", Reason.RULE),
        ):
            book = Playbook(terms)
            book.intercept()
            book.client_sends(b"GET %b HTTP/1.1\r\nHost: api.example.test\r\n\r\n" % path)
            self.assertEqual(book.decisions()[-1].reason, reason)

    def test_a_deny(self) -> None:
        terms = make_terms(
            [rule("no", [HOST], paths=("/admin*",), action=Action.DENY), rule("api", [HOST])]
        )
        for path, action in ((b"/%c1%a1dmin", Action.DENY), (b"/%c3%a1dmin", Action.ALLOW)):
            book = Playbook(terms)
            book.intercept()
            book.client_sends(b"GET %b HTTP/1.1\r\nHost: api.example.test\r\n\r\n" % path)
            self.assertEqual(book.decisions()[-1].action, action)
