"""A reload while connections are in use."""

from __future__ import annotations

from slapenir.edge.origin import OriginFlow
from slapenir.exchange.commands import PoolKey
from slapenir.names import Authority
from tests.edge.test_dial import DialCase

KEY = PoolKey("sandbox", Authority("a.test", 443), False, ())


class Reload(DialCase):
    """T209: no connection outlives, in the pool, the policy that judged its address."""

    def dialled(self) -> OriginFlow:
        """Return a connection that was just made."""
        self.dial("a.test", pool=KEY)
        self.accept()
        flow = self.asker.answers[-1]
        assert isinstance(flow, OriginFlow)
        return flow

    def test_a_connection_in_use_is_not_kept_afterwards(self) -> None:
        """The pool is emptied by a reload; what is given back later is closed too."""
        self.make({"a.test": [["8.8.8.8"]]})
        flow = self.dialled()
        self.dialler.pool.close()
        self.dialler.pool.put(flow)
        self.assertEqual(len(self.dialler.pool), 0)
        self.assertFalse(flow.usable)
        later = self.dialled()
        self.dialler.pool.put(later)
        self.assertEqual(len(self.dialler.pool), 1)
        self.assertTrue(later.usable)

    def test_a_dial_that_began_before(self) -> None:
        """The address was judged before the reload, the connection made after it."""
        self.make({"a.test": [["8.8.8.8"]]})
        self.dial("a.test", pool=KEY)
        self.dialler.pool.close()
        self.accept()
        self.dialler.pool.put(self.asker.answers[-1])
        self.assertEqual(len(self.dialler.pool), 0)
