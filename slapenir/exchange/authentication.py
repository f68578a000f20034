"""Who a client is, by the token that its requests to the proxy itself carry (RFC 9110, 11.7).

A connection belongs to the first identity that was proved on it.  What is inside a CONNECT is the
origin's and is never asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from slapenir.errors import RemoteProtocolError
from slapenir.events import Who
from slapenir.evidence import Evidence
from slapenir.exchange.commands import Admit
from slapenir.names import Reason
from slapenir.policy.identities import Identified
from slapenir.wire.headers import values
from slapenir.wire.messages import HeaderList
from slapenir.wire.proxyauth import parse_proxy_authorization

if TYPE_CHECKING:
    from slapenir.exchange.session import Session

_FIELD = b"proxy-authorization"


class Authenticator:
    """Ask for a token on each request; ``evidence`` is what the connection showed already."""

    def __init__(self, evidence: Evidence, identify: Callable[[Evidence], Identified]) -> None:
        self._evidence = evidence
        self._identify = identify

    def check(self, session: Session, headers: HeaderList) -> Reason | None:
        """Return why these header fields prove nobody, or None when they do.

        The first time the session's ``who`` gets its identity and the edge is told.
        """
        try:
            sent = parse_proxy_authorization(values(headers, _FIELD))
        except RemoteProtocolError:
            return Reason.TOKEN_REFUSED
        evidence = self._evidence
        if sent is not None:
            evidence = attrs.evolve(evidence, token=sent.token)
        found = self._identify(evidence)
        if not found.name:
            if found.reason is Reason.IDENTITY_AMBIGUOUS:
                return found.reason
            return Reason.IDENTITY_REQUIRED if sent is None else Reason.TOKEN_REFUSED
        if sent is not None and sent.user not in ("", found.name):
            return Reason.TOKEN_REFUSED
        return self._take(session, found.name, evidence)

    def _take(self, session: Session, name: str, evidence: Evidence) -> Reason | None:
        who = session.who
        if who.identity:
            return None if who.identity == name else Reason.IDENTITY_CHANGED
        session.who = Who(who.connection, who.listener, name, who.peer)
        session.out.append(Admit(session.who, evidence))
        return None
