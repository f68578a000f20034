"""T236: there is no parent proxy, so there is none to be hostile or to be poisoned."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.config.load import parse
from slapenir.errors import ConfigErrors
from tests.config.base import BASE


class ParentProxyTests(SynchronousTestCase):
    """Chaining is refused in words, not silently left out."""

    def test_no_key_names_a_parent_proxy_T236(self) -> None:
        """Every likely spelling is an unknown key (T236); without one the file loads."""
        parse(BASE.encode(), "slapenir.toml")
        for table in ("[gateway]", "[origin]", "[resolver]"):
            for key in ("proxy", "parent_proxy", "upstream_proxy", "https_proxy", "no_proxy"):
                text = BASE if table in BASE else f"{BASE}\n{table}\n"
                text = text.replace(table, f'{table}\n{key} = "http://127.0.0.1:3128"', 1)
                with self.assertRaises(ConfigErrors) as caught:
                    parse(text.encode(), "slapenir.toml")
                self.assertIn(key, str(caught.exception))
