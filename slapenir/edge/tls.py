"""One TLS connection without I/O: ciphertext in, plaintext and ciphertext out.

Twisted's TLS transport asks OpenSSL for more until it raises, twice for every read, and writes
through a delayed call.  Here the record headers (RFC 8446, 5.1) are counted, so that OpenSSL is
asked exactly as often as it has something to give.  It also tells an end with close_notify from
an end without, and lets the caller own the TCP connection, its flow control and its closing.
"""

from __future__ import annotations

from OpenSSL import SSL

_RECORD = 16384
_HEADER = 5
_OVERHEAD = 128
_OUTPUT = 65536


class TlsError(Exception):
    """TLS cannot go on.

    ``reason`` is a fixed phrase of OpenSSL's or ours; ``untrusted`` says that the peer's
    certificate was the cause; ``alert`` is what to send before closing.
    """

    def __init__(self, reason: str, untrusted: bool = False, alert: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.untrusted = untrusted
        self.alert = alert


class AlpnMismatch(Exception):
    """The client offers only protocols that are not spoken here (raised in a callback)."""


# X509_V_ERR_*: what OpenSSL's number says, as a phrase that never quotes the peer.
_VERIFY = {
    2: "unable to get issuer certificate",
    7: "certificate signature failure",
    9: "certificate is not yet valid",
    10: "certificate has expired",
    18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
    22: "certificate chain too long",
    23: "certificate revoked",
    24: "invalid CA certificate",
    25: "path length constraint exceeded",
    26: "unsuitable certificate purpose",
    47: "permitted subtree violation",
    48: "excluded subtree violation",
    66: "certificate key too weak",
    67: "CA certificate key too weak",
    68: "CA signature digest algorithm too weak",
    79: "invalid CA certificate",
}


class Tls:
    """An SSL.Connection over memory.  ``up`` once the handshake is done; ``ended`` once the peer
    sent close_notify."""

    __slots__ = ("_connection", "_head", "_rest", "ended", "up")

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self._head = b""  # the beginning of a record header
        self._rest = 0  # bytes of the current record still to come
        self.up = False
        self.ended = False

    @property
    def connection(self) -> SSL.Connection:
        """The OpenSSL object, for what only it knows (the peer's certificate)."""
        return self._connection

    @property
    def busy(self) -> bool:
        """Whether a record has begun to arrive, or the peer sent close_notify."""
        return self.ended or self._rest > 0 or self._head != b""

    def start(self) -> bytes:
        """Begin the handshake; return what to send.  Raises TlsError."""
        self._shake()
        return self._output()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take ciphertext; return the plaintext and what to send.  Raises TlsError.

        Data that was decrypted before an error is lost with it: the connection is broken.
        """
        connection = self._connection
        connection.bio_write(data)
        size = len(data)
        whole = not self._rest and not self._head and size >= _HEADER
        if whole and size == _HEADER + (data[3] << 8 | data[4]):
            records = 1  # the usual case: one record, all of it
        else:
            records = self._count(data)
            size = _RECORD
        if not self.up:
            if not self._shake():
                return b"", self._output()
            records, size = max(records, 1), _RECORD
        if records == 1:
            try:
                return connection.recv(size), b""
            except SSL.Error as error:
                self._pause_or_end(error)
                return b"", self._output()
        plain: list[bytes] = []
        try:
            for _ in range(records):
                plain.append(connection.recv(_RECORD))
        except SSL.Error as error:
            self._pause_or_end(error)
            return b"".join(plain), self._output()
        return b"".join(plain), b""

    def send(self, data: bytes) -> bytes:
        """Return the records that carry ``data``, not empty, once the handshake is done.

        Raises TlsError.
        """
        length = len(data)
        try:
            if length <= _RECORD:  # one record: it goes in whole
                self._connection.send(data)
            else:
                self._connection.sendall(data)
        except SSL.Error as error:
            raise self._failure(error) from None
        return self._output(length + _OVERHEAD * (length // _RECORD + 1))

    def close(self) -> bytes:
        """Return the close_notify to send; empty when the handshake was never finished."""
        if not self.up:
            return b""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return b""
        return self._output()

    def _shake(self) -> bool:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except AlpnMismatch:
            raise TlsError("no application protocol", alert=self._output()) from None
        except SSL.Error as error:
            raise self._failure(error) from None
        self.up = True
        return True

    def _count(self, data: bytes) -> int:
        """Return how many records end within ``data``, and remember where the last one stands."""
        rest, size = self._rest, len(data)
        if self._head:
            data = self._head + data
            size = len(data)
            self._head = b""
        at = records = 0
        while True:
            if not rest:
                if size - at < _HEADER:
                    self._head, self._rest = data[at:], 0
                    return records
                rest = _HEADER + (data[at + 3] << 8 | data[at + 4])
            if size - at < rest:
                self._rest = rest - (size - at)
                return records
            at += rest
            rest = 0
            records += 1

    def _pause_or_end(self, error: SSL.Error) -> None:
        if isinstance(error, SSL.WantReadError):
            return
        if isinstance(error, SSL.ZeroReturnError):
            self.ended = True
            return
        raise self._failure(error) from None

    def _output(self, size: int = _OUTPUT) -> bytes:
        """Return everything OpenSSL wants sent."""
        try:
            first = self._connection.bio_read(size)
        except SSL.Error:
            return b""
        if len(first) < size:
            return first
        return first + self._output()

    def _failure(self, error: SSL.Error) -> TlsError:
        reason = "unexpected eof"
        if isinstance(error, SSL.SysCallError):
            reason = "unexpected eof" if error.args[:1] == (-1,) else "system call failed"
        elif error.args and error.args[0]:
            reason = str(error.args[0][-1][2]) or "handshake failed"
        untrusted = reason == "certificate verify failed"
        if untrusted:
            number = self._connection.get_app_data()
            reason = _VERIFY.get(number, "certificate verify failed")
        return TlsError(reason, untrusted, self._output())


def remember_verify_error(
    connection: SSL.Connection, certificate: object, number: int, depth: int, ok: int
) -> bool:
    """Keep the first verify error for TlsError's reason: OpenSSL's verify callback."""
    if not ok and connection.get_app_data() is None:
        connection.set_app_data(number)
    return bool(ok)
