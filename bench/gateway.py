"""The gateway as a contender: 100 credentials, audit and access logs on, one injected a request.

Once with its plain listener, once with one that wants a client certificate, and once transparent,
with the load in a sandbox's network namespace.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import attrs

from bench.contenders import HOST, Bed, Running, Unavailable, free_port
from bench.load import MUTUAL_NAME
from slapenir.errors import SandboxError
from slapenir.sandbox.link import Link
from slapenir.sandbox.network import make_network
from tests.support.agents import SERVER, AgentCA, pem, spiffe
from tests.support.gateway import IDENTITY, Credential, Gateway, GatewayFailed, Rule

CREDENTIALS = 100
SECRET_BYTES = 36


def _gateway(bed: Bed, name: str, extra: str = "") -> Gateway:
    """Return a gateway; the first credential belongs to the benchmark's origin."""
    credentials = [
        Credential(
            id=f"bench-{number}",
            secret="sk-" + secrets.token_urlsafe(SECRET_BYTES),
            hosts=(HOST,) if number == 0 else (f"host-{number}.example.test",),
            inject=('{ header = "Authorization", scheme = "Bearer" }',),
            placeholder="DUMMY_BENCH" if number == 0 else None,
        )
        for number in range(CREDENTIALS)
    ]
    rules = [Rule(id="bench", hosts=(HOST,), ports=(bed.origin_port,), credentials=("bench-0",))]
    return Gateway(
        directory=bed.subdirectory(name),
        credentials=credentials,
        rules=rules,
        hosts={HOST: bed.origin_port},
        origin_ca=bed.ca.ca_file,
        extra=extra,
    )


def _started(name: str, gateway: Gateway, port: int, mutual: Path | None = None) -> Running:
    try:
        gateway.start()
    except GatewayFailed as error:
        gateway.stop()
        raise Unavailable(str(error)) from None
    return Running(
        name, gateway.process, port, gateway.ca_file, "DUMMY_BENCH", gateway.stop, mutual
    )


def start_slapenir(bed: Bed) -> Running:
    """Start ``twistd slapenir`` with a plain listener."""
    gateway = _gateway(bed, "slapenir")
    return _started("slapenir", gateway, gateway.port)


def start_slapenir_mutual(bed: Bed) -> Running:
    """Start ``twistd slapenir`` with a listener that knows clients by their certificate."""
    port = free_port()
    gateway = _gateway(bed, "slapenir-mutual", _extra(bed, port))
    directory = gateway.directory
    clients = directory / "clients"
    clients.mkdir()
    agents, server = AgentCA("Agents CA"), AgentCA("Server CA")
    agents.agent("bench").write(clients)
    (clients / "ca.pem").write_bytes(pem([server.certificate]))
    server.issue(dns=[MUTUAL_NAME], usage=(SERVER,)).write(directory, "tls")
    (directory / "agents-ca.pem").write_bytes(pem([agents.certificate]))
    (directory / "agents.crl").write_bytes(agents.crl())
    return _started("slapenir-mutual", gateway, port, clients)


def start_slapenir_transparent(bed: Bed) -> Running:
    """Start ``twistd slapenir`` and join a sandbox's network to it, as ``slapenir run`` does."""
    path = str(bed.directory / "join.sock")
    table = f'[sandboxes]\nendpoint = "unix:{path}:mode=600"\n'
    gateway = _gateway(bed, "slapenir-transparent", table)
    running = _started("slapenir-transparent", gateway, 0)
    try:
        network = make_network(os.geteuid() != 0, os.geteuid(), os.getegid())
        link = Link(path)
        link.join(IDENTITY, network.sockets)
    except SandboxError as error:
        gateway.stop()
        raise Unavailable(str(error)) from None

    def close() -> None:
        link.close()
        network.close()
        gateway.stop()

    return attrs.evolve(running, close=close, enter=network.join)


def _extra(bed: Bed, port: int) -> str:
    return f"""
[[listener]]
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = {{ client_auth = "required", certificate = "tls.pem", key = "tls.key",
        client_ca = "agents-ca.pem", crl = "agents.crl" }}

[[identity]]
name = "bench"
match = [{{ spiffe = "{spiffe("bench")}" }}]

[[rule]]
id = "mutual"
identities = ["bench"]
hosts = ["{HOST}"]
ports = [{bed.origin_port}]
credentials = ["bench-0"]
"""
