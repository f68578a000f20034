"""TLS that clients speak with a listener: its certificate, and what clients' are checked by.

OpenSSL builds and verifies the chain (RFC 5280, 6), up to one of the anchors and no further; what
it does not look at is looked at here, once the handshake is done, so that a client is told why.
There is no resumption and so no early data: every connection shows its certificate anew (T106).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from enum import Enum

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto

from slapenir.edge.tls import remember_verify_error
from slapenir.edge.tlscontext import SERVER_CIPHERS, hardened, select_http_1_1
from slapenir.errors import PkiError
from slapenir.evidence import CertificateNames
from slapenir.names import Reason
from slapenir.pki.certificate_names import names_of
from slapenir.pki.revocation import Revocations, Standing

_DEPTH = 4  # certificates between a client's own and an anchor
_VERIFY = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT


class ClientAuth(Enum):
    """Whether clients have to show a certificate."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


@attrs.frozen(slots=True, eq=False, repr=False)
class Material:
    """What a doorway is made of; replaced as a whole.

    ``chain`` is the listener's own certificate and its issuers; ``anchors`` are the CAs that may
    vouch for clients, roots or issuing ones.
    """

    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    client_auth: ClientAuth = ClientAuth.NONE
    anchors: tuple[x509.Certificate, ...] = ()


@attrs.frozen(slots=True, eq=False)
class Passport:
    """A verified client certificate; ``issuers`` are those above it, the anchor last.

    ``not_after`` is the certificate's own end in Unix seconds, ``ends`` the first one of the chain.
    """

    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...]
    names: CertificateNames
    not_after: float
    ends: float


class Untrusted(Exception):
    """A certificate that OpenSSL accepted and that is nobody's here; ``reason`` says why."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.detail = detail


class Doorway:
    """The TLS of one listener.  ``replace`` and ``revise`` change it for what comes next.

    ``revocation_required`` makes what no list in force speaks about a refusal.  ``clock`` is Unix
    time.
    """

    def __init__(
        self,
        material: Material,
        revocation_required: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._required = revocation_required
        self._revocations: Revocations | None = None
        self._anchors: frozenset[x509.Certificate] = frozenset()
        self._context = self._make(material)
        self.material = material

    def replace(self, material: Material) -> None:
        """Show another certificate, trust other CAs; raises PkiError and changes nothing."""
        self._context = self._make(material)
        self.material = material

    def revise(self, revocations: Revocations | None) -> None:
        """Go by another list of revoked certificates; None when there is none to go by."""
        self._revocations = revocations

    def connection(self) -> SSL.Connection:
        """Return a server connection over memory, ready to shake hands."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection

    @property
    def context(self) -> SSL.Context:
        """The context in force, for who makes connections itself."""
        return self._context

    def passport(self, connection: SSL.Connection) -> Passport | None:
        """Return the certificate that a client showed, None when it showed none.

        Raises Untrusted for one that may not be a client's.
        """
        chain = connection.get_verified_chain(as_cryptography=True)
        if not chain:
            return None
        if len(chain) < 2:  # an anchor itself: it vouches, it does not call
            raise Untrusted(Reason.CERTIFICATE_REFUSED, "it is a trusted CA itself")
        leaf = chain[0]
        try:
            _check_leaf(leaf)
            names = names_of(leaf)
        except PkiError as error:
            raise Untrusted(Reason.CERTIFICATE_REFUSED, str(error)) from None
        except (ValueError, x509.UnsupportedGeneralNameType):
            raise Untrusted(Reason.CERTIFICATE_REFUSED, "it cannot be read") from None
        ends = [one.not_valid_after_utc.timestamp() for one in chain]
        found = Passport(leaf, tuple(chain[1:]), names, ends[0], min(ends))
        reason = self.objection(found)
        if reason is not None:
            raise Untrusted(reason)
        return found

    def objection(self, passport: Passport) -> Reason | None:
        """Return why a certificate is no longer good for this listener, or None."""
        now = self._clock()
        if now >= passport.ends:
            return Reason.CERTIFICATE_EXPIRED
        if passport.issuers[-1] not in self._anchors:
            return Reason.CERTIFICATE_REFUSED
        standing = self._standing(passport, now)
        if standing is Standing.REVOKED:
            return Reason.CERTIFICATE_REVOKED
        if standing is Standing.UNKNOWN and self._required:
            return Reason.REVOCATION_UNKNOWN
        return None

    def _standing(self, passport: Passport, now: float) -> Standing:
        """Return what the lists say of a certificate: one above it may be revoked, too.

        Only its own issuer has to have a list in force: few roots have one.
        """
        if self._revocations is None:
            return Standing.UNKNOWN
        chain = (passport.certificate, *passport.issuers)
        pairs = [*zip(chain, passport.issuers, strict=False), *self._above(chain[-1])]
        found = [self._revocations.standing(one, issuer, now) for one, issuer in pairs]
        return Standing.REVOKED if Standing.REVOKED in found else found[0]

    def _above(self, top: x509.Certificate) -> list[tuple[x509.Certificate, x509.Certificate]]:
        """Return each anchor above the last certificate of a chain, with the one below it.

        OpenSSL ends at the first anchor; others may be above it, and above those.
        """
        pairs: list[tuple[x509.Certificate, x509.Certificate]] = []
        seen, waiting = {top}, [top]
        while waiting:
            below = waiting.pop()
            for one in self._anchors:
                if one.subject == below.issuer and one not in seen:
                    pairs.append((below, one))
                    seen.add(one)
                    waiting.append(one)
        return pairs

    def _make(self, material: Material) -> SSL.Context:
        try:
            context = server_context(material)
        except (SSL.Error, crypto.Error, ValueError):
            raise PkiError("the certificate and its key cannot be used together") from None
        self._anchors = frozenset(material.anchors)
        return context


def server_context(material: Material) -> SSL.Context:
    """Return a context for a listener.  Raises SSL.Error or ValueError for unusable material."""
    context = hardened(SERVER_CIPHERS)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_alpn_select_callback(select_http_1_1)
    context.use_certificate(material.chain[0])
    context.use_privatekey(material.key)
    context.check_privatekey()
    for issuer in material.chain[1:]:
        context.add_extra_chain_cert(issuer)
    # No session of another context may ever be taken for one of this (T107).
    context.set_session_id(secrets.token_bytes(16))
    if material.client_auth is not ClientAuth.NONE:
        required = material.client_auth is ClientAuth.REQUIRED
        context.set_verify(_VERIFY if required else SSL.VERIFY_PEER, remember_verify_error)
        context.set_verify_depth(_DEPTH)
        store = context.get_cert_store()
        if store is None:
            raise ValueError("the context has no store")
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for anchor in material.anchors:
            store.add_cert(crypto.X509.from_cryptography(anchor))
            context.add_client_ca(anchor)
    return context


def _check_leaf(leaf: x509.Certificate) -> None:
    """Raise PkiError unless a certificate is one of a client and of no CA."""
    found = {type(one.value): one.value for one in leaf.extensions}
    constraints, usage = found.get(x509.BasicConstraints), found.get(x509.ExtendedKeyUsage)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise PkiError("it is a CA")
    if not isinstance(usage, x509.ExtendedKeyUsage):
        raise PkiError("it does not say that it is for clients")
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise PkiError("it is not for clients")
