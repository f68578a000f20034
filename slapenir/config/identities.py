"""From [[identity]] and [pki] to what certificates are to say: pure, no file is read."""

from __future__ import annotations

import ipaddress

from slapenir.config.durations import duration
from slapenir.config.settings import Match, Pki, Settings
from slapenir.errors import ConfigError
from slapenir.pki.constraints import is_host_like
from slapenir.pki.held import Wanted


def pki_of(settings: Settings, provider: str = "embedded") -> Pki:
    """Return [pki]; raises ConfigError when it is not there, or of another provider."""
    pki = settings.pki
    if pki is None or pki.provider != provider:
        raise ConfigError(
            f"there is no {provider} CA", "$.pki", f'write [pki] provider = "{provider}"',
            settings.file,
        )  # fmt: skip
    return pki


def wanted_for(settings: Settings, identity: str, lifetime: float = 0.0) -> Wanted:
    """Return what an identity's certificate is to say: every name that its match has.

    ``lifetime`` 0 is that of [pki].  Raises ConfigError for an identity that is not configured,
    or that no certificate could be told apart by.
    """
    found = [(n, one) for n, one in enumerate(settings.agents) if one.name == identity]
    if not found:
        known = ", ".join(one.name for one in settings.agents) or "none"
        raise ConfigError(
            f"there is no identity {identity!r}", "$.identity", f"known: {known}", settings.file
        )
    index, agent = found[0]
    spiffe, dns, common = (_values(agent.match, kind) for kind in ("spiffe", "dns", "cn"))
    where = f"$.identity[{index}].match"
    if not spiffe and not dns and not common:
        raise ConfigError(
            "says nothing by which a certificate would be known", where,
            "add spiffe, dns or cn", settings.file,
        )  # fmt: skip
    if len(spiffe) > 1 or len(common) > 1:
        raise ConfigError(
            "has more than one SPIFFE ID or common name: a certificate can have only one", where,
            "make an identity of each", settings.file,
        )  # fmt: skip
    lifetime = lifetime or duration(settings.pki.lifetime if settings.pki else Pki().lifetime)
    return Wanted(common[0] if common else "", spiffe, dns, (), False, lifetime)


def wanted_server(settings: Settings) -> Wanted:
    """Return what the gateway's own certificate is to say; raises ConfigError without names."""
    pki = settings.pki
    if pki is None or not pki.names:
        raise ConfigError(
            "is missing", "$.pki.names", "list the names by which clients find the gateway",
            settings.file,
        )  # fmt: skip
    addresses = tuple(name for name in pki.names if _is_address(name))
    hosts = tuple(name for name in pki.names if name not in addresses)
    return Wanted("", (), hosts, addresses, True, duration(pki.lifetime))


def ca_domains(settings: Settings) -> tuple[str, ...]:
    """Return the domains that the embedded CA is for: ``pki.domains``, or all that are named."""
    pki = settings.pki or Pki()
    if pki.domains:
        return pki.domains
    named = [name for name in pki.names if not _is_address(name)]
    for agent in settings.agents:
        named += _values(agent.match, "dns")
        named += [one.split("/")[2] for one in _values(agent.match, "spiffe")]
        named += [one.lower() for one in _values(agent.match, "cn") if is_host_like(one)]
    return tuple(dict.fromkeys(named))


def ca_addresses(settings: Settings) -> tuple[str, ...]:
    """Return the addresses that the embedded CA may sign for: those of the gateway."""
    return tuple(name for name in (settings.pki or Pki()).names if _is_address(name))


def _values(match: tuple[Match, ...], kind: str) -> tuple[str, ...]:
    return tuple(getattr(one, kind) for one in match if getattr(one, kind) is not None)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
