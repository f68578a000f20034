"""T092, T093, T094: what a redirect in the packet filter would bring to an explicit listener.

There is no transparent mode yet, so a listener never learns where a connection was going.  What
arrives like that is refused: nothing is dialled and no placeholder is swapped.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.exchange.inputs import CLIENT, Timer
from slapenir.names import Action, Reason, Scheme
from tests.support.hellos import real_hello
from tests.support.playbook import Playbook, bearer, make_terms, new_secret, rule

HOST = "api.example.test"


class RedirectedTests(SynchronousTestCase):
    def setUp(self) -> None:
        rules = [
            rule("tls", [HOST], credentials=("key",)),
            rule("plain", [HOST], scheme=Scheme.HTTP, ports=(80,)),
        ]
        self.terms = make_terms(rules, [bearer("key", new_secret(), [HOST])])

    def test_tls_T092_T093(self) -> None:
        """Without a name (T092) and with that of an allowed host (T093): cut, one record."""
        for name in (None, HOST):
            book = Playbook(self.terms)
            sent = real_hello(name)
            self.assertEqual(HOST.encode() in sent, name is not None)
            book.client_sends(sent)
            if CLIENT not in book.closed:
                book.fire(Timer.CLOSE)
            self.assertIn(CLIENT, book.closed)
            self.assertEqual((book.dials, book.started_tls), ([], []))
            (record,) = book.decisions()
            self.assertEqual((record.action, record.reason), (Action.DENY, Reason.PROTOCOL_ERROR))

    def test_plain_T094(self) -> None:
        """The Host field of a request in origin-form opens nothing (T094); a target does."""
        book = Playbook(self.terms)
        placeholder = book.placeholder("key")
        fields = b"Host: %s\r\nAuthorization: Bearer %s\r\n\r\n" % (HOST.encode(), placeholder)
        book.client_sends(b"GET /v1/x HTTP/1.1\r\n" + fields)
        self.assertTrue(book.client.startswith(b"HTTP/1.1 400 "), bytes(book.client))
        self.assertEqual((book.dials, book.origins), ([], {}))
        self.assertEqual([one.action for one in book.decisions()], [Action.DENY])
        control = Playbook(self.terms)
        control.client_sends(
            b"GET http://%s/v1/x HTTP/1.1\r\nHost: %s\r\n\r\n" % ((HOST.encode(),) * 2)
        )
        self.assertEqual(len(control.dials), 1)
