"""Names for sandboxes: one table of synthetic addresses, one DNS server, as configured."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort

from slapenir.config.dns_checks import names_each
from slapenir.config.settings import Settings
from slapenir.edge.contracts import Publisher
from slapenir.edge.sandbox_dns import SandboxDns, stop_all
from slapenir.evidence import Evidence
from slapenir.exchange.questions import Names
from slapenir.exchange.synthetic import SyntheticAddresses
from slapenir.loading import Loaded
from slapenir.names import parse_authority

_NAMES = 4096
"""Names that are remembered for each identity, where the networks have room for them."""


class Naming:
    """The names of a gateway; ``addresses`` says which one an address was given out for."""

    def __init__(self, reactor: Any, loaded: Callable[[], Loaded], publisher: Publisher) -> None:
        settings = loaded().settings
        self.addresses = SyntheticAddresses(*_table(settings), loaded().key)
        names = Names(lambda: loaded().terms, self.addresses, settings.limits.names_per_minute)
        fixed = settings.dns.identity

        def whose(host: str) -> str:
            return fixed or loaded().identities.identify(Evidence(source=host)).name

        self.server = SandboxDns(reactor, publisher, names, whose)
        self._ports: list[IListeningPort] = []

    def listen(self, settings: Settings) -> Deferred[set[int]]:
        """Open the endpoint of ``[dns]``, where there is one; fires with its port."""
        if not settings.dns.endpoint:
            return succeed(set())
        at = parse_authority(settings.dns.endpoint.encode("ascii"), 53)

        def listening(ports: list[IListeningPort]) -> set[int]:
            self._ports = ports
            return {at.port}

        return self.server.listen(at.host, at.port).addCallback(listening)

    def stop(self) -> Deferred[Any]:
        """Close what was opened here."""
        ports, self._ports = self._ports, []
        return stop_all(ports)


def _table(settings: Settings) -> tuple[list[Any], int]:
    """Return the networks, and how many names of one identity fit beside those of the others."""
    networks = [ip_network(text) for text in settings.dns.synthetic]
    fair = min(names_each(network.num_addresses, settings) for network in networks)
    return networks, max(1, min(_NAMES, fair))
