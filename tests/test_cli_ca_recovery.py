"""``slapenir ca`` when things went wrong: expired, stolen, cut short, for somebody else's key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from cryptography import x509

from slapenir.pki.held import Held, read_chain
from slapenir.pki.identity_authority import IdentityAuthority
from slapenir.pki.revocation import Revocations
from tests.test_cli import run
from tests.test_cli_ca import CaCase

DAY = 86400.0

# Holds the lock of a CA for a while, as a change does.
HOLDER = """\
import sys, time
from slapenir.pki.ca_book import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(1)
    open(sys.argv[2], "x").close()
"""


def ends(certificate: x509.Certificate) -> float:
    """Return when a certificate ends."""
    return certificate.not_valid_after_utc.timestamp()


class MadeCase(CaCase):
    """With the CAs made."""

    def setUp(self) -> None:
        super().setUp()
        self.good("init")

    def next_update(self) -> float:
        """Return the end of the list in force, from now."""
        found = Revocations.parse(self.authority.crl(), self.authority.issuers)
        return found.next_update - time.time()


class RecoveryTests(MadeCase):
    """What a page on recovery says to run."""

    changes = (("[pki]", '[pki]\ncrl_lifetime = "2h"\nlifetime = "3h"'),)

    def make_old(self, age: float) -> None:
        """Put a CA in place that was made some time ago."""
        pki = self.path("state", "pki")
        os.rename(pki, self.path(f"away-{age}"))
        IdentityAuthority.create(
            pki,
            domains=["example.org", "gateway.internal"],
            addresses=["127.0.0.1"],
            clock=lambda: time.time() - age,
        )

    def test_t217_expired(self) -> None:
        """T217: every command says what to run, and that helps."""
        self.make_old(366 * DAY)
        for command in (("issue", "agent-1", "--out", self.path("o")), ("token", "agent-1")):
            self.bad("has expired; run: slapenir ca rotate FILE", *command)
        (issuing,) = IdentityAuthority(self.path("state", "pki")).issuers
        self.assertIn(f"{issuing.not_valid_after_utc:%Y-%m-%d %H:%M:%S}", self.good("show"))
        self.good("list")
        self.assertIn("has expired", run("check", self.file).err)
        self.good("rotate")
        self.good("issue", "agent-1", "--out", self.path("o"))
        self.make_old(3651 * DAY)
        self.bad("ca rotate FILE --root", "rotate")
        self.good("rotate", "--root")
        self.good("issue", "agent-1", "--out", self.path("o"))

    def test_distrust(self) -> None:
        """A stolen issuing key, a stolen root key: nothing of theirs is good at once."""
        for options, phrase in (
            (("--distrust",), "the old one is no good any more"),
            (("--root", "--distrust"), "every agent has to enrol again"),
        ):
            before = self.authority.issuers
            self.good("rotate", *options)
            self.assertIn(phrase, self.said)
            self.assertEqual(len(self.authority.issuers), 1)
            self.assertNotEqual(self.authority.issuers, before)
        self.assertEqual(len(self.authority.roots), 1)
        self.good("rotate", "--root")
        self.assertIn("root-", self.said)
        self.bad("--finish", "rotate", "--root")
        self.good("rotate", "--finish")
        self.good("rotate", "--root")

    def test_the_life_of_a_list(self) -> None:
        """Whatever signs it anew, a list lives for pki.crl_lifetime."""
        self.good("issue", "agent-1", "--out", self.path("one"))
        for command in (
            ("revoke", "--identity", "agent-1"),
            ("crl",),
            ("rotate",),
            ("rotate", "--root"),
            ("rotate", "--finish"),
        ):
            self.good(*command)
            self.assertTrue(7190 <= self.next_update() <= 7201, command)

    def test_lifetimes(self) -> None:
        """pki.lifetime, unless another one is asked for; renewing asks for pki.lifetime."""
        for options, seconds in (((), 10800), (("--lifetime", "10m"), 600)):
            for who in (("agent-1",), ("--server",)):
                self.good("issue", *who, "--out", self.path("one"), *options)
                leaf = Held.load(self.path("one")).leaf
                self.assertTrue(abs(ends(leaf) - time.time() - seconds) < 10)
        self.good("renew", self.path("one"))
        self.assertTrue(abs(ends(Held.load(self.path("one")).leaf) - time.time() - 10800) < 10)

    def test_a_directory_of_a_request(self) -> None:
        """Its key is elsewhere, so there is none to be replaced."""
        subprocess.run(
            ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", "k.pem", "-out", "r.pem", "-subj", "/CN=x"],
            cwd=self.directory, check=True, capture_output=True,
        )  # fmt: skip
        self.good("issue", "agent-1", "--csr", self.path("r.pem"), "--out", self.path("one"))
        before = Path(self.path("one", "chain.pem")).read_bytes()
        self.bad("was issued for a request", "renew", self.path("one"))
        self.assertEqual(Path(self.path("one", "chain.pem")).read_bytes(), before)
        self.assertFalse(os.path.exists(self.path("one", "key.pem")))

    def test_renew_what_is_not_ours(self) -> None:
        self.good("issue", "agent-1", "--out", self.path("one"))
        self.good("renew", self.path("one"))
        self.make_old(0)
        self.bad("is not one that this CA issued", "renew", self.path("one"))
        chain = read_chain(self.path("one", "chain.pem"))
        self.bad("no certificate", "revoke", "--certificate", self.path("one", "chain.pem"))
        self.assertEqual(read_chain(self.path("one", "chain.pem")), chain)

    def test_backup_waits_for_a_change(self) -> None:
        """What is kept belongs together; the lock itself is not kept."""
        pki, done = self.path("state", "pki"), self.path("done")
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, pki, done], stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        self.assertEqual(holder.stdout.readline(), "locked\n")
        self.good("backup", self.path("b.tar"))
        self.assertTrue(os.path.exists(done))
        holder.stdout.close()
        self.assertEqual(holder.wait(), 0)
        with tarfile.open(self.path("b.tar")) as archive:
            names = archive.getnames()
            modes = {one.name: one.mode & 0o777 for one in archive.getmembers()}
        self.assertIn("./pki/book.json", names)
        self.assertNotIn("./pki/lock", names)
        self.assertEqual((modes["./pki/root-1.key"], modes["./pki"]), (0o600, 0o700))

    def test_no_key_is_ever_printed(self) -> None:
        for command in (
            ("show",), ("list",), ("crl",), ("export",), ("token", "agent-1"),
            ("issue", "agent-1", "--out", self.path("one")), ("backup", self.path("b.tar")),
            ("rotate",), ("rotate", "--root"),
        ):  # fmt: skip
            self.assertNotIn("PRIVATE", self.good(*command) + self.said)


class BeforeTests(CaCase):
    """Making them."""

    def test_init_that_was_cut_short(self) -> None:
        """The identity CA's files without its book: init makes one, and says which key to move."""
        self.good("init")
        os.unlink(self.path("state", "pki", "book.json"))
        self.good("init")
        self.assertIn("root-3.key", self.said)
        self.assertTrue(os.path.exists(self.path("state", "pki", "root-3.key")))
        self.good("issue", "agent-1", "--out", self.path("one"))

    def test_a_root_directory_that_is_not_there(self) -> None:
        self.bad("is not a directory", "init", "--root-dir", self.path("gone"))
        self.good("init")

    def test_nothing_to_be_for(self) -> None:
        """A CA that would sign for any name is not made."""
        text = Path(self.file).read_text()
        start, end = text.index("[pki]"), text.index("[[listener]]")
        text = text[:start] + "[pki]\n" + text[end:]
        text = text.replace('tls = "managed"', 'identity = "agent-2"')
        text = text.replace('spiffe = "spiffe://example.org/agent/1"', 'cn = "agent-1"')
        Path(self.file).write_text(text)
        self.bad("$.pki.domains", "init")
        Path(self.file).write_text(text.replace("[pki]", '[pki]\ndomains = ["agents.internal"]'))
        self.good("init")
        self.assertIn("for agents.internal", self.said)
        self.good("issue", "agent-1", "--out", self.path("one"))


