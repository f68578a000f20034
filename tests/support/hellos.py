"""Client hellos: real ones from the ssl module, and hand-made ones that no client would send."""

from __future__ import annotations

import ssl


def real_hello(name: str | None, alpn: tuple[str, ...] = ()) -> bytes:
    """Return the first flight of a client of the ssl module, in its own records."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def vector(size: int, data: bytes) -> bytes:
    """Return the data with its length in ``size`` bytes before it."""
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    """Return one extension."""
    return kind.to_bytes(2, "big") + vector(2, data)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    """Return a server_name extension that lists these names."""
    return extension(0, vector(2, b"".join(bytes((kind,)) + vector(2, name) for name in names)))


def hello_body(*extensions: bytes) -> bytes:
    """Return the body of a ClientHello with these extensions; with none there is no list."""
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\x00")
    return body + (vector(2, b"".join(extensions)) if extensions else b"")


def handshake(body: bytes) -> bytes:
    """Return the handshake message around a ClientHello's body."""
    return b"\x01" + vector(3, body)


def records(message: bytes, size: int = 16384) -> bytes:
    """Return the message in TLS records of ``size`` bytes."""
    pieces = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def hello(*extensions: bytes) -> bytes:
    """Return a whole first flight with these extensions, in one record."""
    return records(handshake(hello_body(*extensions)))
