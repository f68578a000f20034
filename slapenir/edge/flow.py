"""One TCP connection, with or without TLS in it: the only file that knows producers.

A Flow is the protocol that a transport talks to.  It tells its owner what happened, in plain
calls, and pauses and resumes idempotently in both directions:

* The transport pauses and resumes the Flow as a producer: ``flow_full`` and ``flow_ready``.
  Twisted does so synchronously inside ``write``.
* ``set_reading`` pauses and resumes the transport.  Up to 64 KiB may still arrive after a pause,
  and a paused transport does not notice that its peer went away.

Writes are collected and leave in ``flush``: one write for what one round of work produced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.nested import Layer, Nested
from slapenir.edge.tls import Tls, TlsError


class Owner(Protocol):
    """Who is told what happens on a Flow; without a body of its own a call does nothing."""

    def flow_open(self, flow: Flow) -> None:
        """The TCP connection is there."""
        return

    def flow_data(self, flow: Flow, data: bytes) -> None:
        """Bytes of the top layer arrived; never empty."""
        return

    def flow_secured(self, flow: Flow) -> None:
        """The TLS handshake is done."""
        return

    def flow_insecure(self, flow: Flow, error: TlsError) -> None:
        """The TLS handshake failed; the connection is being closed."""
        return

    def flow_half_closed(self, flow: Flow) -> None:
        """The peer of a plain connection will send no more; it may still read."""
        return

    def flow_closed(self, flow: Flow, clean: bool) -> None:
        """The peer ended the connection: said once, and never after our own close or abort."""
        return

    def flow_full(self, flow: Flow) -> None:
        """The send buffer is over its mark."""
        return

    def flow_ready(self, flow: Flow) -> None:
        """The send buffer is empty again."""
        return

    def flow_gone(self, flow: Flow) -> None:
        """The transport is closed: the last call, made exactly once for an opened flow."""
        return


class Bystander(Owner):
    """An Owner that does nothing: the base of those who wait for one or two things only."""


@implementer(IProtocol, IHalfCloseableProtocol, IPushProducer)
class Flow:
    """One connection.  ``connection`` is its number in the session that owns it.

    ``full`` says that the send buffer is over its mark, ``gone`` that the transport is closed,
    ``reading`` whether it is read from; ``set_reading`` changes that.
    """

    def __init__(
        self, clock: IReactorTime, limits: EdgeLimits, owner: Owner, connection: int = 0
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._tls: Layer | None = None
        self._out: list[bytes] = []
        self.reading = True
        self._closing = False  # we close or abort, or the peer's end was reported
        self._eof = False
        self._send: Callable[[bytes], int] | None = None  # the socket's, where there is one
        self._direct = False  # nothing waits in the transport's buffer
        self._discarded = 0
        self._deadline: IDelayedCall | None = None
        self.owner = owner
        self.connection = connection
        self.full = False
        self.gone = False
        # A TCP or UNIX transport of Twisted's; no one interface of its has all that is used here.
        self.transport: Any = None

    # What the owner asks for.

    @property
    def tls(self) -> Layer | None:
        """The TLS layer, or None while the connection is plain."""
        return self._tls

    @property
    def usable(self) -> bool:
        """Whether both directions still work and nothing waits to be sent."""
        return not (self._closing or self._eof or self.full or self.gone or self._out)

    def write(self, data: bytes) -> None:
        """Keep bytes for the next flush.  Never refuses; bytes for a closed flow are dropped."""
        if not self._closing:
            self._out.append(data)

    def flush(self) -> None:
        """Hand everything written to the transport.  May call flow_full."""
        out = self._out
        if not out or self._closing:
            return
        data = b"".join(out)
        out.clear()
        if not data:
            return
        tls = self._tls
        if tls is not None:
            try:
                data = tls.send(data)
            except TlsError:
                self._report_end(False)
                return
        self._give(data)

    def set_reading(self, reading: bool) -> None:
        """Read from the peer, or stop to."""
        if reading is self.reading or self._closing or self._eof:
            return
        self.reading = reading
        if reading:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def start_tls(self, tls: Tls, received: bytes = b"") -> None:
        """Put TLS into the connection, inside the TLS that it has; ``received`` was read already.

        Answered by flow_secured or flow_insecure, maybe before this returns.
        """
        self.flush()
        outer = self._tls
        self._tls = layer = tls if outer is None else Nested(outer, tls)
        feed = tls.feed if isinstance(layer, Tls) else layer.accept
        try:
            self._give(layer.start())
        except TlsError as error:
            self._handshake_failed(error)
            return
        if received:
            self._feed(feed, received)

    def close(self) -> None:
        """Flush, send close_notify under TLS, and close; reset after ``close_seconds``."""
        if not self._begin_close():
            return
        self.transport.loseConnection()

    def close_gently(self) -> None:
        """Like close, but after our FIN wait for the peer's and discard what it still sends.

        Closing at once with unread bytes would reset the connection and could take the answer
        with it that the peer has not read yet (RFC 9112, 9.6).
        """
        if self._eof:
            self.close()
            return
        if not self._begin_close():
            return
        self.transport.resumeProducing()
        self.transport.loseWriteConnection()

    def close_write(self) -> None:
        """Flush, then send FIN on a plain connection; with the peer's FIN it is closed."""
        self.flush()
        if self._closing or self._tls is not None:
            return
        self.transport.unregisterProducer()
        if self._eof:
            self.close()
        else:
            self.transport.loseWriteConnection()

    def abort(self) -> None:
        """Reset the connection at once."""
        self._closing = True
        self._out.clear()
        if not self.gone and self.transport is not None:
            self.transport.abortConnection()

    # What the transport says.

    def makeConnection(self, transport: ITransport) -> None:
        """Take the transport and register as its producer."""
        self.transport = transport
        if ITCPTransport.providedBy(transport):
            self.transport.setTcpNoDelay(True)
        if isinstance(transport, Connection):
            self._send, self._direct = transport.getHandle().send, True
        self.transport.registerProducer(self, True)
        self.connectionMade()

    def connectionMade(self) -> None:
        """Tell the owner that the connection is there."""
        self.owner.flow_open(self)

    def connection_gone(self) -> None:
        """Tell the owner that the connection is gone."""
        self.owner.flow_gone(self)

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes up, through TLS where there is TLS."""
        if self._closing:
            self._discard(len(data))
            return
        tls = self._tls
        if tls is None:
            self.owner.flow_data(self, data)
        else:
            self._feed(tls.feed, data)

    def readConnectionLost(self) -> None:
        """Take the peer's FIN."""
        self._eof = True
        tls = self._tls
        if self._closing:
            self.transport.loseConnection()
        elif tls is None:
            self.owner.flow_half_closed(self)
        elif tls.up:
            self._report_end(False)
        else:
            self._handshake_failed(TlsError("unexpected eof"))

    def writeConnectionLost(self) -> None:
        """Our FIN is out: nothing to do until the peer's."""

    def connectionLost(self, reason: Failure) -> None:
        """Take the end of the transport."""
        self.gone = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self._closing:
            self._closing = True
            tls = self._tls
            if tls is not None and not tls.up:
                self.owner.flow_insecure(self, TlsError("unexpected eof"))
            else:
                clean = tls is None and isinstance(reason.value, ConnectionDone)
                self.owner.flow_closed(self, clean)
        self._out.clear()
        self.connection_gone()

    def pauseProducing(self) -> None:
        """Take the transport's word that its buffer is over its mark."""
        if not self.full:
            self.full = True
            self.owner.flow_full(self)

    def resumeProducing(self) -> None:
        """Take the transport's word that its buffer is empty."""
        self._direct = self._send is not None
        if self.full:
            self.full = False
            self.owner.flow_ready(self)

    def stopProducing(self) -> None:
        """Nothing to stop: connectionLost follows."""

    def logPrefix(self) -> str:
        """Return the name that the reactor logs with."""
        return "slapenir"

    def _give(self, data: bytes) -> None:
        """Send at once what the socket takes, without a trip through the reactor.

        What is left over must stay in order, so nothing is sent directly again before the
        transport's buffer is empty: ``producerPaused`` makes it say when.
        """
        transport, send = self.transport, self._send
        if not self._direct or send is None or not data:
            transport.write(data)
            return
        try:
            taken = send(data)
        except OSError:  # it is full, or the connection is lost: then the reactor will find out
            taken = 0
        if taken < len(data):
            self._direct = False
            transport.write(data[taken:])
            transport.producerPaused = True

    def _feed(self, feed: Callable[[bytes], tuple[bytes, bytes]], data: bytes) -> None:
        """Put bytes through TLS and tell the owner what came of it."""
        tls = self._tls
        if tls is None:
            return
        handshaking = not tls.up
        try:
            plain, out = feed(data)
        except TlsError as error:
            self._tls_failed(error, handshaking)
            return
        if out:
            self._give(out)
            if self.full:  # the peer asks for answers of TLS itself and does not read them
                self._discard(len(out))
        if handshaking and tls.up:
            self.owner.flow_secured(self)
        if plain and not self._closing:
            self.owner.flow_data(self, plain)
        if tls.ended:
            self._report_end(True)

    # Ends.

    def _begin_close(self) -> bool:
        """Flush and say goodbye; return whether there is anything left to close."""
        self.flush()
        if self._closing or self.transport is None:
            return False
        self._closing = True
        if self._tls is not None:
            self._give(self._tls.close())
        self.transport.unregisterProducer()
        self._deadline = self._clock.callLater(self._limits.close_seconds, self._overdue)
        return True

    def _overdue(self) -> None:
        self._deadline = None
        self.transport.abortConnection()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self._limits.discard:
            self.transport.abortConnection()

    def _tls_failed(self, error: TlsError, handshaking: bool) -> None:
        if handshaking:
            self._handshake_failed(error)
            return
        self._give(error.alert)
        self._report_end(False)

    def _handshake_failed(self, error: TlsError) -> None:
        self._give(error.alert)
        self._closing = True
        self.owner.flow_insecure(self, error)
        self._drop()

    def _report_end(self, clean: bool) -> None:
        """Tell the owner once that the peer ended the connection, then close our side."""
        if self._closing:
            return
        if clean and self._tls is not None:
            self._give(self._tls.close())
        self._closing = True
        self.owner.flow_closed(self, clean)
        self._drop()

    def _drop(self) -> None:
        """Let what was written leave, then close."""
        if self.gone:
            return
        self._out.clear()
        self.transport.unregisterProducer()
        if self._deadline is None:
            self._deadline = self._clock.callLater(self._limits.close_seconds, self._overdue)
        self.transport.loseConnection()
