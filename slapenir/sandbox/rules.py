"""Packet filter rules that leave the gateway as the only way out of a sandbox.

Text only: nothing is loaded.  What they do is the same everywhere.  TCP goes to the transparent
listener, wherever it was meant for; port 53 goes to the gateway's DNS, when there is one; all else
is refused at once, so that no program waits for a timeout.
"""

from __future__ import annotations

import re
from enum import Enum

import attrs

from slapenir.errors import ConfigError

DEFAULT_PORT = 8444
DEFAULT_MARK = 0x534C
DEFAULT_ROUTE_TABLE = 21324
DNS, DNS_OVER_TLS = 53, 853

_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,15}")
_UIDS = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
_MAX_UID = 0xFFFF_FFFE
_MAX_PORT = 0xFFFF
_MAX_NUMBER = 0xFFFF_FFFF


class Site(Enum):
    """Where the agents are, seen from where the gateway is."""

    USER = "user"
    BRIDGE = "bridge"
    TAP = "tap"
    POD = "pod"

    @property
    def is_local(self) -> bool:
        """Whether agents and gateway are in one network namespace."""
        return self in (Site.USER, Site.POD)


@attrs.frozen(kw_only=True)
class Wiring:
    """What the rules are for; raises ConfigError, with the option's name, for what makes no sense.

    ``uids`` are the agents' user ids, each a number or FIRST-LAST; ``interfaces`` those behind
    which agents are; ``gateway_uid`` whom the rules of a pod are not for.  ``mark`` and
    ``route_table`` are TPROXY's.  ``name`` tells several sets of rules on one host apart.
    """

    site: Site
    port: int = DEFAULT_PORT
    dns_port: int | None = None
    uids: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    gateway_uid: int | None = None
    tproxy: bool = False
    mark: int = DEFAULT_MARK
    route_table: int = DEFAULT_ROUTE_TABLE
    name: str = "slapenir"

    def __attrs_post_init__(self) -> None:
        wanted = {Site.USER: "--uid", Site.POD: "--gateway-uid"}.get(self.site, "--interface")
        given = {
            "--uid": bool(self.uids),
            "--interface": bool(self.interfaces),
            "--gateway-uid": self.gateway_uid is not None,
        }
        for option, there in given.items():
            if there and option != wanted:
                raise ConfigError(f"has no meaning with --for {self.site.value}", option)
        if not given[wanted]:
            raise ConfigError(f"is missing: --for {self.site.value} needs it", wanted)
        self._check_who()
        self._check_numbers()
        if not _NAME.fullmatch(self.name):
            raise ConfigError("is not a name", "--name", "up to 16 of a-z, 0-9 and _")

    def _check_who(self) -> None:
        for text in self.uids:
            match = _UIDS.fullmatch(text)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
            if first > last or last > _MAX_UID:
                raise ConfigError(f"{text!r} is no user id", "--uid", "write UID or FIRST-LAST")
            if first == 0:
                raise ConfigError("root can undo every rule", "--uid", "run agents as other users")
        for name in self.interfaces:
            if not _INTERFACE.fullmatch(name) or name == "lo":
                raise ConfigError(f"{name!r} is no interface of agents", "--interface")
        if self.gateway_uid is not None and not 0 < self.gateway_uid <= _MAX_UID:
            raise ConfigError(
                "cannot be exempt: containers run as root unless told otherwise",
                "--gateway-uid",
                "run the gateway as a user that no other container has",
            )

    def _check_numbers(self) -> None:
        for option, value, most in (
            ("--port", self.port, _MAX_PORT),
            ("--dns-port", self.dns_port, _MAX_PORT),
            ("--mark", self.mark, _MAX_NUMBER),
            ("--route-table", self.route_table, _MAX_NUMBER),
        ):
            if value is not None and not 0 < value <= most:
                raise ConfigError(f"is not between 1 and {most}", option)
        if self.port in (self.dns_port, DNS, DNS_OVER_TLS):
            raise ConfigError(f"{self.port} cannot be the transparent listener's", "--port")

    @property
    def title(self) -> tuple[str, ...]:
        """What the rules do, as lines of a comment."""
        who = {
            Site.USER: f"agents that run on this host as user {', '.join(self.uids)}",
            Site.POD: f"all of this network namespace but user {self.gateway_uid}",
        }.get(self.site, f"agents behind {', '.join(self.interfaces)}")
        how = "TPROXY" if self.tproxy else "REDIRECT"
        dns = "refused" if self.dns_port is None else f"to port {self.dns_port}"
        own = "127.0.0.1 and ::1" if self.site.is_local and not self.tproxy else "0.0.0.0 and ::"
        lines: tuple[str, ...] = (
            f"SLAPENIR: {who}.",
            f"TCP to the transparent listener at port {self.port} ({how}), DNS {dns}, no more.",
            f"The listener has to be on {own}.",
        )
        if self.site is Site.BRIDGE and self.tproxy:
            lines += ("sysctl net.bridge.bridge-nf-call-iptables and -ip6tables have to be 0.",)
        return lines


def route_commands(wiring: Wiring) -> tuple[str, ...]:
    """Return the commands with which TPROXY's packets are taken for local ones, made anew."""
    rule = f"fwmark {wiring.mark:#x} lookup {wiring.route_table}"
    lines = []
    for family, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        lines += [
            f"ip {family} rule del {rule} 2>/dev/null || true",
            f"ip {family} rule add {rule}",
            f"ip {family} route replace local {everything} dev lo table {wiring.route_table}",
        ]
    return tuple(lines)


def route_removal(wiring: Wiring) -> tuple[str, ...]:
    """Return the commands that take those of ``route_commands`` back."""
    rule = f"fwmark {wiring.mark:#x} lookup {wiring.route_table}"
    lines = []
    for family in ("-4", "-6"):
        lines += [
            f"ip {family} rule del {rule} 2>/dev/null || true",
            f"ip {family} route flush table {wiring.route_table} 2>/dev/null || true",
        ]
    return tuple(lines)
