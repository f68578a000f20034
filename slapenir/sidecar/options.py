"""What a sidecar is told on its command line, the same for ``slapenir sidecar`` and twistd.

No secret is ever one of these: an argument list can be read by everybody on the machine.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

import attrs

from slapenir.config.durations import duration
from slapenir.errors import AuthorityError, SlapenirError
from slapenir.names import Authority, canonical_host, parse_authority

TOKEN_VARIABLE = "SLAPENIR_ENROLMENT_TOKEN"  # noqa: S105 - a variable's name
_STATE = ".local/state/slapenir-sidecar"
_FINGERPRINT = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

PARAMETERS: Mapping[str, str] = {
    "gateway": "HOST:PORT of the gateway's TLS listener.",
    "listen": "ADDRESS:PORT of loopback to listen on, such as 127.0.0.1:8080.",
    "server-name": "The name in the gateway's certificate, when it is not HOST.",
    "state": "The directory for key and certificate, closed to everybody else.",
    "token-file": "The file with the one-time token that enrols this sidecar.",
    "admin": "ADDRESS:PORT for /healthz, /readyz and /metrics.",
    "lifetime": "With --step-ca: how long a certificate is to be valid, such as 24h.",
    "step-ca": "Enrol with the step-ca at this URL instead of the gateway.",
    "root-fingerprint": "With --step-ca: the SHA-256 of its root certificate, in hex.",
    "provisioner": "With --step-ca: the name of its JWK provisioner.",
    "name": "With --step-ca: the subject of the certificate.",
    "certificate": "A certificate made by hand, with its chain; needs --key and --ca.",
    "key": "The key of --certificate.",
    "ca": "The roots that the gateway's certificate is checked by.",
}
LISTEN_ANYWHERE = "Let --listen and --admin be addresses that other machines reach."
SAN = "With --step-ca: a DNS name or URI in the certificate; may be given again."


class BadUsage(SlapenirError):
    """The command line does not make sense, and why."""


@attrs.frozen(slots=True)
class ByToken:
    """Enrol with the gateway's own CA.  The token says where."""


@attrs.frozen(slots=True)
class ByStepCa:
    """Enrol with a step-ca, whose token is made with its tools; ``lifetime`` in seconds."""

    url: str
    fingerprint: str
    provisioner: str
    subject: str
    sans: tuple[str, ...]
    lifetime: float


@attrs.frozen(slots=True)
class ByHand:
    """Files that somebody else looks after."""

    certificate: str
    key: str
    ca: str


Way: TypeAlias = ByToken | ByStepCa | ByHand


@attrs.frozen(slots=True)
class Options:
    """A command line that makes sense.  ``name`` is what the gateway's certificate must be for."""

    gateway: Authority
    name: Authority
    listen: tuple[str, int]
    state: str
    way: Way
    token_file: str = ""
    admin: tuple[str, int] | None = None


def read_options(
    values: Mapping[str, str | None],
    sans: tuple[str, ...],
    anywhere: bool,
    environ: Mapping[str, str],
) -> Options:
    """Return the options in ``values``, whose keys are those of PARAMETERS.

    Raises BadUsage, saying which option and what to write.
    """
    given = {key: value for key, value in values.items() if value}
    gateway = _authority("gateway", _needed(given, "gateway"))
    name = gateway
    if "server-name" in given:
        try:
            host = canonical_host(given["server-name"].encode("utf-8"))
        except AuthorityError as error:
            raise BadUsage(f"--server-name: {error.reason}") from None
        name = Authority(host, gateway.port)
    token_file = given.get("token-file", "")
    return Options(
        gateway,
        name,
        _address("listen", _needed(given, "listen"), anywhere),
        os.path.abspath(given.get("state") or default_state(environ)),
        _way(given, sans),
        os.path.abspath(token_file) if token_file else "",
        _address("admin", given["admin"], anywhere) if "admin" in given else None,
    )


def default_state(environ: Mapping[str, str]) -> str:
    """Return the state directory that systemd gave, or one in the user's home.

    Raises BadUsage when there is neither.
    """
    given = environ.get("STATE_DIRECTORY", "")
    if given and ":" not in given:
        return given
    if not environ.get("HOME"):
        raise BadUsage("--state DIR is needed: neither STATE_DIRECTORY nor HOME is set")
    return os.path.join(environ["HOME"], _STATE)


def _needed(given: Mapping[str, str], key: str) -> str:
    if key not in given:
        raise BadUsage(f"--{key} is needed: {PARAMETERS[key]}")
    return given[key]


def _authority(key: str, text: str) -> Authority:
    try:
        found = parse_authority(text.encode("utf-8"), None)
    except AuthorityError as error:
        raise BadUsage(f"--{key}: {error.reason}; write HOST:PORT") from None
    if not found.port:
        raise BadUsage(f"--{key}: the port is 0")
    return found


def _address(key: str, text: str, anywhere: bool) -> tuple[str, int]:
    """Return an address to listen on; it has to be loopback, unless ``anywhere``."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BadUsage(f"--{key}: write ADDRESS:PORT, such as 127.0.0.1:8080")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise BadUsage(f"--{key}: {host!r} is not an IP address") from None
    if not address.is_loopback and not anywhere:
        raise BadUsage(
            f"--{key}: {host} is not loopback: whoever reaches it is this identity; if that is "
            "meant, add --listen-anywhere"
        )
    return host, int(port)


def _way(given: Mapping[str, str], sans: tuple[str, ...]) -> Way:
    """Return where the certificate comes from; the options of one way do not fit another's."""
    hand = {"certificate", "key", "ca"} & set(given)
    step = {"root-fingerprint", "provisioner", "name", "lifetime"} & set(given)
    if "step-ca" in given:
        if hand:
            raise BadUsage(f"--step-ca and --{min(hand)} exclude each other")
        return _step_ca(given, sans)
    if step or sans:
        raise BadUsage(f"--{min(step or {'san'})} needs --step-ca")
    if not hand:
        return ByToken()
    if "token-file" in given:
        raise BadUsage(f"--token-file and --{min(hand)} exclude each other")
    paths = (os.path.abspath(_needed(given, key)) for key in ("certificate", "key", "ca"))
    return ByHand(*paths)


def _step_ca(given: Mapping[str, str], sans: tuple[str, ...]) -> ByStepCa:
    url, fingerprint = given["step-ca"].rstrip("/"), _needed(given, "root-fingerprint")
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.username:
        raise BadUsage("--step-ca: write https://HOST:PORT")
    fingerprint = fingerprint.replace(":", "")
    if _FINGERPRINT.fullmatch(fingerprint) is None:
        raise BadUsage("--root-fingerprint: write the 64 hex digits of a SHA-256")
    try:
        lifetime = duration(given.get("lifetime", "24h"))
    except ValueError as error:
        raise BadUsage(f"--lifetime: {error}") from None
    subject, provisioner = _needed(given, "name"), given.get("provisioner", "")
    return ByStepCa(url, fingerprint.lower(), provisioner, subject, sans, lifetime)
