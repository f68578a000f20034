"""ACME and step-ca when something is not as it should be; and an order that is given up."""

from __future__ import annotations

import secrets
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import ClientFactory, Factory, Protocol

from slapenir.issuance.acme_provider import AcmeProvider
from slapenir.issuance.pinned_https import fingerprint_of
from slapenir.issuance.stepca_provider import StepCaProvider, minted_tokens
from slapenir.pki.held import Held, Wanted
from tests.issuance.https_rig import HOST, REACTOR, HttpsTestCase, Silent, ok
from tests.support.agents import spiffe
from tests.support.ports import free_port
from tests.support.step_ca import PROVISIONER, StepCa
from tests.support.tls import CLIENT_AUTH, TestCA

SERVER = Wanted(dns=(HOST,), server=True, lifetime=3600.0)
AGENT = Wanted(common_name="agent-1", spiffe=(spiffe("1"),), lifetime=3600.0)


class FailureCase(HttpsTestCase):
    def place(self) -> Path:
        path = Path(self.mktemp()).resolve()
        path.mkdir(parents=True, mode=0o700)
        return path


class AcmeFailureTests(FailureCase):
    def provider(self, url: str, endpoint: str = "", root_file: str | None = None) -> AcmeProvider:
        """Return a provider that has the CA's root in a file."""
        if root_file is None:
            path = self.place() / "root.pem"
            path.write_bytes(self.ca.certificate.public_bytes(serialization.Encoding.PEM))
            root_file = str(path)
        self.endpoint = free_port()
        return AcmeProvider(
            REACTOR,
            url,
            fingerprint_of(self.ca.certificate),
            root_file,
            "",
            endpoint or f"tcp:{self.endpoint}:interface=127.0.0.1",
            str(self.place()),
            SERVER,
        )

    def listens(self) -> Any:
        """Return a Deferred of whether the port for challenges is open."""
        from twisted.internet.defer import Deferred

        answer: Deferred[bool] = Deferred()

        class Probe(Protocol):
            def connectionMade(self) -> None:
                transport: Any = self.transport
                transport.abortConnection()
                answer.callback(True)

        class Connect(ClientFactory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Probe:
                return Probe()

            def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
                answer.callback(False)

        REACTOR.connectTCP("127.0.0.1", self.endpoint, Connect())
        return answer

    async def ended(self) -> None:
        """Wait for the end of the thread."""
        await self.until(lambda: not [one for one in threading.enumerate() if one.name == "acme"])

    async def test_nobody_is_there(self) -> None:
        """A closed port."""
        provider = self.provider(f"https://{HOST}:{free_port()}/dir")
        await self.fails(provider.obtain(), "cannot be reached")
        self.assertFalse(await self.listens())

    async def test_a_directory_that_is_none(self) -> None:
        """An error, garbage, a redirect that would lead elsewhere."""
        other = self.serve(ok(b"{}"))
        more = b"Location: %b/\r\n" % other.url.encode()
        for answer in (
            ok(b"", b"500 Internal Server Error"),
            ok(b"garbage"),
            ok(b"{}"),
            ok(b"[" * 100000),
            ok(b"", b"302 Found", more),
        ):
            server = self.serve(answer)
            provider = self.provider(f"{server.url}/dir")
            await self.fails(provider.obtain(), "refused the order|cannot be re")
            self.assertFalse(await self.listens())
        self.assertEqual(other.ends, [])
        await self.ended()

    async def test_an_order_that_is_given_up(self) -> None:
        """A CA that does not answer holds nobody up; the port is closed, the thread ends later."""
        port = REACTOR.listenTCP(0, Factory.forProtocol(Silent), interface="127.0.0.1")
        provider = self.provider(f"https://{HOST}:{port.getHost().port}/dir")
        order = provider.obtain()
        await self.until(lambda: Silent.open)
        self.assertTrue(await self.listens())
        (thread,) = (one for one in threading.enumerate() if one.name == "acme")
        self.assertTrue(thread.daemon)
        begun = REACTOR.seconds()
        order.cancel()
        with self.assertRaises(CancelledError):
            await order
        self.assertLess(REACTOR.seconds() - begun, 1.0)
        self.assertFalse(await self.listens())
        await port.stopListening()
        for one in Silent.open:
            one.transport.abortConnection()
        await self.ended()

    async def test_it_asks_nothing_more_after_that(self) -> None:
        """The thread ends at the next answer."""
        server = self.serve(lambda _: b"")
        order = self.provider(f"{server.url}/dir").obtain()
        await self.until(lambda: server.heard)
        order.cancel()
        with self.assertRaises(CancelledError):
            await order
        directory = {name: f"{server.url}/{name}" for name in ("newNonce", "newAccount")}
        import json

        server.ends[0].flow.write(ok(json.dumps(directory).encode()))
        server.ends[0].flow.flush()
        await self.ended()
        self.assertEqual(len(server.ends), 1)

    async def test_the_challenge_port_is_taken(self) -> None:
        """It is said which; nothing is asked of the CA."""
        port = REACTOR.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        server = self.serve(ok(b"{}"))
        endpoint = f"tcp:{port.getHost().port}:interface=127.0.0.1"
        provider = self.provider(server.url, endpoint)
        await self.fails(provider.obtain(), f"cannot listen on pki.challenge {endpoint}: Address")
        self.assertEqual(server.ends, [])

    async def test_the_root_is_not_to_be_had(self) -> None:
        """Without pki.root_file a CA that is no step-ca is told apart; a file may be missing."""
        server = self.serve(ok(b"", b"404 Not Found"))
        await self.fails(self.provider(server.url, "", "").obtain(), "pki.root_file")
        missing = str(self.place() / "none.pem")
        await self.fails(self.provider(server.url, "", missing).obtain(), "does not exist")

    async def test_without_the_library(self) -> None:
        """It says what to install."""
        self.enterContext(mock.patch.dict(sys.modules, {"acme": None}))
        provider = self.provider(f"https://{HOST}:{free_port()}/dir")
        await self.fails(provider.obtain(), r"pip install 'slapenir\[acme\]'")


class StepCaFailureTests(FailureCase):
    def setUp(self) -> None:
        super().setUp()
        self.real = StepCa(self.place())
        self.real.start()
        self.addCleanup(self.real.stop)
        self.minted: list[Wanted] = []

    def provider(self, wanted: Wanted = AGENT) -> StepCaProvider:
        """Return a provider that counts the tokens it makes."""
        fingerprint = self.real.root_fingerprint
        mint = minted_tokens(str(self.real.provisioner_key), PROVISIONER, fingerprint)

        def token(url: str, asked: Wanted) -> str:
            self.minted.append(asked)
            return mint(url, asked)

        return StepCaProvider(REACTOR, self.real.url, fingerprint, wanted, token)

    async def test_other_names_are_wanted(self) -> None:
        """A renewal would keep the old ones, so a token is used; for the same ones it is not."""
        first = await self.provider().obtain()
        await self.provider().renew(first)
        self.assertEqual(len(self.minted), 1)
        other = Wanted(common_name="agent-1", spiffe=(spiffe("2"),), lifetime=3600.0)
        second = await self.provider(other).renew(first)
        self.assertTrue(other.is_said_by(second.leaf))
        self.assertEqual(len(self.minted), 2)

    async def test_a_certificate_that_the_ca_does_not_take(self) -> None:
        """One of another CA, as after a CA was replaced: a token is used."""
        first = await self.provider().obtain()
        own = _signed_like(first.leaf, TestCA("step-ca issuing"), first.key)
        self.assertTrue(AGENT.is_said_by(own.leaf))
        renewed = await self.provider().renew(own)
        self.assertTrue(AGENT.is_said_by(renewed.leaf))
        self.assertEqual(len(self.minted), 2)

    async def test_the_ca_stops_and_comes_back(self) -> None:
        """A CA that is down is no reason to use a token."""
        first = await self.provider().obtain()
        self.real.stop()
        await self.fails(self.provider().renew(first), "cannot be reached")
        self.real.start()
        await self.provider().renew(first)
        self.assertEqual(len(self.minted), 1)

    async def test_an_impostor_gets_no_token(self) -> None:
        """One that knows the root but not its key hears GET /root and nothing else."""
        pem = self.real.root.public_bytes(serialization.Encoding.PEM).decode()
        import json

        server = self.serve(ok(json.dumps({"ca": pem}).encode()))
        provider = self.provider()
        provider._url = server.url
        await self.fails(provider.obtain(), "not trusted")
        self.assertIn(b"GET /root/", server.heard)
        self.assertNotIn(b"POST", server.heard)
        self.assertNotIn(b"ott", server.heard)

    async def test_keys_that_cannot_be_used(self) -> None:
        """Missing, open to others, garbage, public, of another kind: each is told by its file."""
        from jwcrypto import jwk

        from slapenir.errors import PkiError

        def key_file(text: str, mode: int = 0o600) -> str:
            path = self.place() / "provisioner.jwk"
            path.touch(0o600)
            path.write_text(text, "ascii")
            path.chmod(mode)
            return str(path)

        good = jwk.JWK.generate(kty="EC", crv="P-256")
        for path, words in (
            (str(self.place() / "none.jwk"), "does not exist"),
            (key_file(good.export_private(), 0o644), "chmod 600"),
            (key_file("garbage"), "is not a private key"),
            (key_file("{}"), "is not"),
            (key_file(good.export_public()), "is not an EC P-256 private key"),
            (key_file(jwk.JWK.generate(kty="oct", size=256).export()), "is not an EC P-256"),
            (key_file(jwk.JWK.generate(kty="EC", crv="P-384").export_private()), "is not an EC"),
        ):
            with self.assertRaises(PkiError) as caught:
                minted_tokens(path, PROVISIONER, secrets.token_hex(32))(self.real.url, AGENT)
            self.assertRegex(str(caught.exception), words)
            self.assertIn(path, str(caught.exception))
        minted_tokens(key_file(good.export_private()), PROVISIONER, "")(self.real.url, AGENT)

    async def test_without_the_library(self) -> None:
        """It says what to install."""
        self.enterContext(mock.patch.dict(sys.modules, {"jwcrypto": None}))
        await self.fails(self.provider().obtain(), r"pip install 'slapenir\[step-ca\]'")


def _signed_like(leaf: Any, ca: TestCA, key: Any) -> Held:
    """Return a certificate with the names of another, by another CA."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = datetime.datetime.now(datetime.UTC)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    made = (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, False)
        .add_extension(x509.ExtendedKeyUsage([CLIENT_AUTH]), False)
        .sign(ca.key, hashes.SHA256())
    )
    return Held(key, (made,), (ca.certificate,))
