"""The state directory, the audit directory, the gateway's key and the CA bundle."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import (
    check_audit_dir,
    check_origin_ca,
    check_state_dir,
    gateway_key,
    make_directory,
    write_ca_bundle,
)
from slapenir.errors import ConfigError
from tests.config.base import mode_of, with_changes, write_file


class DirectoryTests(SynchronousTestCase):
    """T239: who may use the directories."""

    def setUp(self) -> None:
        self.path = os.path.join(os.path.abspath(self.mktemp()), "state")
        make_directory(self.path, "$.gateway.state_dir")

    def test_made_private(self) -> None:
        """A directory is made with mode 0700 whatever the umask, and an old one is let be."""
        self.assertEqual(mode_of(self.path), 0o700)
        check_state_dir(self.path)
        os.chmod(self.path, 0o750)  # noqa: S103
        make_directory(self.path, "$.gateway.state_dir")
        self.assertEqual(mode_of(self.path), 0o750)

    def test_t239_state_is_closed(self) -> None:
        """T239: any permission for group or others on the state directory is refused."""
        for mode in (0o710, 0o740, 0o720, 0o701, 0o755):
            os.chmod(self.path, mode)
            with self.assertRaises(ConfigError) as caught:
                check_state_dir(self.path)
            self.assertEqual(caught.exception.path, "$.gateway.state_dir")
            self.assertIn("chmod 700", caught.exception.remedy)

    def test_t239_audit_is_ours_to_write(self) -> None:
        """T239: others may read the audit directory, not write to it."""
        for mode in (0o720, 0o702, 0o777):
            os.chmod(self.path, mode)
            self.assertRaises(ConfigError, check_audit_dir, self.path)
        os.chmod(self.path, 0o755)  # noqa: S103
        check_audit_dir(self.path)

    def test_missing_and_not_a_directory(self) -> None:
        """Neither is made here; both are said."""
        for name in ("missing", "file"):
            path = os.path.join(os.path.dirname(self.path), name)
            if name == "file":
                write_file(os.path.dirname(path), b"", name)
            self.assertRaises(ConfigError, check_state_dir, path)
            self.assertRaises(ConfigError, check_audit_dir, path)

    def test_t239_owner_and_links(self) -> None:
        """T239: another user's directory or link is refused; our own link is followed."""
        link = os.path.join(os.path.dirname(self.path), "link")
        os.symlink(self.path, link)
        check_state_dir(link)
        if os.geteuid() != 0:
            raise self.skipTest("only root can give files away")
        os.lchown(link, 65534, 65534)
        self.assertRaises(ConfigError, check_state_dir, link)
        os.chown(self.path, 65534, 65534)
        self.assertRaises(ConfigError, check_state_dir, self.path)

    def test_origin_ca(self) -> None:
        """T239: the origins' CAs are read from a file that nobody else can change."""
        path = write_file(os.path.dirname(self.path), b"x", "ca.crt")
        check_origin_ca(path)
        os.chmod(path, 0o666)  # noqa: S103
        self.assertRaises(ConfigError, check_origin_ca, path)
        self.assertRaises(ConfigError, check_origin_ca, path + ".missing")


class KeyTests(SynchronousTestCase):
    """gateway.key."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory, 0o700)
        self.path = os.path.join(self.directory, "gateway.key")

    def test_made_once(self) -> None:
        """It is made when asked for, 32 random bytes of mode 0600, and then stays."""
        self.assertRaises(ConfigError, gateway_key, self.directory, create=False)
        self.assertEqual(os.listdir(self.directory), [])
        key = gateway_key(self.directory, create=True)
        self.assertEqual(len(key), 32)
        self.assertEqual(mode_of(self.path), 0o600)
        self.assertEqual(gateway_key(self.directory, create=True), key)
        self.assertEqual(gateway_key(self.directory, create=False), key)

    def test_t239_refused(self) -> None:
        """T239: readable by others, a link, or of another length; create does not replace it."""
        gateway_key(self.directory, create=True)
        for mode in (0o640, 0o604):
            os.chmod(self.path, mode)
            self.assertRaises(ConfigError, gateway_key, self.directory, create=True)
        os.chmod(self.path, 0o600)
        os.rename(self.path, self.path + ".real")
        os.symlink(self.path + ".real", self.path)
        self.assertRaises(ConfigError, gateway_key, self.directory, create=True)
        os.unlink(self.path)
        write_file(self.directory, b"short", "gateway.key")
        self.assertRaises(ConfigError, gateway_key, self.directory, create=True)


class BundleTests(SynchronousTestCase):
    """The file that agents are to trust."""

    def settings(self, *changes: tuple[str, str]) -> Settings:
        self.directory = os.path.abspath(self.mktemp())
        write_file(self.directory, b"ORIGINS\n", "origins.pem")
        origin = ("[limits]", '[origin]\nca_file = "origins.pem"\n\n[limits]')
        return load(write_file(self.directory, with_changes(origin, *changes)))

    def content(self, settings: Settings) -> bytes:
        with open(settings.gateway.ca_bundle, "rb") as file:
            return file.read()

    def test_written_for_all(self) -> None:
        """Mode 0644, replaced when the authority changes, left alone when it does not."""
        settings = self.settings(('action = "passthrough"', 'action = "deny"'))
        write_ca_bundle(settings, b"ONE\n")
        self.assertEqual(self.content(settings), b"ONE\n")
        self.assertEqual(mode_of(settings.gateway.ca_bundle), 0o644)
        before = os.stat(settings.gateway.ca_bundle)
        write_ca_bundle(settings, b"ONE\n")
        self.assertEqual(os.stat(settings.gateway.ca_bundle).st_ino, before.st_ino)
        write_ca_bundle(settings, b"TWO\n")
        self.assertEqual(self.content(settings), b"TWO\n")
        self.assertEqual(
            sorted(os.listdir(self.directory)),
            ["origins.pem", "slapenir-ca.pem", "slapenir.toml"],
        )

    def test_passthrough_adds_the_origins(self) -> None:
        """With a passthrough rule agents see the origins' own certificates."""
        settings = self.settings()
        write_ca_bundle(settings, b"ONE\n")
        self.assertEqual(self.content(settings), b"ONE\n\nORIGINS\n")

    def test_t239_a_link_is_replaced(self) -> None:
        """T239: a link where the bundle goes does not lead the write elsewhere."""
        settings = self.settings(('action = "passthrough"', 'action = "deny"'))
        victim = write_file(self.directory, b"mine", "victim")
        os.symlink(victim, settings.gateway.ca_bundle)
        write_ca_bundle(settings, b"ONE\n")
        with open(victim, "rb") as file:
            self.assertEqual(file.read(), b"mine")
        self.assertFalse(os.path.islink(settings.gateway.ca_bundle))

    def test_cannot_be_written(self) -> None:
        """A path that cannot be written says which key to change."""
        settings = self.settings(('audit = "audit"', 'audit = "audit"\nca_bundle = "no/such/x"'))
        with self.assertRaises(ConfigError) as caught:
            write_ca_bundle(settings, b"ONE\n")
        self.assertEqual(caught.exception.path, "$.gateway.ca_bundle")
