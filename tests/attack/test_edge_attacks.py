"""TLS peers that speak correctly and mean no good."""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.flow import Bystander, Flow
from slapenir.edge.origin import OriginFlow
from slapenir.edge.tls import Tls
from tests.support.pressure import PressureTransport
from tests.support.tls import TestCA

MARK = 65536
DISCARD = 20000


class KeyUpdates:
    """A TLS 1.3 client's KeyUpdate records, made from its traffic secret (RFC 8446, 4.6.3, 7.2).

    ``next`` asks the server for an update of its own keys, which is a record of 27 bytes too.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def next(self) -> bytes:
        """Return one record and move on to the next keys."""
        key, nonce = self._expand(b"key", 32), self._expand(b"iv", 12)
        self._secret = self._expand(b"traffic upd", 48)
        message = b"\x18\x00\x00\x01\x01\x16"  # key_update, update_requested; a handshake record
        head = b"\x17\x03\x03" + struct.pack(">H", len(message) + 16)
        return head + AESGCM(key).encrypt(nonce, message, head)

    def _expand(self, label: bytes, size: int) -> bytes:
        """Return HKDF-Expand-Label with SHA-384, for at most 48 bytes (RFC 8446, 7.1)."""
        info = struct.pack(">HB", size, 6 + len(label)) + b"tls13 " + label + b"\x00\x01"
        return hmac.new(self._secret, info, hashlib.sha384).digest()[:size]


class Heard(Bystander):
    """Keep what arrives, whether the flow could be used again then, and how it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.usable: list[bool] = []
        self.ended: list[bool] = []

    def flow_data(self, flow: Flow, data: bytes) -> None:
        self.data += data
        self.usable.append(flow.usable)

    def flow_closed(self, flow: Flow, clean: bool) -> None:
        self.ended.append(clean)


class TlsPeers(SynchronousTestCase):
    """One Flow under TLS and a peer that has the keys."""

    def setUp(self) -> None:
        self.heard = Heard()
        self.transport = PressureTransport(mark=MARK)
        self.flow = OriginFlow(
            Clock(),
            EdgeLimits(discard=DISCARD),
            self.heard,
            "a.test:443",
            "192.0.2.1",
            None,
            lambda flow: None,
            lambda flow: None,
        )
        self.transport.attach(self.flow)
        self.secrets: dict[bytes, bytes] = {}
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_keylog_callback(self.keep_secret)
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        self.peer = Tls(connection)
        server = SSL.Connection(TestCA().issue("localhost").server_context(), None)
        server.set_accept_state()
        self.flow.start_tls(Tls(server), self.peer.start())
        self.transport.give(self.peer.feed(self.transport.take())[1])
        self.peer.feed(self.transport.take())
        self.assertEqual(connection.get_cipher_name(), "TLS_AES_256_GCM_SHA384")

    def keep_secret(self, connection: SSL.Connection, line: bytes) -> None:
        """Take one line of the key log."""
        label, _, secret = line.split()
        self.secrets[label] = bytes.fromhex(secret.decode("ascii"))

    def test_answers_to_key_updates_are_bounded(self) -> None:
        """T108: one that asks for new keys for ever and reads nothing is cut off."""
        updates = KeyUpdates(self.secrets[b"CLIENT_TRAFFIC_SECRET_0"])
        for _ in range(6000):
            self.transport.give(updates.next())
            if self.transport.aborted:
                break
        self.assertTrue(self.transport.aborted)
        self.assertLess(self.transport.largest, MARK + DISCARD + 100)
        self.assertEqual(self.heard.data, b"")

    def test_a_peer_that_reads_may_ask_as_often_as_it_likes(self) -> None:
        """T108, control."""
        updates = KeyUpdates(self.secrets[b"CLIENT_TRAFFIC_SECRET_0"])
        for _ in range(6000):
            self.transport.give(updates.next())
            self.transport.take()
        self.assertFalse(self.transport.aborted)

    def test_a_record_that_has_begun_is_an_answer_that_nobody_asked_for(self) -> None:
        """T071: a connection with the beginning of the next response in it is not used again."""
        self.transport.give(self.peer.send(b"response"))
        later = self.peer.send(b"unasked")
        self.assertTrue(self.flow.usable)
        for cut in (3, 5, 12):
            self.transport.give(later[:cut])
            self.assertFalse(self.flow.usable, cut)
            self.transport.give(later[cut:])
            self.assertTrue(self.flow.usable)
            later = self.peer.send(b"unasked")

    def test_a_response_with_the_end_behind_it(self) -> None:
        """A connection that ended with the response is not used for another request."""
        self.transport.give(self.peer.send(b"one"))
        self.transport.give(self.peer.send(b"two") + self.peer.close())
        self.assertEqual(self.heard.data, b"onetwo")
        self.assertEqual(self.heard.usable, [True, False])
        self.assertEqual(self.heard.ended, [True])
