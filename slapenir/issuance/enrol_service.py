"""The enrolment service: certificates for agents, for a one-time token or for the one in force.

    POST /v1/enrol   {"token_secret": ..., "csr": PEM}   -> {"chain", "roots", "identity"}
    POST /v1/renew   {"csr": PEM}, by mutual TLS         -> the same
    GET  /v1/roots   the roots in PEM
    GET  /v1/crl     the revocation lists in PEM

A private key never travels.  The names in a certificate come from the configuration.  An error is
``{"error": phrase, "retry": whether the same may succeed later}`` and quotes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from slapenir.errors import AuditError, ConfigError, NotInForceError, PkiError, TokenError
from slapenir.events import (
    AuditFailed,
    CertificateIssued,
    EnrolmentRefused,
    Event,
    InternalError,
)
from slapenir.issuance.attempts import Attempts
from slapenir.issuance.enrol_request import PublicKey, Refused, parse, public_key
from slapenir.issuance.enrol_site import EnrolmentRequest, site_factory
from slapenir.pki.held import to_pem

MAX_BUSY = 6
"""Requests that are being worked on at one time; the reactor has ten threads for everybody."""

REQUESTS_PER_MINUTE, REQUESTS_EACH = 1200, 300
FAILURES_PER_MINUTE, FAILURES_EACH = 300, 30
RENEWALS_PER_MINUTE, RENEWALS_EACH = 600, 10

_PEM = "application/x-pem-file"
_NOT_IN_FORCE = "the certificate is revoked, expired or nobody's; enrol with a new token"
_NO_TOKEN = "the token is unknown, used or expired; make a new one: slapenir ca token"  # noqa: S105
_BUSY = Refused(503, "the service is busy", retry=True)
T = TypeVar("T")


class IssuedLike(Protocol):
    """What the CA signed."""

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificate and its issuers, without the root."""

    @property
    def serial(self) -> str:
        """Its serial number in hex."""

    @property
    def not_after(self) -> float:
        """Its end in Unix seconds."""


