"""The client's side of the gateway's enrolment service: a token once, then mutual TLS.

The token names the service and the SHA-256 of the root that must vouch for it.  That root is
fetched without trust and compared; only over a connection that verifies up to it is the token's
secret sent.  Later the roots are those that the service sent, so that a root can be replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from slapenir.errors import PkiError
from slapenir.issuance.pinned_https import Answer, PinnedClient, fetch_unverified
from slapenir.issuance.provider import IssuanceError, read_pem
from slapenir.pki.files import read_guarded, replace
from slapenir.pki.held import Held, Wanted, new_key
from slapenir.pki.tokens import EnrolmentToken, decode_token
from slapenir.secret import Secret

STATE_FILE = "enrolment.json"
_JSON = "application/json"
_CHAIN, _ROOTS = "the chain from the enrolment service", "the enrolment service's roots"
_NEW_TOKEN = "make a new one: slapenir ca token FILE IDENTITY"  # noqa: S105 - a remedy
_ANSWERS = {
    400: "the enrolment service does not understand the request; is it of this version?",
    404: "there is no enrolment service at that URL",
    429: "the enrolment service asks to wait",
    503: "the enrolment service cannot work now",
}


@attrs.frozen(slots=True)
class Enrolment:
    """Where a certificate came from: the service's URL, and the identity it is for."""

    url: str
    identity: str

    def save(self, directory: str) -> None:
        """Write enrolment.json (0600); raises PkiError."""
        data = json.dumps({"url": self.url, "identity": self.identity}).encode("ascii")
        replace(os.path.join(directory, STATE_FILE), data + b"\n", 0o600)

    @classmethod
    def load(cls, directory: str) -> Enrolment:
        """Read it; raises FileNotFoundError or PkiError."""
        path = os.path.join(directory, STATE_FILE)
        try:
            found: Any = json.loads(read_guarded(path, private=True))
            url, identity = found["url"], found["identity"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise PkiError(f"{path} cannot be read; remove it and enrol anew") from None
        if not isinstance(url, str) or not isinstance(identity, str):
            raise PkiError(f"{path} cannot be read; remove it and enrol anew")
        return cls(url, identity)


class EnrolledProvider:
    """Certificates from the gateway's own CA, with what is needed kept in ``directory``.

    ``read_token`` returns the token's text, or None when none was given; it raises PkiError when
    it cannot be read, and is called in a thread, once for each time that a token is needed.
    """

    def __init__(
        self,
        reactor: Any,
        directory: str,
        read_token: Callable[[], Secret | None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._directory = directory
        self._read_token = read_token
        self._now = now
        self._refused = b""  # the digest of a token that is of no use any more

    def obtain(self) -> Deferred[Held]:
        """Enrol with the token; errbacks IssuanceError."""
        return Deferred.fromCoroutine(self._obtain())

    def renew(self, held: Held) -> Deferred[Held]:
        """Replace a certificate that is in force; one that is not needs a token again."""
        return Deferred.fromCoroutine(self._renew(held))

    async def _obtain(self) -> Held:
        token, digest = await deferToThread(self._token)
        root = await self._pinned_root(token)
        key = new_key()
        body = {"token_secret": token.secret, "csr": _request(key)}
        answer = await self._post((root,), token.url, "/v1/enrol", body)
        if answer.status == 401:
            self._refused = digest
            raise IssuanceError(f"the token is unknown, used or expired; {_NEW_TOKEN}")
        return await self._take(token.url, key, answer)

    async def _renew(self, held: Held) -> Held:
        if self._now() >= held.not_after:
            return await self._obtain()
        url = await deferToThread(self._url)
        key = new_key()
        answer = await self._post(held.roots, url, "/v1/renew", {"csr": _request(key)}, held)
        if answer.status in (401, 403):
            phrase = "the certificate is revoked, or its identity is not configured any more"
            raise IssuanceError(f"{phrase}; {_NEW_TOKEN}")
        return await self._take(url, key, answer)

    # What is kept.

    def _token(self) -> tuple[EnrolmentToken, bytes]:
        """Return the token, and a digest by which it is known again.  Blocks."""
        try:
            text = self._read_token()
            if text is None:
                raise IssuanceError(f"there is no certificate and no token; {_NEW_TOKEN}")
            digest = hashlib.sha256(text.reveal()).digest()
            token = decode_token(text.reveal().decode("ascii", "replace").strip())
        except PkiError as error:
            raise IssuanceError(str(error)) from None
        if digest == self._refused:
            raise IssuanceError(f"the token was refused; {_NEW_TOKEN}")
        return token, digest

    def _url(self) -> str:
        """Return where to renew.  Blocks."""
        try:
            return Enrolment.load(self._directory).url
        except FileNotFoundError:
            raise IssuanceError(f"{STATE_FILE} is missing; {_NEW_TOKEN}") from None
        except PkiError as error:
            raise IssuanceError(str(error)) from None

    # What is said.

    async def _pinned_root(self, token: EnrolmentToken) -> x509.Certificate:
        """Return the root whose SHA-256 the token says; what else was sent is not looked at."""
        answer = await fetch_unverified(self._reactor, f"{token.url}/v1/roots")
        if answer.status != 200:
            raise IssuanceError(_phrase(answer.status))
        for root in read_pem(answer.body, _ROOTS):
            if root.fingerprint(hashes.SHA256()).hex() == token.root:
                return root
        raise IssuanceError(
            "the enrolment service has not the root that the token names: it is another one, or "
            "somebody is in between; nothing was sent"
        )

    async def _post(
        self,
        roots: tuple[x509.Certificate, ...],
        url: str,
        path: str,
        body: dict[str, str],
        held: Held | None = None,
    ) -> Answer:
        client = PinnedClient(self._reactor, roots, held)
        return await client.request("POST", url + path, json.dumps(body).encode("ascii"), _JSON)

    async def _take(self, url: str, key: ec.EllipticCurvePrivateKey, answer: Answer) -> Held:
        """Return what an answer over a verified connection holds, and keep where it came from."""
        if answer.status != 200:
            raise IssuanceError(_phrase(answer.status))
        try:
            found: Any = json.loads(answer.body)
            chain, roots = found["chain"].encode("ascii"), found["roots"].encode("ascii")
            identity = str(found["identity"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise IssuanceError("the enrolment service's answer cannot be read") from None
        held = Held(key, read_pem(chain, _CHAIN), read_pem(roots, _ROOTS))
        if held.leaf.public_key() != key.public_key():
            raise IssuanceError("the certificate that came is not for our key")
        if self._now() >= held.not_after:
            raise IssuanceError("the certificate that came has expired; check the clocks")
        await deferToThread(self._keep, Enrolment(url, identity))
        return held

    def _keep(self, enrolment: Enrolment) -> None:
        try:
            enrolment.save(self._directory)
        except PkiError as error:
            raise IssuanceError(str(error)) from None


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a request that says nothing but the key: the names come from the configuration."""
    return Wanted().request(key).public_bytes(serialization.Encoding.PEM).decode("ascii")


def _phrase(status: int) -> str:
    return _ANSWERS.get(status, f"the enrolment service answered {status}")
