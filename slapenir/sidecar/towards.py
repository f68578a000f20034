"""TLS towards the gateway: our certificate, and which roots may vouch for its."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL, crypto

from slapenir.edge.tls import Tls, TlsError, remember_verify_error
from slapenir.edge.tlscontext import HTTP_1_1, SERVER_CIPHERS, hardened
from slapenir.errors import PkiError
from slapenir.names import Authority

_DEPTH = 4


class Towards:
    """One certificate in use.  ``chain`` is ours and its issuers, ``not_after`` its end.

    TLS 1.2 or 1.3, ALPN http/1.1, no resumption and so no early data: nothing is shared between
    two connections but this.  Raises PkiError for a key that is not the certificate's and without
    roots.
    """

    def __init__(self, chain: Any, key: Any, roots: Any, not_after: float) -> None:
        self.not_after = not_after
        if not roots:
            raise PkiError("there is no root to check the gateway by")
        context = hardened(SERVER_CIPHERS)
        context.set_alpn_protos([HTTP_1_1])
        context.set_verify(SSL.VERIFY_PEER, remember_verify_error)
        context.set_verify_depth(_DEPTH)
        store = context.get_cert_store()
        if store is None:
            raise PkiError("OpenSSL has no store")
        try:
            for root in roots:
                store.add_cert(crypto.X509.from_cryptography(root))
            context.use_certificate(chain[0])
            for issuer in chain[1:]:
                context.add_extra_chain_cert(issuer)
            context.use_privatekey(key)
            context.check_privatekey()
        except (SSL.Error, crypto.Error, ValueError):
            raise PkiError("the certificate and its key cannot be used together") from None
        self._context = context

    def tls(self, name: Authority) -> GatewayTls:
        """Return a client's end over memory that asks for ``name`` (RFC 6066, 3)."""
        connection = SSL.Connection(self._context, None)
        if not name.is_ip:
            connection.set_tlsext_host_name(name.host.encode("ascii"))
        connection.set_connect_state()
        return GatewayTls(connection)


class GatewayTls(Tls):
    """TLS that keeps what ended it.

    In TLS 1.3 a server refuses our certificate when our handshake is over already, so its alert
    comes later (RFC 8446, 4.4.2.4).
    """

    __slots__ = ("error",)

    def __init__(self, connection: SSL.Connection) -> None:
        super().__init__(connection)
        self.error: TlsError | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take ciphertext as Tls does, and remember a failure."""
        try:
            return super().feed(data)
        except TlsError as error:
            self.error = error
            raise


def refuses_us(error: TlsError | None) -> bool:
    """Whether an error is the gateway's alert about our certificate (RFC 8446, 6.2)."""
    if error is None or error.untrusted or "alert" not in error.reason:
        return False
    return any(word in error.reason for word in ("certificate", "unknown ca", "access denied"))
