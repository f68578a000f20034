"""What is looked at before a certificate that came is used."""

from __future__ import annotations

import time
from typing import Any

from cryptography import x509
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from slapenir.issuance.provider import EmbeddedProvider, IssuanceError, accept, read_pem
from slapenir.pki.held import Held, Wanted, new_key, to_pem
from tests.support.tls import TestCA

NAMES = ("gateway.example.test", "192.0.2.1")
WANTED = Wanted(dns=NAMES[:1], addresses=NAMES[1:], server=True)


class AcceptTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = TestCA("Root")
        self.issuing = TestCA("Issuing", self.root, 0)
        self.key = new_key()
        self.now = time.time()

    def chain(self, *names: str, **more: Any) -> tuple[x509.Certificate, ...]:
        """Return a chain for our key."""
        issued = self.issuing.issue(*(names or NAMES), key=self.key, **more)
        return (issued.certificate, *issued.chain)

    def accept(self, chain: tuple[x509.Certificate, ...], *roots: TestCA) -> Held:
        """Look at a chain."""
        trusted = [one.certificate for one in roots or (self.root,)]
        return accept(self.key, chain, trusted, WANTED, self.now)

    def refuses(self, chain: tuple[x509.Certificate, ...], words: str, *roots: TestCA) -> None:
        """See that a chain is refused; the right one beside it is not."""
        with self.assertRaises(IssuanceError) as caught:
            self.accept(chain, *roots)
        self.assertRegex(str(caught.exception), words)
        self.accept(self.chain())

    def test_a_good_one(self) -> None:
        """The root is left out of the chain, and kept beside it."""
        chain = self.chain()
        for sent in (chain, (*chain, self.root.certificate)):
            held = self.accept(sent)
            self.assertEqual(held.chain, chain)
            self.assertEqual(held.roots, (self.root.certificate,))

    def test_another_root_beside_it(self) -> None:
        """One of several roots is enough; an issuing CA alone is none."""
        self.assertEqual(len(self.accept(self.chain(), TestCA(), self.root).roots), 2)
        self.refuses(self.chain(), "does not lead to the root", self.issuing)

    def test_of_somebody_else(self) -> None:
        """Another root, one of the same name, a chain without its middle, one that is swapped."""
        for root in (TestCA("Root"), TestCA("Other")):
            self.refuses(self.chain(), "does not lead to the root", root)
        self.refuses(self.chain()[:1], "does not lead to the root")
        other = TestCA("Issuing", self.root, 0)
        self.refuses((self.chain()[0], other.certificate), "does not lead to the root")

    def test_for_another_key(self) -> None:
        """A certificate for a key that is not ours is of no use."""
        issued = self.issuing.issue(*NAMES)
        self.refuses((issued.certificate, *issued.chain), "not for our key")

    def test_for_other_names(self) -> None:
        """One less, one more, another, none."""
        for names in (NAMES[:1], (*NAMES, "more.example.test"), ("other.example.test",)):
            self.refuses(self.chain(*names), "not for the names")
        bare = self.issuing.issue(common_name=NAMES[0], key=self.key)
        self.refuses((bare.certificate, *bare.chain), "not for the names")

    def test_one_that_has_ended(self) -> None:
        """T217: it is told to compare the clocks; one that begins soon is taken."""
        self.refuses(self.chain(starts=-9, ends=-1), "compare the clocks")
        self.accept(self.chain(starts=0.003))

    def test_none(self) -> None:
        """An empty answer, and the root itself."""
        self.refuses((), "no certificate came")
        self.refuses((self.root.certificate,), "not for our key")

    def test_pem(self) -> None:
        """What cannot be read is an error that names where it came from."""
        chain = self.chain()
        self.assertEqual(read_pem(to_pem(chain), "the answer"), chain)
        for data in (b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            with self.assertRaises(IssuanceError) as caught:
                read_pem(data, "the answer")
            self.assertIn("the answer", str(caught.exception))


class EmbeddedTests(TestCase):
    async def test_each_certificate_has_a_key_of_its_own(self) -> None:
        """The CA is given the public key only, and what is wanted."""
        ca = TestCA()
        asked: list[Any] = []

        def issue(wanted: Wanted, public_key: Any) -> Any:
            asked.append((wanted, public_key))
            return Held(new_key(), (ca.certificate,))

        provider = EmbeddedProvider(reactor, WANTED, issue, lambda: (ca.certificate,))
        first = await provider.obtain()
        second = await provider.renew(first)
        self.assertEqual(asked, [(WANTED, one.key.public_key()) for one in (first, second)])
        self.assertNotEqual(first.key.public_key(), second.key.public_key())
        self.assertEqual(first.roots, (ca.certificate,))
