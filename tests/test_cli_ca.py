"""``slapenir ca`` and ``slapenir token``: what each command makes, prints and refuses."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tarfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from slapenir.pki.held import Held, read_chain
from slapenir.pki.identity_authority import IdentityAuthority
from slapenir.pki.revocation import Revocations
from slapenir.pki.tokens import decode_token
from slapenir.wire.proxyauth import token_digest
from tests.config.base import mode_of, write_file
from tests.test_cli import run

CONFIGURATION = """\
[gateway]
state_dir = "state"
audit = "audit"
admin = ""

[origin]
ca_file = "origins.pem"

[pki]
names = ["gateway.internal", "127.0.0.1"]
enrol = "tcp:8445"
url = "https://gateway.internal:8445"

[[listener]]
endpoint = "tcp:8443"
tls = "managed"

[[identity]]
name = "agent-1"
match = [{ spiffe = "spiffe://example.org/agent/1" }]

[[identity]]
name = "agent-2"
match = [{ cn = "agent-2" }]

[[identity]]
name = "by-address"
match = [{ source = "10.0.0.1/32" }]
"""


class CaCase(SynchronousTestCase):
    changes: tuple[tuple[str, str], ...] = ()

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        text = CONFIGURATION
        for old, new in self.changes:
            self.assertIn(old, text)
            text = text.replace(old, new, 1)
        self.file = write_file(self.directory, text.encode("utf-8"))
        write_file(self.directory, b"", "origins.pem")
        os.mkdir(os.path.join(self.directory, "audit"), 0o700)

    def path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    def good(self, *arguments: str) -> str:
        """Run ``ca COMMAND FILE ...``; return its standard output."""
        result = run("ca", arguments[0], self.file, *arguments[1:])
        self.assertEqual(result.code, 0, result.err)
        self.said = result.err
        return result.out

    def bad(self, phrase: str, *arguments: str) -> None:
        """The command fails, says why on standard error, and prints nothing."""
        result = run("ca", arguments[0], self.file, *arguments[1:])
        self.assertEqual(result.code, 2, result.out)
        self.assertIn(phrase, result.err)
        self.assertEqual(result.out, "")

    @property
    def authority(self) -> IdentityAuthority:
        return IdentityAuthority.load(self.path("state", "pki"))

    def serial(self, place: str) -> str:
        return f"{read_chain(self.path(place, 'chain.pem'))[0].serial_number:x}"


class CommandTests(CaCase):
    """Each command, and its mistakes."""

    def setUp(self) -> None:
        super().setUp()
        self.good("init")

    def test_init_is_additive(self) -> None:
        self.assertIn("keep its root's key offline", self.said)
        self.bad("has every CA already", "init")
        before = self.authority.roots
        os.rename(self.path("state", "ca.pem"), self.path("ca.pem"))
        os.rename(self.path("state", "ca.key"), self.path("ca.key"))
        self.good("init")
        self.assertEqual(self.authority.roots, before)
        self.assertEqual(run("check", self.file).code, 0)

    def test_root_directory(self) -> None:
        self.setUpAnew()
        self.bad("mkdir -m 700", "init", "--root-dir", self.path("offline"))
        os.mkdir(self.path("offline"), 0o700)
        self.good("init", "--root-dir", self.path("offline"))
        self.assertEqual(os.listdir(self.path("offline")), ["root-1.key"])
        self.bad("bring the root's key back", "rotate")
        self.good("rotate", "--root-dir", self.path("offline"))
        self.good("rotate", "--root", "--root-dir", self.path("offline"))
        self.assertEqual(sorted(os.listdir(self.path("offline"))), ["root-1.key", "root-4.key"])
        self.assertEqual(len(self.authority.roots), 2)
        self.good("rotate", "--finish")
        self.assertEqual(len(self.authority.roots), 1)

    def setUpAnew(self) -> None:
        """Begin in another directory."""
        super().setUp()

    def test_token(self) -> None:
        out = self.good("token", "agent-1")
        token = decode_token(out)
        self.assertEqual(out.count("\n"), 1)
        self.assertEqual(token.url, "https://gateway.internal:8445")
        (root,) = self.authority.roots
        self.assertEqual(token.root, hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest())
        self.assertNotIn(token.secret, repr(token))
        self.assertEqual(self.authority.tokens.redeem(token.secret), "agent-1")
        self.assertEqual(self.good("token", "agent-1", "--out", self.path("token")), "")
        self.assertEqual(mode_of(self.path("token")), 0o600)
        kept = decode_token(Path(self.path("token")).read_text("ascii"))
        self.assertEqual(self.authority.tokens.redeem(kept.secret), "agent-1")
        self.bad("exists already", "token", "agent-1", "--out", self.path("token"))
        self.bad("no identity 'agent-9'", "token", "agent-9")
        self.bad("spiffe, dns or cn", "token", "by-address")
        self.bad("one minute to seven days", "token", "agent-1", "--lifetime", "8d")
        self.assertEqual(run("ca", "token", self.file, "agent-1", "--lifetime", "x").code, 2)

    def test_issue_renew_and_list(self) -> None:
        self.good("issue", "agent-1", "--out", self.path("one"))
        held = Held.load(self.path("one"))
        names = held.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        self.assertEqual(uris, ["spiffe://example.org/agent/1"])
        self.assertEqual(mode_of(self.path("one", "key.pem")), 0o600)
        first = self.serial("one")
        self.good("renew", self.path("one"))
        second = self.serial("one")
        self.assertNotEqual(first, second)
        self.good("issue", "--server", "--out", self.path("server"))
        self.good("issue", "agent-2", "--out", self.path("two"), "--lifetime", "1h")
        lines = self.good("list").splitlines()
        self.assertEqual([line.split()[0] for line in lines],
                         ["agent-1", "agent-1", "(gateway)", "agent-2"])  # fmt: skip
        self.assertEqual([line.split()[1] for line in lines[:2]], [first, second])
        self.assertEqual(len(self.good("list", "--identity", "agent-1").splitlines()), 2)
        self.bad("name an identity, or write --server", "issue", "--out", self.path("x"))
        self.bad("no chain.pem", "renew", self.path("audit"))

    def test_a_request(self) -> None:
        """Only its key counts: the names are the identity's."""
        subprocess.run(
            ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", "k.pem", "-out", "r.pem", "-subj", "/CN=agent-2",
             "-addext", "subjectAltName=DNS:evil.example.com"],
            cwd=self.directory, check=True, capture_output=True,
        )  # fmt: skip
        self.good("issue", "agent-1", "--csr", self.path("r.pem"), "--out", self.path("o"))
        self.assertEqual(sorted(os.listdir(self.path("o"))), ["chain.pem", "roots.pem"])
        leaf = read_chain(self.path("o", "chain.pem"))[0]
        self.assertNotIn("evil", str(leaf.extensions))
        self.assertEqual(leaf.subject.rfc4514_string(), "")
        spoilt = Path(self.path("r.pem")).read_text().replace("A", "B", 40)
        Path(self.path("r.pem")).write_text(spoilt)
        self.bad("r.pem", "issue", "agent-1", "--csr", self.path("r.pem"), "--out", self.path("p"))

    def test_revoke_and_crl(self) -> None:
        self.good("issue", "agent-1", "--out", self.path("one"))
        self.good("issue", "agent-2", "--out", self.path("two"))
        serial = self.serial("one")
        self.assertEqual(self.good("revoke", serial).split(), [serial])
        self.assertEqual(self.good("revoke", serial), "")
        self.assertIn("revoked already", self.said)
        self.bad("was revoked", "renew", self.path("one"))
        self.good("revoke", "--certificate", self.path("two", "chain.pem"), "--reason",
                  "key-compromise")  # fmt: skip
        self.assertIn("key-compromise", self.good("list"))
        pem = self.good("crl")
        found = Revocations.parse(pem.encode("ascii"), self.authority.issuers)
        self.assertEqual(found.count, 2)
        self.good("crl", "--out", self.path("out.crl"))
        Revocations.parse(Path(self.path("out.crl")).read_bytes(), self.authority.issuers)
        self.bad("no certificate in force", "revoke", "--identity", "agent-1x")
        self.bad("say which", "revoke")
        self.bad("say which", "revoke", serial, "--identity", "agent-1")

    def test_interception(self) -> None:
        bundle = self.path("slapenir-ca.pem")
        self.bad("prepare the rotation first", "rotate", "--interception", "--activate")
        self.bad("no rotation is to be finished", "rotate", "--interception", "--finish")
        self.bad("--prepare, --activate or --finish", "rotate", "--interception")
        before = Path(self.path("state", "ca.pem")).read_bytes()
        self.good("rotate", "--interception", "--prepare")
        self.bad("exists already", "rotate", "--interception", "--prepare")
        self.assertEqual(Path(bundle).read_bytes().count(b"BEGIN"), 2)
        self.assertEqual(Path(self.path("state", "ca.pem")).read_bytes(), before)
        # A process that died between the two renames: doing it again mends it.
        os.replace(self.path("state", "ca-next.key"), self.path("state", "ca.key"))
        self.assertIn("--activate", run("check", self.file).err)
        self.good("rotate", "--interception", "--activate")
        self.assertNotEqual(Path(self.path("state", "ca.pem")).read_bytes(), before)
        self.assertEqual(Path(bundle).read_bytes().count(b"BEGIN"), 2)
        self.assertIn(before, Path(bundle).read_bytes())
        self.good("rotate", "--interception", "--finish")
        self.assertEqual(Path(bundle).read_bytes(), Path(self.path("state", "ca.pem")).read_bytes())

    def test_backup_and_restore(self) -> None:
        self.good("issue", "agent-1", "--out", self.path("one"))
        self.good("backup", self.path("b.tar"))
        self.assertIn("holds private keys", self.said)
        self.assertEqual(mode_of(self.path("b.tar")), 0o600)
        self.bad("exists already", "backup", self.path("b.tar"))
        self.bad("inside the state directory", "backup", self.path("state", "b.tar"))
        roots = self.authority.roots
        os.rename(self.path("state"), self.path("lost"))
        self.bad("does not exist", "list")
        os.mkdir(self.path("state"), 0o700)
        subprocess.run(["tar", "-xpf", self.path("b.tar"), "-C", self.path("state")], check=True)
        self.assertEqual(self.authority.roots, roots)
        self.assertEqual(self.good("list").split()[0], "agent-1")
        self.good("renew", self.path("one"))
        self.assertEqual(run("check", self.file).code, 0)
        with tarfile.open(self.path("b.tar")) as archive:
            self.assertIn("./pki/root-1.key", archive.getnames())

    def test_show(self) -> None:
        out = self.good("show")
        self.assertEqual(out.count("identity root"), 2)
        self.assertEqual(len(re.findall(r"^  sha256     [0-9a-f]{64}$", out, re.MULTILINE)), 2)
        found = re.search(r"^sha256       ([0-9A-F:]{95})$", out, re.MULTILINE)
        self.assertIsNotNone(found, out)


