"""Whether a configuration's gateway runs, or could: its ports, its CA and itself."""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping

from slapenir.config.settings import Settings
from slapenir.errors import SandboxError, SlapenirError
from slapenir.sandbox.doctor_check import HOST, MISSING, OK, SKIPPED, Finding
from slapenir.sandbox.link import Link, OwnGateway
from slapenir.sandbox.places import private_place
from slapenir.sandbox.plan import joining_socket

_TCP = re.compile(r"tcp6?:(?:port=)?([0-9]+)(.*)", re.ASCII | re.DOTALL)
_IN_USE = "in use by another process"


def gateway_findings(
    path: str, settings: Settings | None, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Look at the gateway of a configuration that could be read, or at one that only answers."""
    place = joining_socket(settings)
    if place and os.path.exists(place):
        runs = True
        yield _answers(place)
    elif settings is None:
        runs = False
        yield Finding(HOST, "gateway", MISSING, f"none answers at {place}", "start it")
    else:
        finding, runs = _starts(path, environ)
        yield finding
    if settings is not None:
        yield _authority(settings)
        yield from _ports(settings, runs)


def _answers(place: str) -> Finding:
    try:
        Link(place).close()
    except SandboxError as error:
        remedy = "start it, or remove the socket that it left; its mode says who may join"
        return Finding(HOST, "gateway", MISSING, error.error, remedy)
    return Finding(HOST, "gateway", OK, f"one answers at {place}")


def _starts(path: str, environ: Mapping[str, str]) -> tuple[Finding, bool]:
    """Start a gateway as ``slapenir run`` does, and stop it; also whether another one runs."""
    try:
        OwnGateway.start(path, environ, lambda text: None, private_place(())).stop()
    except SandboxError as error:
        runs = _IN_USE in error.error
        remedy = error.remedy or f"run: slapenir check {path}"
        if runs:
            remedy = 'give the one that runs [sandboxes] endpoint = "unix:/run/slapenir/..."'
        return Finding(HOST, "gateway", MISSING, error.error, remedy), runs
    return Finding(HOST, "gateway", OK, "none runs; slapenir run can start one"), False


def _authority(settings: Settings) -> Finding:
    """Compare the times in the interception CAs with the clock."""
    from slapenir.config.bundles import load_interception

    name, now = "interception CA", time.time()
    try:
        held = load_interception(settings).authorities.values()
    except (SlapenirError, OSError) as error:
        return Finding(HOST, name, MISSING, str(error), f"run: slapenir ca init {settings.file}")
    ends = []
    for one in held:
        if one.certificate.not_valid_before_utc.timestamp() > now:
            return Finding(HOST, name, MISSING, "it is not good yet", "set the clock")
        ends.append(one.certificate.not_valid_after_utc)
    return Finding(HOST, name, OK, f"good until {min(ends):%Y-%m-%d}" if ends else "none is used")


def _ports(settings: Settings, runs: bool) -> Iterator[Finding]:
    for number, one in enumerate(settings.listeners):
        name = f"port of {one.name or f'listener-{number + 1}'}"
        found = _TCP.fullmatch(one.endpoint)
        if found is None:
            yield Finding(HOST, name, SKIPPED, f"{one.endpoint} is not TCP")
            continue
        port, interface = int(found[1]), ""
        for word in re.split(r"(?<!\\):", found[2]):
            key, _, value = word.partition("=")
            interface = value.replace("\\:", ":") if key == "interface" else interface
        yield _port(name, interface, port, runs)


def _port(name: str, interface: str, port: int, runs: bool) -> Finding:
    six = ":" in interface
    where = f"{f'[{interface}]' if six else interface or '*'}:{port}"
    try:
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((interface, port))
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and runs:
            return Finding(HOST, name, OK, f"{where} is taken, and the gateway runs")
        remedies = {
            errno.EADDRINUSE: f"find who has it: ss -ltnp 'sport = :{port}'; or choose another",
            errno.EACCES: "choose one from 1024 on, or give the service CAP_NET_BIND_SERVICE",
            errno.EADDRNOTAVAIL: "name an address that this host has",
        }
        remedy = remedies.get(error.errno or 0, "choose another endpoint")
        return Finding(HOST, name, MISSING, f"{where}: {error.strerror}", remedy)
    return Finding(HOST, name, OK, f"{where} is free")
