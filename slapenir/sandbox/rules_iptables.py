"""The rules as a shell script for iptables and ip6tables.

A script, because an input of iptables-restore alone cannot hook a chain into OUTPUT twice without
doubling it.  The chains are loaded with iptables-restore, each table in one step, before they are
hooked; the one that refuses is hooked first.
"""

from __future__ import annotations

from collections.abc import Iterator

from slapenir.sandbox.rules import (
    DNS,
    DNS_OVER_TLS,
    Site,
    Wiring,
    route_commands,
    route_removal,
)

_HOOK = """\
hook() {
    table=$1 chain=$2 ours=$3
    for tool in iptables ip6tables; do
        "$tool" -w -t "$table" -C "$chain" -j "$ours" 2>/dev/null ||
            "$tool" -w -t "$table" -I "$chain" 1 -j "$ours"
    done
}"""
_UNHOOK = """\
unhook() {
    table=$1 chain=$2 ours=$3
    for tool in iptables ip6tables; do
        while "$tool" -w -t "$table" -D "$chain" -j "$ours" 2>/dev/null; do :; done
    done
}
drop() {
    table=$1
    shift
    for tool in iptables ip6tables; do
        for ours in "$@"; do "$tool" -w -t "$table" -F "$ours" 2>/dev/null || :; done
        for ours in "$@"; do "$tool" -w -t "$table" -X "$ours" 2>/dev/null || :; done
    done
}"""
# Matches every packet of a process's socket: one without a process has no owner at all.
_ANYBODY = "0-4294967294"
_DNAT = "-m conntrack --ctstate DNAT"


def iptables_rules(wiring: Wiring) -> str:
    """Return a script that loads the rules, and replaces earlier ones of the same name."""
    loads = ("iptables", "ip6tables")
    lines = [
        "#!/bin/sh",
        *(f"# {line}" for line in wiring.title),
        "# Run it with sh, as often as you like.  Remove the rules with: slapenir rules iptables",
        "# with the same options and --remove.",
        "set -eu",
        "rules() {",
        "    cat <<'END'",
    ]
    for table, chains in _tables(wiring).items():
        lines += [f"*{table}", *(f":{chain} - [0:0]" for chain in chains)]
        lines += [_rule(chain, rule) for chain, rules in chains.items() for rule in rules]
        lines += ["COMMIT"]
    lines += ["END", "}", _HOOK]
    lines += [f"rules | {tool}-restore --wait --noflush" for tool in loads]
    if wiring.tproxy:
        lines += route_commands(wiring)
    lines += [f"hook {table} {chain} {ours}" for table, chain, ours in _hooks(wiring)]
    return "\n".join([*lines, ""])


def iptables_removal(wiring: Wiring) -> str:
    """Return a script that removes the rules, whether they are there or not."""
    lines = ["#!/bin/sh", "set -eu", _UNHOOK]
    lines += [f"unhook {table} {chain} {ours}" for table, chain, ours in _hooks(wiring)[::-1]]
    for table, chains in _tables(wiring).items():
        lines.append(f"drop {table} {' '.join(chains)}")
    if wiring.tproxy:
        lines += route_removal(wiring)
    return "\n".join([*lines, ""])


def _rule(chain: str, rule: str) -> str:
    """Return a line; one that starts with -4 or -6 is skipped by the tool of the other family."""
    if rule[:3] in ("-4 ", "-6 "):
        return f"{rule[:3]}-A {chain} {rule[3:]}"
    return f"-A {chain} {rule}"


def _name(wiring: Wiring, part: str) -> str:
    return f"{wiring.name.upper()}_{part}"


def _hooks(wiring: Wiring) -> list[tuple[str, str, str]]:
    """Return table, chain of the system and chain of ours, in the order of hooking."""
    local = wiring.site.is_local
    hooks = [("filter", "OUTPUT" if local else "INPUT", _name(wiring, "FILTER"))]
    if not local:
        hooks.append(("filter", "FORWARD", _name(wiring, "FORWARD")))
    if wiring.tproxy:
        if local:
            hooks.append(("mangle", "OUTPUT", _name(wiring, "MARK")))
        hooks.append(("mangle", "PREROUTING", _name(wiring, "DIVERT")))
    if not wiring.tproxy or wiring.dns_port is not None:
        hooks.append(("nat", "OUTPUT" if local else "PREROUTING", _name(wiring, "NAT")))
    return hooks


