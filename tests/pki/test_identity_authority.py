"""The embedded CA: what it signs, what it refuses, and what OpenSSL makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from slapenir.errors import NotInForceError, PkiError
from slapenir.pki import ca_book, ca_files, files
from slapenir.pki.ca_certificates import begin_leaf
from slapenir.pki.held import Held, Wanted, new_key, read_key, to_pem
from slapenir.pki.identity_authority import IdentityAuthority, Issued
from slapenir.pki.revocation import Revocations, Standing
from tests.support.tls import TestCA

DAY = 86400.0
AGENT = Wanted(spiffe=("spiffe://example.org/agent/1",))
SERVER = Wanted(dns=("gateway.internal",), addresses=("127.0.0.1",), server=True)


class AuthorityCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = time.time()
        self.directory = str(Path(self.mktemp()).resolve())
        os.makedirs(self.directory, 0o700)
        self.authority = self.make()

    def make(self) -> IdentityAuthority:
        return IdentityAuthority.create(
            self.directory,
            domains=["example.org", "internal"],
            addresses=["127.0.0.1"],
            clock=lambda: self.now,
        )

    def issue(self, wanted: Wanted = AGENT, identity: str = "agent-1") -> Issued:
        return self.authority.issue(wanted, new_key().public_key(), identity=identity)

    def refuses(self, phrase: str, call: Callable[[], object]) -> None:
        with self.assertRaises(PkiError) as caught:
            call()
        self.assertIn(phrase, str(caught.exception))

    def standing(self, issued: Issued) -> Standing:
        lists = Revocations.parse(self.authority.crl(), self.authority.issuers)
        return lists.standing(issued.chain[0], issued.chain[1], self.now)

    def openssl(
        self, chain: tuple[x509.Certificate, ...], roots: tuple[x509.Certificate, ...]
    ) -> str:
        """Return what ``openssl verify`` says of a chain."""
        if shutil.which("openssl") is None:
            raise SkipTest("openssl is not installed")
        place = Path(self.mktemp())
        place.mkdir(parents=True)
        for name, found in (("leaf", chain[:1]), ("others", chain), ("roots", roots)):
            (place / f"{name}.pem").write_bytes(to_pem(found))
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-attime", str(int(self.now)),
             "-CAfile", "roots.pem", "-untrusted", "others.pem", "leaf.pem"],
            capture_output=True, text=True, cwd=place,
        )  # fmt: skip
        return done.stdout + done.stderr


class IssueTests(AuthorityCase):
    """Certificates for agents and for the gateway."""

    def test_what_it_says(self) -> None:
        for wanted, usages in ((AGENT, 1), (SERVER, 2), (Wanted(common_name="agent-3"), 1)):
            issued = self.issue(wanted)
            leaf = issued.chain[0]
            self.assertTrue(wanted.is_said_by(leaf))
            found = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            self.assertEqual(len(found), usages)
            constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
            self.assertFalse(constraints.ca)
            self.assertEqual(f"{leaf.serial_number:x}", issued.serial)
            self.assertIn("leaf.pem: OK", self.openssl(issued.chain, self.authority.roots))

    def test_it_never_outlives_its_issuer_t217(self) -> None:
        """T217: neither the leaf nor anything between it and the root."""
        issued = self.issue(Wanted(spiffe=AGENT.spiffe, lifetime=4000 * DAY))
        leaf, issuer = issued.chain
        self.assertLessEqual(leaf.not_valid_after_utc, issuer.not_valid_after_utc)
        self.assertLessEqual(
            issuer.not_valid_after_utc, self.authority.roots[0].not_valid_after_utc
        )
        self.assertLess(leaf.not_valid_before_utc.timestamp(), self.now - 200)
        self.now += 366 * DAY
        self.refuses("has expired", self.issue)
        self.refuses("expired", lambda: IdentityAuthority.load(self.directory, lambda: self.now))

    def test_names_outside_its_domains(self) -> None:
        for wanted, name in (
            (Wanted(dns=("example.com",)), "example.com"),
            (Wanted(dns=("notinternal",)), "notinternal"),
            (Wanted(spiffe=("spiffe://other.org/x",)), "spiffe://other.org/x"),
            (Wanted(dns=("a.internal",), addresses=("127.0.0.2",)), "127.0.0.2"),
            (Wanted(common_name="www.example.com"), "www.example.com"),
        ):
            self.refuses(f"is not for {name}", lambda wanted=wanted: self.issue(wanted))
        for wanted in (Wanted(dns=("a.b.internal",)), Wanted(spiffe=("spiffe://x.example.org/a",))):
            self.assertIn("OK", self.openssl(self.issue(wanted).chain, self.authority.roots))
        with self.assertRaises(PkiError):
            IdentityAuthority.create(self.directory, domains=[])

    def test_a_stolen_issuing_key_is_held_by_its_constraints(self) -> None:
        """What it signs beyond its names, or as a CA, is refused by OpenSSL."""
        issuer = self.authority.issuers[0]
        key = read_key(os.path.join(self.directory, "issuing-2.key"))
        for wanted in (
            Wanted(dns=("www.example.com",)),
            Wanted(spiffe=("spiffe://other.org/agent/1",)),
            Wanted(addresses=("10.0.0.1",)),
        ):
            builder = begin_leaf(
                wanted, new_key().public_key(), issuer, self.now - 60, self.now + 3600
            )
            forged = builder.sign(key, hashes.SHA256())
            said = self.openssl((forged, issuer), self.authority.roots)
            self.assertIn("permitted subtree violation", said)

    def test_each_is_logged(self) -> None:
        one, two = self.issue(), self.issue(SERVER, "")
        entries = [entry for entry, _ in self.authority.entries()]
        self.assertEqual([entry.serial for entry in entries], [one.serial, two.serial])
        self.assertEqual([entry.identity for entry in entries], ["agent-1", ""])
        # A line that was torn by a power cut costs that line only.
        with open(os.path.join(self.directory, "issued.jsonl"), "ab") as file:
            file.write(b'{"serial": "12')
        three = self.issue()
        serials = [entry.serial for entry, _ in self.authority.entries()]
        self.assertEqual(serials, [one.serial, two.serial, three.serial])


class RevokeTests(AuthorityCase):
    """T105: what the list says."""

    def test_t105_by_serial_identity_and_certificate(self) -> None:
        issued = [self.issue() for _ in range(3)]
        other = self.issue(Wanted(dns=("b.internal",)), "agent-2")
        self.assertEqual({self.standing(one) for one in issued}, {Standing.GOOD})
        self.assertEqual(self.authority.revoke(issued[0].serial), [issued[0].serial])
        self.assertEqual(self.authority.revoke(issued[0].serial.upper()), [])
        self.authority.revoke(certificate=issued[1].chain[0], reason="key-compromise")
        self.assertEqual(self.standing(issued[2]), Standing.GOOD)
        self.assertEqual(self.authority.revoke(identity="agent-1"), [issued[2].serial])
        self.assertEqual({self.standing(one) for one in issued}, {Standing.REVOKED})
        self.assertEqual(self.standing(other), Standing.GOOD)
        self.refuses("no certificate in force", lambda: self.authority.revoke("abc"))
        self.refuses("no certificate in force", lambda: self.authority.revoke(identity="x"))
        self.refuses("not a reason", lambda: self.authority.revoke(other.serial, reason="x"))

    def test_t105_what_is_over_is_not_replaced(self) -> None:
        """A thief may not renew before the gateway has seen the list, nor after a distrust."""

        def replace(shown: x509.Certificate) -> Issued:
            key = new_key().public_key()
            return self.authority.issue(AGENT, key, identity="agent-1", replaced=shown)

        good, stolen = self.issue(), self.issue()
        self.authority.revoke(stolen.serial)
        with self.assertRaises(NotInForceError):
            replace(stolen.chain[0])
        with self.assertRaises(NotInForceError):
            replace(TestCA().issue("agent-1").certificate)
        self.assertEqual(self.standing(replace(good.chain[0])), Standing.GOOD)
        self.authority.rotate_issuing(DAY)
        self.assertEqual(self.standing(replace(good.chain[0])), Standing.GOOD)
        self.authority.rotate_issuing(DAY, distrust=True)
        with self.assertRaises(NotInForceError):
            replace(good.chain[0])

    def test_t105_unused_tokens_go_with_it(self) -> None:
        """All of an identity includes its tokens, with certificates or without; others' stay."""
        self.issue()
        one, two = (self.authority.make_token("agent-1", 900) for _ in range(2))
        other = self.authority.make_token("agent-2", 900)
        self.authority.revoke(identity="agent-1")
        for secret in (one, two):
            self.refuses(
                "unknown or was used", lambda secret=secret: self.authority.tokens.redeem(secret)
            )
        self.assertEqual(self.authority.tokens.redeem(other), "agent-2")
        third = self.authority.make_token("agent-3", 900)
        self.assertEqual(self.authority.revoke(identity="agent-3"), [])
        self.refuses("unknown or was used", lambda: self.authority.tokens.redeem(third))

    def test_t105_a_revocation_that_was_cut_short_stays(self) -> None:
        """The list could not be written: the next one has it all the same."""
        issued = self.issue()

        def full(*_: object) -> None:
            raise PkiError("no space")

        self.patch(ca_files, "replace", full)
        self.refuses("no space", lambda: self.authority.revoke(issued.serial))
        self.patch(ca_files, "replace", files.replace)
        self.authority.refresh_crl()
        self.assertEqual(self.standing(issued), Standing.REVOKED)

    def test_t105_a_list_that_ends(self) -> None:
        issued = self.issue()
        self.authority.refresh_crl(3600)
        self.now += 3601
        self.assertEqual(self.standing(issued), Standing.UNKNOWN)
        self.authority.refresh_crl(3600)
        self.assertEqual(self.standing(issued), Standing.GOOD)


