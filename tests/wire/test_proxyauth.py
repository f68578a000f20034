"""Proxy-Authorization: which token it holds, or that it cannot be read."""

from __future__ import annotations

import base64
import hashlib
import secrets

from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import RemoteProtocolError
from slapenir.wire.proxyauth import ProxyCredentials, parse_proxy_authorization, token_digest


class ProxyAuthorizationTests(SynchronousTestCase):
    """Both schemes, and what is none."""

    def setUp(self) -> None:
        self.token = secrets.token_urlsafe(32).encode()
        self.digest = "sha256:" + hashlib.sha256(self.token).hexdigest()

    def basic(self, user: bytes, password: bytes) -> bytes:
        return b"Basic " + base64.b64encode(user + b":" + password)

    def test_tokens(self) -> None:
        self.assertEqual(token_digest(self.token), self.digest)
        for value, user in (
            (b"Bearer " + self.token, ""),
            (b"bearer  " + self.token + b" ", ""),
            (self.basic(b"agent-1", self.token), "agent-1"),
            (self.basic(b"", self.token), ""),
            (self.basic(b"\xff", self.token), "\ufffd"),
        ):
            found = parse_proxy_authorization([value])
            self.assertEqual(found, ProxyCredentials(user, self.digest), value)
        colons = parse_proxy_authorization([self.basic(b"a", b"b:c")])
        assert colons is not None
        self.assertEqual((colons.user, colons.token), ("a", token_digest(b"b:c")))
        self.assertIsNone(parse_proxy_authorization([]))

    def test_what_cannot_be_read(self) -> None:
        for values in (
            [b"Bearer " + self.token] * 2,
            [b""],
            [b"Bearer"],
            [b"Bearer "],
            [b"Digest username=x"],
            [b"Basic"],
            [b"Basic !!!!"],
            [b"Basic " + base64.b64encode(b"no colon")],
            [self.basic(b"user", b"")],
            [self.basic(b"user", self.token) + b" x"],
            [b"Bearer " + bytes(5000)],
        ):
            with self.assertRaises(RemoteProtocolError) as caught:
                parse_proxy_authorization(values)
            self.assertNotIn(self.token.decode(), str(caught.exception))
