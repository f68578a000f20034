"""The embedded CA after time, accidents and thieves: overlaps that end, expiry, lost files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from slapenir.errors import PkiError
from slapenir.pki import ca_book
from slapenir.pki.ca_book import Entry, Revoked, append_entry, read_book, read_entries, write_book
from slapenir.pki.ca_certificates import begin_leaf, cross_signed, root_certificate
from slapenir.pki.held import Wanted, new_key, read_chain, read_key, to_pem
from slapenir.pki.identity_authority import IdentityAuthority
from slapenir.pki.revocation import Revocations, Standing
from tests.pki.test_identity_authority import AGENT, DAY, AuthorityCase

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Changes a CA without end, until it is killed.
BUSY = """\
import sys
from slapenir.pki.held import Wanted, new_key
from slapenir.pki.identity_authority import IdentityAuthority
ca, wanted = IdentityAuthority.load(sys.argv[1]), Wanted(spiffe=("spiffe://example.org/agent/1",))
ca.finish_rotation()
print("ready", flush=True)
while True:
    ca.issue(wanted, new_key().public_key(), identity="agent-1")
    ca.rotate_issuing(60)
    ca.revoke(identity="agent-1")
    ca.rotate_root(60)
    ca.make_token("agent-1", 60)
    ca.finish_rotation()
"""


class TimeTests(AuthorityCase):
    """T216, T217: the clock, and what ends."""

    def load(self) -> IdentityAuthority:
        return IdentityAuthority.load(self.directory, lambda: self.now)

    def test_t105_the_end_of_an_overlap(self) -> None:
        """Then the old CA's list is still in the file, and is none of those that are given out."""
        old = self.issue()
        self.authority.rotate_issuing(DAY)
        new = self.issue()
        self.authority.refresh_crl(30 * DAY)
        self.assertEqual(self.authority.crl().count(b"BEGIN"), 2)
        self.now += DAY
        self.assertEqual(Path(self.directory, "crl.pem").read_bytes().count(b"BEGIN"), 2)
        self.assertEqual(self.standing(new), Standing.GOOD)
        lists = Revocations.parse(self.authority.crl(), self.authority.issuers)
        self.assertIs(lists.standing(old.chain[0], old.chain[1], self.now), Standing.UNKNOWN)

    def test_t217_an_issuing_ca_that_has_expired(self) -> None:
        """It signs nothing, and a rotation mends it."""
        self.issue()
        end = self.authority.issuers[0].not_valid_after_utc.timestamp()
        self.now = end - 1
        self.load()
        self.assertEqual(self.issue().not_after, end)
        self.now = end
        self.refuses("has expired; run: slapenir ca rotate FILE", self.load)
        self.refuses("has expired; run: slapenir ca rotate FILE", self.issue)
        self.authority.rotate_issuing(DAY)
        self.load()
        self.assertIn("leaf.pem: OK", self.openssl(self.issue().chain, self.authority.roots))

    def test_t217_a_root_that_has_expired(self) -> None:
        """Only a new root mends that; the old one signs nothing any more."""
        end = self.authority.roots[0].not_valid_after_utc.timestamp()
        self.now = end - DAY
        self.authority.rotate_issuing(DAY)
        issuer = self.authority.issuers[0]
        self.assertEqual(issuer.not_valid_after_utc.timestamp(), end)
        self.now = end
        self.refuses("has expired; run: slapenir ca rotate FILE --root", self.load)
        self.refuses("rotate FILE --root", lambda: self.authority.rotate_issuing(DAY))
        self.authority.rotate_root(DAY)
        self.load()
        issued = self.issue()
        self.assertEqual(len(issued.chain), 2)
        self.assertIn("leaf.pem: OK", self.openssl(issued.chain, self.authority.roots[:1]))

    def test_t216_a_clock_that_is_wrong(self) -> None:
        """Set back it signs nothing; put right again, all is as before."""
        begins = self.authority.issuers[0].not_valid_before_utc.timestamp()
        now, issued = self.now, self.issue()
        self.now = begins - 1
        self.refuses("is not valid yet; check the clock", self.load)
        self.assertEqual(self.standing(issued), Standing.UNKNOWN)
        self.now = now + 400 * DAY
        self.refuses("has expired", self.load)
        self.assertEqual(self.standing(issued), Standing.UNKNOWN)
        self.now = now
        self.load()
        self.assertEqual(self.standing(issued), Standing.GOOD)


