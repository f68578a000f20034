"""Credentials, and the surfaces of a request where one may be put."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import attrs

from slapenir.names import host_matches
from slapenir.secret import Secret

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# A field that routes or frames the message, is for one hop only, or goes through a hash whose
# result comes back: each would be an oracle for the secret or a way to move it.
REFUSED_HEADERS = frozenset(
    {
        b"connection",
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"content-range",
        b"digest",
        b"expect",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"repr-digest",
        b"signature",
        b"signature-input",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"unencoded-digest",
        b"upgrade",
        b"via",
        b"want-content-digest",
        b"want-digest",
        b"want-repr-digest",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    }
)
_REFUSED_PREFIX = b"sec-"  # Sec-WebSocket-*, Sec-Fetch-*: written by browsers and hashed by servers


@attrs.frozen(slots=True)
class HeaderSurface:
    """One request header, named in lower case.

    With ``scheme`` the value is ``scheme SP secret`` (RFC 9110, 11.4), without it the bare
    secret.  ``always`` adds the header where the request has none; ``present`` only replaces.
    """

    name: bytes
    scheme: bytes | None = None
    when: Literal["present", "always"] = "present"

    @property
    def label(self) -> str:
        """How records name this surface."""
        return f"header:{self.name.decode('ascii')}"


@attrs.frozen(slots=True)
class BasicSurface:
    """One half of an ``Authorization: Basic`` value (RFC 7617)."""

    part: Literal["username", "password"]

    @property
    def label(self) -> str:
        """How records name this surface."""
        return f"basic:{self.part}"


@attrs.frozen(slots=True)
class QuerySurface:
    """One query parameter; ``name`` is what it is after percent-decoding."""

    name: bytes

    @property
    def label(self) -> str:
        """How records name this surface."""
        return f"query:{self.name.decode('utf-8', 'backslashreplace')}"


@attrs.frozen(slots=True)
class BodySurface:
    """The request body: whoever can read back what was stored there can read the secret."""

    @property
    def label(self) -> str:
        """How records name this surface."""
        return "body"


Surface: TypeAlias = HeaderSurface | BasicSurface | QuerySurface | BodySurface


@attrs.frozen(slots=True)
class Credential:
    """A real secret with the hosts and surfaces it is for.

    ``hosts`` are patterns from names.parse_host_pattern; an empty tuple allows no host.
    ``placeholder`` is what the operator chose; None means that one is minted for each identity.
    ``identities`` are the only ones that may use it, whatever a rule says; None means no such
    bound.
    """

    id: str
    secret: Secret
    hosts: tuple[str, ...]
    surfaces: tuple[Surface, ...]
    placeholder: bytes | None = None
    identities: frozenset[str] | None = None

    def allows(self, host: str) -> bool:
        """Whether a canonical host may receive this credential."""
        return any(host_matches(pattern, host) for pattern in self.hosts)

    def is_for(self, identity: str) -> bool:
        """Whether an identity may use this credential."""
        return self.identities is None or identity in self.identities


def check_surface(surface: Surface) -> None:
    """Raise ValueError, in words for the operator, for a surface that must never be injected."""
    if isinstance(surface, HeaderSurface):
        name = surface.name
        shown = name.decode("ascii", "backslashreplace")
        if _TOKEN.fullmatch(name) is None or name != name.lower():
            raise ValueError(f"{shown!r} is not a header name in lower case")
        if name in REFUSED_HEADERS or name.startswith(_REFUSED_PREFIX):
            raise ValueError(
                f"a credential is never put into {shown}: it frames, routes or is hashed"
            )
        if surface.scheme is not None and _TOKEN.fullmatch(surface.scheme) is None:
            raise ValueError("the scheme is not one word, such as Bearer")
        if surface.when not in ("present", "always"):
            raise ValueError("when is either present or always")
    elif isinstance(surface, BasicSurface):
        if surface.part not in ("username", "password"):
            raise ValueError("the part of a Basic value is either username or password")
    elif isinstance(surface, QuerySurface):
        if not surface.name or any(byte < 0x20 or byte == 0x7F for byte in surface.name):
            raise ValueError("a query parameter needs a name without control bytes")
