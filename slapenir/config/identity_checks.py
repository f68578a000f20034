"""What [[identity]] must hold, and how the listeners' clients are known."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TypeAlias

from slapenir.config.findings import Findings
from slapenir.config.settings import IdentitySettings, Listener, Match, Settings
from slapenir.errors import AuthorityError
from slapenir.names import canonical_host, is_ipv4

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
WAYS = ("certificate", "source", "unix_uid", "token")
# What an identity's match can say for each way; the others are called alike.
KINDS_OF = {"certificate": ("spiffe", "dns", "cn")}
KINDS = ("spiffe", "dns", "cn", "source", "unix_uid", "token")
# The SPIFFE ID standard, 2: a trust domain of its own alphabet, and segments of theirs.
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+", re.ASCII)
_TOKEN = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TOKEN_REMEDY = "write sha256: and 64 hex digits; slapenir token makes one"  # noqa: S105
_UIDS = 1 << 32


def check_identities(settings: Settings, findings: Findings) -> None:
    """Note every problem of every identity, and of how listeners tell who a client is."""
    seen: dict[tuple[str, object], str] = {}
    networks: list[tuple[Network, str]] = []
    for index, agent in enumerate(settings.agents):
        path = f"$.identity[{index}]"
        if agent.name in {one.name for one in settings.agents[:index]}:
            findings.add(f"{path}.name", "is the name of an earlier identity", "choose another")
        findings.name(f"{path}.name", agent.name)
        for place, group in enumerate(agent.groups):
            findings.name(f"{path}.groups[{place}]", group)
        for place, match in enumerate(agent.match):
            where = f"{path}.match[{place}]"
            kind, value = _checked_match(where, match, findings)
            if kind == "source":
                _check_overlap(where, str(value), agent, networks, findings)
            elif kind and seen.setdefault((kind, value), agent.name) != agent.name:
                findings.add(
                    f"{where}.{kind}",
                    f"is that of {seen[kind, value]} too: it would be nobody's",
                    "give each identity its own",
                )
    for index, listener in enumerate(settings.listeners):
        _check_ways(f"$.listener[{index}]", listener, settings, findings)


def ways_of(listener: Listener) -> tuple[str, ...]:
    """Return how clients of a listener show who they are; a certificate where TLS asks for one."""
    if listener.identity:
        return ()
    if listener.identify is not None:
        return listener.identify
    asked = listener.tls is not None and listener.tls.client_auth != "none"
    return ("certificate",) if asked else ()


def parse_network(text: str) -> Network:
    """Return a network written with its prefix; raises ValueError saying what to write (T235)."""
    base, slash, prefix = text.partition("/")
    try:
        address = ipaddress.ip_address(base)
    except ValueError:
        raise ValueError("does not start with an IP address") from None
    most = address.max_prefixlen
    if not slash or not (prefix.isascii() and prefix.isdigit()) or int(prefix[:4]) > most:
        raise ValueError(f"needs a prefix length: write {base}/{most} for one address")
    network = ipaddress.ip_network(f"{base}/{int(prefix)}", strict=False)
    if network.network_address != address:
        raise ValueError(f"has host bits set; write {network}")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError("is an IPv4 network; write it as one")
    return network


def _checked_match(where: str, match: Match, findings: Findings) -> tuple[str, object]:
    """Return the kind and the value of one entry; an empty kind when it was noted."""
    given = [kind for kind in KINDS if getattr(match, kind) is not None]
    if len(given) != 1:
        findings.add(where, "has to have one key", f"write exactly one of {', '.join(KINDS)}")
        return "", None
    kind = given[0]
    value = getattr(match, kind)
    problem, remedy = _problem(kind, value)
    if problem:
        findings.add(f"{where}.{kind}", problem, remedy)
        return "", None
    return kind, value


def _problem(kind: str, value: str | int) -> tuple[str, str]:
    """Return what is wrong with a value and what to write; empty when nothing is."""
    if isinstance(value, int):
        good = 0 <= value < _UIDS - 1
        return ("", "") if good else ("is not a user id", "write a number, as id -u prints it")
    if kind == "spiffe" and (_SPIFFE.fullmatch(value) is None or _climbs(value)):
        return "is not a SPIFFE ID", "write spiffe://trust-domain/path"
    if kind == "cn" and not (1 <= len(value) <= 64 and value.isprintable()):
        return "is not a common name", "write 1 to 64 printable characters"
    if kind == "token" and _TOKEN.fullmatch(value) is None:
        return "is not the digest of a token", _TOKEN_REMEDY
    if kind == "source":
        try:
            parse_network(value)
        except ValueError as error:
            return str(error), ""
    if kind == "dns":
        return _dns_problem(value)
    return "", ""


def _climbs(spiffe: str) -> bool:
    return any(segment in (".", "..") for segment in spiffe.split("/")) or len(spiffe) > 2048


def _dns_problem(value: str) -> tuple[str, str]:
    try:
        host = canonical_host(value.encode("utf-8"))
    except AuthorityError as error:
        return str(error), "write one DNS name, without a wildcard"
    if is_ipv4(host) or ":" in host:
        return "is an IP address", "write a DNS name, or source for an address"
    return ("", "") if host == value else ("is not in its canonical form", f"write {host}")


def _check_overlap(
    where: str,
    text: str,
    agent: IdentitySettings,
    networks: list[tuple[Network, str]],
    findings: Findings,
) -> None:
    network = parse_network(text)
    for known, name in networks:
        if name != agent.name and known.version == network.version and known.overlaps(network):
            findings.add(
                f"{where}.source",
                f"overlaps {known} of {name}: a client there would be nobody",
                "give each identity its own addresses",
            )
    networks.append((network, agent.name))


def _check_ways(path: str, listener: Listener, settings: Settings, findings: Findings) -> None:
    """Note what keeps the clients of a listener from being anybody."""
    if listener.identity and listener.identify is not None:
        findings.add(
            f"{path}.identify", "and identity are there: every client is one", "remove one of them"
        )
        return
    ways = ways_of(listener)
    if not listener.identity and not ways:
        findings.add(
            path,
            "does not say who its clients are",
            f"write identity, or identify with some of {', '.join(WAYS)}",
        )
    unix = listener.endpoint.partition(":")[0] == "unix"
    for place, way in enumerate(ways):
        where = f"{path}.identify[{place}]"
        if way not in WAYS:
            findings.add(where, "is not a way", f"write some of {', '.join(WAYS)}")
        elif way in ways[:place]:
            findings.add(where, "is there twice", "remove one")
        elif way == "certificate" and (listener.tls is None or listener.tls.client_auth == "none"):
            findings.add(where, "needs tls that asks for certificates", "set tls.client_auth")
        elif way == "unix_uid" and not unix:
            findings.add(where, "needs a unix: endpoint", "remove it, or use unix:PATH")
        elif way == "source" and unix:
            findings.add(where, "says nothing on a unix: endpoint", "remove it")


def identity_notes(settings: Settings) -> Iterator[str]:
    """Yield what is allowed and yet worth a second look, one sentence each."""
    for agent in settings.agents:
        if not agent.match and agent.name not in {one.identity for one in settings.listeners}:
            yield f"identity {agent.name} has no match: no client can be it"
    for listener in settings.listeners:
        for way in ways_of(listener):
            wanted = KINDS_OF.get(way, (way,))
            if not any(
                getattr(match, kind, None) is not None
                for agent in settings.agents
                for match in agent.match
                for kind in wanted
            ):
                yield f"listener {listener.name}: no identity has a match by {way}"
        if "token" in ways_of(listener) and listener.tls is None:
            yield f"listener {listener.name}: tokens are sent in clear text"
        tls = listener.tls
        if tls and not tls.managed and tls.client_auth != "none" and not tls.crl:
            yield f"listener {listener.name} has no crl: a stolen certificate works until it ends"
