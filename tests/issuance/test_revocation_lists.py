"""A list of revoked certificates from a URL: its server does not change the past (T105)."""

from __future__ import annotations

import time

from cryptography import x509
from twisted.internet.defer import Deferred, succeed

from slapenir.issuance.revocation_lists import RevocationList
from slapenir.pki.revocation import Revocations, Standing
from tests.edge.rig import REACTOR, EdgeTestCase
from tests.support.agents import AgentCA, AgentCertificate

CA, OTHER = AgentCA("Agents CA"), AgentCA("Other CA")


class UrlTests(EdgeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.answer = b""
        self.found: list[Revocations | None] = []
        self.errors: list[str] = []
        self.issuers = [CA.certificate, OTHER.certificate]
        self.list = RevocationList(
            REACTOR, "http://crl.test/list", self.fetch, lambda: self.issuers, self.changed
        )

    def fetch(self, url: str) -> Deferred[bytes]:
        return succeed(self.answer)

    def changed(self, found: Revocations | None, error: str) -> None:
        self.found.append(found)
        self.errors.append(error)

    async def standing(self, shown: AgentCertificate, ca: AgentCA, answer: bytes) -> Standing:
        """Return what is known of a certificate once ``answer`` was fetched."""
        self.answer = answer
        count = len(self.found)
        self.list.look(force=True)
        await self.until(lambda: len(self.found) > count)
        found = self.found[-1]
        assert found is not None
        return found.standing(shown.certificate, ca.certificate, time.time())

    async def test_t105_an_older_list_takes_nothing_back(self) -> None:
        """An old one, or one that leaves an issuer out; a newer one counts."""
        shown, other = CA.agent("1"), OTHER.agent("2")
        both = CA.crl(shown) + OTHER.crl(other)
        old = CA.crl(starts=-0.5)
        self.assertIs(await self.standing(shown, CA, old), Standing.GOOD)
        self.assertIs(await self.standing(shown, CA, both), Standing.REVOKED)
        self.assertIs(await self.standing(shown, CA, old), Standing.REVOKED)
        self.assertIs(await self.standing(other, OTHER, old), Standing.REVOKED)
        self.assertIs(await self.standing(shown, CA, CA.crl(starts=-0.001)), Standing.GOOD)
        self.assertEqual(set(self.errors), {""})
        self.issuers = [CA.certificate]
        self.assertIs(await self.standing(other, OTHER, CA.crl(starts=-0.0005)), Standing.UNKNOWN)

    async def test_t105_a_ca_with_two_certificates(self) -> None:
        """The list is of a name and a key, whichever of its certificates a chain ends with."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(CA.name)
            .issuer_name(CA.name)
            .public_key(CA.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(CA.certificate.not_valid_before_utc)
            .not_valid_after(CA.certificate.not_valid_after_utc)
        )
        renewed = CA.sign(builder)
        shown = CA.agent("1")
        found = Revocations.parse(CA.crl(shown), [CA.certificate, renewed])
        for issuer in (CA.certificate, renewed):
            self.assertIs(found.standing(shown.certificate, issuer, time.time()), Standing.REVOKED)
