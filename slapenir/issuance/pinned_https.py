"""HTTPS to a CA: certain roots are trusted and no others, whatever the environment says (T237).

One request for each connection, TLS 1.2 or 1.3, no redirects, no proxies, no content codings.  The
certificate and the host name are verified before the first byte of a request is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IConsumer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from slapenir.issuance.byte_bound import Bounded
from slapenir.issuance.pinned_tls import NOT_ACCEPTED, PinnedTls, why_not_trusted
from slapenir.issuance.provider import IssuanceError, Refused, read_pem
from slapenir.pki.held import Held

MAX_BODY = 1 << 20
"""Bytes of an answer's body, where nothing else is said; a longer one is an error."""

_OVERHEAD = 1 << 18  # bytes that TLS and header fields may take beside the body
SECONDS = 30.0
_OF_THE_NETWORK = ("twisted.internet.error", "twisted.web._newclient", "twisted.web.http")


@attrs.frozen(slots=True)
class Answer:
    """The status and the whole body of a response."""

    status: int
    body: bytes = attrs.field(repr=False)


class PinnedClient:
    """Requests to one server.  ``roots`` vouch for it; ``held`` is shown when it asks who we are.

    A request takes at most ``seconds`` in all, its answer's body at most ``limit`` bytes.  Without
    roots only plain http is spoken, for what is signed itself.  Raises IssuanceError for a key and
    a certificate that OpenSSL cannot use.
    """

    def __init__(
        self,
        reactor: Any,
        roots: Sequence[x509.Certificate],
        held: Held | None = None,
        seconds: float = SECONDS,
        limit: int = MAX_BODY,
    ) -> None:
        tls = PinnedTls(roots, held) if roots else None
        self._calls = _Calls(reactor, tls, seconds, limit)

    def request(
        self, method: str, url: str, body: bytes | None = None, content_type: str = ""
    ) -> Deferred[Answer]:
        """Send one request; errbacks IssuanceError when there is no whole answer.

        A status is not looked at: the caller does that.
        """
        return self._calls.ask(method, url, body, content_type)


def fetch_unverified(reactor: Any, url: str, seconds: float = SECONDS) -> Deferred[Answer]:
    """Get what nobody vouches for, to be compared with a fingerprint.  Nothing secret is sent."""
    return _Calls(reactor, PinnedTls(None, None), seconds, MAX_BODY).ask("GET", url, None, "")


def fetch_root(reactor: Any, url: str, fingerprint: str) -> Deferred[x509.Certificate]:
    """Return the root whose SHA-256 is ``fingerprint`` (hex) from the step-ca at ``url``.

    Errbacks IssuanceError when another one came.
    """

    def compare(answer: Answer) -> x509.Certificate:
        if answer.status != 200:
            raise IssuanceError(
                f"the CA has no root with this fingerprint (it answered {answer.status}); compare "
                "root_fingerprint with the CA's"
            )
        try:
            pem = json.loads(answer.body)["ca"].encode("ascii")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise IssuanceError("the CA's root cannot be read") from None
        (root, *_) = read_pem(pem, "the CA's root")
        if fingerprint_of(root) != fingerprint.lower():
            raise IssuanceError(
                "the CA's root has another fingerprint: it is another CA, or somebody is in "
                "between; nothing was sent"
            )
        return root

    asked = fetch_unverified(reactor, f"{url.rstrip('/')}/root/{fingerprint.lower()}")
    return asked.addCallback(compare)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in DER, in hex."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


