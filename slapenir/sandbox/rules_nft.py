"""The rules as a ruleset for nft."""

from __future__ import annotations

from collections.abc import Iterable

from slapenir.sandbox.rules import (
    DNS,
    DNS_OVER_TLS,
    Site,
    Wiring,
    route_commands,
    route_removal,
)

# One before the usual place of NAT, so that no other table (Docker's) sends agents elsewhere.
_NAT_PRIORITY = -101
_REFUSE = (
    "meta l4proto tcp counter reject with tcp reset",
    "counter reject with icmpx admin-prohibited",
)
_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"


def nft_rules(wiring: Wiring) -> str:
    """Return a ruleset that replaces an earlier one of the same name in one transaction."""
    lines = [f"# {line}" for line in wiring.title]
    lines += [
        "# Load with: nft -f FILE, as often as you like; it replaces itself in one step.",
        f"# Remove with: nft delete table inet {wiring.name}",
    ]
    if wiring.tproxy:
        lines += ["# TPROXY also needs:", *(f"#   {line}" for line in route_commands(wiring))]
    lines += [*_begin(wiring), f"table inet {wiring.name} {{"]
    for block in _local(wiring) if wiring.site.is_local else _behind(wiring):
        lines += [f"    {line}" for line in block]
    return "\n".join([*lines, "}", ""])


def nft_removal(wiring: Wiring) -> str:
    """Return a ruleset that removes the table, whether it is there or not."""
    lines = list(_begin(wiring))
    if wiring.tproxy:
        lines += ["# TPROXY's routes go with:", *(f"#   {one}" for one in route_removal(wiring))]
    return "\n".join([*lines, ""])


def _begin(wiring: Wiring) -> tuple[str, str]:
    return (f"table inet {wiring.name}", f"delete table inet {wiring.name}")


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    head = [f"    type {hook}", "    policy accept"] if hook else []
    return [f"chain {name} {{", *head, *(f"    {rule}" for rule in rules), "}"]


def _set(kind: str, elements: Iterable[str]) -> list[str]:
    intervals = ["    flags interval", "    auto-merge"] if kind == "uid" else []
    listed = ", ".join(elements)
    return [f"set agents {{ type {kind}", *intervals, f"    elements = {{ {listed} }}", "}"]


def _local(wiring: Wiring) -> Iterable[list[str]]:
    """Yield the chains where agents and gateway share a network namespace."""
    user = wiring.site is Site.USER
    agents = "meta skuid @agents" if user else f"meta skuid != {wiring.gateway_uid}"
    if user:
        yield _set("uid", wiring.uids)
    if _needs_nat(wiring):
        hook = f"nat hook output priority {_NAT_PRIORITY}"
        yield _chain("on_nat", hook, [f"{agents} jump agents_redirect"])
        yield _chain("agents_redirect", "", _redirect(wiring))
    if wiring.tproxy:
        marked = f'iifname "lo" meta mark {wiring.mark:#x}'
        yield _chain(
            "on_route", "route hook output priority mangle", [f"{agents} jump agents_mark"]
        )
        yield _chain("agents_mark", "", _mark(wiring))
        yield _chain(
            "on_prerouting", "filter hook prerouting priority mangle", _tproxy(wiring, marked)
        )
        accepted = [f"meta l4proto tcp meta mark {wiring.mark:#x} counter accept"]
    else:
        accepted = [
            f"ct status dnat ip daddr 127.0.0.1 tcp dport {wiring.port} counter accept",
            f"ct status dnat ip6 daddr ::1 tcp dport {wiring.port} counter accept",
        ]
    for loopback in ("ip daddr 127.0.0.1", "ip6 daddr ::1"):
        accepted += [f"{loopback} {rule}" for rule in _dns(wiring)]
    yield _chain("agents_refuse", "", _REFUSE)
    yield _chain("agents", "", [*accepted, "jump agents_refuse"])
    rules = [f"{agents} jump agents"]
    if not user:
        # Let out are the gateway, and what no process sent: the kernel's own part in connections
        # that were judged, refusals, and what IPv6 needs.  A process can let the kernel open a
        # socket for it (AF_SMC): refused.
        rules += [f"meta skuid {wiring.gateway_uid} accept", "ct state established,related accept"]
        rules += [_NEIGHBOURS, "jump agents_refuse"]
    yield _chain("on_output", "filter hook output priority filter", rules)


