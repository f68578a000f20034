"""The rotation of an interception CA, in three steps, each of which may be cut short."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import PkiError
from slapenir.pki.authority import CertificateAuthority
from slapenir.pki.interception import (
    Interception,
    activate,
    finish,
    identity_directory,
    is_due,
    prepare,
)
from tests.config.base import mode_of


class RotationTests(SynchronousTestCase):
    """prepare, activate, finish."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory, 0o700)
        self.first = CertificateAuthority.create(self.directory, "First")

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def read(self, name: str) -> bytes:
        return Path(self.path(name)).read_bytes()

    def refuses(self, phrase: str, call: Callable[[str], object]) -> None:
        with self.assertRaises(PkiError) as caught:
            call(self.directory)
        self.assertIn(phrase, str(caught.exception))

    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def trusted(self) -> bytes:
        return Interception.load(self.directory).trusted[""]

    def signs(self) -> CertificateAuthority:
        """Return the CA that signs, after seeing that its leaves are of the trusted ones."""
        found = Interception.load(self.directory)
        leaf = found.mint("api.example.test", "anybody")
        leaf.certificate.verify_directly_issued_by(found.authorities[""].certificate)
        return found.authorities[""]

    def test_three_steps(self) -> None:
        """The bundle holds both from the first step to the last, and one CA signs at a time."""
        one = self.first.certificate_pem
        self.assertEqual(self.trusted(), one)
        two = prepare(self.directory).certificate_pem
        self.assertEqual(mode_of(self.path("ca-next.key")), 0o600)
        self.assertEqual(self.trusted(), one + two)
        self.assertEqual(self.signs().certificate_pem, one)
        activate(self.directory)
        self.assertEqual(self.names(), ["ca-old.pem", "ca.key", "ca.pem"])
        self.assertEqual(self.trusted(), two + one)
        self.assertEqual(self.signs().certificate_pem, two)
        finish(self.directory)
        self.assertEqual(self.names(), ["ca.key", "ca.pem"])
        self.assertEqual(self.trusted(), two)

    def test_a_step_out_of_turn(self) -> None:
        self.refuses("prepare the rotation first", activate)
        self.refuses("no rotation is to be finished", finish)
        prepare(self.directory)
        before = self.read("ca-next.key")
        self.refuses("exists already", prepare)
        self.refuses("no rotation is to be finished", finish)
        self.assertEqual(self.read("ca-next.key"), before)
        activate(self.directory)
        self.refuses("prepare the rotation first", activate)

    def test_what_is_due(self) -> None:
        def due() -> list[str]:
            steps = ("prepare", "activate", "finish")
            return [step for step in steps if is_due(self.directory, step)]

        self.assertEqual(due(), ["prepare"])
        prepare(self.directory)
        self.assertEqual(due(), ["activate"])
        activate(self.directory)
        self.assertEqual(due(), ["prepare", "finish"])
        finish(self.directory)
        self.assertEqual(due(), ["prepare"])

    def test_a_preparation_that_was_cut_short(self) -> None:
        """A key without its certificate is made anew; the CA in use is the same."""
        prepare(self.directory)
        os.unlink(self.path("ca-next.pem"))
        stray = self.read("ca-next.key")
        self.assertEqual(self.trusted(), self.first.certificate_pem)
        prepare(self.directory)
        self.assertNotEqual(self.read("ca-next.key"), stray)
        activate(self.directory)
        self.signs()

    def test_an_activation_that_dies_at_any_step(self) -> None:
        """It is told by load (T115), and done again it is whole; no key is lost."""
        rename = os.replace
        for limit in range(3):
            prepare(self.directory)
            successor = self.read("ca-next.pem")
            done: list[str] = []

            def dying(source: str, target: str, done: list[str] = done, limit: int = limit) -> None:
                if len(done) == limit:
                    raise KeyboardInterrupt
                done.append(target)
                rename(source, target)

            with mock.patch("os.replace", dying):
                self.assertRaises(KeyboardInterrupt, activate, self.directory)
            if limit == 2:
                self.refuses("--interception --activate", Interception.load)
                self.refuses("--interception --activate", prepare)
            else:
                self.signs()
            activate(self.directory)
            self.assertEqual(self.signs().certificate_pem, successor)
            finish(self.directory)

    def test_t115_a_successor_that_does_not_fit(self) -> None:
        """T115: a key of another certificate, or none: the CA in use stays."""
        prepare(self.directory)
        key = self.read("ca-next.key")
        other = os.path.abspath(self.mktemp())
        os.mkdir(other, 0o700)
        CertificateAuthority.create(other, "Other")
        Path(self.path("ca-next.key")).write_bytes(Path(other, "ca.key").read_bytes())
        self.refuses("is not the key of", activate)
        os.chmod(self.path("ca-next.key"), 0o644)
        self.refuses("by others", activate)
        os.unlink(self.path("ca-next.key"))
        self.refuses("is not the key of", activate)
        self.assertEqual(self.signs().certificate_pem, self.first.certificate_pem)
        Path(self.path("ca-next.key")).write_bytes(key)
        os.chmod(self.path("ca-next.key"), 0o600)
        activate(self.directory)
        self.signs()


class OwnTests(SynchronousTestCase):
    """A CA for each identity."""

    def test_t115_each_its_own(self) -> None:
        """T115: one that is missing is not made up for by another."""
        state = os.path.abspath(self.mktemp())
        for name in ("a", "b"):
            os.makedirs(identity_directory(state, name), 0o700)
            CertificateAuthority.create(identity_directory(state, name), name)
        found = Interception.load(state, ["a", "b"])
        issuers = {
            name: found.mint("api.example.test", name).certificate.issuer.rfc4514_string()
            for name in ("a", "b")
        }
        self.assertEqual(issuers, {"a": "CN=a", "b": "CN=b"})
        self.assertEqual(len(set(found.trusted.values())), 2)
        for name in ("", "c"):
            with self.assertRaises(PkiError):
                found.mint("api.example.test", name)
        with self.assertRaises(PkiError):
            Interception.load(state, ["a", "b", "c"])

    def test_names_that_are_no_directories(self) -> None:
        for name in ("", ".", "..", "../x", "a/b", "/etc"):
            with self.assertRaises(PkiError):
                identity_directory("/state", name)
        self.assertEqual(identity_directory("/state", "a.b"), "/state/identities/a.b")
