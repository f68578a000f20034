"""SSL contexts: one per intercepted host towards clients, one for all origins.

Both sides speak TLS 1.2 or 1.3 with forward secrecy only, ALPN http/1.1 only, no compression, no
renegotiation, no resumption and so no early data (RFC 8446, 8; RFC 9325).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import service_identity
from OpenSSL import SSL
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.tls import AlpnMismatch, TlsError, remember_verify_error
from slapenir.errors import PkiError
from slapenir.names import Authority
from slapenir.pki.leaves import Leaf

HTTP_1_1 = b"http/1.1"
# ECDHE and AEAD only, at OpenSSL's security level 2: 112 bits, so no RSA or DH below 2048 bits,
# no SHA-1 signatures, no RC4 or 3DES.
SERVER_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
_ORIGIN_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:ECDHE+AES:!aNULL:!SHA1:@SECLEVEL=2"
_RENEW_SECONDS = 3600.0


class MintBudgetError(Exception):
    """More new hosts were asked for per second than leaves may be minted."""


def hardened(ciphers: bytes) -> SSL.Context:
    """Return a context with what both sides have in common."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(ciphers)
    return context


def select_http_1_1(connection: SSL.Connection, offered: Sequence[bytes]) -> bytes:
    """Choose http/1.1 or fail with no_application_protocol (RFC 7301, 3.2)."""
    if HTTP_1_1 in offered:
        return HTTP_1_1
    raise AlpnMismatch


class ServerContexts:
    """Contexts that show a client a leaf for the host it asked for, least recently used out.

    ``mint`` makes leaves, by host and by the identity that sees it: each identity may have a CA of
    its own, and then ``by_identity`` keeps what they are shown apart.  ``clock`` is Unix time;
    ``ticks`` is monotonic.  A burst of ``mint_burst`` unseen hosts is served, then
    ``mints_per_second``.
    """

    def __init__(
        self,
        mint: Callable[[str, str], Leaf],
        limits: EdgeLimits,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        by_identity: bool = False,
    ) -> None:
        self._mint = mint
        self._by_identity = by_identity
        self._limits = limits
        self._clock = clock
        self._ticks = ticks
        self._contexts: OrderedDict[tuple[str, str], tuple[SSL.Context, float]] = OrderedDict()
        self._budgets: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._contexts)

    def replace(self, mint: Callable[[str, str], Leaf]) -> None:
        """Sign with other CAs from now on; nothing of the old ones is shown again (T218)."""
        self._mint = mint
        self._contexts.clear()
        self._budgets.clear()

    def connection(self, host: str, identity: str) -> SSL.Connection:
        """Return a server connection over memory for ``host``, ready to shake hands.

        Raises MintBudgetError, AuthorityError, PkiError.
        """
        key = (identity if self._by_identity else "", host)
        connection = SSL.Connection(self._context(key, identity), None)
        connection.set_accept_state()
        return connection

    def _context(self, key: tuple[str, str], identity: str) -> SSL.Context:
        contexts = self._contexts
        found = contexts.get(key)
        if found is not None:
            if self._clock() < found[1]:
                contexts.move_to_end(key)
                return found[0]
            del contexts[key]
        self._spend(identity)
        leaf = self._mint(key[1], key[0])
        context = hardened(SERVER_CIPHERS)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_alpn_select_callback(select_http_1_1)
        context.use_certificate(leaf.certificate)
        context.use_privatekey(leaf.key)
        if len(contexts) >= self._limits.leaf_cache:
            contexts.popitem(last=False)
        contexts[key] = (context, leaf.expiry - _RENEW_SECONDS)
        return context

    def _spend(self, identity: str) -> None:
        """Take one of what an identity may have; there are as many as the configuration names."""
        now, burst = self._ticks(), float(self._limits.mint_burst)
        left, counted = self._budgets.get(identity, (burst, now))
        left = min(left + (now - counted) * self._limits.mints_per_second, burst)
        enough = left >= 1.0
        self._budgets[identity] = (left - 1.0 if enough else left, now)
        if not enough:
            raise MintBudgetError


class OriginContext:
    """The one context towards origins: every chain is verified against ``ca_file``.

    Raises PkiError when the file has no certificate that can be used.
    """

    def __init__(self, ca_file: str) -> None:
        context = hardened(_ORIGIN_CIPHERS)
        context.set_alpn_protos([HTTP_1_1])
        context.set_verify(SSL.VERIFY_PEER, remember_verify_error)
        try:
            context.load_verify_locations(ca_file)
        except SSL.Error:
            raise PkiError(f"{ca_file}: no CA certificates can be read from it") from None
        self._context = context

    def connection(self, authority: Authority) -> SSL.Connection:
        """Return a client connection over memory that asks for the authority's host.

        Server Name Indication carries names only, never addresses (RFC 6066, 3).
        """
        connection = SSL.Connection(self._context, None)
        if not authority.is_ip:
            connection.set_tlsext_host_name(authority.host.encode("ascii"))
        connection.set_connect_state()
        return connection


def verify_name(connection: SSL.Connection, authority: Authority) -> None:
    """Check that the peer's certificate is for the authority's host (RFC 9525, RFC 6125).

    Only subject alternative names count, never the common name.  Raises TlsError.
    """
    try:
        if authority.is_ip:
            verify_ip_address(connection, authority.host)
        else:
            verify_hostname(connection, authority.host)
    except service_identity.VerificationError:
        raise TlsError("certificate is for another host", untrusted=True) from None
    except service_identity.CertificateError:
        raise TlsError("certificate has no usable host name", untrusted=True) from None
    except Exception:
        # A malformed certificate can raise what its parser raises; it is not trusted either.
        raise TlsError("certificate cannot be read", untrusted=True) from None


def verify_protocol(connection: SSL.Connection) -> None:
    """Check that the origin did not choose a protocol that was not offered.  Raises TlsError."""
    if connection.get_alpn_proto_negotiated() not in (b"", HTTP_1_1):
        raise TlsError("unexpected application protocol")
