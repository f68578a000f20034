"""Surfaces and hosts of a credential."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.credentials.model import (
    REFUSED_HEADERS,
    BasicSurface,
    BodySurface,
    Credential,
    HeaderSurface,
    QuerySurface,
    check_surface,
)
from slapenir.secret import Secret
from tests.credentials.made import token


class SurfaceTests(SynchronousTestCase):
    """check_surface."""

    def test_T231_fields_that_answer_with_a_hash_are_refused(self) -> None:
        """T231: hashed, framing, routing and hop-by-hop fields take no credential."""
        for name in (
            b"sec-websocket-key",
            b"sec-websocket-protocol",
            b"content-md5",
            b"digest",
            b"content-digest",
            b"host",
            b"content-length",
            b"transfer-encoding",
            b"connection",
            b"proxy-authorization",
            b"te",
            b"upgrade",
        ):
            self.assertRaises(ValueError, check_surface, HeaderSurface(name))
        for name in REFUSED_HEADERS:
            self.assertRaises(ValueError, check_surface, HeaderSurface(name, b"Bearer", "always"))

    def test_T231_other_fields_pass(self) -> None:
        """T231: the negative control."""
        for name in (b"authorization", b"x-api-key", b"private-token", b"x-sec-key", b"cookie"):
            check_surface(HeaderSurface(name))
        check_surface(HeaderSurface(b"authorization", b"Bearer", "always"))
        for surface in (BasicSurface("username"), QuerySurface(b"key"), BodySurface()):
            check_surface(surface)

    def test_syntax(self) -> None:
        """Names are lower-case tokens, schemes one token, parts and times one of two."""
        for name in (b"", b"Authorization", b"x api", b"x:y", b"x\r\ny", b"x\xe9", b"x\0"):
            self.assertRaises(ValueError, check_surface, HeaderSurface(name))
        for scheme in (b"", b"Bearer ", b"Two Words", b"a\r\nb: c", b"a:"):
            self.assertRaises(ValueError, check_surface, HeaderSurface(b"x-a", scheme))
        for surface in (
            HeaderSurface(b"x-a", None, "sometimes"),  # type: ignore[arg-type]
            BasicSurface("both"),  # type: ignore[arg-type]
            QuerySurface(b""),
            QuerySurface(b"a\nb"),
        ):
            self.assertRaises(ValueError, check_surface, surface)

    def test_labels(self) -> None:
        """The words that records use."""
        labels = [
            surface.label
            for surface in (
                HeaderSurface(b"x-api-key"),
                BasicSurface("password"),
                QuerySurface(b"key"),
                BodySurface(),
            )
        ]
        self.assertEqual(labels, ["header:x-api-key", "basic:password", "query:key", "body"])


class CredentialTests(SynchronousTestCase):
    """Credential."""

    def test_T164_no_hosts_is_no_host(self) -> None:
        """T164: an empty list of hosts allows none; a listed one passes."""
        secret = Secret(token())
        self.assertFalse(Credential("key", secret, (), ()).allows("a.org"))
        self.assertTrue(Credential("key", secret, ("a.org",), ()).allows("a.org"))

    def test_T027_hosts_keep_to_labels(self) -> None:
        """T027: the wildcard means the same as in a rule."""
        credential = Credential("key", Secret(token()), ("*.a.org", "b.org"), ())
        self.assertTrue(credential.allows("x.a.org"))
        self.assertTrue(credential.allows("b.org"))
        for host in ("a.org", "xa.org", "a.org.evil.com", "x.b.org"):
            self.assertFalse(credential.allows(host))

    def test_T226_repr_has_no_secret(self) -> None:
        """T226: the secret is in no text form of a credential."""
        value = token()
        text = repr(Credential("key", Secret(value), ("a.org",), (BodySurface(),)))
        self.assertNotIn(value.decode("ascii"), text)
        self.assertIn("key", text)