class ThiefTests(AuthorityCase):
    """A stolen key, and what it is good for."""

    def test_distrust_a_root(self) -> None:
        """Nothing of the old root is good at once, and the new one owes it nothing."""
        old_roots, old = self.authority.roots, self.issue()
        self.authority.rotate_root(0)
        new = self.issue()
        self.assertEqual((len(self.authority.roots), len(self.authority.issuers)), (1, 1))
        self.assertNotIn(old.chain[1], self.authority.issuers)
        self.assertEqual(len(new.chain), 2)
        self.assertNotIn("leaf.pem: OK", self.openssl(new.chain, old_roots))
        self.assertIn("leaf.pem: OK", self.openssl(new.chain, self.authority.roots))

    def test_one_rotation_of_the_root_at_a_time(self) -> None:
        """Who knows only the root before the last could not verify a third one (pathlen)."""
        first = self.authority.roots
        self.authority.rotate_root(DAY)
        again = lambda: self.authority.rotate_root(DAY)  # noqa: E731
        self.refuses("run first: slapenir ca rotate FILE --finish", again)
        self.authority.rotate_issuing(DAY)
        self.assertIn("leaf.pem: OK", self.openssl(self.issue().chain, first))
        self.now += DAY
        self.authority.rotate_root(DAY)
        self.assertIn("leaf.pem: OK", self.openssl(self.issue().chain, self.authority.roots[:1]))
        self.authority.rotate_root(0)  # a thief does not wait

    def test_a_stolen_issuing_key_signs_no_ca(self) -> None:
        """Its path length is 0: OpenSSL takes no certificate of a CA below it."""
        issuer = self.authority.issuers[0]
        key = read_key(os.path.join(self.directory, "issuing-2.key"))
        forged_key = new_key()
        forged_root = root_certificate(forged_key, 9, self.now)
        forged = cross_signed(forged_root, issuer, key, self.now)
        leaf = begin_leaf(AGENT, new_key().public_key(), forged, self.now - 60, self.now + 60)
        chain = (leaf.sign(forged_key, hashes.SHA256()), forged, issuer)
        self.assertIn("path length constraint", self.openssl(chain, self.authority.roots))

    def test_t105_a_certificate_that_the_log_lost(self) -> None:
        """It is ours by its signature, so it can be revoked; somebody else's cannot."""
        issued = self.issue()
        os.unlink(os.path.join(self.directory, "issued.jsonl"))
        self.refuses("no certificate in force", lambda: self.authority.revoke(issued.serial))
        leaf = issued.chain[0]
        self.assertEqual(self.authority.revoke(certificate=leaf), [issued.serial])
        self.assertEqual(self.standing(issued), Standing.REVOKED)
        other = self.mktemp()
        stranger = IdentityAuthority.create(other, domains=["example.org"])
        theirs = stranger.issue(AGENT, new_key().public_key(), identity="agent-1").chain[0]
        self.refuses("no certificate", lambda: self.authority.revoke(certificate=theirs))

    def test_serials_as_tools_write_them(self) -> None:
        for write in (
            lambda text: text.upper(),
            lambda text: "0x" + text,
            lambda text: ":".join(f"{int(text, 16):040X}"[n : n + 2] for n in range(0, 40, 2)),
        ):
            issued = self.issue()
            self.assertEqual(self.authority.revoke(write(issued.serial)), [issued.serial])


