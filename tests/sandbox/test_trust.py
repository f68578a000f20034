"""The trust kit: what is in it, what it refuses, and what it never touches."""

from __future__ import annotations

import os
import secrets
import stat
import warnings
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from slapenir.errors import PkiError
from slapenir.sandbox import tools
from slapenir.sandbox import trust as module
from slapenir.sandbox.certificates import hashed, java_truststore, read_certificates
from slapenir.sandbox.trust import JAVA_PASSWORD, Kit, make_kit
from tests.support.certs import ThrowawayCA
from tests.support.tls import TestCA

SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
INSIDE = "/run/slapenir/trust"


def pem(ca: TestCA) -> bytes:
    """Return a CA's certificate in PEM."""
    return ca.certificate.public_bytes(Encoding.PEM)


def all_of(text: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x509.load_pem_x509_certificates(text)


class KitCase(SynchronousTestCase):
    """A directory for the kit, a CA of ours and a bundle of the system's."""

    def setUp(self) -> None:
        self.place = Path(self.mktemp()).resolve()
        self.place.mkdir(parents=True, mode=0o700)
        self.ours = TestCA("Ours")
        self.system = [TestCA("System One"), TestCA("System Two")]
        self.bundle = self.place.parent / f"{self.place.name}.bundle"
        self.bundle.write_bytes(b"".join(map(pem, self.system)))
        self.addCleanup(self.bundle.unlink)

    def make(self) -> Kit:
        """Make the kit."""
        return make_kit(str(self.place), pem(self.ours), str(self.bundle))

    def refused(self, ca_pem: bytes | None = None, bundle: bytes | None = None) -> str:
        """Return why no kit is made; nothing must have been written."""
        if bundle is not None:
            self.bundle.write_bytes(bundle)
        with self.assertRaises(PkiError) as caught:
            make_kit(
                str(self.place), pem(self.ours) if ca_pem is None else ca_pem, str(self.bundle)
            )
        self.assertEqual(os.listdir(self.place), [])
        return str(caught.exception)

    def read(self, name: str) -> bytes:
        """Return a file of the kit."""
        return (self.place / name).read_bytes()


class ContentTests(KitCase):
    """The shapes."""

    def test_bundle_and_ours(self) -> None:
        self.make()
        everything = [self.ours.certificate, *(one.certificate for one in self.system)]
        self.assertEqual(all_of(self.read("bundle.pem")), everything)
        self.assertEqual(all_of(self.read("ours.pem")), [self.ours.certificate])

    def test_two_of_ours_while_one_replaces_the_other(self) -> None:
        following = TestCA("Ours")
        make_kit(str(self.place), pem(self.ours) + pem(following), str(self.bundle))
        self.assertEqual(
            all_of(self.read("ours.pem")), [self.ours.certificate, following.certificate]
        )
        # The same name twice, so the same hash twice.
        numbers = sorted(name[-2:] for name in os.listdir(self.place / "certs"))
        self.assertEqual(numbers, [".0", ".0", ".0", ".1"])

    def test_each_certificate_once(self) -> None:
        self.bundle.write_bytes(pem(self.system[0]) * 3 + pem(self.ours) + pem(self.system[1]))
        self.make()
        self.assertEqual(len(all_of(self.read("bundle.pem"))), 3)
        self.assertEqual(len(os.listdir(self.place / "certs")), 3)

    def test_only_well_formed_ones_of_the_system(self) -> None:
        """What cannot be read is left out and said; its neighbours stay."""
        good, other = map(pem, self.system)
        broken = good.replace(b"\nMII", b"\nMIX", 1)
        self.assertNotEqual(broken, good)
        cut = other[: len(other) // 2] + b"\n"
        self.bundle.write_bytes(b"# a comment\n" + broken + cut + good + b"\0\xff text\n" + other)
        kit = self.make()
        self.assertEqual(len(all_of(self.read("bundle.pem"))), 3)
        self.assertTrue(
            any(note.startswith("2 certificates") for note in kit.notes), str(kit.notes)
        )

    def test_hashes_are_those_of_openssl(self) -> None:
        """The links that the system made with its own tool have the same names."""
        directory = Path(SYSTEM).parent
        links = [p for p in directory.glob("????????.0") if p.is_symlink()] if directory else []
        if not links:
            raise SkipTest("this system has no hashed directory")
        for link in links[:20]:
            certificates, _ = read_certificates(link.read_bytes(), "a link")
            self.assertEqual(list(hashed(certificates)), [link.name])

    def test_java_reads_it_with_its_password_and_without(self) -> None:
        """It is a PKCS#12 of certificates only; Java itself is in tests/integration."""
        for count in (1, 2, 150):
            data = java_truststore([self.ours.certificate] * count)
            found = pkcs12.load_pkcs12(data, None) if count < 3 else None
            if found is not None:
                self.assertIsNone(found.key)
                self.assertEqual(len(found.additional_certs), count)
            self.assertEqual(int.from_bytes(data[2:4]) + 4, len(data))

    def test_modes_and_nothing_elsewhere(self) -> None:
        """Files 0644, directories 0755 whatever the umask; no private key anywhere."""
        before = os.umask(0o077)
        try:
            self.make().environment(INSIDE)
        finally:
            os.umask(before)
        for path in (self.place, *self.place.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            self.assertEqual(mode, 0o755 if path.is_dir() else 0o644, str(path))
            if path.is_file():
                self.assertNotIn(b"PRIVATE", path.read_bytes())

    def test_made_anew(self) -> None:
        """A second kit in the same place leaves nothing of the first, not even a half file."""
        self.make()
        old = set(os.listdir(self.place / "certs"))
        (self.place / "bundle.pem.new").write_bytes(b"cut off")
        self.ours = TestCA("Other")
        kit = self.make()
        self.assertEqual(all_of(self.read("bundle.pem"))[0], self.ours.certificate)
        self.assertEqual(len(set(os.listdir(self.place / "certs")) - old), 1)
        self.assertEqual(len(os.listdir(self.place / "certs")), 3)
        self.assertNotIn("bundle.pem.new", os.listdir(self.place))
        self.assertEqual(kit, self.make())


class RefusalTests(KitCase):
    """Each with the good kit of KitCase as its control."""

    def test_private_keys(self) -> None:
        """In the CA's PEM or in the bundle; the text of the error has none of it."""
        directory = Path(self.mktemp())
        directory.mkdir()
        key = ThrowawayCA(directory).ca_key_file.read_bytes()
        for kind in (b"RSA ", b"EC ", b"ENCRYPTED ", b""):
            body = key.replace(b"BEGIN PRIVATE", b"BEGIN %bPRIVATE" % kind)
            self.assertIn("private key", self.refused(pem(self.ours) + body))
        message = self.refused(bundle=pem(self.system[0]) + key)
        self.assertIn(str(self.bundle), message)
        self.assertNotIn(key.splitlines()[1].decode(), message)

    def test_no_certificate(self) -> None:
        for text in (b"", b"\n", b"text", secrets.token_bytes(2000), pem(self.ours)[:200]):
            self.assertIn("the gateway's CA holds no certificate", self.refused(text))
        self.assertIn(f"{self.bundle} holds no certificate", self.refused(bundle=b""))

    def test_a_broken_or_unfit_certificate_of_ours(self) -> None:
        broken = pem(self.ours) + pem(TestCA("X")).replace(b"\nMII", b"\nMIX", 1)
        self.assertIn("cannot be read", self.refused(broken))
        leaf = self.ours.issue("a.test").certificate.public_bytes(Encoding.PEM)
        self.assertIn("not a CA's", self.refused(leaf))

    def test_a_bundle_that_is_not_there_or_not_a_file(self) -> None:
        for path, text in (
            ("/nonexistent/x.crt", "does not exist"),
            ("", "not a regular file"),
            (str(self.place), "not a regular file"),
            ("/dev/zero", "not a regular file"),
        ):
            with self.assertRaises(PkiError) as caught:
                make_kit(str(self.place), pem(self.ours), path)
            self.assertIn(text, str(caught.exception), path)

    def test_a_bundle_that_others_can_write(self) -> None:
        self.bundle.chmod(0o666)
        self.assertIn("can be written by others", self.refused())

    def test_a_directory_that_is_not_the_kits_own(self) -> None:
        (self.place / "letters").mkdir()
        with self.assertRaises(PkiError) as caught:
            self.make()
        self.assertIn("'letters'", str(caught.exception))
        (self.place / "letters").rmdir()
        self.place.chmod(0o777)
        self.assertIn("writable by nobody else", self.refused())
        self.place.chmod(0o700)
        link = self.place.parent / f"{self.place.name}.link"
        link.symlink_to(self.place)
        self.addCleanup(link.unlink)
        for path, text in (
            (str(link), "is a link"),
            (str(self.bundle), "Not a directory"),
            (f"{self.place}/x", "No such file"),
        ):
            with self.assertRaises(PkiError) as caught:
                make_kit(path, pem(self.ours), str(self.bundle))
            self.assertIn(text, str(caught.exception))
        self.assertEqual(os.listdir(self.place), [])
        self.make()

    def test_a_path_inside_that_a_program_would_misread(self) -> None:
        kit = self.make()
        for path in (
            "",
            "run/x",
            "/a b",
            "/a'b",
            "/a\nb",
            '/"',
            "/a/../b",
            "/$HOME",
            "/\xe4",
            "/a:b",
        ):
            for ask in (kit.environment, kit.overlays):
                self.assertRaises(PkiError, ask, path)
        for path, shown in ((INSIDE, INSIDE), ("/a//b/", "/a/b"), ("/a-b_c.d+1", "/a-b_c.d+1")):
            self.assertEqual(kit.environment(path)["WGETRC"], f"{shown}/wgetrc")


class WiringTests(KitCase):
    """What the sandbox is told, covered with and given."""

    def test_variables(self) -> None:
        """Every path is one that the sandbox sees, and is there."""
        found = self.make().environment(INSIDE)
        self.assertEqual(found["NODE_USE_ENV_PROXY"], "1")
        self.assertNotIn("NODE_OPTIONS", found)
        for name, value in found.items():
            for word in value.split():
                path = word.rpartition("=")[2]
                if path.startswith("/"):
                    self.assertTrue(path.startswith(f"{INSIDE}/"), name)
                    self.assertTrue((self.place / path[len(INSIDE) + 1 :]).exists(), name)
        for name, file in (
            ("SSL_CERT_FILE", "bundle.pem"),
            ("SSL_CERT_DIR", "certs"),
            ("npm_config_cafile", "bundle.pem"),
            ("NODE_EXTRA_CA_CERTS", "ours.pem"),
            ("DENO_CERT", "ours.pem"),
        ):
            self.assertEqual(found[name], f"{INSIDE}/{file}")
        self.assertIn(f"trustStorePassword={JAVA_PASSWORD}", found["JAVA_TOOL_OPTIONS"])
        self.assertEqual(self.read("wgetrc"), f"ca_certificate = {INSIDE}/bundle.pem\n".encode())

    def test_overlays(self) -> None:
        """Real files that are there, each once, with the shape that belongs there."""
        system = Path(self.mktemp()).resolve()
        system.mkdir()
        (system / "real.pem").write_bytes(b"")
        (system / "link.pem").symlink_to(system / "real.pem")
        (system / "dangling.pem").symlink_to(system / "nothing")
        (system / "cacerts").write_bytes(b"")
        (system / "directory.pem").mkdir()
        places = {
            f"{system}/link.pem": "bundle.pem",
            f"{system}/real.pem": "bundle.pem",
            f"{system}/dangling.pem": "bundle.pem",
            f"{system}/directory.pem": "bundle.pem",
            f"{system}/missing": "bundle.pem",
            f"{system}/cacerts": "java.p12",
        }
        self.patch(module, "SYSTEM_PLACES", places)
        kit = self.make()
        expected = [
            (f"{self.place}/bundle.pem", f"{system}/real.pem"),
            (f"{self.place}/java.p12", f"{system}/cacerts"),
        ]
        self.assertEqual(kit.overlays(INSIDE), expected)
        # A bind below the place where the kit itself is seen would cover the kit.
        self.assertEqual(kit.overlays(str(system)), [])

    def test_without_certutil(self) -> None:
        """No database, and a note that says what to install; everything else is there."""
        self.patch(tools, "PATH", "/nonexistent")
        kit = self.make()
        self.assertEqual(kit.home_files(), {})
        self.assertIn("libnss3-tools", kit.notes[0])
        self.assertTrue((self.place / "java.p12").exists())

    def test_a_certutil_that_fails(self) -> None:
        """The same, and nothing of a half-made database is left."""
        failing = Path(self.mktemp()).resolve()
        failing.write_text("#!/bin/sh\necho x > ${4#sql:}/cert9.db\nexit 1\n")
        failing.chmod(0o755)
        self.patch(tools, "find", lambda name: tools.Tool(name, str(failing)))
        kit = self.make()
        self.assertEqual(kit.home_files(), {})
        self.assertIn("could not make", kit.notes[0])
        self.assertNotIn("nssdb", os.listdir(self.place))
