"""HTTPS to a CA: who is trusted, what is sent to whom, and every bound."""

from __future__ import annotations

import json
import os
from typing import Any

from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from slapenir.issuance.pinned_https import (
    MAX_BODY,
    Answer,
    PinnedClient,
    fetch_root,
    fetch_unverified,
    fingerprint_of,
)
from slapenir.issuance.provider import IssuanceError
from slapenir.pki.held import Held
from tests.issuance.https_rig import HOST, REACTOR, HttpsTestCase, Silent, ok
from tests.support.tls import CLIENT_AUTH, TestCA, self_signed

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class PinnedTestCase(HttpsTestCase):
    def client(self, *roots: TestCA, **more: Any) -> PinnedClient:
        """Return a client that trusts a CA, by default the right one."""
        trusted = [one.certificate for one in roots or (self.ca,)]
        return PinnedClient(REACTOR, trusted, **more)


class RequestTests(PinnedTestCase):
    async def test_the_bytes_of_a_request(self) -> None:
        """The method, the path, the body and its type arrive; no cookie, no coding is asked for."""
        server = self.serve(ok(b'{"a": 1}', b"201 Created"))
        asked = self.client().request(
            "POST", f"{server.url}/1.0/sign?x=1", b"{}", "application/json"
        )
        self.assertEqual(await asked, Answer(201, b'{"a": 1}'))
        head, _, body = server.heard.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"POST /1.0/sign?x=1 HTTP/1.1")
        names = sorted(line.partition(b":")[0].lower() for line in lines[1:])
        self.assertEqual(
            names, [b"connection", b"content-length", b"content-type", b"host", b"user-agent"]
        )
        self.assertEqual(body, b"{}")

    async def test_a_get_has_no_body(self) -> None:
        """And each request has a connection of its own."""
        server = self.serve(ok(b"x"))
        client = self.client()
        for _ in range(2):
            self.assertEqual(await client.request("GET", server.url), Answer(200, b"x"))
        self.assertEqual(len(server.ends), 2)
        self.assertTrue(server.heard.startswith(b"GET / HTTP/1.1\r\n"))

    async def test_our_certificate_is_shown_when_it_is_asked_for(self) -> None:
        """With its chain; without one a server that insists refuses, in words."""
        middle = TestCA("Issuing", self.ca)
        own = middle.issue("agent-1", usage=(CLIENT_AUTH,))
        held: Any = Held(own.key, (own.certificate, *own.chain))  # type: ignore[arg-type]
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            context = self.ca.issue(HOST).server_context()
            context.set_max_proto_version(version)
            store: Any = context.get_cert_store()
            from OpenSSL import crypto

            store.add_cert(crypto.X509.from_cryptography(self.ca.certificate))
            context.set_verify(
                SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *given: bool(given[4])
            )
            server = self.serve(ok(b""), context)
            await self.client(held=held).request("GET", server.url)
            shown = server.shown()
            assert shown is not None
            self.assertEqual(shown.serial_number, own.certificate.serial_number)
            await self.fails(self.client().request("GET", server.url), "accept our certificate|TLS")

    async def test_a_key_of_another_certificate(self) -> None:
        """It is an error before anything is connected."""
        held: Any = Held(self.ca.issue("a").key, (self.ca.issue("b").certificate,))  # type: ignore[arg-type]
        self.assertRaises(IssuanceError, self.client, held=held)

    async def test_a_redirect_is_an_answer(self) -> None:
        """It is not followed, wherever it points."""
        other = self.serve(ok(b"other"))
        more = b"Location: %b/\r\n" % other.url.encode()
        server = self.serve(ok(b"", b"302 Found", more))
        answer = await self.client().request("GET", server.url)
        self.assertEqual((answer.status, other.ends), (302, []))

    async def test_urls_that_are_refused(self) -> None:
        """Nothing is connected for them."""
        server = self.serve(ok(b""))
        port = server.url.rpartition(":")[2]
        for url in (
            "",
            "localhost",
            f"http://{HOST}:{port}/",
            f"ftp://{HOST}:{port}/",
            f"https://user@{HOST}:{port}/",
            f"https://{HOST}:{port}x/",
            f"https://{HOST}:99999999/",
            f"https://{HOST}:{port}/a b",
            f"https://{HOST}:{port}/\r\nX: y",
            f"https://{HOST}:{port}/\u00e9",
            "https://[::1/",
            "https:///x",
        ):
            await self.fails(self.client().request("GET", url), "URL")
        self.assertEqual(server.ends, [])
        await self.client().request("GET", server.url)

    async def test_without_roots(self) -> None:
        """Plain http only: what comes is signed itself."""
        server = self.serve(ok(b""))
        await self.fails(PinnedClient(REACTOR, ()).request("GET", server.url), "URL")
        self.assertEqual(server.ends, [])


