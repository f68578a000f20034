"""ClientHello bytes made by OpenSSL itself, for tests of what comes first on a tunnel."""

from __future__ import annotations

from OpenSSL import SSL


def client_hello(
    server_name: str | None = "api.example.test", alpn: tuple[bytes, ...] = (b"http/1.1",)
) -> bytes:
    """Return the first flight of a TLS client that asks for ``server_name``."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if alpn:
        context.set_alpn_protos(list(alpn))
    connection = SSL.Connection(context, None)
    if server_name is not None:
        connection.set_tlsext_host_name(server_name.encode("ascii"))
    connection.set_connect_state()
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        pass  # the ClientHello is written; there is no answer to read
    return connection.bio_read(65536)
