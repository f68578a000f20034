"""A transport that really pauses its producer, as TCP does and Twisted's test transports do not."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure


class PressureTransport:
    """Keep what is written until the test takes it.

    Like Twisted's TCP transport: over ``mark`` bytes the producer is paused inside ``write``;
    when the last byte is taken it is resumed, or else the transport is closed if it was told to.
    ``reading`` says whether the protocol wants bytes; ``give`` delivers them even so.
    """

    def __init__(self, mark: int = 65536) -> None:
        self.mark = mark
        self.buffer = b""
        self.largest = 0
        self.reading = True
        self.producer: Any = None
        self.paused = False
        self.pauses = self.resumes = 0
        self.calls: list[str] = []
        self.closing = self.aborted = self.write_closing = self.fin_sent = self.gone = False
        self.protocol: Any = None

    def attach(self, protocol: Any) -> None:
        """Connect a protocol to this transport."""
        self.protocol = protocol
        protocol.makeConnection(self)

    # What the test does.

    def give(self, data: bytes) -> None:
        """Let bytes arrive."""
        self.protocol.dataReceived(data)

    def take(self, size: int | None = None) -> bytes:
        """Take bytes as the network would; what follows an empty buffer happens at once."""
        size = len(self.buffer) if size is None else size
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        if self.buffer:
            return taken
        if self.producer is not None and self.paused:
            self.paused = False
            self.producer.resumeProducing()
        elif self.closing:
            self.lose(ConnectionDone())
        elif self.write_closing and not self.fin_sent:
            self.fin_sent = True
            self.protocol.writeConnectionLost()
        return taken

    def lose(self, reason: Exception) -> None:
        """End the connection."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(reason))

    # What a protocol does.

    def write(self, data: bytes) -> None:
        """Keep bytes; pause the producer over the mark, inside this call."""
        if self.gone or self.aborted:
            return
        self.buffer += data
        self.largest = max(self.largest, len(self.buffer))
        if self.producer is not None and len(self.buffer) > self.mark:
            self.paused = True
            self.producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Keep the producer."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Stop reading."""
        self.pauses += 1
        self.reading = False

    def resumeProducing(self) -> None:
        """Read again."""
        self.resumes += 1
        self.reading = True

    def loseConnection(self) -> None:
        """Close once the buffer is empty; never while a producer is registered and paused."""
        self.calls.append("loseConnection")
        self.closing = True
        self.take(0)

    def loseWriteConnection(self) -> None:
        """Send FIN once the buffer is empty."""
        self.calls.append("loseWriteConnection")
        self.write_closing = True
        self.take(0)

    def abortConnection(self) -> None:
        """Close at once; the protocol hears of it when the test says so."""
        self.calls.append("abortConnection")
        self.aborted = True

    def finish_abort(self) -> None:
        """Tell the protocol about the abort, as the reactor does a moment later."""
        self.lose(ConnectionAborted())
