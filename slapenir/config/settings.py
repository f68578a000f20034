"""The shape of the configuration file; etc/slapenir.toml explains each key.

A Settings that load() returned has passed every check.  Paths in it are absolute; hosts are as
written, and config/build.py makes them canonical.  What names a path is marked: config/files.py.
"""

from __future__ import annotations

import attrs

from slapenir.config.files import ENDPOINT, OPEN, SECRET, SOURCE
from slapenir.config.limits import Limits
from slapenir.names import Action, Scheme

EXPLICIT, TRANSPARENT = "explicit", "transparent"


@attrs.frozen(slots=True, kw_only=True)
class Gateway:
    """``[gateway]``: where the gateway keeps and says things.

    ``admin`` empty means no admin endpoint.  ``ca_bundle`` is the world-readable file of
    certificates that agents are told to trust, by default beside the configuration file.  ``ca``
    is ``per-gateway`` or ``per-identity``: how many interception CAs there are.
    """

    state_dir: str = attrs.field(metadata=SECRET)
    audit: str = attrs.field(metadata=SECRET)
    admin: str = attrs.field(default="tcp:9464:interface=127.0.0.1", metadata=ENDPOINT)
    access_log: bool = True
    ca_bundle: str = attrs.field(default="slapenir-ca.pem", metadata=OPEN)
    ca: str = "per-gateway"


@attrs.frozen(slots=True, kw_only=True)
class ListenerTls:
    """``listener.tls``: a table of files, or the string ``"managed"`` for what ``[pki]`` gives.

    ``client_auth`` is ``required``, ``optional`` or ``none``.  ``client_ca`` are the CAs of the
    clients' certificates, ``crl`` the file or URL of what they have revoked.
    """

    certificate: str = attrs.field(default="", metadata=OPEN)
    key: str = attrs.field(default="", metadata=SECRET)
    client_auth: str = "required"
    client_ca: str = attrs.field(default="", metadata=OPEN)
    crl: str = attrs.field(default="", metadata=OPEN)
    crl_required: bool = True
    managed: bool = False


@attrs.frozen(slots=True, kw_only=True)
class Listener:
    """One ``[[listener]]``; ``name`` by default ``listener-1``, ``listener-2`` and so on.

    ``mode`` is ``explicit`` for clients that know the proxy, or ``transparent`` for connections
    that the kernel redirects to it.
    ``url`` is what agents are told to use as their proxy; empty when it follows from the endpoint.
    ``identity`` says that every client of this listener is one identity; otherwise ``identify``
    names the ways by which a client shows who it is: ``certificate``, ``source``, ``unix_uid``
    and ``token``.  ``proxy_protocol`` are the networks of the load balancers in front of it.
    """

    endpoint: str = attrs.field(metadata=ENDPOINT)
    identity: str = ""
    mode: str = EXPLICIT
    name: str = ""
    url: str = ""
    tls: ListenerTls | None = None
    identify: tuple[str, ...] | None = None
    proxy_protocol: tuple[str, ...] | None = None


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

    ca_file: str = attrs.field(default="/etc/ssl/certs/ca-certificates.crt", metadata=OPEN)


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
    ``identities`` and ``groups`` narrow who may use it whatever a rule says; absent: no narrowing.
    """

    id: str
    source: str = attrs.field(metadata=SOURCE)
    hosts: tuple[str, ...]
    inject: tuple[Inject, ...] = (Inject(header="Authorization", scheme="Bearer"),)
    placeholder: str | None = None
    variable: str | None = None
    identities: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None


@attrs.frozen(slots=True, kw_only=True)
class RuleSettings:
    """One ``[[rule]]``; ``ports``, ``methods``, ``paths`` and ``credentials`` may be absent.

    Absent ports are the scheme's; absent methods and paths are all; absent credentials are none.
    A ``tunnel`` is for raw TCP: it has ports, and neither methods nor paths nor credentials.
    It is for ``identities`` and for the members of ``groups``; one of the two must be there.
    """

    id: str
    hosts: tuple[str, ...]
    identities: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    action: Action = Action.ALLOW
    scheme: Scheme = Scheme.HTTPS
    ports: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    credentials: tuple[str, ...] | None = None


@attrs.frozen(slots=True, kw_only=True)
class Match:
    """One entry of ``identity.match``: exactly one of the keys."""

    spiffe: str | None = None
    dns: str | None = None
    cn: str | None = None
    source: str | None = None
    unix_uid: int | None = None
    token: str | None = None


@attrs.frozen(slots=True, kw_only=True)
class IdentitySettings:
    """One ``[[identity]]``: who an agent is, by any one of the things in ``match``."""

    name: str
    groups: tuple[str, ...] = ()
    match: tuple[Match, ...] = ()


@attrs.frozen(slots=True, kw_only=True)
class Pki:
    """``[pki]``: where certificates come from that ``tls = "managed"`` uses, and for agents.

    ``provider`` is ``embedded``, ``acme`` or ``step-ca``.  ``names`` are the gateway's own names
    and addresses in its certificate; ``lifetime`` and the other times are durations (``24h``).
    ``domains`` are all that the embedded CA can sign for, by default what the configuration
    names.  ``enrol`` is the endpoint of the embedded CA's enrolment service and ``url`` where
    clients find it; for step-ca ``url`` is the CA's.
    """

    provider: str = "embedded"
    lifetime: str = "24h"
    names: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    enrol: str = attrs.field(default="", metadata=ENDPOINT)
    url: str = ""
    crl: str = attrs.field(default="", metadata=OPEN)
    crl_lifetime: str = "7d"
    directory: str = ""
    root_fingerprint: str = ""
    root_file: str = attrs.field(default="", metadata=OPEN)
    contact: str = ""
    challenge: str = ""
    provisioner: str = ""
    provisioner_key: str = attrs.field(default="", metadata=SECRET)


@attrs.frozen(slots=True, kw_only=True)
class Dns:
    """``[dns]``: the DNS server for sandboxes, at an ADDRESS:PORT; empty for none.

    ``synthetic`` are the networks, at most one of each family, whose addresses stand for names.
    With ``identity`` every client is that one; without, ``match.source`` says who asks.
    """

    endpoint: str = ""
    synthetic: tuple[str, ...] = ("198.18.0.0/15", "fd00:5a::/64")
    identity: str = ""


@attrs.frozen(slots=True, kw_only=True)
class Sandboxes:
    """``[sandboxes]``: where ``slapenir run`` of this host's users joins, a ``unix:`` endpoint.

    Who may is said by ``match`` of the identities, with ``unix_uid``.
    """

    endpoint: str = attrs.field(default="", metadata=ENDPOINT)


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
    agents: tuple[IdentitySettings, ...] = ()
    pki: Pki | None = None
    dns: Dns = attrs.field(factory=Dns)
    sandboxes: Sandboxes = attrs.field(factory=Sandboxes)
    file: str = attrs.field(default="", metadata=SECRET)

    @property
    def identities(self) -> tuple[str, ...]:
        """Every identity that a listener gives or that has a table of its own, once, in order."""
        given = [listener.identity for listener in self.listeners if listener.identity]
        return tuple(dict.fromkeys([*given, *(one.name for one in self.agents)]))
