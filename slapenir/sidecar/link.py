"""One connection of a client, carried to the gateway.

The client is not read from before the gateway has proved who it is.  Afterwards each side is read
only while the other takes what comes, so that one send buffer each is all that is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from slapenir.edge.flow import Bystander, Flow
from slapenir.edge.tls import TlsError
from slapenir.edge.tlscontext import verify_name, verify_protocol
from slapenir.sidecar.towards import GatewayTls, Towards, refuses_us
from slapenir.sidecar.trouble import Trouble

if TYPE_CHECKING:
    from slapenir.sidecar.forwarder import Forwarder

_CLIENT, _GATEWAY = 0, 1


class Link(Bystander):
    """A client's Flow and the one to the gateway, bound together."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._reactor = forwarder.reactor
        self.client = Flow(self._reactor, forwarder.limits, self, _CLIENT)
        self.gateway: Flow | None = None
        self._towards: Towards
        self._tls: GatewayTls
        self._dialling: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._early: list[bytes] = []  # what was on its way when reading was paused
        self._up = self._over = self._half_closed = False
        self._asked = self._answered = False
        self._waits = False  # the client spoke last
        self._touched = 0.0

    def abort(self) -> None:
        """Reset both connections at once."""
        self._end()
        self.client.abort()
        if self.gateway is not None:
            self.gateway.abort()

    # What the Flows say.

    def flow_open(self, flow: Flow) -> None:
        """Dial for a client; begin TLS with the gateway."""
        if flow is self.client:
            self._forwarder.opened(self)
            flow.set_reading(False)
            self._dial()
            return
        self._tls = self._towards.tls(self._forwarder.name)
        flow.start_tls(self._tls)

    def flow_secured(self, flow: Flow) -> None:
        """Check who the gateway is, then let the client speak."""
        if self._over:
            return
        try:
            verify_name(self._tls.connection, self._forwarder.name)
            verify_protocol(self._tls.connection)
        except TlsError as error:
            flow.close()
            self._fail(Trouble.UNTRUSTED, error.reason)
            return
        self._up = True
        self._watch()
        self.client.set_reading(True)
        early, self._early = self._early, []
        for data in early:
            self.flow_data(self.client, data)

    def flow_insecure(self, flow: Flow, error: TlsError) -> None:
        """Tell the client why there is no TLS."""
        if error.untrusted:
            self._fail(Trouble.UNTRUSTED, error.reason)
        elif refuses_us(error):
            self._fail(Trouble.REFUSED, error.reason)
        else:
            self._fail(Trouble.UNREACHABLE, f"TLS: {error.reason}")

    def flow_data(self, flow: Flow, data: bytes) -> None:
        """Pass bytes on."""
        if self._over:
            return
        self._touched = self._reactor.seconds()
        if flow is not self.client:
            self._answered, self._waits = True, False
            self._pass(self.client, data)
        elif self._up and self.gateway is not None:
            self._asked = self._waits = True
            self._pass(self.gateway, data)
        else:
            self._early.append(data)

    def flow_full(self, flow: Flow) -> None:
        """Stop reading on the other side."""
        other = self._other(flow)
        if other is not None and self._up:
            other.set_reading(False)

    def flow_ready(self, flow: Flow) -> None:
        """Read again on the other side."""
        other = self._other(flow)
        if other is not None and self._up and not self._over:
            other.set_reading(True)

    def flow_half_closed(self, flow: Flow) -> None:
        """Take a client's FIN.

        TLS cannot pass it on.  Of a client that spoke last it may be a half-close, and the answer
        has a shorter time to come; of another one it is the end.
        """
        if flow is not self.client:  # before TLS; the deadline ends it
            return
        self._half_closed = True
        if self._waits or self._early:
            if self._up:
                self._watch()
            return
        self._finish()

    def flow_closed(self, flow: Flow, clean: bool) -> None:
        """End with whoever ended: cleanly, where it was clean (T072)."""
        if self._over:
            return
        if flow is self.client:
            self.abort()
        elif self._answered and clean:
            self._end()
            self.client.close()
        elif self._answered:
            self.abort()
        elif refuses_us(self._tls.error):
            self._fail(Trouble.REFUSED, self._tls.error.reason if self._tls.error else "")
        elif self._asked:
            self._fail(Trouble.CLOSED, "")
        else:
            self._end()
            self.client.close()

    def flow_gone(self, flow: Flow) -> None:
        """Forget the link when both are gone."""
        if not self._over:
            self.abort()
        gateway = self.gateway
        if self.client.gone and (gateway is None or gateway.gone):
            self._forwarder.gone(self)

    # Dialling.

    def _dial(self) -> None:
        towards = self._forwarder.towards()
        if isinstance(towards, Trouble):
            self._fail(towards, "")
            return
        self._towards = towards
        self._timer = self._reactor.callLater(self._forwarder.bounds.connect_seconds, self._overdue)
        self._dialling = self._forwarder.endpoint().connect(_Dial(self))
        self._dialling.addErrback(self._unreachable)

    def connected(self) -> Flow | None:
        """Return the protocol for the connection to the gateway; None for one too many."""
        if self._over or self.gateway is not None:
            return None
        self.gateway = Flow(self._reactor, self._forwarder.limits, self, _GATEWAY)
        return self.gateway

    def _unreachable(self, failure: Failure) -> None:
        if self._over and failure.check(CancelledError):
            return
        if self.gateway is None:
            self._fail(Trouble.UNREACHABLE, type(failure.value).__name__)
        elif not self._over:  # an exception of our own after it was connected
            self._fail(Trouble.INTERNAL, type(failure.value).__name__)

    def _overdue(self) -> None:
        self._timer = None
        phase = "connecting" if self.gateway is None else "TLS"
        self._fail(Trouble.UNREACHABLE, f"{phase} took too long")

    # Time.

    def _watch(self) -> None:
        """Begin to wait for quiet."""
        if self._timer is not None:
            self._timer.cancel()
        self._touched = self._reactor.seconds()
        self._timer = self._reactor.callLater(self._patience(), self._quiet)

    def _patience(self) -> float:
        bounds = self._forwarder.bounds
        return bounds.half_closed_seconds if self._half_closed else bounds.idle_seconds

    def _quiet(self) -> None:
        self._timer = None
        left = self._touched + self._patience() - self._reactor.seconds()
        if left > 0:
            self._timer = self._reactor.callLater(left, self._quiet)
            return
        self._finish()

    # Ends.

    def _finish(self) -> None:
        """Close both sides as they should be."""
        self._end()
        self.client.close()
        if self.gateway is not None:
            self.gateway.close()

    def _fail(self, trouble: Trouble, detail: str) -> None:
        """Answer the client and end; nothing of it has been answered yet."""
        if self._over:
            return
        self._end()
        self._forwarder.failed(trouble, detail)
        if self.gateway is not None and not self.gateway.gone:
            self.gateway.close()
        self.client.write(trouble.answer)
        self.client.close_gently()

    def _end(self) -> None:
        self._over = True
        self._early.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dialling is not None and self.gateway is None:
            self._dialling.cancel()

    @staticmethod
    def _pass(flow: Flow, data: bytes) -> None:
        flow.write(data)
        flow.flush()

    def _other(self, flow: Flow) -> Flow | None:
        return self.gateway if flow is self.client else self.client


class _Dial(ClientFactory):
    """Hand the connection that an endpoint made to its link."""

    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: IAddress) -> Flow | None:  # type: ignore[override]
        """Return the link's Flow."""
        return self._link.connected()
