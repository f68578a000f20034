"""A real step-ca and a real Pebble: a first certificate, the next ones, and what is refused."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from slapenir.issuance.acme_provider import AcmeProvider
from slapenir.issuance.provider import IssuanceError
from slapenir.issuance.stepca_provider import StepCaProvider, given_token, minted_tokens
from slapenir.pki.held import Held, Wanted
from slapenir.secret import Secret
from tests.support.agents import spiffe
from tests.support.ports import free_port
from tests.support.step_ca import PROVISIONER, Pebble, StepCa

SERVER = Wanted(dns=("localhost",), server=True, lifetime=3600.0)
AGENT = Wanted(common_name="agent-1", spiffe=(spiffe("1"),), lifetime=3600.0)


class RealCase(TestCase):
    timeout = 120

    def place(self) -> Path:
        path = Path(self.mktemp()).resolve()
        path.mkdir(parents=True, mode=0o700)
        return path

    async def refused(self, attempt: Any, phrase: str) -> None:
        with self.assertRaises(IssuanceError) as caught:
            await attempt
        self.assertIn(phrase, str(caught.exception))


class StepCaTests(RealCase):
    """step-ca's JWK provisioner."""

    def setUp(self) -> None:
        self.ca = StepCa(self.place())
        self.ca.start()
        self.addCleanup(self.ca.stop)

    def provider(self, wanted: Wanted = AGENT, **changes: Any) -> StepCaProvider:
        fingerprint = self.ca.root_fingerprint
        token = minted_tokens(str(self.ca.provisioner_key), PROVISIONER, fingerprint)
        given = {"url": self.ca.url, "root_fingerprint": fingerprint, "token": token, **changes}
        return StepCaProvider(reactor, wanted=wanted, **given)

    async def test_obtain_and_renew(self) -> None:
        for wanted in (AGENT, SERVER):
            provider = self.provider(wanted)
            first = await provider.obtain()
            self.assertEqual(first.roots, (self.ca.root,))
            self.assertTrue(wanted.is_said_by(first.leaf))
            self.assertLessEqual(first.not_after - first.not_before, 3600 + 120)
            second = await provider.renew(first)
            self.assertNotEqual(second.leaf.serial_number, first.leaf.serial_number)
            self.assertNotEqual(second.leaf.public_key(), first.leaf.public_key())
            self.assertTrue(wanted.is_said_by(second.leaf))
            directory = self.place()
            second.save(str(directory))
            third = await provider.renew(Held.load(str(directory)))
            self.assertEqual(third.leaf.public_key(), third.key.public_key())

    async def test_one_that_has_ended_is_obtained_anew(self) -> None:
        now = [0.0]
        provider = self.provider(now=lambda: now[0])
        first = await provider.obtain()
        now[0] = first.not_after + 1
        with self.assertRaises(IssuanceError):
            await provider.renew(first)  # what comes has ended by that clock, too
        now[0] = 0.0
        self.assertTrue(AGENT.is_said_by((await provider.renew(first)).leaf))

    async def test_a_token_of_the_operator_works_once(self) -> None:
        mint = minted_tokens(str(self.ca.provisioner_key), PROVISIONER, self.ca.root_fingerprint)
        token = Secret(mint(self.ca.url, AGENT).encode("ascii"))
        provider = self.provider(token=given_token(lambda: token))
        await provider.obtain()
        await self.refused(provider.obtain(), "the token is used, expired or for something else")
        none = self.provider(token=given_token(lambda: None))
        await self.refused(none.obtain(), "no token")

    async def test_another_provisioners_key(self) -> None:
        from jwcrypto import jwk

        path = self.place() / "other.jwk"
        path.touch(0o600)
        path.write_text(jwk.JWK.generate(kty="EC", crv="P-256").export_private(), "ascii")
        token = minted_tokens(str(path), PROVISIONER, self.ca.root_fingerprint)
        await self.refused(self.provider(token=token).obtain(), "the CA refuses")

    async def test_a_wrong_fingerprint_stops_before_a_token_is_made(self) -> None:
        asked: list[str] = []

        def token(url: str, wanted: Wanted) -> str:
            asked.append(url)
            return ""

        wrong = self.provider(root_fingerprint=secrets.token_hex(32), token=token)
        await self.refused(wrong.obtain(), "root")
        self.assertEqual(asked, [])

    async def test_a_ca_that_is_down_and_back(self) -> None:
        provider = self.provider()
        self.ca.stop()
        with self.assertRaises(IssuanceError):
            await provider.obtain()
        self.ca.start()
        self.assertTrue(AGENT.is_said_by((await provider.obtain()).leaf))