class RotateTests(AuthorityCase):
    """A new issuing CA, a new root, and the time when both are good."""

    def test_issuing(self) -> None:
        before = self.issue()
        self.authority.revoke(before.serial)
        old = self.issue()
        self.authority.rotate_issuing(DAY)
        after = self.issue()
        self.assertNotEqual(old.chain[1], after.chain[1])
        self.assertEqual(set(self.authority.issuers), {old.chain[1], after.chain[1]})
        self.assertEqual(self.standing(before), Standing.REVOKED)
        self.assertEqual({self.standing(old), self.standing(after)}, {Standing.GOOD})
        self.assertEqual(self.authority.revoke(old.serial), [old.serial])
        self.assertEqual(self.standing(old), Standing.REVOKED)
        self.now += DAY + 1
        self.assertEqual(self.authority.issuers, (after.chain[1],))

    def test_distrust(self) -> None:
        old = self.issue()
        self.authority.rotate_issuing(DAY, distrust=True)
        self.assertNotIn(old.chain[1], self.authority.issuers)

    def test_root(self) -> None:
        """Who knows only the old root verifies, and who knows only the new one."""
        old_roots = self.authority.roots
        self.authority.rotate_root(DAY)
        after = self.issue()
        self.assertEqual(len(self.authority.roots), 2)
        for roots in (old_roots, self.authority.roots[:1], self.authority.roots):
            self.assertIn("leaf.pem: OK", self.openssl(after.chain, roots))
        self.authority.finish_rotation()
        late = self.issue()
        self.assertEqual(len(late.chain), 2)
        self.assertIn("leaf.pem: OK", self.openssl(late.chain, self.authority.roots))
        self.assertNotIn("leaf.pem: OK", self.openssl(late.chain, old_roots))

    def test_the_roots_key_is_needed_for_nothing_else(self) -> None:
        away = self.mktemp()
        os.makedirs(away, 0o700)
        os.rename(os.path.join(self.directory, "root-1.key"), os.path.join(away, "root-1.key"))
        again = IdentityAuthority.load(self.directory, lambda: self.now)
        again.issue(AGENT, new_key().public_key(), identity="agent-1")
        again.revoke(identity="agent-1")
        self.refuses("bring the root's key back", lambda: again.rotate_issuing(DAY))
        again.rotate_issuing(DAY, root_directory=away)
        again.rotate_root(DAY, root_directory=away)
        self.assertTrue(os.path.exists(os.path.join(away, "root-4.key")))
        self.assertFalse(os.path.exists(os.path.join(self.directory, "root-4.key")))


