"""Minted placeholders."""

from __future__ import annotations

import base64
import json
import secrets
import string
import urllib.parse
import uuid

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.credentials.placeholders import mint
from slapenir.credentials.prefixes import PREFIXES, public_prefix

ALNUM = (string.ascii_letters + string.digits).encode("ascii")
SECRETS = st.binary(min_size=8, max_size=80) | st.text(
    alphabet=string.ascii_letters + string.digits + "-_./+=", min_size=8, max_size=80
).map(lambda text: text.encode("ascii"))


def random_text(alphabet: str, size: int) -> bytes:
    """Return random text of an alphabet."""
    return "".join(secrets.choice(alphabet) for _ in range(size)).encode("ascii")


class MintTests(SynchronousTestCase):
    """mint."""

    def setUp(self) -> None:
        self.key = secrets.token_bytes(32)

    def mint(self, secret: bytes, identity: str = "sandbox", credential: str = "key") -> bytes:
        return mint(self.key, secret, identity, credential)

    def test_the_same_everywhere(self) -> None:
        """What it is derived from decides, so each gateway of a cluster mints the same."""
        secret = random_text(string.ascii_letters, 40)
        self.assertEqual(self.mint(secret), self.mint(secret))
        others = {
            self.mint(secret, "other"),
            self.mint(secret, "sandbox", "other"),
            mint(secrets.token_bytes(32), secret, "sandbox", "key"),
            self.mint(secret, "sandboxk", "ey"),
            self.mint(secret, "", "sandboxkey"),
            self.mint(secret),
        }
        self.assertEqual(len(others), 6)

    def test_nothing_of_the_random_part_is_used(self) -> None:
        """Two secrets of one prefix, length and alphabet have one placeholder."""
        alphabet = string.ascii_letters + string.digits
        made = set()
        for _ in range(20):
            tail = b"aZ0" + random_text(alphabet, 37)
            made.add(self.mint(b"ghp" + b"_" + tail))
        self.assertEqual(len(made), 1)

    def test_public_prefixes_stay(self) -> None:
        """A known prefix is kept and the rest is not."""
        for prefix in PREFIXES:
            secret = prefix + random_text(string.ascii_letters, 40)
            made = self.mint(secret)
            self.assertEqual(made[: len(prefix)], prefix)
            same = sum(
                a == b for a, b in zip(made[len(prefix) :], secret[len(prefix) :], strict=True)
            )
            self.assertLess(same, 15)

    def test_the_longest_prefix_is_found(self) -> None:
        """One prefix begins another."""
        self.assertEqual(public_prefix(b"sk-" + b"ant-api03-" + b"x" * 9), b"sk-ant-api03-")
        self.assertEqual(public_prefix(b"sk-" + b"antx"), b"sk-")
        self.assertEqual(public_prefix(b"SK-" + b"antx"), b"")

    def test_a_short_rest_keeps_no_prefix(self) -> None:
        """With 8 letters or digits after it a prefix stays, with 7 it does not."""
        self.assertTrue(self.mint(b"hf" + b"_" + b"abcdEFGH").startswith(b"hf_"))
        short = [self.mint(b"hf" + b"_" + b"abcdEFG", str(i)) for i in range(20)]
        self.assertFalse(all(made.startswith(b"hf_") for made in short))
        self.assertTrue(all(made[2:3] == b"_" for made in short))

    def test_alphabets_stay(self) -> None:
        """Hex stays hex of that case, digits stay digits, a UUID is still one."""
        for alphabet in (
            string.digits,
            "0123456789abcdef",
            "0123456789ABCDEF",
            string.ascii_uppercase + "234567",
            string.ascii_lowercase + string.digits,
        ):
            made = self.mint(random_text(alphabet, 64))
            self.assertLessEqual(set(made.decode("ascii")), set(alphabet))
        self.assertEqual(len(str(uuid.UUID(self.mint(str(uuid.uuid4()).encode()).decode()))), 36)

    def test_dots_and_dashes_stay(self) -> None:
        """What is neither letter nor digit stays in its place."""
        made = self.mint(b"aaaaaaaa.bbbbbbbb-cccc/dddd+ee==")
        self.assertEqual([chr(made[i]) for i in (8, 17, 22, 27, 30, 31)], list(".-/+=="))

    def test_few_letters_change_every_byte(self) -> None:
        """A secret of signs has a placeholder too, of the same length."""
        made = self.mint(b"!?!?!?!?!?!?abc")
        self.assertEqual(len(made), 15)
        self.assertTrue(set(made) <= set(ALNUM))

    def test_refusals(self) -> None:
        """An empty key and a secret too short for one, without the secret in the text."""
        self.assertRaises(ValueError, mint, b"", b"a" * 20, "sandbox", "key")
        value = secrets.token_hex(3)
        error = self.assertRaises(ValueError, self.mint, value.encode("ascii"))
        self.assertNotIn(value, str(error))

    @settings(max_examples=300, deadline=None)
    @given(SECRETS, st.text(max_size=5), st.text(max_size=5))
    def test_shape(self, secret: bytes, identity: str, credential: str) -> None:
        """Same length, never the secret, ASCII letters and digits only where there were such."""
        made = mint(b"k" * 32, secret, identity, credential)
        self.assertEqual(len(made), len(secret))
        self.assertNotEqual(made, secret)
        kept = [i for i, byte in enumerate(secret) if made[i] == byte or byte not in ALNUM]
        if sum(byte in ALNUM for byte in secret) >= 8:
            self.assertTrue(all(made[i] == secret[i] for i in kept))
        self.assertTrue(all(a in ALNUM for a, b in zip(made, secret, strict=True) if a != b))

    @settings(max_examples=100, deadline=None)
    @given(
        st.text(
            alphabet=string.ascii_letters + string.digits + '-_./+=\\"', min_size=30, max_size=60
        )
    )
    def test_T178_encoded_forms_have_the_same_length(self, text: str) -> None:
        """T178: base64, percent-encoding and JSON of both are equally long."""
        made = mint(b"k" * 32, text.encode("ascii"), "a", "b").decode("ascii")
        if sum(char.isalnum() for char in text) < 8:
            return
        for form in (
            urllib.parse.quote,
            json.dumps,
            lambda t: base64.b64encode(t.encode()).decode(),
        ):
            self.assertEqual(len(form(made)), len(form(text)))
