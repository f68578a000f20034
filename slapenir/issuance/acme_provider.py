"""Certificates by ACME (RFC 8555), with the client library that certbot is built on.

It is synchronous, so it runs in a thread of its own.  The directory is spoken to over TLS that the
pinned root vouches for, whatever the environment says (T237).
"""

from __future__ import annotations

import datetime
import os
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread

from slapenir.issuance.challenge import Challenges
from slapenir.issuance.own_thread import in_own_thread
from slapenir.issuance.pinned_https import fetch_root, fingerprint_of
from slapenir.issuance.provider import IssuanceError, accept, read_pem
from slapenir.pki.files import replace
from slapenir.pki.held import Held, Wanted, new_key, read_chain, read_key, to_pem
from slapenir.pki.key_files import key_pem

ACCOUNT_KEY, ROOT_FILE = "account.key", "directory-root.pem"
ORDER_SECONDS = 120.0
REQUEST_SECONDS = 30
_NONCES = 4
_NO_LIBRARY = "the provider acme needs a library: pip install 'slapenir[acme]'"


class AcmeProvider:
    """An ACME CA; http-01 challenges are answered at ``endpoint``.

    ``directory`` keeps the account's key.  The root with the SHA-256 ``root_fingerprint`` is looked
    for in ``root_file``; all roots there may vouch for the certificates.  Without that file it is
    asked of the CA, as step-ca answers.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        root_fingerprint: str,
        root_file: str,
        contact: str,
        endpoint: str,
        directory: str,
        wanted: Wanted,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._url = url
        self._fingerprint = root_fingerprint
        self._root_file = root_file
        self._contact = contact
        self._endpoint = endpoint
        self._directory = directory
        self._wanted = wanted
        self._now = now

    def obtain(self) -> Deferred[Held]:
        """See Provider."""
        return Deferred.fromCoroutine(self._obtain())

    def renew(self, held: Held) -> Deferred[Held]:
        """See Provider: it is a new order, with a new key."""
        return self.obtain()

    async def _obtain(self) -> Held:
        answers: dict[str, str] = {}
        over = threading.Event()
        challenges = Challenges(self._reactor, answers)
        try:
            roots = await self._roots()
            await self._listen(challenges)
            key = new_key()
            found = await in_own_thread(
                self._reactor, "acme", self._order, key, roots, answers, over
            )
            return accept(key, found, roots, self._wanted, self._now())
        finally:
            over.set()
            await challenges.close()

    async def _listen(self, challenges: Challenges) -> None:
        try:
            await challenges.listen(self._endpoint)
        except CannotListenError as error:
            why = getattr(error.socketError, "strerror", "") or "it cannot be had"
            raise IssuanceError(f"cannot listen on pki.challenge {self._endpoint}: {why}") from None

    async def _roots(self) -> tuple[x509.Certificate, ...]:
        """Return the pinned root first, then the others of ``root_file``."""
        if not self._root_file:
            parts = urlsplit(self._url)
            base = f"{parts.scheme}://{parts.netloc}"
            try:
                return (await fetch_root(self._reactor, base, self._fingerprint),)
            except IssuanceError as error:
                raise IssuanceError(f"{error}; or name a file in pki.root_file") from None
        try:
            found = await deferToThread(read_chain, self._root_file)
        except FileNotFoundError:
            raise IssuanceError(f"{self._root_file} does not exist (pki.root_file)") from None
        pinned = [one for one in found if fingerprint_of(one) == self._fingerprint]
        if not pinned:
            raise IssuanceError(f"{self._root_file} has not the root that root_fingerprint names")
        return (*pinned, *(one for one in found if one not in pinned))

    # In the thread.

    def _order(
        self,
        key: ec.EllipticCurvePrivateKey,
        roots: tuple[x509.Certificate, ...],
        answers: dict[str, str],
        over: threading.Event,
    ) -> tuple[x509.Certificate, ...]:
        try:
            import requests
            from acme import challenges, client, errors, messages
            from josepy import errors as jose_errors
            from josepy.jwa import ES256
            from josepy.jwk import JWKEC
        except ImportError:
            raise IssuanceError(_NO_LIBRARY) from None
        path = os.path.join(self._directory, ROOT_FILE)
        replace(path, to_pem(roots[:1]), 0o600)
        account = JWKEC(key=self._account_key())
        network = client.ClientNetwork(account, alg=ES256, timeout=REQUEST_SECONDS)
        network.verify_ssl = path  # type: ignore[assignment]
        network.session.trust_env = False
        network.session.max_redirects = 0
        network.post = _patient(network.post, messages.Error)  # type: ignore[method-assign]
        network.session.hooks["response"] = [lambda *_, **__: _go_on(over)]
        try:
            found = client.ClientV2.get_directory(self._url, network)
            acme = client.ClientV2(found, net=network)
            self._register(acme, messages, errors)
            request = self._wanted.request(key).public_bytes(Encoding.PEM)
            order = acme.new_order(request)
            for one in order.authorizations:
                if one.body.status == messages.STATUS_VALID:  # the CA remembers an earlier order
                    continue
                chosen = [c for c in one.body.challenges if isinstance(c.chall, challenges.HTTP01)]
                if not chosen:
                    raise IssuanceError("the CA offers no http-01 challenge")
                response, validation = chosen[0].response_and_validation(account)
                answers[chosen[0].chall.encode("token")] = validation
                acme.answer_challenge(chosen[0], response)
            seconds = datetime.timedelta(seconds=ORDER_SECONDS)
            done = acme.poll_and_finalize(order, datetime.datetime.now() + seconds)
        except requests.exceptions.SSLError:
            raise IssuanceError("the ACME directory is not by the root that is pinned") from None
        except requests.exceptions.RequestException:
            raise IssuanceError("the ACME directory cannot be reached") from None
        except errors.ValidationError:
            raise IssuanceError(
                "the CA could not verify a name: does it reach pki.challenge at port 80?"
            ) from None
        except errors.TimeoutError:
            raise IssuanceError("the order was not ready in time") from None
        except (errors.Error, jose_errors.Error, messages.Error, ValueError) as error:
            kind = getattr(error, "code", None) or type(error).__name__
            raise IssuanceError(f"the CA refused the order ({kind})") from None
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            # The library trips over fields that are missing or of another type.
            kind = type(error).__name__
            raise IssuanceError(f"the CA's answer cannot be read ({kind})") from None
        finally:
            network.session.close()
        return read_pem(done.fullchain_pem.encode("ascii"), "the CA's answer")

    def _register(self, acme: Any, messages: Any, errors: Any) -> None:
        """Make the account, or take the one that this key has."""
        contact = {"email": self._contact} if self._contact else {}
        wish = messages.NewRegistration.from_data(terms_of_service_agreed=True, **contact)
        try:
            acme.new_account(wish)
        except errors.ConflictError as error:
            found = messages.RegistrationResource(uri=error.location, body=messages.Registration())
            acme.net.account = found

    def _account_key(self) -> ec.EllipticCurvePrivateKey:
        path = os.path.join(self._directory, ACCOUNT_KEY)
        try:
            return read_key(path)
        except FileNotFoundError:
            made = new_key()
            replace(path, key_pem(made), 0o600)
            return made


def _patient(post: Callable[..., Any], refusal: Any) -> Callable[..., Any]:
    """Return a POST that tries again when its nonce is refused (RFC 8555, 6.5).

    The library does so once, which is too little for a server with more than one front.
    """

    def tried(*arguments: Any, **more: Any) -> Any:
        for _ in range(_NONCES - 1):
            try:
                return post(*arguments, **more)
            except refusal as error:
                if error.code != "badNonce":
                    raise
        return post(*arguments, **more)

    return tried


def _go_on(over: threading.Event) -> None:
    """Raise IssuanceError in the thread when nobody waits for it any more."""
    if over.is_set():
        raise IssuanceError("the order was given up")
