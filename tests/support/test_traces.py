"""The search for leaked secrets finds what it must: tests that see nothing must mean nothing."""

from __future__ import annotations

import base64
import secrets

from twisted.trial.unittest import SynchronousTestCase

from tests.support.traces import traces


class TestTraces(SynchronousTestCase):
    """Each form is found, and a clean text is clean."""

    def test_every_form_is_found(self) -> None:
        secret = "sk-/+" + secrets.token_urlsafe(33)
        raw = secret.encode("ascii")
        for before in range(6):
            for after in range(4):
                data = base64.b64encode(b"x" * before + raw + b"y" * after)
                self.assertEqual(traces(data, secret)[:1], [f"base64 at {before % 3}"])
                data = base64.urlsafe_b64encode(b"x" * before + raw + b"y" * after)
                self.assertIn(f"base64url at {before % 3}", traces(data, secret))
        self.assertIn("raw", traces(b"a " + raw + b" b", secret))
        self.assertIn("hex", traces(raw.hex().encode(), secret))
        self.assertIn("utf-16-le", traces(secret.encode("utf-16"), secret))

    def test_others_are_not(self) -> None:
        secret = secrets.token_urlsafe(33)
        other = secrets.token_urlsafe(33)
        self.assertEqual(traces(base64.b64encode(other.encode()) + other.encode(), secret), [])
