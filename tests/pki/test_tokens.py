"""Enrolment tokens: one string, one certificate, once."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import PkiError
from slapenir.pki.tokens import PREFIX, EnrolmentToken, TokenFiles, decode_token, encode_token
from tests.config.base import mode_of

URL = "https://gateway.internal:8445"
ROOT = hashlib.sha256(b"a root").hexdigest()
ROOT_DIRECTORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Waits until the file of a start is there, redeems the secrets of standard input, prints which.
RACER = """\
import os, sys, time
from slapenir.errors import PkiError
from slapenir.pki.tokens import TokenFiles
files, given = TokenFiles(sys.argv[1]), sys.stdin.read().split()
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.001)
for secret in given:
    try:
        print(files.redeem(secret), flush=True)
    except PkiError as error:
        if "unknown or was used" not in str(error):
            raise
"""


def text_of(document: object) -> str:
    """Return a document in the form of a token."""
    data = json.dumps(document).encode("utf-8")
    return PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class StringTests(SynchronousTestCase):
    """The string that an agent is given."""

    def test_there_and_back(self) -> None:
        for length in range(30, 36):
            secret = secrets.token_urlsafe(length)
            text = encode_token(URL, ROOT, secret)
            self.assertRegex(text, r"\Aslapenir1\.[A-Za-z0-9_-]+\Z")
            self.assertEqual(decode_token(f" {text}\n"), EnrolmentToken(URL, ROOT, secret))

    def test_the_secret_is_not_shown(self) -> None:
        secret = secrets.token_urlsafe(32)
        token = decode_token(encode_token(URL, ROOT, secret))
        self.assertNotIn(secret, f"{token} {token!r}")
        for spoilt in (
            encode_token("http://gateway.internal", ROOT, secret),
            encode_token(URL, ROOT[:-1], secret),
            encode_token(URL, ROOT, secret) + "*",
        ):
            with self.assertRaises(PkiError) as caught:
                decode_token(spoilt)
            self.assertNotIn(secret, str(caught.exception))
            self.assertNotIn(spoilt[-20:], str(caught.exception))

    def test_what_is_no_token(self) -> None:
        secret = secrets.token_urlsafe(32)
        good = {"url": URL, "root": ROOT, "secret": secret}
        self.assertEqual(decode_token(text_of(good)).secret, secret)
        for document in (
            [],
            None,
            1,
            "text",
            {},
            {**good, "more": 1},
            {"url": URL, "root": ROOT},
            {**good, "url": "http://gateway.internal:8445"},
            {**good, "url": 1},
            {**good, "url": "https://[::1"},
            {**good, "url": None},
            {**good, "root": ROOT.upper().replace("A", "G")},
            {**good, "root": ROOT + "\n"},
            {**good, "root": [ROOT]},
            {**good, "secret": secret + "\n"},
            {**good, "secret": "../../book.json"},
            {**good, "secret": 7},
        ):
            with self.assertRaises(PkiError):
                decode_token(text_of(document))
        for text in (
            "",
            PREFIX,
            "slapenir2." + text_of(good).removeprefix(PREFIX),
            text_of(good).removeprefix(PREFIX),
            text_of(good)[:-5],
            PREFIX + "\u0430" * 40,
            PREFIX + "A" * 5000,
            PREFIX + base64.urlsafe_b64encode(b"[" * 2500).decode("ascii"),
        ):
            with self.assertRaises(PkiError):
                decode_token(text)

    @settings(max_examples=200, deadline=None)
    @given(st.text() | st.text().map(PREFIX.__add__) | st.binary().map(lambda data: text_of(
        data.decode("latin-1"))))  # fmt: skip
    def test_fuzz(self, text: str) -> None:
        with self.assertRaises(PkiError):
            decode_token(text)


class FileTests(SynchronousTestCase):
    """What the CA keeps of a token."""

    def setUp(self) -> None:
        self.now = time.time()
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory, 0o700)
        self.files = TokenFiles(self.directory, lambda: self.now)

    def refuses(self, phrase: str, secret: str) -> None:
        with self.assertRaises(PkiError) as caught:
            self.files.redeem(secret)
        self.assertIn(phrase, str(caught.exception))
        if secret:
            self.assertNotIn(secret, str(caught.exception))

    def test_the_secret_is_not_kept(self) -> None:
        """Only its digest is, in a file that nobody else can read (T239)."""
        secret = self.files.make("agent-1", 60)
        (name,) = os.listdir(self.directory)
        self.assertEqual(name, hashlib.sha256(secret.encode("ascii")).hexdigest())
        self.assertEqual(mode_of(os.path.join(self.directory, name)), 0o600)
        with open(os.path.join(self.directory, name)) as file:
            self.assertEqual(json.load(file), {"identity": "agent-1", "expires": self.now + 60})

    def test_to_the_second(self) -> None:
        """T216: what counts is the clock; one that was set back does not bring a used one back."""
        one, two = self.files.make("agent-1", 60), self.files.make("agent-2", 60)
        self.now += 59.9
        self.assertEqual(self.files.redeem(one), "agent-1")
        self.now += 0.1
        self.refuses("has expired", two)
        self.now -= 400 * 86400
        self.refuses("unknown or was used", one)
        self.refuses("unknown or was used", two)

    def test_what_is_no_secret(self) -> None:
        """Nothing of it becomes a path."""
        self.files.make("agent-1", 60)
        os.symlink("/etc/passwd", os.path.join(self.directory, "x" * 43))
        for secret in ("", "x" * 43, "../lock", "/etc/passwd", "a" * 10_000, "\0" * 43, "\ud800"):
            self.refuses("unknown or was used", secret)
        self.assertEqual(len(os.listdir(self.directory)), 2)

    def test_a_file_that_is_not_ours_alone(self) -> None:
        """T239: open to others, a link, or damaged: no token; then it is no hindrance to others."""
        for number, (spoil, phrase) in enumerate(
            (
                (lambda path: os.chmod(path, 0o644), "by others"),
                (lambda path: (os.rename(path, "away"), os.symlink(os.path.abspath("away"), path)),
                 "symbolic link"),
                (lambda path: os.truncate(path, 5), "is damaged"),
            )
        ):  # fmt: skip
            secret = self.files.make(f"agent-{number}", 60)
            path = os.path.join(self.directory, hashlib.sha256(secret.encode()).hexdigest())
            spoil(path)
            self.refuses(phrase, secret)
            self.assertEqual(self.files.redeem(self.files.make("fine", 60)), "fine")

    def test_processes_at_once(self) -> None:
        """Of four processes exactly one gets each token."""
        given = [self.files.make(f"agent-{number}", 600) for number in range(40)]
        start = os.path.join(self.directory, "..", f"start-{os.path.basename(self.directory)}")
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, self.directory, start],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT_DIRECTORY,
            )
            for _ in range(4)
        ]  # fmt: skip
        for one in racers:
            assert one.stdin is not None and one.stdout is not None
            one.stdin.write("\n".join(given))
            one.stdin.close()
            self.assertEqual(one.stdout.readline(), "ready\n")
        with open(start, "x"):
            pass
        won = []
        for one in racers:
            assert one.stdout is not None
            won += one.stdout.read().split()
            one.stdout.close()
            self.assertEqual(one.wait(30), 0)
        self.assertEqual(sorted(won), sorted(f"agent-{number}" for number in range(40)))
        self.assertEqual(os.listdir(self.directory), [])
