"""A bound on what the other side of one outgoing connection may send."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer


@implementer(IStreamClientEndpoint)
class Bounded:
    """An endpoint whose one connection is reset once more than ``limit`` bytes came.

    The parser above it bounds the length of a line but not how many there are.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, limit: int) -> None:
        self._endpoint = endpoint
        self._limit = limit
        self._open: Any = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; the protocol is the one that the factory makes."""
        factory = _Counting(protocolFactory, self._limit)

        def connected(wrapper: Any) -> IProtocol:
            self._open = wrapper.transport
            inner: IProtocol = wrapper.wrappedProtocol
            return inner

        return self._endpoint.connect(factory).addCallback(connected)

    def close(self, abort: bool) -> None:
        """Close the connection: at once with ``abort``, else when what was written is sent."""
        transport, self._open = self._open, None
        if transport is None:
            return
        if abort:
            transport.abortConnection()
        else:
            transport.loseConnection()


class _Counted(ProtocolWrapper):
    """Count what comes."""

    left = 0

    def dataReceived(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            transport: Any = self.transport
            transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]


class _Counting(WrappingFactory[_Counted]):
    """Make counted connections."""

    noisy = False
    protocol = _Counted

    def __init__(self, factory: IProtocolFactory, limit: int) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self._limit = limit

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a protocol that counts."""
        protocol = super().buildProtocol(addr)
        protocol.left = self._limit
        return protocol
