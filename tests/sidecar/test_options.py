"""The sidecar's command line, its directory and its token."""

from __future__ import annotations

import os
import secrets
from typing import Any

from twisted.python import usage
from twisted.trial import unittest

from slapenir.errors import PkiError
from slapenir.names import Authority
from slapenir.sidecar.options import (
    PARAMETERS,
    TOKEN_VARIABLE,
    BadUsage,
    ByHand,
    ByStepCa,
    ByToken,
    default_state,
    read_options,
)
from slapenir.sidecar.state import claim_state, token_reader
from slapenir.sidecar.tap import Options

GOOD = {"gateway": "gateway.example.test:8443", "listen": "127.0.0.1:8080", "state": "state"}
STEP = {"step-ca": "https://ca.example.test", "root-fingerprint": "ab" * 32, "name": "agent-1"}


def read(sans: tuple[str, ...] = (), anywhere: bool = False, **more: str) -> Any:
    """Return the options of a command line that has GOOD and more."""
    values = {**GOOD, **{key.replace("_", "-"): value for key, value in more.items()}}
    return read_options(values, sans, anywhere, {})


class OptionTests(unittest.SynchronousTestCase):
    def test_what_they_mean(self) -> None:
        options = read()
        self.assertEqual(options.gateway, Authority("gateway.example.test", 8443))
        self.assertEqual(options.name, options.gateway)
        self.assertEqual(options.listen, ("127.0.0.1", 8080))
        self.assertEqual(options.state, os.path.abspath("state"))
        self.assertEqual(options.way, ByToken())
        self.assertIsNone(options.admin)
        named = read(server_name="Other.Example.Test", gateway="[2001:db8::1]:8443")
        self.assertEqual(named.gateway, Authority("2001:db8::1", 8443))
        self.assertEqual(named.name.host, "other.example.test")

    def test_where_the_certificate_comes_from(self) -> None:
        way = read(("a.example.test",), **STEP).way
        self.assertIsInstance(way, ByStepCa)
        self.assertEqual((way.sans, way.lifetime), (("a.example.test",), 86400.0))
        way = read(certificate="c.pem", key="k.pem", ca="/roots.pem").way
        self.assertEqual(way, ByHand(*map(os.path.abspath, ("c.pem", "k.pem", "/roots.pem"))))

    def test_only_loopback_is_listened_on(self) -> None:
        """Another address is refused, for either listener, unless it is asked for."""
        for good in ("127.0.0.1:0", "127.9.9.9:80", "[::1]:8080", "localhost:8080"):
            self.assertTrue(read(listen=good, admin=good).listen)
        for bad in ("0.0.0.0:8080", "192.0.2.1:8080", "[::]:8080", "[2001:db8::1]:1"):
            for key in ("listen", "admin"):
                with self.assertRaisesRegex(BadUsage, f"--{key}: .* --listen-anywhere"):
                    read(**{key: bad})
            self.assertTrue(read(anywhere=True, listen=bad))

    def test_what_makes_no_sense(self) -> None:
        """Each is refused with the option that is to blame."""
        for more, blamed in (
            ({"gateway": ""}, "--gateway is needed"),
            ({"gateway": "gateway"}, "--gateway: "),
            ({"gateway": "gateway:0"}, "--gateway: "),
            ({"gateway": "https://gateway:1"}, "--gateway: "),
            ({"gateway": "127.1:1"}, "--gateway: "),
            ({"listen": ""}, "--listen is needed"),
            ({"listen": "8080"}, "--listen: "),
            ({"listen": "127.0.0.1:99999"}, "--listen: "),
            ({"listen": "example.test:80"}, "--listen: "),
            ({"server_name": "a..b"}, "--server-name: "),
            ({"certificate": "c"}, "--key is needed"),
            ({"certificate": "c", "key": "k", "ca": "c", "token_file": "t"}, "--token-file and"),
            ({**STEP, "certificate": "c"}, "--step-ca and"),
            ({**STEP, "step-ca": "http://ca.example.test"}, "--step-ca: "),
            ({**STEP, "root-fingerprint": "ab"}, "--root-fingerprint: "),
            ({**STEP, "lifetime": "1 day"}, "--lifetime: "),
            ({"name": "x"}, "--name needs --step-ca"),
        ):
            with self.assertRaisesRegex(BadUsage, f"^{blamed}"):
                read(**more)
        with self.assertRaisesRegex(BadUsage, "--san needs --step-ca"):
            read(("x",))

    def test_no_option_is_a_secret_t226(self) -> None:
        """T226: an argument list is readable by all; tokens come by file or environment."""
        self.assertEqual([n for n in PARAMETERS if "token" in n or "secret" in n], ["token-file"])

    def test_the_state_directory(self) -> None:
        """systemd's, else one in the home, else it has to be said."""
        self.assertEqual(default_state({"STATE_DIRECTORY": "/s", "HOME": "/h"}), "/s")
        home = default_state({"HOME": "/h"})
        self.assertEqual(home, "/h/.local/state/slapenir-sidecar")
        with self.assertRaisesRegex(BadUsage, "--state"):
            default_state({})

    def test_twistd_takes_the_same(self) -> None:
        """The plugin's options are read by the same rules."""
        options = Options()
        arguments = [f"--{key}={value}" for key, value in {**GOOD, **STEP}.items()]
        options.parseOptions([*arguments, "--san=a", "--san=b"])
        self.assertEqual(options.read.way.sans, ("a", "b"))  # type: ignore[union-attr]
        with self.assertRaisesRegex(usage.UsageError, "--listen-anywhere"):
            Options().parseOptions(["--gateway=g:1", "--listen=0.0.0.0:1", "--state=s"])
        options = Options()
        options.parseOptions(
            ["--gateway=g:1", "--listen=0.0.0.0:1", "--state=s", "--listen-anywhere"]
        )
        self.assertEqual(options.read.listen, ("0.0.0.0", 1))


