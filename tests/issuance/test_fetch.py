"""Lists of revoked certificates from a URL."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization

from slapenir.issuance.fetch import Fetcher
from slapenir.pki.revocation import MAX_BYTES
from tests.issuance.https_rig import REACTOR, HttpsTestCase, ok
from tests.support.tls import TestCA


class FetchTests(HttpsTestCase):
    def fetcher(self) -> Fetcher:
        """Return one that trusts the CA."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(self.ca.certificate.public_bytes(serialization.Encoding.PEM))
        return Fetcher(REACTOR, path)

    async def test_a_long_list_t105(self) -> None:
        """T105: as long as a file may be, and no longer."""
        whole = bytes(MAX_BYTES)
        server = self.serve(ok(whole))
        self.assertEqual(await self.fetcher()(f"{server.url}/agents.crl"), whole)
        server = self.serve(ok(whole + b"x"))
        await self.fails(self.fetcher()(f"{server.url}/agents.crl"), "longer than")

    async def test_what_is_no_list(self) -> None:
        """Another status, another root."""
        server = self.serve(ok(b"x", b"404 Not Found"))
        await self.fails(self.fetcher()(f"{server.url}/agents.crl"), "answered 404")
        server = self.serve(ok(b"x"), TestCA().issue("localhost"))
        await self.fails(self.fetcher()(f"{server.url}/agents.crl"), "not trusted")
        self.assertEqual(server.heard, b"")