class TrustTests(PinnedTestCase):
    """Whoever cannot be trusted gets no byte of a request."""

    async def test_untrusted_servers_t101(self) -> None:
        """T101: by another CA, of the same name, expired, early, for another host or use."""
        for shown in (
            TestCA().issue(HOST),
            TestCA("Pinned root").issue(HOST),
            self_signed(HOST),
            self.ca.issue(HOST, starts=-9, ends=-1),
            self.ca.issue(HOST, starts=1, ends=9),
            self.ca.issue("other.example.test"),
            self.ca.issue("127.0.0.1"),
            self.ca.issue(common_name=HOST),
            self.ca.issue(HOST, usage=(CLIENT_AUTH,)),
        ):
            server = self.serve(ok(b""), shown)
            asked = self.client().request("POST", f"{server.url}/x", b"secret", "text/plain")
            await self.fails(asked, "not trusted|another host")
            await self.until(lambda server=server: all(end.gone for end in server.ends))
            self.assertEqual((len(server.ends), server.heard), (1, b""))
        await self.client().request("GET", self.serve(ok(b"")).url)

    async def test_addresses(self) -> None:
        """An address is checked as an address."""
        server = self.serve(ok(b""), self.ca.issue("127.0.0.1"))
        url = server.url.replace(HOST, "127.0.0.1")
        self.assertEqual((await self.client().request("GET", url)).status, 200)
        named = self.serve(ok(b""), self.ca.issue(HOST))
        url = named.url.replace(HOST, "127.0.0.1")
        await self.fails(self.client().request("GET", url), "another host")

    async def test_old_tls_t102(self) -> None:
        """T102: TLS 1.1 is refused; 1.2 is not."""
        for version, works in ((SSL.TLS1_1_VERSION, False), (SSL.TLS1_2_VERSION, True)):
            context = self.ca.issue(HOST).server_context()
            context.set_max_proto_version(version)
            server = self.serve(ok(b""), context)
            if works:
                await self.client().request("GET", server.url)
            else:
                await self.fails(self.client().request("GET", server.url), "TLS|closed")
                self.assertEqual(server.heard, b"")

    async def test_the_environment_is_not_looked_at_t237(self) -> None:
        """T237: no proxy and no CA comes from it."""
        stranger = TestCA("Strangers")
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(stranger.certificate.public_bytes(serialization.Encoding.PEM))
        proxy = self.serve(ok(b"proxy"))
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        poisoned = {**dict.fromkeys(PROXIES, proxy.url), **dict.fromkeys(names, path)}
        self.patch(os, "environ", {**os.environ, **poisoned, "SSL_CERT_DIR": os.path.dirname(path)})
        server = self.serve(ok(b""), stranger.issue(HOST))
        await self.fails(self.client().request("GET", server.url), "not trusted")
        await self.client().request("GET", self.serve(ok(b"")).url)
        self.assertEqual(proxy.ends, [])


