"""Who is it?  From evidence to exactly one configured identity, or a refusal.

Every part of the evidence that a listener asks for is looked up by exact match.  All parts that
name somebody must name the same one: a certificate of one agent with the token of another is
nobody.  A certificate speaks by its SPIFFE name where it has one, else by its DNS names, else by
its common name; a name of a later kind never stands in for one that does not match.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import attrs

from slapenir.evidence import CertificateNames, Evidence
from slapenir.names import Reason

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAX_NAME = 2048


@attrs.frozen(slots=True)
class Marks:
    """What makes a client one identity: any one of these; all exact but the networks."""

    identity: str
    spiffe: frozenset[str] = frozenset()
    dns: frozenset[str] = frozenset()
    common: frozenset[str] = frozenset()
    sources: tuple[Network, ...] = ()
    uids: frozenset[int] = frozenset()
    tokens: frozenset[str] = frozenset()


@attrs.frozen(slots=True)
class Identified:
    """An identity, or why there is none; ``name`` is empty then."""

    name: str
    reason: Reason = Reason.RULE


_NOBODY = Identified("", Reason.IDENTITY_UNKNOWN)
_AMBIGUOUS = Identified("", Reason.IDENTITY_AMBIGUOUS)


class IdentityTable:
    """Every configured identity by each of its marks; immutable."""

    def __init__(self, marks: Sequence[Marks]) -> None:
        self.names = tuple(one.identity for one in marks)
        self._spiffe = _index((one.identity, one.spiffe) for one in marks)
        self._dns = _index((one.identity, one.dns) for one in marks)
        self._common = _index((one.identity, one.common) for one in marks)
        self._tokens = _index((one.identity, one.tokens) for one in marks)
        self._uids: dict[int, set[str]] = {}
        for one in marks:
            for uid in one.uids:
                self._uids.setdefault(uid, set()).add(one.identity)
        self._sources = [(network, one.identity) for one in marks for network in one.sources]

    def identify(self, evidence: Evidence) -> Identified:
        """Return the one identity that the evidence names; total.

        IDENTITY_UNKNOWN when it names nobody, IDENTITY_AMBIGUOUS when it names more than one.
        A certificate or a token that matches nobody is a refusal, whatever else is known.
        """
        found: set[str] = set()
        if evidence.certificate is not None:
            named = self._by_certificate(evidence.certificate)
            if not named:
                return _NOBODY
            found |= named
        if evidence.token:
            named = self._tokens.get(evidence.token, frozenset())
            if not named:
                return _NOBODY
            found |= named
        if evidence.source:
            found |= self._by_source(evidence.source)
        if evidence.unix_uid is not None:
            found |= self._uids.get(evidence.unix_uid, set())
        if len(found) == 1:
            return Identified(found.pop())
        return _AMBIGUOUS if found else _NOBODY

    def _by_certificate(self, names: CertificateNames) -> frozenset[str] | set[str]:
        if names.spiffe:  # one URI name, as the SPIFFE X.509-SVID standard wants it (2)
            return self._spiffe.get(_only(names.spiffe), frozenset())
        if names.dns:
            every: set[str] = set()
            for name in names.dns:
                every |= self._dns.get(name, frozenset())
            return every
        return self._common.get(_only(names.common), frozenset())

    def _by_source(self, source: str) -> set[str]:
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return set()
        if isinstance(address, ipaddress.IPv6Address):
            if address.scope_id is not None:
                address = ipaddress.IPv6Address(int(address))
            address = address.ipv4_mapped or address
        return {identity for network, identity in self._sources if address in network}


def _only(names: tuple[str, ...]) -> str:
    """Return the one name; nothing where there is none, more than one, or one of any length."""
    return names[0] if len(names) == 1 and len(names[0]) <= _MAX_NAME else ""


def _index(pairs: Iterable[tuple[str, frozenset[str]]]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for identity, values in pairs:
        for value in values:
            if value:
                found[value] = found.get(value, frozenset()) | {identity}
    return found
