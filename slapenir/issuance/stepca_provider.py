"""Certificates from a step-ca, by its JWK provisioner and then by the certificate in force.

Nothing is sent, a token least of all, before the CA showed that the pinned root vouches for it.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from slapenir.errors import PkiError
from slapenir.issuance.pinned_https import Answer, PinnedClient, fetch_root
from slapenir.issuance.provider import IssuanceError, Refused, accept, read_pem
from slapenir.pki.files import read_guarded
from slapenir.pki.held import Held, Wanted, new_key
from slapenir.secret import Secret

TOKEN_SECONDS = 300
_JSON = "application/json"
_NO_LIBRARY = "the provider step-ca needs a library: pip install 'slapenir[step-ca]'"
Token = Callable[[str, Wanted], str]


class StepCaProvider:
    """A step-ca at ``url`` whose root has the SHA-256 ``root_fingerprint`` (hex).

    ``token`` returns a one-time token for the CA's URL and what is wanted; it is called in a
    thread and raises IssuanceError or PkiError.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        root_fingerprint: str,
        wanted: Wanted,
        token: Token,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._url = url.rstrip("/")
        self._fingerprint = root_fingerprint
        names = (wanted.common_name, *wanted.dns, *wanted.addresses, *wanted.spiffe)
        self._wanted = attrs.evolve(wanted, common_name=next((n for n in names if n), ""))
        self._token = token
        self._now = now

    def obtain(self) -> Deferred[Held]:
        """See Provider."""
        return Deferred.fromCoroutine(self._obtain())

    def renew(self, held: Held) -> Deferred[Held]:
        """See Provider: by mutual TLS, with a new key.

        A token is needed again for one that has ended or that the CA does not take (it was
        revoked, or is another CA's), and where other names are wanted than it has.
        """
        if self._now() >= held.not_after or not self._wanted.is_said_by(held.leaf):
            return self.obtain()
        return Deferred.fromCoroutine(self._renew(held))

    async def _obtain(self) -> Held:
        root = await fetch_root(self._reactor, self._url, self._fingerprint)
        token = await deferToThread(self._token, self._url, self._wanted)
        return await self._ask(root, "/1.0/sign", {"ott": token, **self._times()}, None)

    async def _renew(self, held: Held) -> Held:
        root = await fetch_root(self._reactor, self._url, self._fingerprint)
        try:
            return await self._ask(root, "/1.0/rekey", {}, held)
        except Refused:
            return await self._obtain()

    def _times(self) -> dict[str, str]:
        return {"notAfter": f"{int(self._wanted.lifetime)}s"} if self._wanted.lifetime else {}

    async def _ask(
        self, root: x509.Certificate, path: str, more: dict[str, str], held: Held | None
    ) -> Held:
        key = new_key()
        request = self._wanted.request(key).public_bytes(Encoding.PEM).decode("ascii")
        body = json.dumps({"csr": request, **more}).encode("ascii")
        client = PinnedClient(self._reactor, (root,), held)
        answer = await client.request("POST", self._url + path, body, _JSON)
        return accept(key, _chain(answer), (root,), self._wanted, self._now())


def minted_tokens(key_file: str, provisioner: str, root_fingerprint: str) -> Token:
    """Return what makes tokens with a provisioner's private key, a JWK in a guarded file."""

    def mint(url: str, wanted: Wanted) -> str:
        try:
            from jwcrypto import jwk, jwt
            from jwcrypto.common import JWException
        except ImportError:
            raise IssuanceError(_NO_LIBRARY) from None
        try:
            key = jwk.JWK.from_json(read_guarded(key_file, private=True).decode("ascii"))
        except FileNotFoundError:
            raise PkiError(f"{key_file} does not exist") from None
        except (ValueError, JWException):
            raise PkiError(f"{key_file} is not a private key as a JWK") from None
        now = int(time.time())
        claims = {
            "iss": provisioner,
            "sub": wanted.common_name,
            "aud": f"{url}/1.0/sign",
            "sans": [*wanted.dns, *wanted.addresses, *wanted.spiffe] or [wanted.common_name],
            "sha": root_fingerprint,
            "iat": now,
            "nbf": now - 60,
            "exp": now + TOKEN_SECONDS,
            "jti": secrets.token_hex(32),
        }
        if key.get("kty") != "EC" or key.get("crv") != "P-256" or not key.has_private:
            raise PkiError(f"{key_file} is not an EC P-256 private key")
        kid = key.get("kid") or key.thumbprint()
        token = jwt.JWT(header={"alg": "ES256", "typ": "JWT", "kid": kid}, claims=claims)
        try:
            token.make_signed_token(key)
        except (JWException, ValueError, TypeError):
            raise PkiError(f"{key_file} is not a private key that can sign") from None
        made: str = token.serialize()
        return made

    return mint


def given_token(read_token: Callable[[], Secret | None]) -> Token:
    """Return what gives the operator's own token, made with ``step ca token``."""

    def give(url: str, wanted: Wanted) -> str:
        token = read_token()
        if token is None:
            raise IssuanceError("there is no certificate in force and no token; make a new one")
        return token.reveal().decode("ascii", "replace").strip()

    return give


def wanted_of(subject: str, sans: Sequence[str], lifetime: float) -> Wanted:
    """Return what a client certificate is to say: URIs, addresses and DNS names among ``sans``."""
    uris = tuple(one for one in sans if "://" in one)
    addresses = tuple(one for one in sans if one not in uris and _is_address(one))
    dns = tuple(one for one in sans if one not in uris and one not in addresses)
    if not sans:
        dns = (subject,)  # what step-ca makes of a subject alone
    return Wanted(subject, uris, dns, addresses, False, lifetime)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _chain(answer: Answer) -> tuple[x509.Certificate, ...]:
    """Return the certificates in an answer of step-ca."""
    if answer.status in (401, 403):
        raise Refused("the CA refuses: the token is used, expired or for something else")
    if answer.status not in (200, 201):
        raise IssuanceError(f"the CA answered {answer.status}")
    try:
        found = json.loads(answer.body)
        chain = found.get("certChain") or [found["crt"], found["ca"]]
        pem = "".join(chain).encode("ascii")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise IssuanceError("the CA's answer cannot be read") from None
    return read_pem(pem, "the CA's answer")