def _behind(wiring: Wiring) -> Iterable[list[str]]:
    """Yield the chains where agents are behind an interface of the gateway's host."""
    yield _set("ifname", (f'"{name}"' for name in wiring.interfaces))
    agents = "iifname @agents"
    if _needs_nat(wiring):
        hook = f"nat hook prerouting priority {_NAT_PRIORITY}"
        yield _chain("on_nat", hook, [f"{agents} jump agents_redirect"])
        yield _chain("agents_redirect", "", _redirect(wiring))
    if wiring.tproxy:
        hook = "filter hook prerouting priority mangle"
        yield _chain("on_prerouting", hook, [f"{agents} jump agents_divert"])
        rules = [*_left_alone(wiring), *_tproxy(wiring, "", f" meta mark set {wiring.mark:#x}")]
        yield _chain("agents_divert", "", rules)
        accepted = [f"meta l4proto tcp meta mark {wiring.mark:#x} counter accept"]
    else:
        accepted = [f"ct status dnat tcp dport {wiring.port} counter accept"]
    accepted += [*_dns(wiring), _NEIGHBOURS]
    yield _chain("agents_refuse", "", _REFUSE)
    yield _chain("on_input", "filter hook input priority filter", [f"{agents} jump agents"])
    yield _chain("agents", "", [*accepted, "jump agents_refuse"])
    both = [f"{agents} jump agents_refuse", "oifname @agents jump agents_refuse"]
    yield _chain("on_forward", "filter hook forward priority filter", both)


def _needs_nat(wiring: Wiring) -> bool:
    return not wiring.tproxy or wiring.dns_port is not None


def _left_alone(wiring: Wiring) -> list[str]:
    """Return what is not brought to the listener, and so is refused or is DNS.

    A dial of the listener's own port has to be among it: it would arrive as if it were redirected.
    """
    ports = f"{{ {DNS}, {DNS_OVER_TLS} }}" if _dns_elsewhere(wiring) else str(DNS_OVER_TLS)
    return [
        f'fib daddr type local tcp dport {wiring.port} counter return comment "not dialled itself"',
        f"tcp dport {ports} return",
    ]


def _dns_elsewhere(wiring: Wiring) -> bool:
    return wiring.tproxy and wiring.dns_port is not None


def _redirect(wiring: Wiring) -> list[str]:
    rules = []
    if not wiring.tproxy:
        rules += _left_alone(wiring)
    if wiring.dns_port is not None:
        rules.append(
            f"meta l4proto {{ tcp, udp }} th dport {DNS} counter redirect to :{wiring.dns_port}"
        )
    if not wiring.tproxy:
        rules.append(f"meta l4proto tcp counter redirect to :{wiring.port}")
    return rules


def _mark(wiring: Wiring) -> list[str]:
    return [
        "meta mark set 0x0",
        *_left_alone(wiring),
        f"meta l4proto tcp counter meta mark set {wiring.mark:#x}",
    ]


def _tproxy(wiring: Wiring, which: str, then: str = "") -> list[str]:
    return [
        f"{which} meta nfproto {family} meta l4proto tcp counter "
        f"tproxy {short} to :{wiring.port}{then} accept".strip()
        for family, short in (("ipv4", "ip"), ("ipv6", "ip6"))
    ]


def _dns(wiring: Wiring) -> list[str]:
    if wiring.dns_port is None:
        return []
    return [f"meta l4proto {{ tcp, udp }} th dport {wiring.dns_port} counter accept"]
