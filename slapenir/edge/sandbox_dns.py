"""DNS for sandboxes, over UDP and TCP (RFC 1035, 4.2): it answers, and asks nobody.

Messages are made by twisted.names; what a sandbox sends is read by our own strict reader
(wire/question.py), which follows no pointer.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import DatagramProtocol, ServerFactory
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.policies import TimeoutMixin

from slapenir.edge.contracts import Publisher
from slapenir.edge.handed_sockets import HandedDatagrams, HandedListener, take_over
from slapenir.errors import AuditError
from slapenir.events import AuditFailed, InternalError, NameAsked, Who
from slapenir.exchange.questions import SECONDS, Code, Names, Reply
from slapenir.wire.question import MAX_MESSAGE, Question, QuestionError, parse_question

LISTENER = "dns"
"""What the records call it."""

_CONNECTIONS = 256
_CONNECTIONS_PER_IDENTITY = 8
_IDLE_SECONDS = 10.0
# What one socket may have answered before the others of the reactor have their turn.
_TURN_BYTES = 1024
_TURN_QUERIES = 4
Whose = Callable[[str], str]
"""Which identity an address is, empty for nobody."""


class SandboxDns:
    """Serve names on sockets of its own (``listen``) and on those of others (``adopt``).

    ``whose`` says which identity a source address is, for the sockets of its own.
    """

    def __init__(self, reactor: Any, publisher: Publisher, names: Names, whose: Whose) -> None:
        self._reactor = reactor
        self._publisher = publisher
        self._names = names
        self._whose = whose
        self._numbers = count(1)
        self.connections: Counter[str] = Counter()

    def listen(self, host: str, port: int) -> Deferred[list[IListeningPort]]:
        """Open UDP and TCP at an address; errbacks CannotListenError."""

        def opened() -> list[IListeningPort]:
            udp = self._reactor.listenUDP(
                port, _Datagrams(self, self._whose), interface=host, maxPacketSize=MAX_MESSAGE + 1
            )
            udp.maxThroughput = _TURN_BYTES
            try:
                tcp = self._reactor.listenTCP(port, _Streams(self, self._whose), interface=host)
            except Exception:
                udp.stopListening()
                raise
            return [udp, tcp]

        return maybeDeferred(opened)

    def adopt(
        self, handed: socket.socket, identity: str, suspicious: Callable[[], None]
    ) -> IListeningPort:
        """Serve one bound UDP socket or listening TCP socket, for the clients of an identity.

        ``suspicious`` is called when the socket made the reactor wait.
        """

        def whose(_: str) -> str:
            return identity

        port: IListeningPort
        if handed.type & 0xF == socket.SOCK_DGRAM:
            port = self._reactor.adoptDatagramPort(
                handed.fileno(), handed.family, _Datagrams(self, whose), MAX_MESSAGE + 1
            )
            take_over(port, HandedDatagrams)
            port.maxThroughput = _TURN_BYTES  # type: ignore[attr-defined]
        else:
            port = self._reactor.adoptStreamPort(
                handed.fileno(), handed.family, _Streams(self, whose)
            )
            take_over(port, HandedListener).suspicious = suspicious
        return port

    def answer(self, message: bytes, whose: Whose, host: str, port: int) -> bytes | None:
        """Return the answer to one message; None for what is not answered.  Never raises."""
        try:
            return self._answer(message, whose, host, port)
        except AuditError as error:
            self._publisher.publish(AuditFailed(str(error)))
        except Exception as error:
            self._publisher.publish(InternalError("dns", type(error).__name__))
        return None

    def _answer(self, message: bytes, whose: Whose, host: str, port: int) -> bytes | None:
        who = Who(next(self._numbers), LISTENER, whose(host), f"{host}:{port}")
        try:
            question = parse_question(message)
        except QuestionError as error:
            self._publisher.publish(NameAsked(who, "malformed"))
            return _encode(error.id, error.code)
        if question is None:
            return None
        if not who.identity:
            self._publisher.publish(NameAsked(who, "refused"))
            return _encode(question.id, Code.REFUSED.value, question)
        reply, events = self._names.ask(who, question, self._reactor.seconds())
        for event in events:
            self._publisher.publish(event)
        return _encode(question.id, reply.code.value, question, reply)


def _encode(
    id: int, code: int, question: Question | None = None, reply: Reply | None = None
) -> bytes:
    message = dns.Message(id, answer=1, rCode=code, auth=True, recAv=1)
    if question is not None:
        message.recDes = int(question.recursion)
        message.addQuery(question.name, question.kind, question.kind_class)
        if reply is not None and reply.address:
            record = dns.Record_AAAA if ":" in reply.address else dns.Record_A
            payload: Any = record(reply.address, SECONDS)
            message.answers.append(
                dns.RRHeader(question.name, question.kind, dns.IN, SECONDS, payload, auth=True)
            )
    encoded: bytes = message.toStr()
    return encoded


class _Datagrams(DatagramProtocol):
    """UDP: each datagram is a query, and its answer is hardly longer."""

    noisy = False

    def __init__(self, server: SandboxDns, whose: Whose) -> None:
        self._server = server
        self._whose = whose

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Answer one query; what cannot be answered (RFC 6335, 6: port 0) is not."""
        if addr[1] == 0:
            return
        answer = self._server.answer(datagram, self._whose, addr[0], addr[1])
        if answer is None:
            return
        try:
            self.transport.write(answer, addr)  # type: ignore[union-attr]
        except OSError:
            return  # no room, or no way: as good as lost on the way, and asked again


