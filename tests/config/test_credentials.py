"""Reading the secrets that a configuration names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.credentials import read_credentials
from slapenir.config.load import parse
from slapenir.credentials.model import Credential, HeaderSurface
from slapenir.errors import ConfigErrors
from tests.config.base import with_changes


class ReadTests(SynchronousTestCase):
    """Two credentials, from the environment or from elsewhere."""

    def setUp(self) -> None:
        self.one, self.two = secrets.token_hex(20), secrets.token_hex(20)
        self.environ = {"OPENAI_API_KEY": self.one, "OTHER_KEY": self.two}

    def read(
        self,
        *changes: tuple[str, str],
        environ: Mapping[str, str] | None = None,
        directory: str | None = None,
        only: frozenset[str] | None = None,
    ) -> tuple[Credential, ...]:
        settings = parse(with_changes(*changes), "/etc/slapenir.toml")
        return read_credentials(
            settings, self.environ if environ is None else environ, directory, only
        )

    def refuses(self, path: str, text: str, *changes: tuple[str, str], **environ: str) -> None:
        """One problem, at this place, saying this, and never with a secret in it."""
        values = self.environ | environ
        with self.assertRaises(ConfigErrors) as caught:
            self.read(*changes, environ=values)
        self.assertEqual([one.path for one in caught.exception.errors], [path])
        self.assertIn(text, str(caught.exception))
        self.assertIn("/etc/slapenir.toml", str(caught.exception))
        for value in values.values():
            if len(value) > 3:
                self.assertNotIn(value, str(caught.exception))

    def test_environment(self) -> None:
        """Each credential comes with its secret, surfaces and canonical hosts."""
        first, second = self.read(('api.openai.com"]\ninject', 'API.openai.com."]\ninject'))
        self.assertEqual(first.secret.reveal(), self.one.encode())
        self.assertEqual(first.hosts, ("api.openai.com",))
        self.assertEqual(first.surfaces, (HeaderSurface(b"authorization", b"Bearer"),))
        self.assertEqual(first.placeholder, b"DUMMY_OPENAI")
        self.assertEqual(second.surfaces, (HeaderSurface(b"x-api-key"),))
        self.assertIsNone(second.placeholder)
        for text in (repr(first), str(second)):
            self.assertNotIn(self.one, text)
            self.assertNotIn(self.two, text)

    def test_only(self) -> None:
        """The sources of other credentials are not touched."""
        found = self.read(environ={"OTHER_KEY": self.two}, only=frozenset({"other"}))
        self.assertEqual([one.id for one in found], ["other"])

    def test_file_and_systemd(self) -> None:
        """A file of mode 0600, and one in systemd's directory, with a trailing newline each."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory, 0o700)
        for name, value in (("a", self.one), ("b", self.two)):
            path = os.path.join(directory, name)
            with open(path, "w") as file:
                file.write(f"{value}\n")
            os.chmod(path, 0o600)
        changes = (
            ("env:OPENAI_API_KEY", f"file:{directory}/a"),
            ("env:OTHER_KEY", "systemd:b"),
        )
        first, second = self.read(*changes, environ={}, directory=directory)
        self.assertEqual(first.secret.reveal(), self.one.encode())
        self.assertEqual(second.secret.reveal(), self.two.encode())
        os.chmod(os.path.join(directory, "a"), 0o640)
        with self.assertRaises(ConfigErrors) as caught:
            self.read(*changes, environ={}, directory=None)
        paths = [one.path for one in caught.exception.errors]
        self.assertEqual(paths, ["$.credential[0].source", "$.credential[1].source"])

    def test_t148_t177_bad_secrets(self) -> None:
        """T148, T177: empty, short, blank, poor or broken secrets; eight good bytes pass."""
        path = "$.credential[0].source"
        for bad, text in (
            ("", "is empty"),
            ("abcdefg", "shorter than 8"),
            (" " * 12, "spaces"),
            ("abababababab", "different bytes"),
            (self.one + "\r\nX-Evil: 1", "control bytes"),
            (self.one + "\nx", "control bytes"),
            (self.one + "\x00", "control bytes"),
            (self.one * 300, "longer than"),
        ):
            with self.subTest(text):
                self.refuses(path, text, OPENAI_API_KEY=bad)
        self.read(environ=self.environ | {"OPENAI_API_KEY": "abcd1234"})

    def test_unset(self) -> None:
        """An unset variable says which one, and whose environment is meant."""
        with self.assertRaises(ConfigErrors) as caught:
            self.read(environ={})
        self.assertEqual(len(caught.exception.errors), 2)
        self.assertIn("set OPENAI_API_KEY in the gateway's own environment", str(caught.exception))

    def test_the_same_secret_twice(self) -> None:
        """Which credential leaked could not be said, so a secret belongs to one."""
        self.refuses("$.credential[1].source", "same secret as", OTHER_KEY=self.one)

    def test_placeholder_and_secret(self) -> None:
        """A placeholder that holds a secret, or is held by any, is refused."""
        for value in ("DUMMY_OPENAI", "xDUMMY_OPENAIx", "DUMMY_OPE"):
            for variable in self.environ:
                with self.subTest(value, variable=variable):
                    with self.assertRaises(ConfigErrors) as caught:
                        self.read(environ=self.environ | {variable: value})
                    paths = [one.path for one in caught.exception.errors]
                    self.assertEqual(paths, ["$.credential[0].placeholder"])
        self.read(environ=self.environ | {"OTHER_KEY": "DUMMY_OTHER_ONE"})
