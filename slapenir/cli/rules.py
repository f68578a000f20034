"""``slapenir rules``: packet filter rules for those who wire sandboxes themselves."""

from __future__ import annotations

import ipaddress
import sys

import click

from slapenir.cli.environment import endpoint_place
from slapenir.cli.output import say
from slapenir.config.load import load
from slapenir.config.settings import TRANSPARENT, Listener, Settings
from slapenir.errors import ConfigError
from slapenir.names import parse_authority
from slapenir.sandbox.rules import (
    DEFAULT_MARK,
    DEFAULT_PORT,
    DEFAULT_ROUTE_TABLE,
    DNS,
    Site,
    Wiring,
)
from slapenir.sandbox.rules_iptables import iptables_removal, iptables_rules
from slapenir.sandbox.rules_nft import nft_removal, nft_rules


class _Number(click.ParamType[int]):
    """A number, decimal or with 0x."""

    name = "number"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)


_SITES = click.Choice([one.value for one in Site])


@click.command()
@click.argument("tool", type=click.Choice(["nft", "iptables"]))
@click.option("--for", "site", required=True, type=_SITES, help="Where the agents are; see above.")
@click.option("--uid", multiple=True, help="user: an agent's user id, or FIRST-LAST; repeatable.")
@click.option("--interface", multiple=True, help="bridge, tap: the agents' interface; repeatable.")
@click.option("--gateway-uid", type=int, help="pod: the gateway's user id, which is left alone.")
@click.option("--config", help="A configuration file, to read the ports from.")
@click.option("--listener", help="Which transparent listener of the file, where it has several.")
@click.option("--port", type=int, help=f"The transparent listener's.  [default: {DEFAULT_PORT}]")
@click.option("--dns-port", type=int, help="The gateway's DNS; without one DNS is refused.")
@click.option("--tproxy", is_flag=True, help="TPROXY in the place of REDIRECT.")
@click.option("--mark", type=_Number(), default=hex(DEFAULT_MARK), show_default=True)
@click.option("--route-table", type=_Number(), default=DEFAULT_ROUTE_TABLE, show_default=True)
@click.option("--name", default="slapenir", show_default=True, help="Of the table or the chains.")
@click.option("--remove", is_flag=True, help="Print what removes the rules.")
def rules(
    tool: str,
    site: str,
    uid: tuple[str, ...],
    interface: tuple[str, ...],
    gateway_uid: int | None,
    config: str | None,
    listener: str | None,
    port: int | None,
    dns_port: int | None,
    tproxy: bool,
    mark: int,
    route_table: int,
    name: str,
    remove: bool,
) -> None:
    """Print packet filter rules that leave the gateway as an agent's only way out.

    TCP to anywhere is brought to the transparent listener, for IPv4 and IPv6; port 53 goes to the
    gateway's DNS; all else is refused at once: UDP, QUIC, DNS over TLS, ICMP, forwarding, and a
    dial of the listener's own port.

    \b
    --for user    agents on this host, known by their user ids
    --for bridge  agents in containers behind a bridge of this host
    --for tap     an agent in a virtual machine behind a tap interface
    --for pod     everything in this network namespace but the gateway itself

    nft prints a ruleset for nft -f.  iptables prints a script for sh, which loads chains with
    iptables-restore and ip6tables-restore and hooks them in.  Both can be loaded again at any
    time and replace what they loaded before.
    """
    where = Site(site)
    settings = None if config is None else load(config)
    if settings is not None and dns_port is None:
        dns_port = _dns_port_of(settings, where)
    if settings is not None and port is None:
        port = _port_of(settings, listener, where, tproxy)
    elif listener is not None:
        raise ConfigError("needs --config, and no --port", "--listener")
    wiring = Wiring(
        site=where,
        port=DEFAULT_PORT if port is None else port,
        dns_port=dns_port,
        uids=uid,
        interfaces=interface,
        gateway_uid=gateway_uid,
        tproxy=tproxy,
        mark=mark,
        route_table=route_table,
        name=name,
    )
    if remove:
        text = nft_removal(wiring) if tool == "nft" else iptables_removal(wiring)
    else:
        text = nft_rules(wiring) if tool == "nft" else iptables_rules(wiring)
    sys.stdout.write(text)


def _port_of(settings: Settings, name: str | None, site: Site, tproxy: bool) -> int:
    """Return the port of the one transparent listener, which has to be where the rules lead."""
    there = [one for one in settings.listeners if one.mode == TRANSPARENT]
    found = [one for one in there if name in (None, one.name)]
    if len(found) != 1:
        known = ", ".join(one.name for one in there) or "there is none"
        raise ConfigError(
            "say which transparent listener", "--listener", f"known: {known}", settings.file
        )
    return _reachable(found[0], site, tproxy, settings.file)


def _reachable(listener: Listener, site: Site, tproxy: bool, file: str) -> int:
    place = endpoint_place(listener.endpoint)
    if place is None:
        raise ConfigError(
            "the endpoint of the listener does not say its port", "--port", "give --port", file
        )
    host, port = place
    if not tproxy and not _is_led_to(host, site):
        raise ConfigError(
            f"a listener on {host} is not where --for {site.value} leads connections",
            f"listener {listener.name}",
            f'use endpoint = "tcp:{port}"',
            file,
        )
    return port


def _dns_port_of(settings: Settings, site: Site) -> int | None:
    """Return the port of the DNS for sandboxes, None where there is none that is led to."""
    if not settings.dns.endpoint:
        return None
    place = parse_authority(settings.dns.endpoint.encode("utf-8"), DNS)
    if _is_led_to(place.host, site):
        return place.port
    say(f"note: DNS is refused: {place.host} is not where --for {site.value} leads it")
    return None


def _is_led_to(host: str, site: Site) -> bool:
    """Whether REDIRECT can lead to an address: to loopback, or to the address of an interface."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True  # all addresses, or a name that only the host knows
    return address.is_unspecified or address.is_loopback == site.is_local
