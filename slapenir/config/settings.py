"""The shape of the configuration file; etc/slapenir.toml explains each key.

A Settings that load() returned has passed every check.  Paths in it are absolute; hosts are as
written, and config/build.py makes them canonical.
"""

from __future__ import annotations

import attrs

from slapenir.config.limits import Limits
from slapenir.names import Action, Scheme


@attrs.frozen(slots=True, kw_only=True)
class Gateway:
    """``[gateway]``: where the gateway keeps and says things.

    ``admin`` empty means no admin endpoint.  ``ca_bundle`` is the world-readable file of
    certificates that agents are told to trust, by default beside the configuration file.
    """

    state_dir: str
    audit: str
    admin: str = "tcp:9464:interface=127.0.0.1"
    access_log: bool = True
    ca_bundle: str = "slapenir-ca.pem"


@attrs.frozen(slots=True, kw_only=True)
class Listener:
    """One ``[[listener]]``; ``name`` by default ``listener-1``, ``listener-2`` and so on.

    ``url`` is what agents are told to use as their proxy; empty when it follows from the endpoint.
    """

    endpoint: str
    identity: str
    mode: str = "explicit"
    name: str = ""
    url: str = ""


@attrs.frozen(slots=True, kw_only=True)
class Resolver:
    """``[resolver]``: where addresses come from and which private ones may be dialled.

    Without ``servers`` the system's resolver is asked; ``hosts`` is asked first.
    """

    servers: tuple[str, ...] = ()
    hosts: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    allow_private: tuple[str, ...] = ()


@attrs.frozen(slots=True, kw_only=True)
class Origin:
    """``[origin]``: how the gateway itself checks origins."""

    ca_file: str = "/etc/ssl/certs/ca-certificates.crt"


@attrs.frozen(slots=True, kw_only=True)
class Inject:
    """One entry of ``inject``: exactly one of header, basic, query and body.

    ``scheme`` and ``when`` (``present`` or ``always``) belong to a header.
    """

    header: str | None = None
    scheme: str | None = None
    when: str | None = None
    basic: str | None = None
    query: str | None = None
    body: bool | None = None


@attrs.frozen(slots=True, kw_only=True)
class CredentialSettings:
    """One ``[[credential]]``: where the secret is, never the secret.

    ``variable`` names the environment variable in which an agent expects its placeholder.
    """

    id: str
    source: str
    hosts: tuple[str, ...]
    inject: tuple[Inject, ...] = (Inject(header="Authorization", scheme="Bearer"),)
    placeholder: str | None = None
    variable: str | None = None


@attrs.frozen(slots=True, kw_only=True)
class RuleSettings:
    """One ``[[rule]]``; ``ports``, ``methods``, ``paths`` and ``credentials`` may be absent.

    Absent ports are the scheme's; absent methods and paths are all; absent credentials are none.
    """

    id: str
    identities: tuple[str, ...]
    hosts: tuple[str, ...]
    action: Action = Action.ALLOW
    scheme: Scheme = Scheme.HTTPS
    ports: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    credentials: tuple[str, ...] | None = None


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """A whole configuration.  ``file`` is where it was read from."""

    gateway: Gateway
    listeners: tuple[Listener, ...]
    resolver: Resolver = attrs.field(factory=Resolver)
    limits: Limits = attrs.field(factory=Limits)
    origin: Origin = attrs.field(factory=Origin)
    credentials: tuple[CredentialSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
    file: str = ""

    @property
    def identities(self) -> tuple[str, ...]:
        """Every identity that a listener gives, once, in order."""
        return tuple(dict.fromkeys(listener.identity for listener in self.listeners))