class AcmeTests(RealCase):
    """RFC 8555 with two servers."""

    def provider(self, ca: Any, port: int, url: str, root_file: str = "", **changes: Any) -> Any:
        given = {"root_fingerprint": ca.root_fingerprint, "directory": str(self.place()), **changes}
        return AcmeProvider(
            reactor,
            url,
            given["root_fingerprint"],
            root_file,
            "ops@example.org",
            f"tcp:{port}",
            given["directory"],
            SERVER,
        )

    async def orders(self, provider: AcmeProvider, directory: str) -> None:
        first = await provider.obtain()
        self.assertTrue(SERVER.is_said_by(first.leaf))
        account = Path(directory, "account.key").read_bytes()
        self.assertEqual(os.stat(os.path.join(directory, "account.key")).st_mode & 0o777, 0o600)
        second = await provider.renew(first)
        self.assertNotEqual(second.leaf.serial_number, first.leaf.serial_number)
        self.assertEqual(Path(directory, "account.key").read_bytes(), account)

    async def test_pebble(self) -> None:
        """Its nonces are refused now and then, so the answers have to be tried again."""
        port, directory = free_port(), str(self.place())
        ca = Pebble(self.place(), port)
        ca.start()
        self.addCleanup(ca.stop)
        root_file = str(ca.root_file())
        # T237: what the environment says about proxies and CAs is not looked at.
        self.patch(os, "environ", {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9",
                                   "REQUESTS_CA_BUNDLE": "/nowhere"})  # fmt: skip
        provider = self.provider(ca, port, ca.url, root_file, directory=directory)
        await self.orders(provider, directory)
        with self.assertRaises(OSError):  # the listener for challenges is gone
            socket.create_connection(("127.0.0.1", port), 1).close()
        wrong = self.provider(ca, port, ca.url, root_file, root_fingerprint=secrets.token_hex(32))
        await self.refused(wrong.obtain(), "has not the root")

    async def test_step_ca(self) -> None:
        port, directory = free_port(), str(self.place())
        ca = StepCa(self.place(), port)
        ca.start()
        self.addCleanup(ca.stop)
        url = f"{ca.url}/acme/acme/directory"
        await self.orders(self.provider(ca, port, url, directory=directory), directory)

    async def test_a_directory_of_somebody_else(self) -> None:
        """The TLS is not by the pinned root: no account is asked for."""
        port = free_port()
        ca, other = Pebble(self.place(), port), Pebble(self.place(), port)
        ca.start()
        other.start()
        self.addCleanup(ca.stop)
        self.addCleanup(other.stop)
        provider = self.provider(ca, port, other.url, str(ca.root_file()))
        await self.refused(provider.obtain(), "not by the root that is pinned")

    async def test_nobody_reaches_the_challenge(self) -> None:
        ca = Pebble(self.place(), free_port())
        ca.start()
        self.addCleanup(ca.stop)
        provider = self.provider(ca, free_port(), ca.url, str(ca.root_file()))
        await self.refused(provider.obtain(), "could not verify a name")
        for thread in threading.enumerate():
            if thread.name == "acme":  # it gave its answer, and ends
                await deferToThread(thread.join, 5.0)
                self.assertFalse(thread.is_alive())
