"""``slapenir enrol``: a certificate for a client that shows it itself, such as curl."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from slapenir.cli.output import report, say
from slapenir.config.surroundings import surroundings
from slapenir.errors import PkiError, SlapenirError
from slapenir.pki.held import CHAIN, KEY, ROOTS, Held
from slapenir.sidecar.state import claim_state, token_reader

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from slapenir.issuance.enrol_client import EnrolledProvider

FAILED = 1


@click.command()
@click.option("--out", required=True, type=click.Path(), help="The directory for the files.")
@click.option("--token-file", default="", type=click.Path(), help="The file with the token.")
@click.option("--renew", is_flag=True, help="Replace the certificate that is in --out.")
def enrol(out: str, token_file: str, renew: bool) -> None:
    """Write key.pem, chain.pem and roots.pem for a client that shows a certificate itself.

    The one-time token comes from --token-file or the environment variable
    SLAPENIR_ENROLMENT_TOKEN; it says where the gateway is.  With --renew the certificate in the
    directory is shown instead.  Exits 1 when there is none, and why.
    """
    from twisted.internet.task import react

    directory = os.path.abspath(out)
    path = os.path.abspath(token_file) if token_file else ""
    react(_run, (directory, path, renew))


async def _run(reactor: Any, directory: str, token_file: str, renew: bool) -> None:
    from twisted.internet.threads import deferToThread

    from slapenir.issuance.enrol_client import EnrolledProvider

    try:
        claim_state(directory)
        provider = EnrolledProvider(reactor, directory, token_reader(token_file, surroundings()))
        held = await (_renewed if renew else _obtained)(provider, directory)
        await deferToThread(held.save, directory)
    except SlapenirError as error:
        report(error)
        raise SystemExit(FAILED) from None
    say(f"wrote {KEY}, {CHAIN} and {ROOTS} in {directory}")
    say(f"valid until {held.leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")


def _renewed(provider: EnrolledProvider, directory: str) -> Deferred[Held]:
    try:
        held = Held.load(directory)
    except FileNotFoundError:
        raise PkiError(f"{directory} holds no certificate; enrol without --renew") from None
    return provider.renew(held)


def _obtained(provider: EnrolledProvider, directory: str) -> Deferred[Held]:
    if os.path.lexists(os.path.join(directory, KEY)):
        raise PkiError(f"{directory} holds a key already; add --renew, or choose another directory")
    return provider.obtain()
