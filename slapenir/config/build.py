"""From checked settings to the values that the gateway works with: pure, no file is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from slapenir.config.identity_checks import parse_network
from slapenir.config.limits import Limits
from slapenir.config.settings import (
    CredentialSettings,
    IdentitySettings,
    Inject,
    RuleSettings,
    Settings,
)
from slapenir.credentials.model import (
    BasicSurface,
    BodySurface,
    Credential,
    HeaderSurface,
    QuerySurface,
    Surface,
    check_surface,
)
from slapenir.credentials.placeholders import mint
from slapenir.names import (
    Action,
    Authority,
    canonical_host,
    parse_authority,
    parse_host_pattern,
)
from slapenir.policy.addresses import parse_allow_private
from slapenir.policy.identities import IdentityTable, Marks
from slapenir.policy.match import Policy
from slapenir.policy.model import Rule
from slapenir.wire.limits import WireLimits

_NOT_IN_VARIABLE = re.compile(r"[^A-Z0-9_]", re.ASCII)


def build_policy(settings: Settings) -> Policy:
    """Return the policy of checked settings; raises nothing for what load() returned."""
    rules = tuple(_rule(settings, rule) for rule in settings.rules)
    return Policy(rules, parse_allow_private(settings.resolver.allow_private))


def build_identities(settings: Settings) -> IdentityTable:
    """Return who is who by what they show; raises nothing for what load() returned."""
    return IdentityTable([_marks(agent) for agent in settings.agents])


def _marks(agent: IdentitySettings) -> Marks:
    match = agent.match
    return Marks(
        identity=agent.name,
        spiffe=frozenset(one.spiffe for one in match if one.spiffe is not None),
        dns=frozenset(one.dns for one in match if one.dns is not None),
        common=frozenset(one.cn for one in match if one.cn is not None),
        sources=tuple(parse_network(one.source) for one in match if one.source is not None),
        uids=frozenset(one.unix_uid for one in match if one.unix_uid is not None),
        tokens=frozenset(one.token for one in match if one.token is not None),
    )


def members(
    settings: Settings, identities: tuple[str, ...], groups: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the identities that are meant by names and by groups, each once."""
    meant = [one.name for one in settings.agents if set(one.groups) & set(groups)]
    return tuple(dict.fromkeys((*identities, *meant)))


def _rule(settings: Settings, rule: RuleSettings) -> Rule:
    return Rule(
        id=rule.id,
        identities=members(settings, rule.identities, rule.groups),
        hosts=tuple(parse_host_pattern(host.encode("ascii")) for host in rule.hosts),
        scheme=rule.scheme,
        ports=rule.ports or (rule.scheme.port,),
        methods=rule.methods or (),
        paths=rule.paths or (),
        credentials=rule.credentials or (),
        action=rule.action,
    )


def build_wire_limits(limits: Limits) -> WireLimits:
    """Return the bounds of the HTTP/1 codec."""
    return WireLimits(
        head_bytes=limits.head_bytes,
        header_count=limits.header_count,
        target_bytes=limits.target_bytes,
        trailer_bytes=limits.trailer_bytes,
        trailer_count=limits.trailer_count,
        chunk_overhead=limits.chunk_overhead_bytes,
        pipelined=limits.pipelined,
        informational=limits.informational,
        early_bytes=limits.early_bytes,
    )


def resolver_servers(settings: Settings) -> tuple[Authority, ...]:
    """Return the DNS servers to ask; empty for the system's."""
    return tuple(parse_authority(s.encode("ascii"), 53) for s in settings.resolver.servers)


def static_hosts(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the static answers by canonical host."""
    return {
        canonical_host(name.encode("ascii")): addresses
        for name, addresses in settings.resolver.hosts.items()
    }


def surface_of(entry: Inject) -> Surface:
    """Return the surface that one entry of ``inject`` describes; raises ValueError."""
    kinds = [key for key in ("header", "basic", "query", "body") if getattr(entry, key) is not None]
    if len(kinds) != 1:
        raise ValueError("write exactly one of header, basic, query and body")
    if kinds != ["header"] and (entry.scheme is not None or entry.when is not None):
        raise ValueError("scheme and when belong to a header")
    surface: Surface
    if entry.header is not None:
        scheme = None if entry.scheme is None else _ascii(entry.scheme)
        if entry.when not in (None, "present", "always"):
            raise ValueError("when is either present or always")
        when: Literal["present", "always"] = "always" if entry.when == "always" else "present"
        surface = HeaderSurface(_ascii(entry.header).lower(), scheme, when)
    elif entry.basic is not None:
        if entry.basic not in ("username", "password"):
            raise ValueError("basic is either username or password")
        surface = BasicSurface("username" if entry.basic == "username" else "password")
    elif entry.query is not None:
        surface = QuerySurface(entry.query.encode("utf-8"))
    elif entry.body is not True:
        raise ValueError("body = false says nothing; leave it out")
    else:
        surface = BodySurface()
    check_surface(surface)
    return surface


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("header and scheme are ASCII") from None


def may_use(settings: Settings, identity: str, credential: str) -> bool:
    """Whether some rule, and the credential itself, let an identity use a credential."""
    narrowed = any(
        one.id == credential and not is_for(settings, one, identity) for one in settings.credentials
    )
    return not narrowed and any(
        rule.action is Action.ALLOW
        and credential in (rule.credentials or ())
        and {identity, "*"} & set(members(settings, rule.identities, rule.groups))
        for rule in settings.rules
    )


def is_for(settings: Settings, credential: CredentialSettings, identity: str) -> bool:
    """Whether a credential's own identities and groups have an identity among them."""
    users = users_of(settings, credential)
    return users is None or identity in users


def users_of(settings: Settings, credential: CredentialSettings) -> frozenset[str] | None:
    """Return the identities that a credential is narrowed to; None when it is not."""
    named, groups = credential.identities, credential.groups
    if (named is None and groups is None) or "*" in (named or ()):
        return None
    return frozenset(members(settings, named or (), groups or ()))


def variable_of(credential: CredentialSettings) -> str:
    """Return the environment variable in which an agent expects this credential.

    What ``variable`` says; else the name in an ``env:`` source; else the id, as ``MY_ID_API_KEY``.
    """
    if credential.variable is not None:
        return credential.variable
    kind, _, name = credential.source.partition(":")
    if kind == "env":
        return name
    stem = _NOT_IN_VARIABLE.sub("_", credential.id.upper())
    return ("_" if stem[:1].isdigit() else "") + stem + "_API_KEY"


def placeholder_for(key: bytes, credential: Credential, identity: str) -> bytes:
    """Return what an identity holds instead of a credential; ``key`` is the gateway's key."""
    if credential.placeholder is not None:
        return credential.placeholder
    return mint(key, credential.secret.reveal(), identity, credential.id)


def placeholders_by_identity(
    key: bytes, credentials: Iterable[Credential], identities: Iterable[str]
) -> Mapping[str, Mapping[str, bytes]]:
    """Return ``[identity][credential id]``: every identity's placeholder of every credential."""
    held = tuple(credentials)
    return {
        identity: {one.id: placeholder_for(key, one, identity) for one in held}
        for identity in identities
    }
