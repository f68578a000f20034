"""The authority: made once, checked on every load, never made silently."""

from __future__ import annotations

import datetime
import os
import stat
import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import PkiError
from slapenir.pki.authority import AUTHORITY_USAGE, LEAF_USAGE, CertificateAuthority

DAY = 86400.0


def write_pair(
    directory: str, *, key: Any = None, extensions: tuple[tuple[Any, bool], ...] | None = None
) -> Any:
    """Write an authority of the test's own making and return its key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    if extensions is None:
        extensions = ((x509.BasicConstraints(True, 0), True), (AUTHORITY_USAGE, True))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=10))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    pem = builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)
    write_key(directory, key)
    with open(os.path.join(directory, "ca.pem"), "wb") as file:
        file.write(pem)
    os.chmod(os.path.join(directory, "ca.pem"), 0o644)
    return key


def write_key(directory: str, key: Any) -> None:
    """Write ca.key as an operator would."""
    path = os.path.join(directory, "ca.key")
    with open(path, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    os.chmod(path, 0o600)


class AuthorityTests(SynchronousTestCase):
    """Making an authority and loading it."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory, 0o700)

    def at(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def refused(self, text: str, **options: Any) -> None:
        with self.assertRaises(PkiError) as caught:
            CertificateAuthority.load(self.directory, **options)
        self.assertIn(text, str(caught.exception))

    def test_create_then_load(self) -> None:
        """What was created loads, with the files' modes and the extensions promised."""
        made = CertificateAuthority.create(self.directory, "Test CA", days=30)
        self.assertEqual(stat.S_IMODE(os.stat(self.at("ca.key")).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.at("ca.pem")).st_mode), 0o644)
        loaded = CertificateAuthority.load(self.directory)
        self.assertEqual(loaded.certificate, made.certificate)
        self.assertEqual(loaded.subject, "CN=Test CA")
        find = loaded.certificate.extensions.get_extension_for_class
        self.assertEqual(find(x509.BasicConstraints).value, x509.BasicConstraints(True, 0))
        self.assertTrue(find(x509.BasicConstraints).critical)
        self.assertTrue(find(x509.KeyUsage).value.key_cert_sign)
        self.assertLess(loaded.not_before, time.time() - DAY)
        self.assertTrue(abs(loaded.not_after - time.time() - 30 * DAY) < 60)
        self.assertNotIn(b"PRIVATE", loaded.certificate_pem)
        self.assertEqual(len(loaded.fingerprint), 95)

    def test_create_never_overwrites(self) -> None:
        """Either file alone stops it, and both stay as they were."""
        for name in ("ca.pem", "ca.key"):
            with open(self.at(name), "wb") as file:
                file.write(b"mine")
            with self.assertRaises(PkiError):
                CertificateAuthority.create(self.directory, "x")
            with open(self.at(name), "rb") as file:
                self.assertEqual(file.read(), b"mine")
            self.assertEqual(os.listdir(self.directory), [name])
            os.unlink(self.at(name))

    def test_create_does_not_follow_a_link(self) -> None:
        """T239: a dangling link where the key goes does not lead the key elsewhere."""
        os.symlink(self.at("elsewhere"), self.at("ca.key"))
        with self.assertRaises(PkiError):
            CertificateAuthority.create(self.directory, "x")
        self.assertFalse(os.path.exists(self.at("elsewhere")))

    def test_t115_missing_is_not_made(self) -> None:
        """T115: a missing authority is named with its remedy and nothing is written."""
        self.refused("slapenir ca init")
        self.assertEqual(os.listdir(self.directory), [])
        write_pair(self.directory)
        os.unlink(self.at("ca.key"))
        self.refused("ca.key is missing")
        self.assertEqual(os.listdir(self.directory), ["ca.pem"])

    def test_t115_key_that_others_can_read(self) -> None:
        """T115: any permission for group or others is refused; 0400 passes."""
        write_pair(self.directory)
        for mode in (0o640, 0o604, 0o644, 0o620, 0o602):
            os.chmod(self.at("ca.key"), mode)
            self.refused("chmod 600")
        os.chmod(self.at("ca.key"), 0o400)
        CertificateAuthority.load(self.directory)

    def test_t115_certificate_that_others_can_write(self) -> None:
        """T239: a certificate the sandbox could swap is refused."""
        write_pair(self.directory)
        os.chmod(self.at("ca.pem"), 0o646)  # noqa: S103
        self.refused("chmod go-w")

    def test_t239_links_are_refused(self) -> None:
        """T239: a link in place of either file is refused, wherever it leads."""
        for name in ("ca.pem", "ca.key"):
            write_pair(self.directory)
            os.rename(self.at(name), self.at("real"))
            os.symlink("real", self.at(name))
            self.refused("symbolic link")
            os.unlink(self.at(name))
            os.unlink(self.at("real"))

    def test_not_a_file(self) -> None:
        """A FIFO or a directory in place of the key is refused and does not block."""
        write_pair(self.directory)
        os.unlink(self.at("ca.key"))
        os.mkfifo(self.at("ca.key"), 0o600)
        self.refused("not a regular file")
        os.unlink(self.at("ca.key"))
        os.mkdir(self.at("ca.key"), 0o700)
        self.refused("ca.key")

    def test_t115_not_an_authority(self) -> None:
        """T115: CA:FALSE, no constraints, no key usage and no keyCertSign are told apart."""
        constraints = (x509.BasicConstraints(True, 0), True)
        for extensions, text in (
            (((x509.BasicConstraints(False, None), True), (AUTHORITY_USAGE, True)), "CA:FALSE"),
            (((AUTHORITY_USAGE, True),), "no basic constraints"),
            ((constraints,), "no key usage"),
            ((constraints, (LEAF_USAGE, True)), "no keyCertSign"),
        ):
            write_pair(self.directory, extensions=extensions)
            self.refused(text)

    def test_t115_time(self) -> None:
        """T115: expired and not yet valid are refused, the seconds beside them are not."""
        write_pair(self.directory)
        good = CertificateAuthority.load(self.directory)
        self.refused("has expired", clock=lambda: good.not_after)
        self.refused("not valid yet", clock=lambda: good.not_before - 1)
        CertificateAuthority.load(self.directory, clock=lambda: good.not_after - 1)
        CertificateAuthority.load(self.directory, clock=lambda: good.not_before)

    def test_t115_key_of_another(self) -> None:
        """T115: a key that does not belong to the certificate is refused."""
        write_pair(self.directory)
        write_key(self.directory, ec.generate_private_key(ec.SECP256R1()))
        self.refused("is not the key of")

    def test_keys_of_other_kinds(self) -> None:
        """An RSA authority works; an Ed25519 one, which clients would refuse, does not."""
        write_pair(self.directory, key=rsa.generate_private_key(65537, 2048))
        CertificateAuthority.load(self.directory)
        write_pair(self.directory, key=ed25519.Ed25519PrivateKey.generate())
        self.refused("neither an EC nor an RSA key")

    def test_garbage(self) -> None:
        """Files that are not PEM, a bundle of two, and an encrypted key are named plainly."""
        key = write_pair(self.directory)
        with open(self.at("ca.pem"), "r+b") as file:
            pem = file.read()
            file.write(pem)
        self.refused("holds 2 certificates")
        with open(self.at("ca.pem"), "wb") as file:
            file.write(b"x")
        self.refused("not a certificate")
        write_pair(self.directory, key=key)
        with open(self.at("ca.key"), "wb") as file:
            file.write(b"x")
        self.refused("not a private key")
        with open(self.at("ca.key"), "wb") as file:
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(os.urandom(8)),
                )
            )
        self.refused("encrypted")

    def test_bad_arguments(self) -> None:
        """A name that X.509 cannot hold and a life of no days are refused before writing."""
        for name, days in (("", 1), ("x" * 65, 1), ("a\nb", 1), ("x", 0), ("x", 99999)):
            with self.assertRaises(PkiError):
                CertificateAuthority.create(self.directory, name, days=days)
        self.assertEqual(os.listdir(self.directory), [])

    def test_repr_has_no_key(self) -> None:
        """The text of an authority is its subject."""
        made = CertificateAuthority.create(self.directory, "Test CA")
        self.assertEqual(repr(made), "<CertificateAuthority 'CN=Test CA'>")
