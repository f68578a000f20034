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
from slapenir.exchange.budget import NameBudget
from slapenir.exchange.outbound import Refusal, scan_head
from slapenir.exchange.synthetic import SyntheticAddresses
from slapenir.exchange.terms import Terms
from slapenir.names import Action, Reason, Stage, canonical_host, is_ipv4
from slapenir.wire.question import AAAA, IN, A, Question

SECONDS = 30
"""How long an answer is good for; the same question gets the same answer again."""

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
    no rule names outright.  A denied name is recorded once a minute.
    """

    def __init__(
        self, terms: Callable[[], Terms], addresses: SyntheticAddresses, limit: int
    ) -> None:
        self._terms = terms
        self._addresses = addresses
        self._budget = NameBudget(limit)

    def ask(self, who: Who, question: Question, now: float) -> tuple[Reply, list[Event]]:
        """Return the answer and what to publish before it is sent; ``now`` in seconds."""
        if question.kind_class != IN:
            return Reply(Code.REFUSED), [NameAsked(who, "refused")]
        try:
            name = canonical_host(question.name)
        except AuthorityError:
            return Reply(Code.NXDOMAIN), [NameAsked(who, "malformed")]
        if ":" in name or is_ipv4(name):
            return Reply(Code.NXDOMAIN), [NameAsked(who, "malformed")]
        terms, identity = self._terms(), who.identity
        # With and without its dots: labels may be pieces of a secret (T039).
        raw = question.name
        found = scan_head(terms, b"%s\r\n%s\r\n" % (raw, raw.replace(b".", b"")))
        known = self._budget.knows(identity, name, now)
        wanted = terms.policy.names(identity, name)
        free = wanted.exact and found is None
        if not free and not self._budget.take(identity, name, now):
            return Reply(Code.REFUSED), [NameAsked(who, "limit")]
        if found is not None or not wanted.allowed:
            refusal = found or Refusal(Reason.NO_RULE)
            events = self._denied(who, "" if found else name, refusal)
            return Reply(Code.NXDOMAIN), events[1:] if known else events
        version = _VERSIONS.get(question.kind)
        if version is None:  # also HTTPS and SVCB: nothing may lead a client to QUIC or ECH (T042)
            return Reply(Code.NOERROR), [NameAsked(who, "empty")]
        address = self._addresses.address_of(identity, name, version)
        return Reply(Code.NOERROR, address or ""), [
            NameAsked(who, "address" if address else "empty")
        ]

    def _denied(self, who: Who, name: str, refusal: Refusal) -> list[Event]:
        decided = Decided(
            who,
            0,
            Stage.NAME,
            Action.DENY,
            refusal.reason,
            authority=name,
            finding=refusal.finding,
        )
        return [decided, NameAsked(who, "denied")]
