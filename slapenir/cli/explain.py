"""``slapenir explain``: what would be decided about one request, and why."""

from __future__ import annotations

import sys

import click

from slapenir.cli.authority import FILE
from slapenir.cli.environment import proxy_url
from slapenir.cli.output import console
from slapenir.config.build import build_policy, build_wire_limits, static_hosts, surface_of
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.edge.resolver import is_local
from slapenir.errors import ConfigError, RemoteProtocolError
from slapenir.names import Action, Authority, Reason, Scheme, host_matches, parse_host_pattern
from slapenir.policy.addresses import decide_address
from slapenir.policy.decide import decide_connect, decide_request
from slapenir.policy.match import Policy, ReadyRule
from slapenir.policy.model import ConnectFacts, Decision, RequestFacts
from slapenir.wire.http1_request import parse_request_head
from slapenir.wire.target import AbsoluteTarget, checked_path, parse_absolute

DENIED = 1


@click.command()
@FILE
@click.option("--identity", required=True, help="Who asks: an identity of a listener or a rule.")
@click.argument("method")
@click.argument("url")
def explain(file: str, identity: str, method: str, url: str) -> None:
    """Print what would be decided about METHOD URL, by which rule, and what would be swapped.

    Nothing is resolved or sent and no secret is read.  Exits 0 for allow and 1 for deny.
    """
    settings = load(file)
    named = {name for rule in settings.rules for name in rule.identities}
    if identity not in settings.identities and (identity not in named or identity == "*"):
        known = ", ".join(settings.identities)
        raise ConfigError(
            f"nobody is called {identity!r}", "$.listener", f"known: {known}", settings.file
        )
    sys.exit(0 if _explain(settings, identity, method, url) else DENIED)


def _explain(settings: Settings, identity: str, method: str, url: str) -> bool:
    """Print the stages and return whether the request would be allowed."""
    out = console()
    try:
        target, path = _parse(settings, method, url)
    except RemoteProtocolError as error:
        out.print(f"request   deny         {error.reason} (answered {error.status})")
        return False
    policy = build_policy(settings)
    authority, tls = target.authority, target.scheme is Scheme.HTTPS
    if tls:
        connect = decide_connect(policy, ConnectFacts(identity, authority))
        out.print(_line("connect", connect))
        if connect.action is not Action.ALLOW:
            if connect.allowed:
                raw = connect.action is Action.TUNNEL
                kind = "raw TCP, scanned" if raw else "a blind tunnel, not read"
                out.print(f"          {kind}, and given no credential")
            _print_near_misses(policy, identity, target, method, path, connect)
            return _addresses(settings, policy, authority, connect)
    facts = RequestFacts(
        identity=identity,
        scheme=target.scheme,
        authority=authority,
        host=authority,
        method=method,
        path=path,
        tunnel=authority if tls else None,
        sni=authority.host if tls and not authority.is_ip else None,
    )
    decision = decide_request(policy, facts)
    out.print(_line("request", decision))
    _print_near_misses(policy, identity, target, method, path, decision)
    if decision.allowed:
        for line in _swaps(settings, decision, authority):
            out.print(f"swap      {line}")
    return _addresses(settings, policy, authority, decision)


def _parse(settings: Settings, method: str, url: str) -> tuple[AbsoluteTarget, str]:
    """Return the target and its path as the codec would; raises RemoteProtocolError as it does."""
    target = parse_absolute(url.encode("utf-8"))
    host = target.authority.header(target.scheme)
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method.encode("utf-8"), target.path, host)
    parse_request_head(head, build_wire_limits(settings.limits))
    return target, checked_path(target.path)


def _line(stage: str, decision: Decision) -> str:
    rule = f"rule {decision.rule}" if decision.rule else "no rule"
    return f"{stage:<9} {decision.action.value:<12} {rule} ({decision.reason.value})"


def _swaps(settings: Settings, decision: Decision, authority: Authority) -> list[str]:
    lines = []
    for credential in settings.credentials:
        if credential.id not in decision.credentials:
            continue
        patterns = [parse_host_pattern(host.encode("ascii")) for host in credential.hosts]
        if any(host_matches(pattern, authority.host) for pattern in patterns):
            places = ", ".join(surface_of(entry).label for entry in credential.inject)
            lines.append(f"{credential.id} in {places}")
        else:
            lines.append(f"nothing of {credential.id}: it is not for {authority.host}")
    return lines or ["nothing: the rule names no credential"]


def _addresses(
    settings: Settings, policy: Policy, authority: Authority, decision: Decision
) -> bool:
    """Print what is known about the addresses; return whether the request may get through."""
    if not decision.allowed:
        return False
    out = console()
    known = static_hosts(settings).get(authority.host, ())
    if authority.is_ip:
        known = (authority.host,)
    if not known:
        out.print("address   later        judged when the name is resolved")
        return True
    port = authority.port
    ours = port in _own_ports(settings)
    judged = [decide_address(policy.addresses, one, port, ours and is_local(one)) for one in known]
    for address, answer in zip(known, judged, strict=True):
        out.print(f"address   {answer.action.value:<12} {address} ({answer.reason.value})")
    return any(answer.allowed for answer in judged)


def _own_ports(settings: Settings) -> set[int]:
    """Return the TCP ports that the gateway listens on."""
    endpoints = [settings.gateway.admin, *(one.endpoint for one in settings.listeners)]
    return {int(url.rpartition(":")[2]) for url in map(proxy_url, endpoints) if url is not None}


def _print_near_misses(
    policy: Policy,
    identity: str,
    target: AbsoluteTarget,
    method: str,
    path: str,
    decision: Decision,
) -> None:
    """Say of each rule for the host why it says nothing here, when none says anything."""
    if decision.reason is not Reason.NO_RULE:
        return
    out = console()
    lines = 0
    for rule in policy.rules:
        if not any(host_matches(pattern, target.authority.host) for pattern in rule.hosts):
            continue
        ready = ReadyRule.of(rule)
        if identity not in rule.identities and "*" not in rule.identities:
            why = f"it is for {', '.join(rule.identities)}"
        elif rule.scheme is not target.scheme:
            why = f"it is for {rule.scheme.value}"
        elif target.authority.port not in rule.ports:
            why = f"it is for port {', '.join(map(str, rule.ports))}"
        elif ready.methods is not None and method not in ready.methods:
            why = f"it is for {', '.join(rule.methods)}"
        elif ready.pattern is not None and ready.pattern.fullmatch(path) is None:
            why = f"it is for {', '.join(rule.paths)}"
        else:
            why = f"it says {rule.action.value}, which no request is asked about"
        out.print(f"          rule {rule.id} says nothing: {why}")
        lines += 1
    if not lines:
        out.print(f"          no rule names {target.authority.host}")
