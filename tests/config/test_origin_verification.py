"""T103: the verification of an origin cannot be switched off, for one origin or for all."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.load import parse
from slapenir.errors import ConfigErrors
from tests.config.base import BASE


class VerificationTests(SynchronousTestCase):
    """A setting that would do it is refused in words, not passed over."""

    def test_no_key_switches_it_off_T103(self) -> None:
        """Every likely spelling is an unknown key; without one the file loads."""
        parse(BASE.encode(), "slapenir.toml")
        for table in ("[gateway]", "[origin]", "[resolver]", "[[rule]]", "[[listener]]"):
            for key in ("verify", "tls_verify", "insecure", "skip_verify", "insecure_skip_verify"):
                text = BASE if table in BASE else f"{BASE}\n{table}\n"
                text = text.replace(table, f"{table}\n{key} = false", 1)
                with self.assertRaises(ConfigErrors) as caught:
                    parse(text.encode(), "slapenir.toml")
                said = str(caught.exception)
                self.assertIn("unknown key", said)
                self.assertIn(key, said)