class _Stream(Int16StringReceiver, TimeoutMixin):
    """TCP: queries one after another, until it is idle.

    After a few queries the other connections have their turn.  Who does not read the answers is
    not read, and so becomes idle.
    """

    MAX_LENGTH = MAX_MESSAGE

    def __init__(self, server: SandboxDns, whose: Whose, identity: str) -> None:
        self._server = server
        self._whose = whose
        self._identity = identity
        self._full = False
        self._answered = 0
        self._turn: Any = None

    def connectionMade(self) -> None:
        """Start the clock."""
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self.setTimeout(_IDLE_SECONDS)  # type: ignore[no-untyped-call]

    def callLater(self, period: float, func: Any) -> Any:
        """Use the server's reactor for the clock."""
        return self._server._reactor.callLater(period, func)

    def pauseProducing(self) -> None:
        """Stop reading: answers wait to be sent."""
        self._full = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        """Go on, but for a turn that is over."""
        self._full = False
        if self._turn is None:
            super().resumeProducing()  # type: ignore[no-untyped-call]

    def stringReceived(self, string: bytes) -> None:
        """Answer one query; its deadline is not that of the next."""
        self.resetTimeout()  # type: ignore[no-untyped-call]
        peer: Any = self.transport.getPeer()  # type: ignore[union-attr]
        answer = self._server.answer(string, self._whose, peer.host, peer.port)
        if answer is None:
            self.transport.loseConnection()  # type: ignore[union-attr]
            return
        self.sendString(answer)  # type: ignore[no-untyped-call]
        self._answered += 1
        if self._answered % _TURN_QUERIES == 0 and self._turn is None:
            super().pauseProducing()  # type: ignore[no-untyped-call]
            self._turn = self.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        if not self._full:
            super().resumeProducing()  # type: ignore[no-untyped-call]

    def lengthLimitExceeded(self, length: int) -> None:
        """End: no query is that long."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def timeoutConnection(self) -> None:
        """End: it said nothing, or half a query."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        """Make room for another."""
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._server.connections[self._identity] -= 1


class _Streams(ServerFactory):
    """Make the protocols of TCP connections, as many as there may be at one time.

    One identity has its own share, so that it cannot take the places of others.
    """

    noisy = False

    def __init__(self, server: SandboxDns, whose: Whose) -> None:
        self._server = server
        self._whose = whose

    def buildProtocol(self, addr: IAddress) -> _Stream | None:  # type: ignore[override]
        """Return the protocol of one connection; None when there are too many."""
        host: str = addr.host  # type: ignore[attr-defined]
        identity = self._whose(host)
        held = self._server.connections
        if held[identity] >= _CONNECTIONS_PER_IDENTITY or held.total() >= _CONNECTIONS:
            return None
        held[identity] += 1
        return _Stream(self._server, self._whose, identity)


def stop_all(ports: list[IListeningPort]) -> Deferred[Any]:
    """Close ports; fires when the last is closed."""
    closing = [maybeDeferred(port.stopListening) for port in ports]
    return DeferredList(closing, consumeErrors=True)
