"""What every client connection shares."""

from __future__ import annotations

import attrs
from twisted.internet.interfaces import IReactorTime

from slapenir.edge.contracts import EdgeLimits, Publisher
from slapenir.edge.dial import Dialler
from slapenir.edge.redirect import Redirections
from slapenir.edge.tlscontext import ServerContexts


def _nameless(identity: str, address: str) -> str | None:
    """Know no address that the gateway's DNS gave out."""
    return None


@attrs.frozen(slots=True, eq=False)
class Gateway:
    """What every client connection shares."""

    clock: IReactorTime
    limits: EdgeLimits
    publisher: Publisher
    dialler: Dialler
    contexts: ServerContexts
    redirections: Redirections = attrs.field()

    @redirections.default
    def _no_names(self) -> Redirections:
        return Redirections(self.dialler.resolver.own_ports, _nameless)