class EnrolmentService:
    """Give certificates to who has a token, or a certificate that is to be replaced.

    ``renew(identity, public key, replaced)`` signs with the names of the identity; ``replaced`` is
    the certificate that was shown.  ``enrol(secret, public key)`` consumes a token and signs with
    the names of its identity, which it returns too; it raises TokenError for a token that is
    unknown, used or expired.  Both raise ConfigError for an identity that is not configured,
    NotInForceError for a ``replaced`` that is not good and PkiError when the CA cannot sign.
    ``roots`` and ``crl`` return what clients trust and the lists in force.  These four are called
    in threads of ``reactor``'s pool.

    ``identify`` is given the TLS connection of a client that showed a certificate which the
    context verified.  It returns the identity that the certificate is in force for, or None; it
    is called in the reactor's thread, for each renewal anew.
    """

    def __init__(
        self,
        reactor: Any,
        renew: Callable[[str, PublicKey, x509.Certificate], IssuedLike],
        enrol: Callable[[str, PublicKey], tuple[str, IssuedLike]],
        identify: Callable[[SSL.Connection], str | None],
        roots: Callable[[], tuple[x509.Certificate, ...]],
        crl: Callable[[], bytes],
        publish: Callable[[Event], None],
    ) -> None:
        self._reactor = reactor
        self._sign_renewal = renew
        self._sign_enrolment = enrol
        self._identify = identify
        self._roots = roots
        self._crl = crl
        self._publish = publish
        self._busy = 0
        seconds = reactor.seconds
        self._requests = Attempts(seconds, REQUESTS_PER_MINUTE, REQUESTS_EACH)
        self._failures = Attempts(seconds, FAILURES_PER_MINUTE, FAILURES_EACH)
        self._renewals = Attempts(seconds, RENEWALS_PER_MINUTE, RENEWALS_EACH)
        self._pages: dict[bytes, tuple[str, Callable[[EnrolmentRequest], None]]] = {
            b"/v1/enrol": ("POST", self._enrol),
            b"/v1/renew": ("POST", self._renew),
            b"/v1/roots": ("GET", self._show_roots),
            b"/v1/crl": ("GET", self._show_crl),
        }

    def factory(self, connect: Callable[[], SSL.Connection]) -> TLSMemoryBIOFactory:
        """Return the factory to listen with.

        ``connect`` returns a server connection over memory for each client.  Its context may ask
        for a client certificate and must verify one that is shown, but not require it.
        """
        return site_factory(self._reactor, self._handle, connect, self._crashed)

    # Requests.

    def _handle(self, request: EnrolmentRequest) -> None:
        try:
            self._route(request)
        except Refused as refused:
            self._refuse(request, refused)
        except Exception as error:
            self._crashed(error)
            self._answer_crash(request)

    def _route(self, request: EnrolmentRequest) -> None:
        page = self._pages.get(request.path)
        if page is None:
            request.answer_json(404, {"error": "there is no such page", "retry": False})
            return
        method, render = page
        if request.method != method.encode("ascii"):
            allowed: dict[str, object] = {"error": f"the method is {method}", "retry": False}
            request.answer_json(405, allowed, method)
            return
        render(request)

    def _count(self, request: EnrolmentRequest) -> None:
        """Count a request of anybody; who is known by a certificate has a budget of its own."""
        if self._requests.full(request.source):
            raise Refused(429, "too many requests in a minute", retry=True)
        self._requests.add(request.source)

    def _enrol(self, request: EnrolmentRequest) -> None:
        self._count(request)
        if self._failures.full(request.source):
            raise Refused(429, "too many tokens were refused in a minute", retry=True)
        application = parse(_body(request), with_secret=True)

        def work() -> tuple[str, IssuedLike, bytes]:
            key = public_key(application.request)  # first: a bad request must not use a token up
            used = ", and the token is used up; make a new one: slapenir ca token"
            return self._signed(
                lambda: self._sign_enrolment(application.secret, key), again=False, more=used
            )

        self._in_thread(request, work, lambda found: self._issued(request, "token", *found))

    def _renew(self, request: EnrolmentRequest) -> None:
        connection = request.connection
        shown = connection.get_peer_certificate(as_cryptography=True)
        if shown is None:
            self._count(request)
            raise Refused(401, "renewal needs the certificate in force, by mutual TLS")
        identity = self._identify(connection)
        if not identity:
            self._count(request)
            raise Refused(403, _NOT_IN_FORCE)
        if self._renewals.full(identity):
            raise Refused(429, "too many renewals in a minute", retry=True)
        self._renewals.add(identity)
        application = parse(_body(request), with_secret=False)

        def work() -> tuple[str, IssuedLike, bytes]:
            key = public_key(application.request)
            return self._signed(lambda: (identity, self._sign_renewal(identity, key, shown)))

        self._in_thread(request, work, lambda found: self._issued(request, "renewal", *found))

    def _show_roots(self, request: EnrolmentRequest) -> None:
        self._count(request)
        self._in_thread(
            request, lambda: to_pem(self._roots()), lambda pem: request.answer(200, _PEM, pem)
        )

    def _show_crl(self, request: EnrolmentRequest) -> None:
        self._count(request)
        self._in_thread(request, self._crl, lambda pem: request.answer(200, _PEM, pem))

    # In a thread.

    def _signed(
        self, sign: Callable[[], tuple[str, IssuedLike]], again: bool = True, more: str = ""
    ) -> tuple[str, IssuedLike, bytes]:
        """Sign and add the roots; say what cannot be as a refusal, and whether to try ``again``."""
        try:
            identity, issued = sign()
            return identity, issued, to_pem(self._roots())
        except TokenError as error:
            raise Refused(401, _NO_TOKEN, reason=str(error)) from None
        except NotInForceError as error:
            raise Refused(403, _NOT_IN_FORCE, reason=str(error)) from None
        except ConfigError as error:
            phrase = "the identity gets no certificate: the configuration gives it no name for one"
            raise Refused(403, phrase, reason=error.message) from None
        except PkiError as error:
            phrase = f"the CA cannot sign now{more}"
            raise Refused(503, phrase, retry=again, reason=str(error)) from None

    # Answers.

    def _in_thread(
        self, request: EnrolmentRequest, work: Callable[[], T], done: Callable[[T], None]
    ) -> None:
        if self._busy >= MAX_BUSY:
            raise _BUSY
        self._busy += 1
        pool = self._reactor.getThreadPool()
        working: Deferred[T] = deferToThreadPool(self._reactor, pool, work)
        working.addBoth(self._worked)
        working.addCallback(done).addErrback(self._failed, request)

    def _worked(self, result: T) -> T:
        self._busy -= 1
        return result

    def _issued(
        self,
        request: EnrolmentRequest,
        how: str,
        identity: str,
        issued: IssuedLike,
        roots: bytes,
    ) -> None:
        """Record it, then hand it out: nothing leaves that the audit log does not have."""
        event = CertificateIssued(identity, issued.serial, issued.not_after, how, request.peer)
        try:
            self._publish(event)
        except AuditError as error:
            self._publish(AuditFailed(str(error)))
            phrase = "what was issued could not be recorded"
            request.answer_json(503, {"error": phrase, "retry": True})
            return
        answer: dict[str, object] = {
            "chain": to_pem(issued.chain).decode("ascii"),
            "roots": roots.decode("ascii"),
            "identity": identity,
        }
        request.answer_json(200, answer)

    def _failed(self, failure: Failure, request: EnrolmentRequest) -> None:
        error = failure.value
        if isinstance(error, Refused):
            if error.status == 401:
                self._failures.add(request.source)
            self._refuse(request, error)
            return
        assert isinstance(error, Exception)  # noqa: S101 - a Failure of a thread holds no other
        self._crashed(error)
        self._answer_crash(request)

    def _refuse(self, request: EnrolmentRequest, refused: Refused) -> None:
        try:
            self._publish(EnrolmentRefused(refused.reason, request.peer))
        except AuditError as error:  # it is refused whether that is recorded or not
            self._publish(AuditFailed(str(error)))
        request.answer_json(refused.status, {"error": refused.phrase, "retry": refused.retry})

    def _answer_crash(self, request: EnrolmentRequest) -> None:
        request.answer_json(500, {"error": "the service failed", "retry": True})

    def _crashed(self, error: Exception) -> None:
        self._publish(InternalError("enrolment", type(error).__name__))


def _body(request: EnrolmentRequest) -> bytes:
    content = request.content
    return b"" if content is None else bytes(content.read())
