"""What the issuing CA is for: the check before signing says what OpenSSL says afterwards."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from slapenir.errors import PkiError
from slapenir.pki.ca_certificates import begin_leaf, issuing_certificate, root_certificate
from slapenir.pki.constraints import is_host_like, name_constraints, outside
from slapenir.pki.held import Wanted, new_key, to_pem

NOW = time.time()
DOMAINS, ADDRESSES = ("example.org", "internal"), ("127.0.0.1", "fd00::1")


class ConstraintTests(SynchronousTestCase):
    """name_constraints, outside, and openssl verify."""

    def setUp(self) -> None:
        self.root_key, self.key = new_key(), new_key()
        self.root = root_certificate(self.root_key, 1, NOW)

    def issuer(self, constraints: x509.NameConstraints) -> x509.Certificate:
        return issuing_certificate(
            self.key.public_key(), 2, self.root, self.root_key, constraints, NOW
        )

    def verify(self, wanted: Wanted, constraints: x509.NameConstraints) -> bool:
        """Sign whatever is asked for; return whether OpenSSL takes it."""
        if shutil.which("openssl") is None:
            raise SkipTest("openssl is not installed")
        issuer = self.issuer(constraints)
        builder = begin_leaf(wanted, new_key().public_key(), issuer, NOW - 60, NOW + 3600)
        leaf = builder.sign(self.key, hashes.SHA256())
        place = Path(self.mktemp())
        place.mkdir(parents=True)
        for name, found in (("leaf", leaf), ("issuer", issuer), ("root", self.root)):
            (place / f"{name}.pem").write_bytes(to_pem((found,)))
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted",
             "issuer.pem", "leaf.pem"],
            cwd=place, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            self.assertRegex(done.stderr, "subtree|name constraint|name syntax")
        return done.returncode == 0

    def test_what_is_in_it(self) -> None:
        found = name_constraints(["example.org"], ["127.0.0.1"])
        permitted = found.permitted_subtrees
        assert permitted is not None
        self.assertEqual(
            [one.value for one in permitted[:3]], ["example.org", "example.org", ".example.org"]
        )
        self.assertEqual(str(permitted[3].value), "127.0.0.1/32")
        self.assertIsNone(found.excluded_subtrees)
        excluded = name_constraints(["example.org"]).excluded_subtrees
        assert excluded is not None
        self.assertEqual([str(one.value) for one in excluded], ["0.0.0.0/0", "::/0"])
        critical = self.issuer(found).extensions.get_extension_for_class(x509.NameConstraints)
        self.assertTrue(critical.critical)
        with self.assertRaises(PkiError):
            name_constraints([])

    def test_as_openssl(self) -> None:
        """Each name is refused by both or by none."""
        both, none = name_constraints(DOMAINS, ADDRESSES), name_constraints(DOMAINS)
        for wanted, constraints, good in (
            (Wanted(dns=("internal",)), both, True),
            (Wanted(dns=("a.b.internal",)), both, True),
            (Wanted(dns=("a.internal", "evil.test")), both, False),
            (Wanted(dns=("xinternal",)), both, False),
            (Wanted(dns=("internal.evil.test",)), both, False),
            (Wanted(spiffe=("spiffe://example.org/a",)), both, True),
            (Wanted(spiffe=("spiffe://x.example.org/a",)), both, True),
            (Wanted(spiffe=("spiffe://xexample.org/a",)), both, False),
            (Wanted(spiffe=("spiffe://evil.test/example.org",)), both, False),
            (Wanted(addresses=("127.0.0.1", "fd00::1")), both, True),
            (Wanted(addresses=("127.0.0.2",)), both, False),
            (Wanted(addresses=("fd00::2",)), both, False),
            (Wanted(dns=("a.internal",), addresses=("127.0.0.1",)), none, False),
            (Wanted(addresses=("fd00::1",)), none, False),
            (Wanted("agent-1"), none, True),
            (Wanted("agent 1, v1.0"), none, True),
            (Wanted("a.internal"), none, True),
            (Wanted("A.Internal"), none, True),
            (Wanted("evil.test"), none, False),
            (Wanted("10.0.0.1"), none, False),
            (Wanted("evil.test", ("spiffe://example.org/a",)), none, False),
            (Wanted("evil.test", dns=("a.internal",)), none, True),
        ):
            self.assertEqual(not outside(constraints, wanted), good, wanted)
            self.assertEqual(self.verify(wanted, constraints), good, wanted)

    def test_common_names_that_are_hosts(self) -> None:
        for text in ("a.b", "a_b.c", "a-b.c-d.e", "1.2", "a.internal"):
            self.assertTrue(is_host_like(text), text)
        for text in ("a", "", ".a", "a.", "a..b", "a-.b", "a.-b", "-a.b", "a b.c", "a.b\n"):
            self.assertFalse(is_host_like(text), text)

    def test_a_common_name_of_any_kind(self) -> None:
        """What this takes for no host OpenSSL takes for none either."""
        constraints = name_constraints(["example.org"])
        for text in ("a.", ".a", "a..b", "a-.b", "a.-b", "-a.b", "a b.c", "\u0430.b", "a.b,c"):
            self.assertEqual(outside(constraints, Wanted(text)), "")
            self.assertTrue(self.verify(Wanted(text), constraints), text)
