"""TLS towards a CA: exactly the given roots, the host name, and our certificate if we have one."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import service_identity
from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from slapenir.issuance.provider import IssuanceError
from slapenir.pki.held import Held

_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
_DEPTH = 4
NOT_ACCEPTED = "it does not accept our certificate"


class WrongName(IssuanceError):
    """The certificate is good, but for somebody else."""


@implementer(IPolicyForHTTPS)
class PinnedTls:
    """Contexts for one CA.  ``roots`` None means: nothing is verified, for a root by fingerprint.

    Raises IssuanceError without a root, and for a key and a certificate that cannot be used
    together.
    """

    def __init__(self, roots: Sequence[x509.Certificate] | None, held: Held | None) -> None:
        self._roots = roots
        self._held = held
        self._context()

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Return what makes a connection to a host."""
        verified = self._roots is not None
        return _Creator(self._context(), hostname.decode("ascii"), verified)

    def _context(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_cipher_list(_CIPHERS)
        context.set_alpn_protos([b"http/1.1"])
        try:
            if self._roots is not None:
                _trust(context, self._roots)
            if self._held is not None:
                _show(context, self._held)
        except (SSL.Error, crypto.Error, ValueError):
            raise IssuanceError("the certificate and its key cannot be used together") from None
        return context


def _trust(context: SSL.Context, roots: Sequence[x509.Certificate]) -> None:
    store = context.get_cert_store()
    if not roots or store is None:
        raise IssuanceError("there is no root to check the CA by")
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    context.set_verify_depth(_DEPTH)
    context.set_verify(SSL.VERIFY_PEER, lambda *arguments: bool(arguments[4]))


def _show(context: SSL.Context, held: Held) -> None:
    context.use_certificate(held.leaf)
    for issuer in held.chain[1:]:
        context.add_extra_chain_cert(issuer)
    context.use_privatekey(held.key)
    context.check_privatekey()


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Connections to one host.  The name is checked when the handshake is over, as Twisted does
    it: data that waits is sent after that, and not when the check failed."""

    def __init__(self, context: SSL.Context, host: str, verified: bool) -> None:
        if verified:
            context.set_info_callback(self._look)
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection that asks for the host (RFC 6066, 3: names only)."""
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if not _is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection

    def _look(self, connection: SSL.Connection, where: int, ret: int) -> None:
        if not where & SSL.SSL_CB_HANDSHAKE_DONE:
            return
        try:
            self._verify(connection)
        except Exception:
            # Whatever a malformed certificate raises, it is not trusted; nor may it go unseen.
            protocol: Any = connection.get_app_data()
            wrong = WrongName("its certificate is for another host")
            protocol.failVerification(Failure(wrong))

    def _verify(self, connection: SSL.Connection) -> None:
        """Raise when the certificate is not for the host: only alternative names count."""
        if _is_address(self._host):
            verify_ip_address(connection, self._host)
        else:
            verify_hostname(connection, self._host)


def why_not_trusted(error: BaseException) -> str:
    """Return a phrase for a failure of TLS; empty for another one."""
    if isinstance(error, WrongName | service_identity.VerificationError):
        return "its certificate is for another host"
    if not isinstance(error, SSL.Error):
        return ""
    text = " ".join(str(part) for entry in error.args[:1] for part in entry)
    if "certificate verify failed" in text:
        return "its certificate is not trusted"
    if "alert" in text and ("certificate" in text or "unknown ca" in text):
        return NOT_ACCEPTED
    return "TLS failed"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