class FileTests(AuthorityCase):
    """T115, T239: what is not as it was made."""

    def load(self) -> IdentityAuthority:
        return IdentityAuthority.load(self.directory, lambda: self.now)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def put(self, name: str, certificate: x509.Certificate) -> None:
        Path(self.path(name)).write_bytes(to_pem((certificate,)))

    def test_t115_not_an_authority(self) -> None:
        """A leaf in its place, another CA's, or the root itself."""
        (issuing,) = read_chain(self.path("issuing-2.pem"))
        (root,) = read_chain(self.path("root-1.pem"))
        self.put("issuing-2.pem", self.issue().chain[0])
        self.refuses("is not an authority", self.load)
        self.put("issuing-2.pem", root)
        self.refuses("issuing-2.key is another CA's", self.load)
        self.put("issuing-2.pem", issuing)
        self.load()
        self.put("root-1.pem", root_certificate(new_key(), 1, self.now))
        self.refuses("is not signed by", self.load)

    def test_t239_the_directory(self) -> None:
        """Open to others, or a link."""
        for mode in (0o750, 0o701, 0o777):
            os.chmod(self.directory, mode)
            self.refuses("chmod 700", self.load)
            self.refuses("chmod 700", self.issue)
        os.chmod(self.directory, 0o700)
        self.load()
        link = os.path.abspath(self.mktemp())
        os.symlink(self.directory, link)
        self.refuses("symbolic link", lambda: IdentityAuthority.load(link))

    def test_t239_made_private(self) -> None:
        """Whatever the umask is."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        made = os.path.join(os.path.abspath(self.mktemp()), "pki")
        IdentityAuthority.create(made, domains=["example.org"])
        for name, mode in ((".", 0o700), ("tokens", 0o700), ("root-1.key", 0o600), ("lock", 0o600)):
            self.assertEqual(os.stat(os.path.join(made, name)).st_mode & 0o777, mode, name)

    def test_t239_links_where_it_writes(self) -> None:
        """What it writes goes nowhere else."""
        self.issue()
        elsewhere = os.path.abspath(self.mktemp())
        for name, call in (
            ("issued.jsonl", self.issue),
            ("lock", self.issue),
            ("crl.pem", self.authority.refresh_crl),
        ):
            os.unlink(self.path(name))
            os.symlink(elsewhere, self.path(name))
            if name == "crl.pem":
                call()  # replaced in one step
            else:
                self.assertRaises(PkiError, call)
                os.unlink(self.path(name))
            self.assertFalse(os.path.lexists(elsewhere))
        self.issue()

    def test_t115_a_lost_book_is_not_made_up_for(self) -> None:
        """A new CA beside it overwrites no key of the old one."""
        kept = {
            name: Path(self.path(name)).read_bytes()
            for name in os.listdir(self.directory)
            if name.startswith(("root", "issuing"))
        }
        os.unlink(self.path("book.json"))
        self.refuses("book.json is missing", self.load)
        self.make()
        self.load()
        self.assertEqual(self.authority.root_key_file, "root-3.key")
        for name, data in kept.items():
            self.assertEqual(Path(self.path(name)).read_bytes(), data)

    def test_a_root_directory_that_has_another_root(self) -> None:
        away = os.path.abspath(self.mktemp())
        os.mkdir(away, 0o700)
        first, second = os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())
        for made in (first, second):
            IdentityAuthority.create(made, domains=["example.org"], root_directory=away)
        self.assertEqual(sorted(os.listdir(away)), ["root-1.key", "root-2.key"])
        IdentityAuthority.load(first).rotate_issuing(DAY, root_directory=away)
        IdentityAuthority.load(second).rotate_issuing(DAY, root_directory=away)
        gone = os.path.join(away, "gone")
        with self.assertRaises(PkiError):
            IdentityAuthority.create(self.mktemp(), domains=["a.test"], root_directory=gone)

    def test_a_making_that_was_cut_short(self) -> None:
        """Whatever is left of it, making it again works."""
        whole = os.listdir(self.directory)
        self.assertIn("book.json", whole)
        for left in (["root-1.key"], ["root-1.key", "root-1.pem", "issuing-2.key"], whole):
            again = os.path.abspath(self.mktemp())
            shutil.copytree(self.directory, again)
            for name in set(whole) - set(left) | {"book.json"}:
                path = os.path.join(again, name)
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
            made = IdentityAuthority.create(again, domains=["example.org"])
            IdentityAuthority.load(again)
            made.issue(AGENT, new_key().public_key(), identity="agent-1")

    def test_killed(self) -> None:
        """A process that is killed at any time leaves a CA that works."""
        for number in range(6):
            busy = subprocess.Popen(
                [sys.executable, "-c", BUSY, self.directory],
                stdout=subprocess.PIPE, text=True, cwd=CHECKOUT,
            )  # fmt: skip
            assert busy.stdout is not None
            self.assertEqual(busy.stdout.readline(), "ready\n")
            time.sleep(0.03 + 0.017 * number)
            busy.kill()
            self.assertEqual(busy.wait(), -signal.SIGKILL)
            busy.stdout.close()
            self.now = time.time()
            self.load()
            self.assertEqual(self.standing(self.issue()), Standing.GOOD)
            self.authority.tokens.redeem(self.authority.make_token("agent-1", 60))


class SizeTests(AuthorityCase):
    """Years of it."""

    def test_many_revocations(self) -> None:
        """20,000 are more than the usual megabyte of a file; each is still known."""
        book = read_book(self.directory)
        many = tuple(
            Revoked(f"{number:x}", book.issuing[0].name, self.now, "superseded", "agent-1")
            for number in range(1 << 100, (1 << 100) + 20_000)
        )
        write_book(self.directory, attrs.evolve(book, revoked=many))
        issued = self.issue()
        self.authority.revoke(issued.serial)
        lists = Revocations.parse(self.authority.crl(), self.authority.issuers)
        self.assertEqual(lists.count, 20_001)
        self.assertEqual(self.standing(issued), Standing.REVOKED)

    def test_the_log_is_kept_short(self) -> None:
        """What ended long ago goes when the log has grown; what is in force or ended lately stays.

        A certificate that ended is not worth revoking.
        """
        self.patch(ca_book, "_SHORTENED_EVERY", 2000)
        now = self.now
        for number, end in enumerate((now - 91 * DAY, now - 89 * DAY, now + DAY) * 20):
            append_entry(self.directory, Entry(f"{number:x}", "agent-1", "issuing-2", end), now)
        found = read_entries(self.directory)
        self.assertLess(len(found), 50)
        self.assertEqual(sum(one.not_after > now - 90 * DAY for one in found), 40)
        self.assertEqual(found, sorted(found, key=lambda one: int(one.serial, 16)))

    def test_names_that_cannot_be(self) -> None:
        """What no certificate can say is an error that says so; nothing is logged."""
        for wanted in (
            Wanted(),
            Wanted("x" * 65),
            Wanted(dns=("\u0430.internal",)),
        ):
            with self.assertRaises(PkiError):
                self.issue(wanted)
        self.assertEqual(self.authority.entries(), [])
        self.issue(Wanted("x" * 64))