class OtherTests(CaCase):
    """Before anything was made, and the proxy token."""

    def test_nothing_was_made(self) -> None:
        self.bad("run: slapenir ca init FILE", "list")
        self.bad("run: slapenir ca init FILE", "token", "agent-1")

    def test_token(self) -> None:
        result = run("token")
        self.assertEqual(result.code, 0)
        made = result.out.strip()
        self.assertGreaterEqual(len(made), 43)
        self.assertIn(token_digest(made.encode("ascii")), result.err)
        self.assertNotEqual(run("token").out, result.out)


class OwnAuthorityTests(CaCase):
    """``ca = "per-identity"``."""

    changes = (('admin = ""', 'admin = ""\nca = "per-identity"'),)

    def test_each_has_one(self) -> None:
        self.good("init")
        names = ["agent-1", "agent-2", "by-address"]
        self.assertEqual(sorted(os.listdir(self.path("state", "identities"))), names)
        exported = {name: self.good("export", "--identity", name) for name in names}
        self.assertEqual(len(set(exported.values())), 3)
        for name in names:
            bundle = Path(self.path(f"slapenir-ca.{name}.pem")).read_text("ascii")
            self.assertEqual(bundle, exported[name])
        self.bad("say whose CA it is", "export")
        self.good("rotate", "--interception", "--prepare", "--identity", "agent-1")
        self.assertEqual(self.good("export", "--identity", "agent-1").count("BEGIN"), 2)
        self.assertEqual(self.good("export", "--identity", "agent-2"), exported["agent-2"])
        self.assertEqual(run("check", self.file).code, 0)
