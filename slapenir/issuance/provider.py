"""Where a certificate comes from: the one interface of the embedded CA, ACME and step-ca."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from slapenir.errors import PkiError, SlapenirError
from slapenir.pki.held import Held, Wanted, from_pem, new_key

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which pyOpenSSL does not name


class IssuanceError(SlapenirError):
    """No certificate was given, and why: a phrase that quotes no key, token or answer."""


class Refused(IssuanceError):
    """The CA does not accept the certificate or the token that was shown to it."""


class Provider(Protocol):
    """A CA, as one who wants a certificate of it sees it.

    Both errback IssuanceError or PkiError; any other failure is a bug.  Cancelling makes an
    attempt end soon.
    """

    def obtain(self) -> Deferred[Held]:
        """Return a first certificate, with a new key."""

    def renew(self, held: Held) -> Deferred[Held]:
        """Return one after another, with a new key.  ``held`` may have expired."""


class IssuedLike(Protocol):
    """What a CA signed."""

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificate and its issuers, without the root."""


Issue = Callable[[Wanted, ec.EllipticCurvePublicKey], IssuedLike]


class EmbeddedProvider:
    """The gateway's own CA: ``issue`` signs and ``roots`` says what to trust, both in a thread."""

    def __init__(
        self,
        reactor: Any,
        wanted: Wanted,
        issue: Issue,
        roots: Callable[[], tuple[x509.Certificate, ...]],
    ) -> None:
        self._reactor = reactor
        self._wanted = wanted
        self._issue = issue
        self._roots = roots

    def obtain(self) -> Deferred[Held]:
        """See Provider."""
        pool = self._reactor.getThreadPool()
        made: Deferred[Held] = deferToThreadPool(self._reactor, pool, self._sign)
        return made

    def renew(self, held: Held) -> Deferred[Held]:
        """See Provider: it is signed anew, with a new key."""
        return self.obtain()

    def _sign(self) -> Held:
        key = new_key()
        return Held(key, self._issue(self._wanted, key.public_key()).chain, self._roots())


def read_pem(data: bytes, where: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates in an answer; raises IssuanceError naming ``where``."""
    try:
        return from_pem(data, where)
    except PkiError as error:
        raise IssuanceError(str(error)) from None


def accept(
    key: ec.EllipticCurvePrivateKey,
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    wanted: Wanted,
    now: float,
) -> Held:
    """Return what a CA gave, after a look whether it is what was wanted.

    The leaf must be for ``key``, not have ended at ``now`` (Unix seconds) and say every name in
    ``wanted`` and no other, and ``roots`` must vouch for it.  A root that was sent is left out.
    Raises IssuanceError.
    """
    if not chain:
        raise IssuanceError("no certificate came")
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        raise IssuanceError("the certificate that came is not for our key")
    if names_in(leaf) != set(wanted.alternative_names()):
        raise IssuanceError("the certificate that came is not for the names that were asked for")
    if now >= leaf.not_valid_after_utc.timestamp():
        raise IssuanceError("the certificate that came has expired; compare the clocks")
    sent = tuple(one for one in chain if one not in roots)
    _verify(sent, roots)
    return Held(key, sent, tuple(roots))


def names_in(leaf: x509.Certificate) -> set[x509.GeneralName]:
    """Return the subject alternative names; none when they cannot be read."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return set()
    return set(found.value)


def _verify(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> None:
    """Raise IssuanceError when the chain does not lead to one of the roots.

    Times are not looked at: what counts is who signed, and a clock that is minutes apart from the
    CA's must stop nothing.  Whoever is shown the certificate looks at them.
    """
    if not chain:
        raise IssuanceError("a root came instead of a certificate")
    store = crypto.X509Store()
    store.set_flags(_NO_CHECK_TIME)
    try:
        for root in roots:
            store.add_cert(crypto.X509.from_cryptography(root))
        leaf, *others = (crypto.X509.from_cryptography(one) for one in chain)
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except (crypto.X509StoreContextError, crypto.Error):
        raise IssuanceError(
            "the certificate that came does not lead to the root that is trusted"
        ) from None
