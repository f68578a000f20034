"""What a [[rule]] must hold, and what it must not say together with a [[credential]]."""

from __future__ import annotations

import re

from slapenir.config.findings import Findings, overlap
from slapenir.config.settings import RuleSettings, Settings
from slapenir.errors import AuthorityError
from slapenir.names import Action, Scheme, parse_host_pattern

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]{1,32}", re.ASCII)
_PATH = re.compile(r"[/*][!-~]*", re.ASCII)
_NEVER_ALLOWED = frozenset({"CONNECT", "TRACE", "TRACK"})


def check_rules(settings: Settings, findings: Findings) -> None:
    """Note every problem of every rule."""
    credentials = {
        credential.id: _canonical(credential.hosts) for credential in settings.credentials
    }
    for index, rule in enumerate(settings.rules):
        path = f"$.rule[{index}]"
        for place, identity in enumerate(rule.identities):
            if identity != "*":
                findings.name(f"{path}.identities[{place}]", identity)
        for place, group in enumerate(rule.groups):
            check_group(f"{path}.groups[{place}]", group, settings, findings)
        if not rule.identities and not rule.groups:
            findings.add(f"{path}.identities", "is missing", "say for whom: identities or groups")
        hosts = [
            (place, pattern)
            for place, value in enumerate(rule.hosts)
            if (pattern := findings.host(f"{path}.hosts[{place}]", value)) is not None
        ]
        for place, port in enumerate(rule.ports or ()):
            if not 1 <= port <= 65535:
                findings.add(f"{path}.ports[{place}]", "is not a port", "write 1 to 65535")
        _check_methods(path, rule, findings)
        _check_paths(path, rule, findings)
        if rule.action is Action.PASSTHROUGH:
            _check_passthrough(path, rule, hosts, credentials, findings)
        elif rule.action is Action.TUNNEL:
            _check_tunnel(path, rule, hosts, credentials, findings)
        _check_rule_credentials(path, rule, hosts, credentials, findings)


def check_group(path: str, group: str, settings: Settings, findings: Findings) -> None:
    """Note a group that no identity is in: a word that is written wrong allows nobody."""
    if not any(group in agent.groups for agent in settings.agents):
        findings.add(path, f"no identity is in a group {group!r}", "check the name")


def _canonical(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns that can be parsed; the others are noted where they stand."""
    found = []
    for host in hosts:
        try:
            found.append(parse_host_pattern(host.encode("utf-8")))
        except AuthorityError:
            continue
    return tuple(found)


def _check_methods(path: str, rule: RuleSettings, findings: Findings) -> None:
    for place, method in enumerate(rule.methods or ()):
        where = f"{path}.methods[{place}]"
        if _METHOD.fullmatch(method) is None:
            findings.add(where, "is not a method", "methods are upper case, such as GET")
        elif method in _NEVER_ALLOWED and rule.action is not Action.DENY:
            findings.add(where, "is refused whatever a rule says", "remove it")


def _check_paths(path: str, rule: RuleSettings, findings: Findings) -> None:
    for place, glob in enumerate(rule.paths or ()):
        where = f"{path}.paths[{place}]"
        if _PATH.fullmatch(glob) is None:
            findings.add(where, "is not a path", "begin with / or *, in visible ASCII")
        elif "?" in glob or "#" in glob:
            findings.add(where, "has a query or a fragment", "a path ends before the ?")
        elif any(segment in (".", "..") for segment in glob.split("/")):
            findings.add(where, "has a dot segment, which no request may have", "write it out")


def _check_passthrough(
    path: str,
    rule: RuleSettings,
    hosts: list[tuple[int, str]],
    credentials: dict[str, tuple[str, ...]],
    findings: Findings,
) -> None:
    """Note what a blind tunnel cannot hold, and hosts that a credential is for (T117)."""
    if rule.methods is not None or rule.paths is not None:
        key = "methods" if rule.methods is not None else "paths"
        findings.add(f"{path}.{key}", "cannot be seen in a passthrough", "remove it")
    if rule.scheme is not Scheme.HTTPS:
        findings.add(f"{path}.scheme", "a passthrough is for https only", "remove it")
    _check_uninspected(path, hosts, credentials, findings)


def _check_tunnel(
    path: str,
    rule: RuleSettings,
    hosts: list[tuple[int, str]],
    credentials: dict[str, tuple[str, ...]],
    findings: Findings,
) -> None:
    """Note what raw TCP does not have; on the port of https it would be a passthrough."""
    for key in ("methods", "paths"):
        if getattr(rule, key) is not None:
            findings.add(f"{path}.{key}", "cannot be seen in raw TCP", "remove it")
    if rule.scheme is not Scheme.HTTPS:  # the default: raw TCP has no scheme
        findings.add(f"{path}.scheme", "raw TCP has none", "remove it")
    if not rule.ports:
        findings.add(f"{path}.ports", "is missing", "name the ports of the tunnel, such as [22]")
    elif Scheme.HTTPS.port in rule.ports:
        _check_uninspected(path, hosts, credentials, findings)


def _check_uninspected(
    path: str,
    hosts: list[tuple[int, str]],
    credentials: dict[str, tuple[str, ...]],
    findings: Findings,
) -> None:
    """Note hosts that a credential is for, where nothing could put it in (T117)."""
    for place, pattern in hosts:
        for name, patterns in credentials.items():
            if any(overlap(pattern, other) for other in patterns):
                findings.add(
                    f"{path}.hosts[{place}]",
                    f"is passed through uninspected, and credential {name} is for it",
                    "intercept this host, or take it out of the credential's hosts",
                )


def _check_rule_credentials(
    path: str,
    rule: RuleSettings,
    hosts: list[tuple[int, str]],
    credentials: dict[str, tuple[str, ...]],
    findings: Findings,
) -> None:
    if rule.credentials is None:
        return
    where = f"{path}.credentials"
    if rule.action is not Action.ALLOW:
        findings.add(where, f"a rule that says {rule.action.value} carries none", "remove it")
    if rule.scheme is Scheme.HTTP:
        findings.add(where, "plain http never carries a credential", "remove it, or use https")
    for place, name in enumerate(rule.credentials):
        patterns = credentials.get(name)
        if patterns is None:
            findings.add(f"{where}[{place}]", f"there is no credential {name!r}", "check its id")
        elif name in rule.credentials[:place]:
            findings.add(f"{where}[{place}]", "is there twice", "remove one")
        elif patterns and hosts and not any(overlap(h, p) for _, h in hosts for p in patterns):
            findings.add(
                f"{where}[{place}]",
                f"no host of this rule is among the hosts of {name}: it would never be used",
                "add the host to the credential, or remove the credential here",
            )
