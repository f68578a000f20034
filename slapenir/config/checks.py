"""What [gateway], [[listener]], [resolver], [limits] and the lists of ids must hold."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from slapenir.config.credential_checks import check_credentials
from slapenir.config.dns_checks import check_dns
from slapenir.config.findings import Findings
from slapenir.config.identity_checks import check_identities, identity_notes
from slapenir.config.limits import problems_in
from slapenir.config.rule_checks import check_rules
from slapenir.config.settings import EXPLICIT, TRANSPARENT, Listener, Resolver, Settings
from slapenir.config.tls_checks import check_tls
from slapenir.errors import AuthorityError
from slapenir.names import canonical_host, is_ipv4, parse_authority
from slapenir.policy.addresses import parse_allow_private

_ENDPOINT = re.compile(r"[a-z][a-z0-9]*:[^\s\x00-\x1f]+", re.ASCII)
_TCP_PORT = re.compile(r"tcp6?:(?:port=)?([0-9]+)(?::|\Z)", re.ASCII)
# A session starts TLS itself, and needs a socket: these endpoints would put something in between.
_UNFIT = frozenset({"tls", "ssl", "stdio", "standardio", "txtls"})
_ENDPOINT_REMEDY = "write a Twisted endpoint, such as tcp:8080:interface=127.0.0.1"


def check(settings: Settings, findings: Findings) -> None:
    """Note everything that is wrong with settings whose shape is right."""
    _check_gateway(settings, findings)
    _check_listeners(settings, findings)
    _check_resolver(settings.resolver, findings)
    check_dns(settings, findings)
    endpoint = settings.sandboxes.endpoint
    if endpoint and (not _is_endpoint(endpoint) or not endpoint.startswith("unix:")):
        findings.add(
            "$.sandboxes.endpoint",
            "is not a UNIX socket",
            "write unix:/run/slapenir/sandboxes.sock:mode=666",
        )
    for key, message in problems_in(settings.limits):
        findings.add(f"$.limits.{key}", message)
    _check_unique("credential", (one.id for one in settings.credentials), findings)
    _check_unique("rule", (one.id for one in settings.rules), findings)
    check_identities(settings, findings)
    check_tls(settings, findings)
    check_credentials(settings, findings)
    check_rules(settings, findings)


def notes(settings: Settings) -> list[str]:
    """Return what is allowed and yet worth a second look, one sentence each."""
    found = []
    used = {name for rule in settings.rules for name in rule.credentials or ()}
    for credential in settings.credentials:
        if credential.id not in used:
            found.append(f"credential {credential.id} is in no rule: only kept out of responses")
    for rule in settings.rules:
        for identity in rule.identities:
            if identity != "*" and identity not in settings.identities:
                found.append(f"rule {rule.id}: nobody is the identity {identity}")
    found += identity_notes(settings)
    if not settings.rules:
        found.append("there is no rule: everything is denied")
    return found


def _check_unique(table: str, ids: Iterable[str], findings: Findings) -> None:
    seen: dict[str, int] = {}
    for index, one in enumerate(ids):
        findings.name(f"$.{table}[{index}].id", one)
        if one in seen:
            findings.add(
                f"$.{table}[{index}].id",
                f"is the id of {table}[{seen[one]}] too",
                "give each its own id",
            )
        seen.setdefault(one, index)


def _check_gateway(settings: Settings, findings: Findings) -> None:
    gateway = settings.gateway
    for key, value in (
        ("state_dir", gateway.state_dir),
        ("audit", gateway.audit),
        ("ca_bundle", gateway.ca_bundle),
    ):
        if "\0" in value or value in ("", "/"):
            findings.add(f"$.gateway.{key}", "is not a usable path")
    if gateway.admin and not _is_endpoint(gateway.admin):
        findings.add("$.gateway.admin", "is not an endpoint", _ENDPOINT_REMEDY)
    if gateway.state_dir == gateway.audit:
        findings.add("$.gateway.audit", "is the state directory", "give each its own directory")
    if gateway.ca_bundle.startswith(gateway.state_dir + "/"):
        findings.add(
            "$.gateway.ca_bundle",
            "is inside the state directory, which agents cannot read",
            "put it elsewhere",
        )
    if "\0" in settings.origin.ca_file or not settings.origin.ca_file:
        findings.add("$.origin.ca_file", "is not a usable path")


def _is_endpoint(text: str) -> bool:
    """Whether text has the form of an endpoint; a TCP port is a number that can be one."""
    if _ENDPOINT.fullmatch(text) is None:
        return False
    port = _TCP_PORT.match(text)
    return port is None or (len(port[1]) <= 5 and int(port[1]) <= 65535)


def _check_listeners(settings: Settings, findings: Findings) -> None:
    names: set[str] = set()
    endpoints: set[str] = set()
    for index, listener in enumerate(settings.listeners):
        path = f"$.listener[{index}]"
        if listener.identity:
            findings.name(f"{path}.identity", listener.identity)
        findings.name(f"{path}.name", listener.name)
        if listener.name in names:
            findings.add(f"{path}.name", "is the name of an earlier listener", "choose another")
        if not _is_endpoint(listener.endpoint):
            findings.add(f"{path}.endpoint", "is not an endpoint", _ENDPOINT_REMEDY)
        elif listener.endpoint.partition(":")[0].lower() in _UNFIT:
            findings.add(
                f"{path}.endpoint", "is not a plain socket", "use tcp:, tcp6:, unix: or systemd:"
            )
        elif listener.endpoint in endpoints:
            findings.add(f"{path}.endpoint", "is that of an earlier listener", "choose another")
        elif listener.endpoint in (settings.gateway.admin, settings.pki and settings.pki.enrol):
            findings.add(
                f"{path}.endpoint",
                "is that of the admin or the enrolment service",
                "choose another port",
            )
        if listener.mode == TRANSPARENT:
            _check_transparent(path, listener, findings)
        elif listener.mode != EXPLICIT:
            findings.add(f"{path}.mode", "is not a mode", f"write {EXPLICIT} or {TRANSPARENT}")
        _check_url(f"{path}.url", listener.url, listener.tls is not None, findings)
        names.add(listener.name)
        endpoints.add(listener.endpoint)


def _check_transparent(path: str, listener: Listener, findings: Findings) -> None:
    """Note what a client that knows of no proxy cannot do."""
    if listener.endpoint.partition(":")[0] not in ("tcp", "tcp6", "systemd"):
        findings.add(f"{path}.endpoint", "is nothing that TCP is redirected to", "use tcp:PORT")
    for key in ("tls", "proxy_protocol"):
        if getattr(listener, key) is not None:
            findings.add(f"{path}.{key}", "is for explicit listeners", "remove it")
    if listener.url:
        findings.add(f"{path}.url", "is for explicit listeners: nobody is told of this one")
    for way in listener.identify or ():
        if way != "source":
            findings.add(
                f"{path}.identify",
                f"a redirected client cannot show a {way}",
                'write identity, or identify = ["source"]',
            )


def _check_url(path: str, url: str, tls: bool, findings: Findings) -> None:
    if not url:
        return
    scheme, _, authority = url.partition("://")
    wanted = "https" if tls else "http"
    try:
        if scheme != wanted:
            raise AuthorityError(f"this proxy's URL starts with {wanted}://")
        parse_authority(authority.encode("utf-8"), None)
    except AuthorityError as error:
        findings.add(path, str(error), f"write {wanted}://HOST:PORT")


def _check_resolver(resolver: Resolver, findings: Findings) -> None:
    for index, server in enumerate(resolver.servers):
        path = f"$.resolver.servers[{index}]"
        try:
            if not parse_authority(server.encode("utf-8"), 53).is_ip:
                raise AuthorityError("is a name")
        except AuthorityError as error:
            findings.add(path, str(error), "write ADDRESS:PORT, such as 192.0.2.53:53")
    names: dict[str, str] = {}
    for name, addresses in resolver.hosts.items():
        path = f"$.resolver.hosts.{name}"
        try:
            host = canonical_host(name.encode("utf-8"))
            if is_ipv4(host) or ":" in host:
                raise AuthorityError("is an address")
            if names.setdefault(host, name) != name:
                findings.add(path, f"is {names[host]} once more", "write one list of addresses")
        except AuthorityError as error:
            findings.add(path, str(error), "write one host name, without a wildcard")
        for index, address in enumerate(addresses):
            if not _is_address(address):
                findings.add(f"{path}[{index}]", "is not an IP address", "write 10.20.0.5")
    for index, entry in enumerate(resolver.allow_private):
        try:
            parse_allow_private([entry])
        except ValueError as error:
            findings.add(f"$.resolver.allow_private[{index}]", str(error))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
