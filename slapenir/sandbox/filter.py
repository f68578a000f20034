"""The packet filter inside a sandbox's network namespace: everything to the gateway, or refused.

The namespace has no interface but loopback.  TCP to any address is redirected to a socket in it
that the gateway serves, questions for names to another, and everything else is refused at once.
"""

from __future__ import annotations

import json

from slapenir.names import REFUSED_TRAFFIC

TABLE = "slapenir"
_REJECT = "reject with icmpx type admin-prohibited"
_PREFIX = "refused_"  # some of the words by themselves mean something to nft
# An IPv4 address that is nobody's (RFC 7600) and a unique local IPv6 one: where the namespace's own
# packets to the outside come from, for a source is chosen before they are redirected.
ADDRESSES = ("192.0.0.8/32", "fd5a:5a5a::8/128")


def ruleset(port: int, dns: int) -> str:
    """Return the nftables rules that redirect to these ports.

    A name's address is chosen by nobody but our DNS, so port 53 of any address is ours, also of
    loopback.  Loopback is otherwise left alone: an agent may talk to its own servers.
    """
    counters = "".join(f"  counter {_PREFIX}{name} {{ }}\n" for name in REFUSED_TRAFFIC)
    return f"""
table inet {TABLE} {{
{counters}
  chain to_gateway {{
    type nat hook output priority -100; policy accept;
    meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns}
    ip daddr 127.0.0.0/8 accept
    ip6 daddr ::1 accept
    meta l4proto tcp redirect to :{port}
  }}
  chain refused {{
    type filter hook output priority 0; policy drop;
    ct state {{ established, related }} accept
    ct status dnat accept
    tcp dport {{ {port}, {dns} }} counter name {_PREFIX}direct reject with tcp reset
    udp dport {dns} counter name {_PREFIX}direct {_REJECT}
    ip daddr 127.0.0.0/8 accept
    ip6 daddr ::1 accept
    udp dport 443 counter name {_PREFIX}udp443 {_REJECT}
    meta l4proto udp counter name {_PREFIX}udp {_REJECT}
    meta l4proto {{ icmp, ipv6-icmp }} counter name {_PREFIX}icmp {_REJECT}
    counter name {_PREFIX}other {_REJECT}
  }}
}}
"""


def read_counters(listing: str) -> dict[str, int]:
    """Return the packets of each counter in what ``nft -j list counters`` printed."""
    found = {}
    for entry in json.loads(listing).get("nftables", []):
        counter = entry.get("counter")
        name = "" if counter is None else str(counter.get("name", "")).removeprefix(_PREFIX)
        if name in REFUSED_TRAFFIC:
            found[name] = int(counter["packets"])
    return found
