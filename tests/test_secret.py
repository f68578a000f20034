"""A Secret cannot be printed, formatted, pickled, copied or hashed."""

from __future__ import annotations

import copy
import pickle
import secrets
import traceback

from twisted.trial.unittest import SynchronousTestCase

from slapenir.secret import Secret


class SecretTests(SynchronousTestCase):
    """T226: the value comes out of reveal() and of nothing else."""

    def setUp(self) -> None:
        self.value = secrets.token_hex(16)
        self.secret = Secret(self.value.encode("ascii"))

    def test_T226_reveal_and_length(self) -> None:
        """T226: the negative control: the owner can use it."""
        self.assertEqual(self.secret.reveal(), self.value.encode("ascii"))
        self.assertEqual(len(self.secret), 32)

    def test_T226_no_text_form(self) -> None:
        """T226: no text form shows it, nor that of something that holds it."""
        forms = (repr(self.secret), str(self.secret), f"{self.secret}", f"{self.secret!r:>40}")
        for text in (*forms, repr([self.secret]), repr({"a": self.secret})):
            self.assertNotIn(self.value, text)
            self.assertIn("<Secret>", text)

    def test_T226_no_copies(self) -> None:
        """T226: pickling and copying are refused."""
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with self.assertRaises(TypeError):
                pickle.dumps(self.secret, protocol)
        self.assertRaises(TypeError, copy.copy, self.secret)
        self.assertRaises(TypeError, copy.deepcopy, self.secret)
        self.assertRaises(TypeError, hash, self.secret)

    def test_T226_no_attributes(self) -> None:
        """T226: vars() has nothing to show and a traceback of a failure neither."""
        self.assertFalse(hasattr(self.secret, "__dict__"))
        try:
            bytes(self.secret)  # type: ignore[call-overload]
        except TypeError as error:
            self.assertNotIn(self.value, "".join(traceback.format_exception(error)))
        else:
            self.fail("a Secret became bytes")

    def test_equality_is_by_value(self) -> None:
        """Equal to the same value, not to its bytes."""
        self.assertEqual(self.secret, Secret(self.value.encode("ascii")))
        self.assertNotEqual(self.secret, Secret(secrets.token_bytes(32)))
        self.assertNotEqual(self.secret, self.value.encode("ascii"))
