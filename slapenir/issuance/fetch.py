"""Lists of revoked certificates from a URL, http or https, for the gateway itself."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from slapenir.issuance.pinned_https import Answer, PinnedClient
from slapenir.issuance.provider import IssuanceError
from slapenir.pki.held import read_chain
from slapenir.pki.revocation import MAX_BYTES


class Fetcher:
    """GET a URL; over https by the CAs in ``ca_file``.  A list is signed, so http may do."""

    def __init__(self, reactor: Any, ca_file: str) -> None:
        self._reactor = reactor
        self._ca_file = ca_file

    def __call__(self, url: str) -> Deferred[bytes]:
        """Return the body of a 200; errbacks IssuanceError or PkiError."""
        if url.startswith("https:"):
            pool = self._reactor.getThreadPool()
            reading = deferToThreadPool(self._reactor, pool, read_chain, self._ca_file)
        else:
            reading = Deferred()
            reading.callback(())
        return reading.addCallback(self._get, url).addCallback(_body)

    def _get(self, roots: Any, url: str) -> Deferred[Answer]:
        return PinnedClient(self._reactor, roots, limit=MAX_BYTES).request("GET", url)


def _body(answer: Answer) -> bytes:
    if answer.status != 200:
        raise IssuanceError(f"the list's server answered {answer.status}")
    return answer.body