def _tables(wiring: Wiring) -> dict[str, dict[str, list[str]]]:
    """Return the chains of each table with their rules."""
    agents, refuse = _name(wiring, "AGENTS"), _name(wiring, "REFUSE")
    filters = {
        _name(wiring, "FILTER"): list(_filtering(wiring, agents, refuse)),
        agents: [*_accepted(wiring), f"-j {refuse}"],
        refuse: [
            "-p tcp -j REJECT --reject-with tcp-reset",
            "-4 -j REJECT --reject-with icmp-admin-prohibited",
            "-6 -j REJECT --reject-with icmp6-adm-prohibited",
        ],
    }
    if not wiring.site.is_local:
        filters[_name(wiring, "FORWARD")] = [
            f"-{way} {one} -j {refuse}" for one in wiring.interfaces for way in "io"
        ]
    tables = {"filter": filters}
    if wiring.tproxy:
        tables["mangle"] = _mangle(wiring)
    redirect = _redirect(wiring)
    if redirect:
        to = _name(wiring, "REDIRECT")
        tables["nat"] = {_name(wiring, "NAT"): list(_selecting(wiring, to)), to: redirect}
    return tables


def _selecting(wiring: Wiring, target: str) -> Iterator[str]:
    """Yield the rules that send what agents send, and nothing else, to a chain."""
    if wiring.site is Site.USER:
        for uid in wiring.uids:
            yield f"-m owner --uid-owner {uid} -j {target}"
    elif wiring.site is Site.POD:
        yield f"-m owner --uid-owner {wiring.gateway_uid} -j RETURN"
        yield f"-m owner --uid-owner {_ANYBODY} -j {target}"
    else:
        for interface in wiring.interfaces:
            yield f"-i {interface} -j {target}"


def _filtering(wiring: Wiring, agents: str, refuse: str) -> Iterator[str]:
    """Yield the rules of the chain that is hooked into the filter."""
    yield from _selecting(wiring, agents)
    if wiring.site is Site.POD:
        # What no process sent: the kernel's own part in connections that were judged, refusals, and
        # what IPv6 needs.  A process can let the kernel open a socket for it (AF_SMC): refused.
        yield "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
        yield from _neighbours("RETURN")
        yield f"-j {refuse}"


def _neighbours(target: str) -> Iterator[str]:
    for kind in ("neighbour-solicitation", "neighbour-advertisement"):
        yield f"-6 -p ipv6-icmp --icmpv6-type {kind} -j {target}"


def _accepted(wiring: Wiring) -> Iterator[str]:
    """Yield what the filter lets through: what was redirected, DNS, neighbour discovery."""
    places = ("-4 -d 127.0.0.1 ", "-6 -d ::1 ") if wiring.site.is_local else ("",)
    if wiring.tproxy:
        yield f"-p tcp -m mark --mark {wiring.mark:#x} -j ACCEPT"
    else:
        for place in places:
            yield f"{place}-p tcp --dport {wiring.port} {_DNAT} -j ACCEPT"
    if wiring.dns_port is not None:
        for place in places:
            for protocol in ("tcp", "udp"):
                yield f"{place}-p {protocol} --dport {wiring.dns_port} -j ACCEPT"
    if not wiring.site.is_local:
        yield from _neighbours("ACCEPT")


def _left_alone(wiring: Wiring, dns: bool) -> list[str]:
    """Return what is not brought to the listener; ``dns`` says that port 53 is among it."""
    own = f"-p tcp --dport {wiring.port} -m addrtype --dst-type LOCAL"
    ports = [DNS, DNS_OVER_TLS] if dns else [DNS_OVER_TLS]
    return [
        f'{own} -m comment --comment "not dialled itself" -j RETURN',
        *(f"-p tcp --dport {port} -j RETURN" for port in ports),
    ]


def _redirect(wiring: Wiring) -> list[str]:
    rules = [] if wiring.tproxy else _left_alone(wiring, dns=False)
    if wiring.dns_port is not None:
        for protocol in ("tcp", "udp"):
            to = f"-j REDIRECT --to-ports {wiring.dns_port}"
            rules.append(f"-p {protocol} --dport {DNS} {to}")
    if not wiring.tproxy:
        rules.append(f"-p tcp -j REDIRECT --to-ports {wiring.port}")
    return rules


def _mangle(wiring: Wiring) -> dict[str, list[str]]:
    mark = f"{wiring.mark:#x}"
    divert, alone = _name(wiring, "DIVERT"), _left_alone(wiring, wiring.dns_port is not None)
    tproxy = f"-p tcp -j TPROXY --on-port {wiring.port} --tproxy-mark {mark}"
    if wiring.site.is_local:
        marking, marked = _name(wiring, "MARK"), _name(wiring, "MARKED")
        return {
            marking: list(_selecting(wiring, marked)),
            marked: ["-j MARK --set-mark 0x0", *alone, f"-p tcp -j MARK --set-mark {mark}"],
            divert: [f"-i lo -m mark --mark {mark} {tproxy}"],
        }
    diverted = _name(wiring, "DIVERTED")
    return {
        divert: list(_selecting(wiring, diverted)),
        diverted: [*alone, tproxy],
    }
