"""The enrolment service over real sockets: who gets a certificate, and who does not."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from typing import Any
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from slapenir.errors import PkiError
from slapenir.events import (
    AuditFailed,
    CertificateIssued,
    EnrolmentRefused,
    InternalError,
)
from slapenir.issuance import enrol_service, enrol_site
from tests.issuance.enrol_rig import REACTOR, EnrolmentTestCase, csr, received, secured
from tests.support.tls import CLIENT_AUTH, TestCA


def leaf(answer: Any) -> x509.Certificate:
    """Return the certificate in an answer."""
    return x509.load_pem_x509_certificates(answer["chain"].encode())[0]


class EnrolTests(EnrolmentTestCase):
    async def test_a_token_gives_a_certificate_of_its_identity(self) -> None:
        """The key is the request's; the names are the identity's, whatever the request claims."""
        key = ec.generate_private_key(ec.SECP256R1())
        body = {"token_secret": self.authority.token(), "csr": csr(key)}
        status, answer = await self.ask("POST", "/v1/enrol", body)
        self.assertEqual(status, 200)
        self.assertEqual(answer["identity"], "agent-1")
        self.assertEqual(leaf(answer).public_key(), key.public_key())
        names = leaf(answer).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(names.value.get_values_for_type(x509.DNSName), ["agent-1"])
        roots = x509.load_pem_x509_certificates(answer["roots"].encode())
        self.assertEqual(tuple(roots), self.authority.roots)
        (event,) = self.issued
        self.assertEqual((event.identity, event.how), ("agent-1", "token"))
        self.assertEqual(event.serial, f"{leaf(answer).serial_number:x}")
        self.assertRegex(event.peer, r"^127\.0\.0\.1:\d+$")

    async def test_a_token_is_good_once(self) -> None:
        """The second use is refused, and says nothing of the token."""
        body = {"token_secret": self.authority.token(), "csr": csr()}
        first, _ = await self.ask("POST", "/v1/enrol", body)
        second, answer = await self.ask("POST", "/v1/enrol", body)
        self.assertEqual((first, second), (200, 401))
        self.assertFalse(answer["retry"])
        self.assertNotIn(body["token_secret"], json.dumps(answer) + repr(self.events))
        self.assertEqual(
            [one.reason for one in self.of(EnrolmentRefused)],
            ["the token is unknown or was used"],
        )

    async def test_two_at_the_same_time(self) -> None:
        """Of simultaneous uses of a token one gets a certificate."""
        body = {"token_secret": self.authority.token(), "csr": csr()}
        asked = [_deferred(self.ask("POST", "/v1/enrol", body)) for _ in range(6)]
        answers = await gatherResults(asked)
        self.assertEqual(sorted(status for status, _ in answers), [200] + [401] * 5)
        self.assertEqual(len(self.issued), 1)

    async def test_an_expired_token(self) -> None:
        """It is refused; the same with time left is not."""
        for lifetime, status in ((-1.0, 401), (60.0, 200)):
            body = {"token_secret": self.authority.token(lifetime=lifetime), "csr": csr()}
            self.assertEqual((await self.ask("POST", "/v1/enrol", body))[0], status)

    async def test_a_bad_request_does_not_use_the_token_up(self) -> None:
        """What is wrong with the request is found first; the token still works afterwards."""
        secret = self.authority.token()
        bad = csr()
        flipped = bad[:200] + ("A" if bad[200] != "A" else "B") + bad[201:]
        for request in (
            "",
            "x",
            flipped,
            _unsigned(),
            bad.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
            csr(ec.generate_private_key(ec.SECP521R1())),
            csr(ec.generate_private_key(ec.SECP256K1())),
            csr(rsa.generate_private_key(65537, 1024)),  # noqa: S505
            "\x00" * 100,
        ):
            status, answer = await self.ask(
                "POST", "/v1/enrol", {"token_secret": secret, "csr": request}
            )
            self.assertEqual((status, answer["retry"]), (400, False), request)
        self.assertEqual(self.issued, [])
        body = {"token_secret": secret, "csr": bad}
        self.assertEqual((await self.ask("POST", "/v1/enrol", body))[0], 200)

    async def test_kinds_of_keys(self) -> None:
        """EC P-256 and P-384, RSA of 2048 bits and Ed25519 are signed for."""
        for key, algorithm in (
            (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
            (rsa.generate_private_key(65537, 2048), hashes.SHA256()),
            (ed25519.Ed25519PrivateKey.generate(), False),
        ):
            request = _signed(key, algorithm)
            body = {"token_secret": self.authority.token(), "csr": request}
            status, answer = await self.ask("POST", "/v1/enrol", body)
            self.assertEqual(status, 200, answer)
            self.assertEqual(leaf(answer).public_key(), key.public_key())

    async def test_garbage(self) -> None:
        """What is not the expected object is a 400 that quotes nothing."""
        secret = self.authority.token()
        for body in (
            b"",
            b"{",
            b"\xff\xfe",
            b"[" * 60000,
            b"[]",
            b"null",
            b'"x"',
            {"csr": csr()},
            {"token_secret": secret},
            {"token_secret": secret, "csr": csr(), "identity": "agent-2"},
            {"token_secret": 1, "csr": csr()},
            {"token_secret": [secret], "csr": csr()},
            {"token_secret": "../../etc/passwd-and-more", "csr": csr()},
            {"token_secret": "", "csr": csr()},
            {"token_secret": "\ud800" * 43, "csr": csr()},
        ):
            status, answer = await self.ask("POST", "/v1/enrol", body)
            self.assertEqual((status, answer["retry"]), (400, False), body)
            self.assertNotIn("passwd", json.dumps(answer))
        self.assertEqual(self.of(InternalError), [])
        self.assertIn(secret, self.authority.tokens)

    async def test_an_identity_that_is_gone_and_a_ca_that_cannot_sign(self) -> None:
        """A removed identity gets 403, a broken CA is 503, a bug is 500 and an event."""
        for removed, broken, expected in (
            ({"agent-1"}, None, 403),
            (set(), PkiError("/var/lib/x/issuing.key is missing"), 503),
            (set(), RuntimeError("secret detail"), 500),
            (set(), None, 200),
        ):
            self.authority.removed, self.authority.broken = removed, broken
            body = {"token_secret": self.authority.token(), "csr": csr()}
            status, answer = await self.ask("POST", "/v1/enrol", body)
            self.assertEqual(status, expected, answer)
            if expected == 503:  # the same token would be refused
                self.assertEqual((answer["retry"], "used up" in answer["error"]), (False, True))
            self.assertNotIn("/var/lib", json.dumps(answer))
            self.assertNotIn("detail", json.dumps(answer))
        (event,) = self.of(InternalError)
        self.assertEqual((event.where, event.kind), ("enrolment", "RuntimeError"))

    async def test_what_cannot_be_recorded_is_not_handed_out(self) -> None:
        """Audit before effect: a full disk means no certificate."""
        self.refuse = (CertificateIssued,)
        body = {"token_secret": self.authority.token(), "csr": csr()}
        status, answer = await self.ask("POST", "/v1/enrol", body)
        self.assertEqual((status, answer["retry"]), (503, True))
        self.assertNotIn("BEGIN", json.dumps(answer))
        self.assertEqual(len(self.of(AuditFailed)), 1)
        self.refuse = (EnrolmentRefused,)
        status, _ = await self.ask("POST", "/v1/enrol", body)
        self.assertEqual(status, 401)


class RenewTests(EnrolmentTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.agent = self.ca.issue("agent-1", usage=(CLIENT_AUTH,))

    async def test_the_certificate_in_force_gives_another(self) -> None:
        """The identity stays; the key is new; no token is needed."""
        key = ec.generate_private_key(ec.SECP256R1())
        status, answer = await self.ask("POST", "/v1/renew", {"csr": csr(key)}, self.agent)
        self.assertEqual(status, 200)
        self.assertEqual(answer["identity"], "agent-1")
        self.assertEqual(leaf(answer).public_key(), key.public_key())
        self.assertEqual([one.how for one in self.issued], ["renewal"])

    async def test_t105_the_ca_has_the_last_word(self) -> None:
        """T105: what the gateway's list still calls good is not renewed against the CA's word."""
        body = {"csr": csr()}
        self.authority.over.add(self.agent.certificate.serial_number)
        status, answer = await self.ask("POST", "/v1/renew", body, self.agent)
        self.assertEqual((status, answer["retry"]), (403, False))
        self.assertIn("enrol with a new token", answer["error"])
        self.assertEqual(self.issued, [])
        other = self.ca.issue("agent-1", usage=(CLIENT_AUTH,))
        status, _ = await self.ask("POST", "/v1/renew", body, other)
        self.assertEqual(status, 200)

    async def test_without_one_there_is_none(self) -> None:
        """No certificate, a revoked one and one of a removed identity get nothing."""
        status, _ = await self.ask("POST", "/v1/renew", {"csr": csr()})
        self.assertEqual(status, 401)
        self.authority.revoked.add(self.agent.certificate.serial_number)
        status, _ = await self.ask("POST", "/v1/renew", {"csr": csr()}, self.agent)
        self.assertEqual(status, 403)
        self.authority.revoked.clear()
        self.authority.removed.add("agent-1")
        status, _ = await self.ask("POST", "/v1/renew", {"csr": csr()}, self.agent)
        self.assertEqual(status, 403)
        self.authority.removed.clear()
        status, _ = await self.ask("POST", "/v1/renew", {"csr": csr()}, self.agent)
        self.assertEqual(status, 200)
        self.assertEqual(len(self.issued), 1)

    async def test_certificates_that_tls_refuses_t104(self) -> None:
        """T104: an expired one and one of another CA do not get as far as a request."""
        body = json.dumps({"csr": csr()}).encode()
        head = b"POST /v1/renew HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        for shown in (
            self.ca.issue("agent-1", usage=(CLIENT_AUTH,), starts=-9, ends=-1),
            TestCA("Identity root").issue("agent-1", usage=(CLIENT_AUTH,)),
        ):
            try:
                answer = await deferToThread(self.raw, head + body, shown)
            except OSError:
                answer = b""
            self.assertEqual(answer, b"")
        self.assertEqual(self.issued, [])

    async def test_renewals_of_one_identity_are_bounded(self) -> None:
        """More than ten in a minute are told to wait; another identity is not."""
        for _ in range(enrol_service.RENEWALS_EACH):
            status, _ = await self.ask("POST", "/v1/renew", {"csr": csr()}, self.agent)
            self.assertEqual(status, 200)
        status, answer = await self.ask("POST", "/v1/renew", {"csr": csr()}, self.agent)
        self.assertEqual((status, answer["retry"]), (429, True))
        other = self.ca.issue("agent-2", usage=(CLIENT_AUTH,))
        status, _ = await self.ask("POST", "/v1/renew", {"csr": csr()}, other)
        self.assertEqual(status, 200)


class SiteTests(EnrolmentTestCase):
    async def test_pages(self) -> None:
        """Four pages with one method each; everything else is 404 or 405."""
        for method, path, expected in (
            ("GET", "/v1/roots", 200),
            ("GET", "/v1/crl", 200),
            ("GET", "/v1/crl?x=1", 200),
            ("HEAD", "/v1/roots", 405),
            ("POST", "/v1/roots", 405),
            ("GET", "/v1/enrol", 405),
            ("PUT", "/v1/renew", 405),
            ("GET", "/", 404),
            ("GET", "/v1/roots/", 404),
            ("GET", "/v1/tokens", 404),
            ("POST", "/v1/../v1/enrol", 404),
        ):
            status, _ = await self.ask(method, path)
            self.assertEqual(status, expected, (method, path))
        _, roots = await self.ask("GET", "/v1/roots")
        self.assertEqual(tuple(x509.load_pem_x509_certificates(roots)), self.authority.roots)

    async def test_a_megabyte_is_not_read(self) -> None:
        """A body over the bound is a 413, announced or in chunks; one at the bound is read."""
        for head, body in (
            (b"Content-Length: 1048576", b"x" * 1048576),
            (b"Content-Length: 65537", b""),
            (b"Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 65536 + b"\r\n1\r\nx\r\n"),
        ):
            data = b"POST /v1/enrol HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + body
            try:
                answer = await deferToThread(self.raw, data)
            except OSError:  # it was reset while we were still sending: not read either
                answer = b"HTTP/1.1 413 "
            self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer[:80])
        status, _ = await self.ask("POST", "/v1/enrol", b"x" * 65536)
        self.assertEqual(status, 400)
        status, _ = await self.ask(
            "POST", "/v1/enrol", {"token_secret": self.authority.token(), "csr": "x" * 16385}
        )
        self.assertEqual(status, 413)
        self.assertEqual(self.of(InternalError), [])

    async def test_slow_clients_are_cut_t098(self) -> None:
        """T098: a byte now and then does not hold a connection beyond its time, nor half a
        handshake; others are served meanwhile."""
        with patch.object(enrol_site, "TOTAL_SECONDS", 1.0):

            def drip() -> float:
                began = time.monotonic()
                with secured(self.ca, None, self.port, self.place) as connection:
                    try:
                        for _ in range(100):
                            connection.sendall(b"P")
                            time.sleep(0.1)
                    except OSError:
                        return time.monotonic() - began
                return 99.0

            def half() -> bytes:
                with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain:
                    plain.sendall(b"\x16\x03\x01")
                    try:
                        return plain.recv(10)
                    except ConnectionResetError:
                        return b""

            slow, silent = deferToThread(drip), deferToThread(half)
            status, _ = await self.ask("GET", "/v1/roots")
            self.assertEqual(status, 200)
            self.assertLess(await slow, 5.0)
            self.assertEqual(await silent, b"")

    async def test_places_that_strangers_hold(self) -> None:
        """When all places are held by who asks for nothing, the oldest gives way, one for one."""
        get = b"GET /v1/crl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with patch.object(enrol_site, "MAX_CONNECTIONS", 2):
            held = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(2)]
            try:
                answer = await deferToThread(self.raw, get)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer)
                held[1].settimeout(0.2)
                with self.assertRaises(TimeoutError):
                    held[1].recv(1)
            finally:
                for one in held:
                    one.close()

    async def test_places_of_who_has_asked(self) -> None:
        """Who has begun a request keeps its place: then one more is closed at once."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        def begin() -> ssl.SSLSocket:
            made = socket.create_connection(("127.0.0.1", self.port), 5)
            secured = context.wrap_socket(made)
            secured.sendall(b"GET /v1/crl HTTP/1.1\r\n")
            return secured

        with patch.object(enrol_site, "MAX_CONNECTIONS", 2):
            held = [await deferToThread(begin) for _ in range(2)]
            await deferLater(REACTOR, 0.2)
            try:
                with self.assertRaises(OSError):
                    await deferToThread(self.raw, b"GET /v1/crl HTTP/1.1\r\n\r\n")
            finally:
                for one in held:
                    one.close()

    async def test_one_source_does_not_take_every_place(self) -> None:
        """Its own places are bounded; another address goes on."""
        with patch.object(enrol_site, "CONNECTIONS_EACH", 2):
            held = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(2)]
            try:
                with self.assertRaises(OSError):
                    await deferToThread(self.raw, b"GET /v1/crl HTTP/1.1\r\n\r\n")
                other = socket.create_connection(
                    ("127.0.0.1", self.port), 5, source_address=("127.0.0.2", 0)
                )
                held.append(other)
                other.settimeout(0.5)
                with self.assertRaises(TimeoutError):  # it is waited for, not closed
                    await deferToThread(other.recv, 1)
            finally:
                for one in held:
                    one.close()

    async def test_renewals_have_a_budget_of_their_own(self) -> None:
        """Requests of anybody do not use it up."""
        agent = self.ca.issue("agent-1", usage=(CLIENT_AUTH,))
        with patch.object(self.service._requests, "_total", 1):
            self.assertEqual((await self.ask("GET", "/v1/roots"))[0], 200)
            self.assertEqual((await self.ask("GET", "/v1/roots"))[0], 429)
            self.assertEqual((await self.ask("POST", "/v1/renew", {"csr": csr()}))[0], 429)
            status, _ = await self.ask("POST", "/v1/renew", {"csr": csr()}, agent)
            self.assertEqual(status, 200)

    async def test_refused_tokens_are_counted(self) -> None:
        """After thirty in a minute from one address it is told to wait."""
        body = {"token_secret": "x" * 43, "csr": csr()}
        for _ in range(enrol_service.FAILURES_EACH):
            self.assertEqual((await self.ask("POST", "/v1/enrol", body))[0], 401)
        status, answer = await self.ask("POST", "/v1/enrol", body)
        self.assertEqual((status, answer["retry"]), (429, True))
        self.assertEqual((await self.ask("GET", "/v1/roots"))[0], 200)

    async def test_garbage_instead_of_tls_and_http(self) -> None:
        """Neither plain HTTP, nor an ALPN of h2 only, nor broken HTTP is an internal error."""

        def plain(data: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
                connection.sendall(data)
                try:
                    return connection.recv(100)
                except ConnectionResetError:
                    return b""

        self.assertNotIn(b"HTTP", await deferToThread(plain, b"GET / HTTP/1.1\r\n\r\n"))

        def only_h2() -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
                context.wrap_socket(connection)

        with self.assertRaises(OSError):
            await deferToThread(only_h2)
        for data in (b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nA b\r\n\r\n"):
            answer = await deferToThread(self.raw, data)
            self.assertIn(answer[:12], (b"HTTP/1.1 400", b""))
        self.assertEqual(self.of(InternalError), [])

    async def test_one_connection_serves_several_requests(self) -> None:
        """Requests may follow each other; a second one while the first is worked on waits."""

        def two() -> bytes:
            with secured(self.ca, None, self.port, self.place) as connection:
                connection.sendall(b"GET /v1/roots HTTP/1.1\r\nHost: x\r\n\r\n")
                connection.sendall(b"GET /v1/crl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return received(connection)

        self.assertEqual((await deferToThread(two)).count(b"HTTP/1.1 200"), 2)

    async def test_a_client_that_leaves_while_it_is_worked_on(self) -> None:
        """Nothing breaks; what was issued is recorded."""
        body = json.dumps({"token_secret": self.authority.token(), "csr": csr()}).encode()

        def leave() -> None:
            connection = secured(self.ca, None, self.port, self.place)
            connection.sendall(
                b"POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            connection.close()

        await deferToThread(leave)
        await self.until(lambda: self.issued)
        self.assertEqual(self.of(InternalError), [])


def _deferred(coroutine: Any) -> Any:
    return Deferred.fromCoroutine(coroutine)


def _signed(key: Any, algorithm: Any) -> str:
    if algorithm is not False:
        return csr(key, algorithm)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, None).public_bytes(serialization.Encoding.PEM).decode()


def _unsigned() -> str:
    """Return a request that is whole but for one bit of its signature."""
    request = x509.load_pem_x509_csr(csr().encode()).public_bytes(serialization.Encoding.DER)
    text = base64.encodebytes(request[:-1] + bytes([request[-1] ^ 1])).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