class BoundTests(PinnedTestCase):
    async def test_a_body_at_its_bound_and_above(self) -> None:
        """1 MiB passes, one byte more does not, with a length and without."""
        whole = bytes(MAX_BODY)
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        for data, passes in ((whole, True), (whole + b"x", False)):
            for answer in (ok(data), chunked % (len(data), data)):
                server = self.serve(answer)
                asked = self.client().request("GET", server.url)
                if passes:
                    self.assertEqual((await asked).body, data)
                else:
                    await self.fails(asked, "longer than 1048576 bytes")

    async def test_another_bound(self) -> None:
        """A list may be longer where the caller says so."""
        server = self.serve(ok(bytes(MAX_BODY + 1)))
        answer = await self.client(limit=MAX_BODY * 2).request("GET", server.url)
        self.assertEqual(len(answer.body), MAX_BODY + 1)

    async def test_a_head_without_end(self) -> None:
        """Header fields are cut off after a while, although each line is short."""
        line = b"X-Padding: " + b"x" * 1000 + b"\r\n"
        server = self.serve(lambda _: b"")

        def flood(_: bytes) -> bytes:
            server.ends[0].flow.write(b"HTTP/1.1 200 OK\r\n" + line * 3000)
            server.ends[0].flow.flush()
            return b""  # and it stays open

        server.answer = flood
        asked = self.client(seconds=10.0).request("GET", server.url)
        await self.fails(asked, "closed the connection")
        line = b"X-Padding: x\r\n"
        server = self.serve(ok(b"x", b"200 OK", line * 100))
        self.assertEqual((await self.client().request("GET", server.url)).body, b"x")

    async def test_an_answer_that_is_cut_off(self) -> None:
        """Less than was announced, no end of the last chunk, garbage, nothing, no length."""
        for answer in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
            b"HTTP/1.1 200 OK\r\n",
            b"garbage\r\n\r\n",
            b"\x00",
        ):
            asked = self.client().request("GET", self.serve(answer).url)
            await self.fails(asked, "cut off|closed the connection")

    async def test_a_server_that_says_nothing(self) -> None:
        """Before TLS, after the request and within the body: it ends in time, and is cut."""
        factory = Factory.forProtocol(Silent)
        port = REACTOR.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
        server = self.serve(lambda _: b"")
        slow = self.serve(lambda _: b"")
        slow.answer = lambda _: (slow.ends[-1].flow.write(half), slow.ends[-1].flow.flush(), b"")[2]
        for url in (f"https://{HOST}:{port.getHost().port}", server.url, slow.url):
            asked = self.client(seconds=0.3).request("GET", url)
            await self.fails(asked, "did not answer within 0.3 seconds")
        await self.until(lambda: not Silent.open and server.ends[0].gone and slow.ends[0].gone)

    async def test_a_request_that_is_cancelled(self) -> None:
        """The connection is reset; who cancelled is told something."""
        server = self.serve(lambda _: b"")
        asked = self.client().request("GET", server.url)
        await self.until(lambda: server.heard)
        asked.cancel()
        with self.assertRaises((CancelledError, IssuanceError)):
            await asked
        await self.until(lambda: server.ends[0].gone)

    async def test_nobody_is_there(self) -> None:
        """A closed port, and a name that does not exist."""
        server = self.serve(ok(b""))
        await server.port.stopListening()
        await self.fails(self.client().request("GET", server.url), "localhost:[0-9]+ cannot be rea")
        asked = self.client().request("GET", "https://no-such-host.invalid/")
        await self.fails(asked, "no-such-host.invalid:443 cannot be found")


class RootTests(PinnedTestCase):
    """What nobody vouches for is compared with its SHA-256."""

    def root(self, ca: TestCA) -> bytes:
        """Return step-ca's answer with a root."""
        pem = ca.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ok(json.dumps({"ca": pem}).encode())

    async def test_the_root_is_asked_for_by_its_fingerprint(self) -> None:
        """Over TLS that nobody vouches for."""
        server = self.serve(self.root(self.ca), self_signed("other.example.test"))
        wanted = fingerprint_of(self.ca.certificate)
        root = await fetch_root(REACTOR, f"{server.url}/", wanted.upper())
        self.assertEqual(root, self.ca.certificate)
        self.assertTrue(server.heard.startswith(b"GET /root/%b HTTP/1.1\r\n" % wanted.encode()))

    async def test_another_root_or_none(self) -> None:
        """Each is told; nothing of the answer is quoted."""
        wanted = fingerprint_of(self.ca.certificate)
        for answer, words in (
            (self.root(TestCA()), "another fingerprint"),
            (ok(b"", b"404 Not Found"), "no root with this fingerprint"),
            (ok(b"{"), "cannot be read"),
            (ok(b"[]"), "cannot be read"),
            (ok(b"[" * 100000), "cannot be read"),
            (ok(b'{"ca": 1}'), "cannot be read"),
            (ok('{"ca": "é"}'.encode()), "cannot be read"),
            (ok(b'{"ca": "leaked"}'), "not a certificate|no certificate"),
        ):
            server = self.serve(answer)
            with self.assertRaises(IssuanceError) as caught:
                await fetch_root(REACTOR, server.url, wanted)
            self.assertRegex(str(caught.exception), words)
            self.assertNotIn("leaked", str(caught.exception))

    async def test_it_takes_its_time_only(self) -> None:
        """The same bounds hold."""
        server = self.serve(lambda _: b"")
        await self.fails(fetch_unverified(REACTOR, server.url, 0.2), "did not answer within 0.2")


class PlainTests(TestCase):
    async def test_plain_http(self) -> None:
        """A list from an http URL is got as it is."""
        from twisted.internet.protocol import Protocol

        class Plain(Protocol):
            def dataReceived(self, data: bytes) -> None:
                transport: Any = self.transport
                transport.write(ok(b"list"))

        port = REACTOR.listenTCP(0, Factory.forProtocol(Plain), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/agents.crl"
        self.assertEqual((await PinnedClient(REACTOR, ()).request("GET", url)).body, b"list")