class TokenTests(AuthorityCase):
    """One token, one certificate."""

    def test_revoked_while_it_is_used(self) -> None:
        """A revocation of the identity that comes between waits, and finds the certificate."""
        secret = self.authority.make_token("agent-1", 900)
        revoked: list[str] = []

        def revoke() -> None:
            revoked.extend(self.authority.revoke(identity="agent-1"))

        thread = threading.Thread(target=revoke)

        def wanted(identity: str) -> Wanted:
            thread.start()  # the token is used up, nothing is signed yet
            thread.join(0.3)
            return AGENT

        key = new_key().public_key()
        identity, issued = self.authority.enrol(secret, key, wanted)
        thread.join()
        self.assertEqual((identity, revoked), ("agent-1", [issued.serial]))

    def test_once(self) -> None:
        secret = self.authority.make_token("agent-1", 900)
        self.assertNotIn(secret, "".join(os.listdir(os.path.join(self.directory, "tokens"))))
        self.assertEqual(self.authority.tokens.redeem(secret), "agent-1")
        self.refuses("unknown or was used", lambda: self.authority.tokens.redeem(secret))
        self.refuses("unknown or was used", lambda: self.authority.tokens.redeem("x" * 43))
        self.refuses("unknown or was used", lambda: self.authority.tokens.redeem("../../book.json"))

    def test_expired(self) -> None:
        secret = self.authority.make_token("agent-1", 900)
        self.now += 900
        self.refuses("has expired", lambda: self.authority.tokens.redeem(secret))
        self.authority.make_token("agent-1", 900)
        self.now += 901
        self.authority.make_token("agent-1", 900)
        self.assertEqual(len(os.listdir(os.path.join(self.directory, "tokens"))), 1)

    def test_many_at_once(self) -> None:
        """Of thirty-two threads exactly one gets it."""
        for _ in range(5):
            secret = self.authority.make_token("agent-1", 900)
            won: list[str] = []
            gate = threading.Barrier(32)

            def redeem(
                secret: str = secret,
                gate: threading.Barrier = gate,
                won: list[str] = won,
            ) -> None:
                gate.wait()
                try:
                    won.append(self.authority.tokens.redeem(secret))
                except PkiError:
                    return

            threads = [threading.Thread(target=redeem) for _ in range(32)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
            self.assertEqual(won, ["agent-1"])


class FileTests(AuthorityCase):
    """T115, T239: what is missing, broken or open to others; and a process that dies."""

    def load(self) -> IdentityAuthority:
        return IdentityAuthority.load(self.directory, lambda: self.now)

    def test_modes_t239(self) -> None:
        for name in sorted(os.listdir(self.directory)):
            mode = os.stat(os.path.join(self.directory, name)).st_mode & 0o777
            public = name.endswith(".pem")
            expected = 0o644 if public else 0o700 if name == "tokens" else 0o600
            self.assertEqual(mode, expected, name)

    def test_t115_t239_what_cannot_be_used(self) -> None:
        for name, spoil, phrase in (
            ("book.json", os.unlink, "is missing"),
            ("book.json", lambda path: Path(path).write_bytes(b"{"), "is damaged"),
            ("issuing-2.key", os.unlink, "is missing"),
            ("issuing-2.key", lambda path: os.chmod(path, 0o640), "by others"),
            ("issuing-2.pem", os.unlink, "is missing"),
            ("root-1.pem", lambda path: Path(path).write_bytes(b""), "holds no certificate|PEM"),
        ):
            place = os.path.join(self.directory, name)
            kept, mode = Path(place).read_bytes(), os.stat(place).st_mode & 0o777
            spoil(place)
            with self.assertRaises(PkiError) as caught:
                self.load()
            self.assertRegex(str(caught.exception), phrase)
            Path(place).unlink(missing_ok=True)
            Path(place).write_bytes(kept)
            os.chmod(place, mode)
        os.rename(os.path.join(self.directory, "issuing-2.key"), "elsewhere.key")
        os.symlink(os.path.abspath("elsewhere.key"), os.path.join(self.directory, "issuing-2.key"))
        self.refuses("symbolic link", self.load)

    def test_it_is_never_made_twice(self) -> None:
        self.refuses("holds an identity CA already", self.make)

    def test_a_process_that_dies_at_any_write(self) -> None:
        """Whatever was written before it died, the CA works, and the change can be repeated."""
        steps: tuple[Callable[[], object], ...] = (
            lambda: self.authority.rotate_issuing(DAY),
            lambda: self.authority.rotate_root(DAY),
            lambda: self.authority.revoke(identity="agent-1"),
            self.authority.finish_rotation,
            self.issue,
        )
        written = [0]
        limit = [0]
        real = ca_files.replace

        def dying(path: str, data: bytes, mode: int) -> None:
            written[0] += 1
            if written[0] > limit[0]:
                raise KeyboardInterrupt
            real(path, data, mode)

        from slapenir.pki import identity_authority

        for step in steps:
            for limit[0] in range(12):
                self.authority.finish_rotation()
                self.issue()
                written[0] = 0
                for module in (ca_files, ca_book, identity_authority):
                    self.patch(module, "replace", dying)
                try:
                    step()
                    whole = True
                except KeyboardInterrupt:
                    whole = False
                for module in (ca_files, ca_book, identity_authority):
                    self.patch(module, "replace", real)
                again = self.load()
                fresh = again.issue(AGENT, new_key().public_key(), identity="agent-1")
                self.assertEqual(self.standing(fresh), Standing.GOOD)
                if whole:
                    break
            else:
                self.fail("the change was never whole")

    def test_held_files(self) -> None:
        """What is issued can be kept and read again; a key of another certificate is seen."""
        key = new_key()
        issued = self.authority.issue(AGENT, key.public_key(), identity="agent-1")
        place = self.mktemp()
        os.makedirs(place, 0o700)
        Held(key, issued.chain, self.authority.roots).save(place)
        found = Held.load(place)
        self.assertEqual((found.chain, found.roots), (issued.chain, self.authority.roots))
        Held(new_key(), issued.chain, ()).save(place)
        self.refuses("is not the key of", lambda: Held.load(place))
