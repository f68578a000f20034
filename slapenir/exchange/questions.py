"""What a sandbox is told when it asks for a name (RFC 1035), without I/O.

Nothing is ever looked up: a name that some rule of the identity could allow has an address of the
gateway's own making, and every other name does not exist.  So no question causes a packet.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import attrs

from slapenir.errors import AuthorityError
from slapenir.events import Decided, Event, NameAsked, Who
from slapenir.exchange.budget import NameBudget, Told
from slapenir.exchange.outbound import Refusal, scan_name
from slapenir.exchange.synthetic import SyntheticAddresses
from slapenir.exchange.terms import Terms
from slapenir.names import Action, Reason, Stage, canonical_host, is_ipv4
from slapenir.wire.question import AAAA, IN, A, Question

SECONDS = 30
"""How long an answer is good for; the same question gets the same answer again."""

# Of names with a secret in them, how many of one identity are told apart in a minute.
_FINDINGS = 64
_VERSIONS = {A: 4, AAAA: 6}


class Code(Enum):
    """The RCODE of an answer (RFC 1035, 4.1.1)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


@attrs.frozen(slots=True)
class Reply:
    """What to answer: a code, and an address where there is one (A or AAAA, as was asked)."""

    code: Code
    address: str = ""


class Names:
    """Answer questions for names.

    ``limit`` bounds the different names that one identity may ask for in a minute, of those that
    no rule names outright.  A denied name is recorded once a minute, and so is that there were
    more than the limit, and each of up to ``_FINDINGS`` names that hold a secret.
    """

    def __init__(
        self, terms: Callable[[], Terms], addresses: SyntheticAddresses, limit: int
    ) -> None:
        self._terms = terms
        self._addresses = addresses
        self._budget = NameBudget(limit)
        self._told = Told(limit + 1)
        self._findings = Told(_FINDINGS)

    def ask(self, who: Who, question: Question, now: float) -> tuple[Reply, list[Event]]:
        """Return the answer and what to publish before it is sent; ``now`` in seconds."""
        terms, identity, raw = self._terms(), who.identity, question.name
        found = scan_name(terms, raw)
        if found is not None:  # before all that may keep it from being looked at
            return Reply(Code.NXDOMAIN), self._found(who, raw, found, now)
        if question.kind_class != IN:
            return Reply(Code.REFUSED), [NameAsked(who, "refused")]
        try:
            name = canonical_host(question.name)
        except AuthorityError:
            return Reply(Code.NXDOMAIN), [NameAsked(who, "malformed")]
        if ":" in name or is_ipv4(name):
            return Reply(Code.NXDOMAIN), [NameAsked(who, "malformed")]
        wanted = terms.policy.names(identity, name)
        if not wanted.exact and not self._budget.take(identity, name, now):
            return Reply(Code.REFUSED), self._limited(who, now)
        if not wanted.allowed:
            events: list[Event] = [NameAsked(who, "denied")]
            if self._told.fresh(identity, name, now):
                events.insert(0, _denied(who, name, Refusal(Reason.NO_RULE)))
            return Reply(Code.NXDOMAIN), events
        version = _VERSIONS.get(question.kind)
        if version is None:  # also HTTPS and SVCB: nothing may lead a client to QUIC or ECH (T042)
            return Reply(Code.NOERROR), [NameAsked(who, "empty")]
        address = self._addresses.address_of(identity, name, version)
        return Reply(Code.NOERROR, address or ""), [
            NameAsked(who, "address" if address else "empty")
        ]

    def _found(self, who: Who, raw: bytes, found: Refusal, now: float) -> list[Event]:
        """Return what to publish of a secret in a name: the name itself is in no record."""
        events: list[Event] = [NameAsked(who, "denied")]
        if self._findings.fresh(who.identity, raw.decode("latin-1"), now):
            events.insert(0, _denied(who, "", found))
        return events

    def _limited(self, who: Who, now: float) -> list[Event]:
        """Return what to publish of a name beyond the limit: a record once a minute."""
        events: list[Event] = [NameAsked(who, "limit")]
        if self._told.fresh(who.identity, "", now):
            events.insert(0, _denied(who, "", Refusal(Reason.LIMIT)))
        return events


def _denied(who: Who, name: str, refusal: Refusal) -> Decided:
    return Decided(
        who,
        0,
        Stage.NAME,
        Action.DENY,
        refusal.reason,
        authority=name,
        finding=refusal.finding,
    )