class OwnAuthorityTests(CaCase):
    """``ca = "per-identity"``: the three steps for all of them, when one was cut short."""

    changes = (('admin = ""', 'admin = ""\nca = "per-identity"'),)

    def setUp(self) -> None:
        super().setUp()
        self.good("init")

    def count(self, name: str) -> int:
        """Return how many CAs the sandbox of an identity trusts."""
        return Path(self.path(f"slapenir-ca.{name}.pem")).read_text().count("BEGIN")

    def test_what_took_the_step_is_passed_over(self) -> None:
        names = ("agent-1", "agent-2", "by-address")
        steps = ("--prepare", "--activate", "--finish")
        for step, counts in zip(steps, ((2, 1, 1), (2, 2, 2), (1, 2, 2)), strict=True):
            self.good("rotate", "--interception", step, "--identity", "agent-1")
            self.assertEqual(tuple(map(self.count, names)), counts)
            self.good("rotate", "--interception", step)
            self.assertIn("2 interception CAs", self.said)
        self.bad("no rotation", "rotate", "--interception", "--finish")
        self.bad("ca-next.pem is missing", "rotate", "--interception", "--activate")
        self.bad("is missing", "rotate", "--interception", "--prepare", "--identity", "nobody")
        self.assertEqual(tuple(map(self.count, names)), (1, 1, 1))

    def test_another_identity_later(self) -> None:
        """init makes what is missing, and leaves what is there."""
        before = self.good("export", "--identity", "agent-1")
        text = Path(self.file).read_text()
        more = '\n[[identity]]\nname = "late"\nmatch = [{ cn = "late" }]\n'
        Path(self.file).write_text(text + more)
        self.bad("is missing", "show")
        self.good("init")
        self.assertEqual(self.good("export", "--identity", "agent-1"), before)
        self.assertNotEqual(self.good("export", "--identity", "late"), before)
        self.bad("every CA already", "init")

    def test_env_names_the_bundle(self) -> None:
        result = run("env", self.file, "--identity", "agent-1", "--shell", "json")
        self.assertEqual(result.code, 0, result.err)
        bundle = json.loads(result.out)["SSL_CERT_FILE"]
        self.assertEqual(bundle, self.path("slapenir-ca.agent-1.pem"))
        self.assertEqual(Path(bundle).read_text(), self.good("export", "--identity", "agent-1"))
