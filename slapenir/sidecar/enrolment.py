"""Which provider a sidecar's certificate comes from, and whether it can begin without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slapenir.errors import PkiError
from slapenir.issuance.enrol_client import EnrolledProvider
from slapenir.issuance.provider import Provider
from slapenir.issuance.stepca_provider import StepCaProvider, given_token, wanted_of
from slapenir.pki.held import Held
from slapenir.pki.tokens import decode_token
from slapenir.secret import Secret
from slapenir.sidecar.options import TOKEN_VARIABLE, ByStepCa, ByToken, Options

ReadToken = Callable[[], Secret | None]


def make_provider(reactor: Any, options: Options, read_token: ReadToken) -> Provider:
    """Return the provider that the options choose; raises PkiError."""
    way = options.way
    if isinstance(way, ByStepCa):
        wanted = wanted_of(way.subject, way.sans, way.lifetime)
        token = given_token(read_token)
        return StepCaProvider(reactor, way.url, way.fingerprint, wanted, token)
    return EnrolledProvider(reactor, options.state, read_token)


def check_beginning(options: Options, read_token: ReadToken) -> bool:
    """Return whether there is a token and no certificate yet; raises PkiError without either."""
    try:
        Held.load(options.state)
        return False  # what is there may have expired; then the renewer says what is needed
    except (FileNotFoundError, PkiError):
        token = read_token()
    if token is None:
        raise PkiError(
            f"there is no certificate in {options.state} and no token; give one by --token-file "
            f"or {TOKEN_VARIABLE}"
        )
    if isinstance(options.way, ByToken):
        decode_token(token.reveal().decode("ascii", "replace").strip())
    return True