class StateTests(unittest.SynchronousTestCase):
    def test_it_is_made_closed_and_locked(self) -> None:
        """A missing one is made 0700; a second sidecar is turned away until the first is gone."""
        path = os.path.join(self.mktemp(), "deep", "state")
        lock = claim_state(path)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)
        with self.assertRaisesRegex(PkiError, "another sidecar"):
            claim_state(path)
        os.close(lock)
        os.close(claim_state(path))

    def test_one_that_is_open_to_others_is_refused_t239(self) -> None:
        """T239: the error says what to run; after that it is used."""
        path = self.mktemp()
        os.mkdir(path)
        for mode in (0o755, 0o710, 0o702):
            os.chmod(path, mode)
            with self.assertRaisesRegex(PkiError, f"run: chmod 700 {path}"):
                claim_state(path)
        os.chmod(path, 0o700)
        os.close(claim_state(path))

    def test_a_file_is_no_directory(self) -> None:
        path = self.mktemp()
        with open(path, "w"):
            pass
        with self.assertRaisesRegex(PkiError, "--state"):
            claim_state(path)


class TokenTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.value = secrets.token_urlsafe(40)
        self.path = os.path.abspath(self.mktemp())
        with open(self.path, "w") as file:
            file.write(self.value + "\n")
        os.chmod(self.path, 0o600)

    def test_it_comes_from_a_file_or_from_the_environment(self) -> None:
        """The file is read anew each time; without either there is none."""
        read_token = token_reader(self.path, {})
        found = read_token()
        assert found is not None
        self.assertEqual(found.reveal(), self.value.encode())
        self.assertNotIn(self.value, repr(found))
        os.unlink(self.path)
        with self.assertRaisesRegex(PkiError, "cannot be opened"):
            read_token()
        found = token_reader("", {TOKEN_VARIABLE: self.value})()
        assert found is not None
        self.assertEqual(found.reveal(), self.value.encode())
        self.assertIsNone(token_reader("", {})())

    def test_a_file_that_others_can_read_is_refused_t239(self) -> None:
        """T239: except where systemd let the unit's user in through an ACL."""
        os.chmod(self.path, 0o640)
        with self.assertRaisesRegex(PkiError, "chmod 600"):
            token_reader(self.path, {})()
        given = {"CREDENTIALS_DIRECTORY": os.path.dirname(self.path)}
        self.assertIsNotNone(token_reader(self.path, given)())
        os.chmod(self.path, 0o644)
        with self.assertRaises(PkiError):
            token_reader(self.path, given)()