@attrs.frozen(slots=True)
class _Calls:
    """How requests are sent: ``tls`` None is plain http."""

    reactor: Any
    tls: PinnedTls | None
    seconds: float
    limit: int

    def ask(self, method: str, url: str, body: bytes | None, content_type: str) -> Deferred[Answer]:
        try:
            where = _where(url, "http" if self.tls is None else "https")
        except IssuanceError as error:
            return fail(error)
        asked = Deferred.fromCoroutine(self._ask(method, url, body, content_type))

        def late(result: object, after: float) -> Answer:
            raise IssuanceError(f"{where} did not answer within {after:g} seconds")

        def blame(failure: Failure) -> Answer:
            error: Any = failure.value
            raise _blame(error, where) from None

        return asked.addTimeout(self.seconds, self.reactor, late).addErrback(blame)

    async def _ask(self, method: str, url: str, body: bytes | None, content_type: str) -> Answer:
        headers = Headers({b"user-agent": [b"slapenir"]})
        if content_type:
            headers.addRawHeader(b"content-type", content_type.encode("ascii"))
        endpoints = _Endpoints(self)
        pool = HTTPConnectionPool(self.reactor, persistent=False)
        agent = Agent.usingEndpointFactory(self.reactor, endpoints, pool)
        producer = None if body is None else _Whole(body)
        whole = False
        try:
            response: IResponse = await agent.request(
                method.encode("ascii"), url.encode("ascii"), headers, producer
            )
            collector = _Collector(self.limit)
            response.deliverBody(collector)
            answer = Answer(response.code, await collector.whole)
            whole = True
            return answer
        finally:
            endpoints.close(abort=not whole)


def _where(url: str, scheme: str) -> str:
    """Return the host and port of a URL, for errors; raises IssuanceError."""
    try:
        found = urlsplit(url)
        host, port = found.hostname or "", found.port or (443 if scheme == "https" else 80)
    except ValueError:
        raise IssuanceError("the URL cannot be read") from None
    printable = url.isascii() and url.isprintable() and " " not in url
    if found.scheme != scheme or not host or not printable or found.username is not None:
        raise IssuanceError(f"the URL is not of the form {scheme}://HOST:PORT/PATH")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _blame(error: BaseException, where: str) -> BaseException:
    """Return what to raise for a failure: a phrase where the network is to blame."""
    causes = [error]
    for reason in getattr(error, "reasons", ()):
        causes.append(getattr(reason, "value", reason))
    for cause in causes:
        phrase = why_not_trusted(cause)
        if phrase:
            kind = Refused if phrase == NOT_ACCEPTED else IssuanceError
            return kind(f"{where}: {phrase}")
        if isinstance(cause, IssuanceError):
            return cause
    if isinstance(error, DNSLookupError):
        return IssuanceError(f"{where} cannot be found by name")
    if isinstance(error, ConnectError | ConnectingCancelledError):
        return IssuanceError(f"{where} cannot be reached")
    if len(causes) > 1 or type(error).__module__ in (
        "twisted.internet.error",
        "twisted.web._newclient",
    ):
        return IssuanceError(f"{where} closed the connection before its answer was whole")
    return error


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """How a request's one connection is made, and how it is ended."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._bounded: Bounded | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return an endpoint that ends in TLS."""
        calls = self._calls
        plain = HostnameEndpoint(calls.reactor, uri.host, uri.port, timeout=calls.seconds)
        self._bounded = Bounded(plain, calls.limit + _OVERHEAD)
        if calls.tls is None:
            return self._bounded
        return wrapClientTLS(calls.tls.creatorForNetloc(uri.host, uri.port), self._bounded)

    def close(self, abort: bool) -> None:
        """End the connection without waiting for the other side's end."""
        if self._bounded is not None:
            self._bounded.close(abort)


@implementer(IBodyProducer)
class _Whole:
    """A request's body, written at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write it."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to write."""

    resumeProducing = stopProducing = pauseProducing


class _Collector(Protocol):
    """Collect a response's body; ``whole`` fires once with it."""

    def __init__(self, limit: int) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._limit = limit
        self._data = bytearray()

    def dataReceived(self, data: bytes) -> None:
        if self.whole.called:
            return
        self._data += data
        if len(self._data) > self._limit:
            self._data.clear()
            self.whole.errback(IssuanceError(f"the answer is longer than {self._limit} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone):
            self.whole.callback(bytes(self._data))
        else:
            self.whole.errback(IssuanceError("the answer was cut off"))
