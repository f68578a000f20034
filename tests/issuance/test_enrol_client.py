"""Enrolling and renewing as a client, against the real service and against impostors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from slapenir.edge.tls import Tls
from slapenir.errors import PkiError
from slapenir.issuance.enrol_client import STATE_FILE, EnrolledProvider, Enrolment
from slapenir.issuance.provider import IssuanceError
from slapenir.pki.held import Held
from slapenir.pki.tokens import encode_token
from slapenir.secret import Secret
from tests.edge.rig import TlsPeer
from tests.issuance.enrol_rig import HOST, REACTOR, EnrolmentTestCase
from tests.support.tls import CLIENT_AUTH, Identity, TestCA


def fingerprint(ca: TestCA) -> str:
    """Return the SHA-256 of a CA's certificate in hex."""
    return ca.certificate.fingerprint(hashes.SHA256()).hex()


def pem(ca: TestCA) -> bytes:
    """Return a CA's certificate."""
    return ca.certificate.public_bytes(serialization.Encoding.PEM)


class ClientTestCase(EnrolmentTestCase):
    """A client with a directory of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.state = str(self.place / "state")
        os.mkdir(self.state, 0o700)
        self.now: float | None = None
        self.token_text: str | None = None

    def token(self, secret: str, port: int = 0, ca: TestCA | None = None) -> None:
        """Give the client a token for a service."""
        url = f"https://{HOST}:{port or self.port}"
        self.token_text = encode_token(url, fingerprint(ca or self.ca), secret)

    def provider(self) -> EnrolledProvider:
        """Return a client that reads the token that was given last."""

        def read() -> Secret | None:
            return Secret(self.token_text.encode()) if self.token_text is not None else None

        clock: dict[str, Any] = {} if self.now is None else {"now": lambda: self.now}
        return EnrolledProvider(REACTOR, self.state, read, **clock)

    async def fails(self, asked: Deferred[Held], words: str) -> None:
        """See that something fails with a phrase that has these words and no secret."""
        with self.assertRaises(IssuanceError) as caught:
            await asked
        self.assertRegex(str(caught.exception), words)
        for secret in self.authority.tokens:
            self.assertNotIn(secret, str(caught.exception))


class ObtainTests(ClientTestCase):
    async def test_a_token_becomes_a_certificate(self) -> None:
        """The key is made here; chain, roots and where they came from are kept."""
        self.token(self.authority.token())
        held = await self.provider().obtain()
        self.assertEqual(held.leaf.public_key(), held.key.public_key())
        self.assertEqual(held.roots, self.authority.roots)
        found = Enrolment.load(self.state)
        self.assertEqual(found, Enrolment(f"https://{HOST}:{self.port}", "agent-1"))
        mode = os.stat(os.path.join(self.state, STATE_FILE)).st_mode
        self.assertEqual(mode & 0o777, 0o600)
        self.assertEqual([one.how for one in self.issued], ["token"])

    async def test_a_token_that_was_used_or_has_expired(self) -> None:
        """It is said what to do, and the same token is not sent again."""
        for lifetime in (60.0, -1.0):
            self.token(self.authority.token(lifetime=lifetime))
            if lifetime > 0:
                await self.provider().obtain()
            client = self.provider()
            await self.fails(client.obtain(), "unknown, used or expired; .*slapenir ca token")
            before = len(self.events)
            await self.fails(client.obtain(), "was refused; .*slapenir ca token")
            self.assertEqual(len(self.events), before)
            self.token(self.authority.token())
            self.assertEqual((await client.obtain()).roots, self.authority.roots)

    async def test_no_token_and_garbage(self) -> None:
        """Neither is sent anywhere."""
        await self.fails(self.provider().obtain(), "no certificate and no token")
        for text in ("", "x", "slapenir1.", "slapenir1.AAAA", "slapenir1." + "A" * 5000):
            self.token_text = text
            await self.fails(self.provider().obtain(), ".")
        self.assertEqual(self.events, [])

    async def test_nobody_is_there(self) -> None:
        """An unreachable service is an error that can be tried again."""
        port = REACTOR.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        secret = self.authority.token()
        self.token(secret, number)
        client = self.provider()
        await self.fails(client.obtain(), ".")
        self.token(secret)
        await client.obtain()

    async def test_a_directory_that_cannot_be_written(self) -> None:
        """It is told; nothing else breaks."""
        self.token(self.authority.token())
        os.mkdir(os.path.join(self.state, STATE_FILE))
        await self.fails(self.provider().obtain(), STATE_FILE)


class ImpostorTests(ClientTestCase):
    """Somebody in between, who records what it is told."""

    def impostor(self, shown: Identity, answer: Callable[[bytes], bytes]) -> int:
        """Listen with a certificate; ``answer`` gets a request and returns a response."""
        self.heard = b""
        context = shown.server_context()

        def on_data(end: TlsPeer, data: bytes) -> None:
            self.heard += data
            if b"\r\n\r\n" in end.data:
                end.flow.write(answer(end.data))
                end.flow.flush()
                end.flow.close()

        class Serve(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                connection = SSL.Connection(context, None)
                connection.set_accept_state()
                end = TlsPeer(Tls(connection))
                end.on_data = on_data
                return end.flow

        port = REACTOR.listenTCP(0, Serve(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def test_the_secret_is_never_sent_to_another_root(self) -> None:
        """An impostor with a root of its own, with the true root, and with both, hears nothing."""
        theirs = TestCA("Identity root")
        for shown, roots in (
            (theirs.issue(HOST), pem(theirs)),
            (theirs.issue(HOST), pem(self.ca)),
            (theirs.issue(HOST), pem(theirs) + pem(self.ca)),
            (self.ca.issue("other.example.test"), pem(self.ca)),
            (self.ca.issue(HOST, usage=(CLIENT_AUTH,)), pem(self.ca)),
            (self.ca.issue(HOST, starts=-9, ends=-1), pem(self.ca)),
        ):
            port = self.impostor(shown, lambda request, roots=roots: ok(roots))  # type: ignore[misc]
            secret = self.authority.token()
            self.token(secret, port)
            await self.fails(self.provider().obtain(), ".")
            self.assertIn(b"/v1/roots", self.heard)
            self.assertNotIn(secret.encode(), self.heard)
            self.assertNotIn(b"POST", self.heard)
            self.assertIn(secret, self.authority.tokens)

    async def test_a_wrong_root_in_the_token(self) -> None:
        """The true service is not trusted by a token that names another root."""
        secret = self.authority.token()
        self.token(secret, ca=TestCA())
        await self.fails(self.provider().obtain(), "has not the root that the token names")
        self.assertIn(secret, self.authority.tokens)
        self.token(secret)
        await self.provider().obtain()

    async def test_answers_that_cannot_be_used(self) -> None:
        """Garbage from the right service is an error, and nothing is kept."""
        other = Held(
            self.ca.issue("x").key,  # type: ignore[arg-type]
            (self.ca.issue("x").certificate,),
        ).leaf.public_bytes(serialization.Encoding.PEM)
        whole = {"chain": other.decode(), "roots": pem(self.ca).decode(), "identity": "agent-1"}
        for body in (
            b"",
            b"{",
            b"[" * 100000,
            b"[]",
            json.dumps({**whole, "chain": 1}).encode(),
            json.dumps({**whole, "chain": "\u00e9"}).encode(),
            json.dumps({**whole, "chain": "x"}).encode(),
            json.dumps({**whole, "roots": ""}).encode(),
            json.dumps(whole).encode(),
            b"x" * (2 << 20),
        ):
            answers = {b"GET": ok(pem(self.ca)), b"POS": ok(body)}
            port = self.impostor(
                self.ca.issue(HOST),
                lambda request, answers=answers: answers[request[:3]],  # type: ignore[misc]
            )
            self.token(self.authority.token(), port)
            await self.fails(self.provider().obtain(), ".")
            self.assertIn(b"POST", self.heard)
        self.assertEqual(os.listdir(self.state), [])

    async def test_a_redirect_is_not_followed(self) -> None:
        """The token goes to the service that it names."""
        moved = (
            b"HTTP/1.1 307 Moved\r\nLocation: https://%b:%d/v1/enrol\r\nContent-Length: 0\r\n\r\n"
        )
        moved %= (HOST.encode(), self.port)
        answers = {b"GET": ok(pem(self.ca)), b"POS": moved}
        port = self.impostor(self.ca.issue(HOST), lambda request: answers[request[:3]])
        self.token(self.authority.token(), port)
        await self.fails(self.provider().obtain(), "answered 307")
        self.assertEqual(self.issued, [])


class RenewTests(ClientTestCase):
    async def enrolled(self) -> Held:
        """Enrol; the token is used up and gone then."""
        self.token(self.authority.token())
        held = await self.provider().obtain()
        self.token_text = None
        return held

    async def test_the_certificate_gives_the_next(self) -> None:
        """No token; a new key; roots that the service added are learned."""
        held = await self.enrolled()
        another = TestCA("Next root")
        self.authority.roots = (self.ca.certificate, another.certificate)
        renewed = await self.provider().renew(held)
        self.assertNotEqual(renewed.leaf.public_key(), held.leaf.public_key())
        self.assertEqual(renewed.roots, self.authority.roots)
        again = await self.provider().renew(renewed)
        self.assertEqual(again.roots, self.authority.roots)
        self.assertEqual([one.how for one in self.issued], ["token", "renewal", "renewal"])

    async def test_a_service_of_another_root_is_shown_nothing(self) -> None:
        """The roots that are held decide, not what a service says of itself."""
        held = await self.enrolled()
        stranger = Held(held.key, held.chain, (TestCA("Identity root").certificate,))
        await self.fails(self.provider().renew(stranger), ".")
        self.assertEqual(len(self.issued), 1)

    async def test_a_revoked_certificate(self) -> None:
        """It is said that a token is needed."""
        held = await self.enrolled()
        self.authority.revoked.add(held.leaf.serial_number)
        await self.fails(self.provider().renew(held), "revoked.*slapenir ca token")

    async def test_an_expired_one_needs_a_token(self) -> None:
        """With a new token it enrols anew; without it says so."""
        held = await self.enrolled()
        late = Held(held.key, (self.ca.issue("agent-1", starts=-9, ends=-1).certificate,))
        await self.fails(self.provider().renew(late), "no certificate and no token")
        self.token(self.authority.token())
        await self.provider().renew(late)
        self.assertEqual([one.how for one in self.issued], ["token", "token"])

    async def test_the_state_is_lost_or_broken(self) -> None:
        """Each is told with the file's name; it is never a crash."""
        held = await self.enrolled()
        path = os.path.join(self.state, STATE_FILE)
        for text in ("", "{", "[]", '{"url": 1, "identity": "x"}', "[" * 100000):
            with open(path, "w") as file:
                file.write(text)
            await self.fails(self.provider().renew(held), STATE_FILE)
        os.unlink(path)
        await self.fails(self.provider().renew(held), STATE_FILE)

    async def test_the_service_says_no(self) -> None:
        """Each status is a phrase of ours."""
        held = await self.enrolled()
        self.authority.broken = PkiError("the disk is full")
        await self.fails(self.provider().renew(held), "cannot work now")
        self.authority.broken = RuntimeError("x")
        await self.fails(self.provider().renew(held), "answered 500")

    async def test_state_is_read_in_a_thread(self) -> None:
        """Both ways of keeping it can be called from one."""
        await deferToThread(Enrolment("https://x", "agent-1").save, self.state)
        found = await deferToThread(Enrolment.load, self.state)
        self.assertEqual(found.identity, "agent-1")


def ok(body: bytes) -> bytes:
    """Return a response."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
