"""``slapenir sidecar``: the forwarder beside a sandbox, in the foreground."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from slapenir.cli.output import report
from slapenir.config.surroundings import surroundings
from slapenir.errors import SlapenirError
from slapenir.sidecar.options import (
    LISTEN_ANYWHERE,
    PARAMETERS,
    SAN,
    BadUsage,
    Options,
    read_options,
)

CANNOT_START = 1


def _parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option that a sidecar has."""
    for name, text in reversed(list(PARAMETERS.items())):
        command = click.option(f"--{name}", name.replace("-", "_"), help=text)(command)
    return command


@click.command()
@_parameters
@click.option("--san", multiple=True, help=SAN)
@click.option("--listen-anywhere", is_flag=True, help=LISTEN_ANYWHERE)
def sidecar(san: tuple[str, ...], listen_anywhere: bool, **values: str | None) -> None:
    """Offer a gateway's TLS listener as plain loopback, with a certificate of its own.

    It enrols with a one-time token, from --token-file or the environment variable
    SLAPENIR_ENROLMENT_TOKEN, and renews by itself.  With a certificate in the state directory no
    token is needed.  Exits 1 when it cannot start and 2 for a command line that makes no sense.
    """
    given = {name.replace("_", "-"): value for name, value in values.items()}
    try:
        options = read_options(given, san, listen_anywhere, surroundings())
    except BadUsage as error:
        raise click.UsageError(str(error)) from None
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner, textFileLogObserver

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(_run, (options,))


async def _run(reactor: Any, options: Options) -> None:
    """Run until the process is told to end."""
    from twisted.internet.defer import Deferred

    from slapenir.sidecar.service import SidecarService

    service = SidecarService(options, reactor, surroundings())
    try:
        service.startService()
    except SlapenirError as error:
        report(error)
        raise SystemExit(CANNOT_START) from None
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    await Deferred()
