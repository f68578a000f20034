"""TLS inside TLS: an intercepted tunnel on a listener that speaks TLS itself.

To a Flow it is one layer.  What the inner one wants sent goes through the outer one, and an alert
of the inner one is a record of the outer one.
"""

from __future__ import annotations

from slapenir.edge.tls import Tls, TlsError


class Nested:
    """``inner`` within ``outer``, whose handshake is done: the same calls as Tls has."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, outer: Layer, inner: Tls) -> None:
        self._outer = outer
        self._inner = inner

    @property
    def up(self) -> bool:
        """Whether the inner handshake is done."""
        return self._inner.up

    @property
    def ended(self) -> bool:
        """Whether the peer ended either layer with close_notify."""
        return self._inner.ended or self._outer.ended

    @property
    def busy(self) -> bool:
        """Whether a record has begun to arrive in either layer."""
        return self._inner.busy or self._outer.busy

    @property
    def connection(self) -> object:
        """The inner layer's OpenSSL object."""
        return self._inner.connection

    def start(self) -> bytes:
        """Begin the inner handshake; return what to send.  Raises TlsError."""
        return self._wrap(self._inner.start())

    def accept(self, received: bytes) -> tuple[bytes, bytes]:
        """Give the inner layer bytes that the outer one had decrypted already; see feed."""
        try:
            plain, out = self._inner.feed(received)
        except TlsError as error:
            raise self._rewrapped(error) from None
        return plain, self._wrap(out)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take ciphertext; return the innermost plaintext and what to send.  Raises TlsError."""
        middle, out = self._outer.feed(data)
        if not middle:
            return b"", out
        plain, reply = self.accept(middle)
        return plain, out + reply

    def send(self, data: bytes) -> bytes:
        """Return the records that carry ``data``.  Raises TlsError."""
        return self._outer.send(self._inner.send(data))

    def close(self) -> bytes:
        """Return a close_notify of both layers."""
        return self._wrap(self._inner.close()) + self._outer.close()

    def _wrap(self, data: bytes) -> bytes:
        return self._outer.send(data) if data else b""

    def _rewrapped(self, error: TlsError) -> TlsError:
        """Return the inner layer's error with its alert in a record of the outer one."""
        alert = self._wrap(error.alert)
        return TlsError(error.reason, error.untrusted, alert)


Layer = Tls | Nested
