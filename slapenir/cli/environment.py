"""``slapenir env``: what to set in a sandbox so that its programs use the gateway."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys

import click

from slapenir.cli.authority import FILE
from slapenir.cli.check import CREDENTIALS_DIRECTORY
from slapenir.config.build import may_use, placeholder_for, variable_of
from slapenir.config.credentials import read_credentials
from slapenir.config.identity_checks import KINDS_OF, ways_of
from slapenir.config.load import load
from slapenir.config.settings import TRANSPARENT, Listener, Settings
from slapenir.config.state import bundle_path, check_state_dir, gateway_key
from slapenir.errors import ConfigError
from slapenir.sandbox.variables import ca_variables

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SEPARATOR = re.compile(r"(?<!\\):")
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@click.command()
@FILE
@click.option("--identity", required=True, help="Whose sandbox it is.")
@click.option("--listener", help="Which listener of that identity; by default its first.")
@click.option("--shell", type=click.Choice(["sh", "fish", "json"]), default="sh", show_default=True)
def env(file: str, identity: str, listener: str | None, shell: str) -> None:
    """Print the variables a sandbox needs: proxy, CA bundle and placeholders; no secret.

    Minting a placeholder needs the secret's length and alphabet, so run this as the gateway's
    user, with its environment.
    """
    settings = load(file)
    bundle = bundle_path(settings, identity)
    variables = {
        **_proxy(settings, identity, listener),
        **ca_variables(bundle, bundle),
        **_placeholders(settings, identity),
    }
    # A placeholder keeps what is no letter or digit, bytes that are not UTF-8 included.
    sys.stdout.buffer.write(os.fsencode(render(variables, shell)))


def render(variables: dict[str, str], shell: str) -> str:
    """Return the variables in a shell's syntax, each value quoted."""
    if shell == "json":
        return json.dumps(variables, indent=2) + "\n"
    if shell == "fish":
        lines = [f"set -gx {name} {_fish(value)}" for name, value in variables.items()]
    else:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "".join(f"{line}\n" for line in lines)


def _fish(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _proxy(settings: Settings, identity: str, name: str | None) -> dict[str, str]:
    found = [
        (index, listener)
        for index, listener in enumerate(settings.listeners)
        if may_be_at(settings, identity, listener) and name in (None, listener.name)
    ]
    if not found:
        known = ", ".join(
            f"{who} ({one.name})"
            for one in settings.listeners
            for who in settings.identities
            if may_be_at(settings, who, one)
        )
        raise ConfigError(
            "no listener is that of this identity", "$.listener", f"known: {known}", settings.file
        )
    index, listener = found[0]
    url = listener.url or proxy_url(listener.endpoint, tls=listener.tls is not None)
    if url is None:
        raise ConfigError(
            "the endpoint does not say where clients find it",
            f"$.listener[{index}].url",
            "set url to http://HOST:PORT, or https:// where it has tls",
            settings.file,
        )
    variables = {}
    for variable in PROXY_VARIABLES:
        variables[variable] = variables[variable.lower()] = url
    return variables | {"NO_PROXY": "", "no_proxy": ""}


def may_be_at(settings: Settings, identity: str, listener: Listener) -> bool:
    """Whether a listener's clients can be an identity, by something that its match names.

    Nobody is told of a transparent one.
    """
    if listener.mode == TRANSPARENT:
        return False
    if listener.identity:
        return listener.identity == identity
    kinds = {kind for way in ways_of(listener) for kind in KINDS_OF.get(way, (way,))}
    return any(
        getattr(match, kind) is not None
        for agent in settings.agents
        if agent.name == identity
        for match in agent.match
        for kind in kinds
    )


def proxy_url(endpoint: str, tls: bool = False) -> str | None:
    """Return the proxy URL of a ``tcp:`` or ``tcp6:`` endpoint, None for any other.

    An endpoint on all addresses is found on loopback.
    """
    place = endpoint_place(endpoint)
    if place is None:
        return None
    host, port = place
    host = host or ("::1" if endpoint.startswith("tcp6:") else "127.0.0.1")
    host = _UNSPECIFIED.get(host, host)
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def endpoint_place(endpoint: str) -> tuple[str, int] | None:
    """Return interface and port of a ``tcp:`` or ``tcp6:`` endpoint, None for any other.

    The interface is empty where it is not given.
    """
    kind, *parts = (part.replace("\\:", ":") for part in _SEPARATOR.split(endpoint))
    if kind not in ("tcp", "tcp6") or not parts:
        return None
    port, host = "", ""
    for position, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if not equals and position == 0:
            port = key
        elif key == "port":
            port = value
        elif key == "interface":
            host = value
    return (host, int(port)) if port.isdecimal() else None


def _placeholders(settings: Settings, identity: str) -> dict[str, str]:
    mine = [one for one in settings.credentials if may_use(settings, identity, one.id)]
    minted = frozenset(one.id for one in mine if one.placeholder is None)
    found = {one.id: one.placeholder for one in mine if one.placeholder is not None}
    if minted:
        check_state_dir(settings.gateway.state_dir)
        key = gateway_key(settings.gateway.state_dir, create=False)
        directory = os.environ.get(CREDENTIALS_DIRECTORY)
        for one in read_credentials(settings, os.environ, directory, minted):
            found[one.id] = os.fsdecode(placeholder_for(key, one, identity))
    return {variable_of(one): found[one.id] for one in mine}
