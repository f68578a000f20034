"""A client that has connected and is not known yet: PROXY header, TLS, then who it is.

All of it has one absolute deadline.  Nothing is decoded as HTTP and no policy is asked before the
client is one identity, or may still prove by a token which one.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from twisted.internet.interfaces import IDelayedCall

from slapenir.edge.doorway import Doorway, Passport, Untrusted
from slapenir.edge.flow import Bystander, Flow
from slapenir.edge.strangers import source_of
from slapenir.edge.tls import Tls, TlsError
from slapenir.errors import AuditError, RemoteProtocolError
from slapenir.events import AuditFailed, ClientIdentified, Decided, InternalError, TlsHandshake, Who
from slapenir.evidence import Evidence
from slapenir.exchange import answers
from slapenir.names import Action, Reason, Side, Stage
from slapenir.policy.identities import Identified
from slapenir.policy.model import Decision
from slapenir.wire.proxyprotocol import ProxyHeaderReader

if TYPE_CHECKING:
    from slapenir.edge.listen import Clients

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_UCRED = struct.Struct("3i")


class Way(Enum):
    """How a client of a listener may show who it is."""

    CERTIFICATE = "certificate"
    SOURCE = "source"
    UNIX_UID = "unix_uid"
    TOKEN = "token"  # noqa: S105 - a way's name, not a secret


@attrs.frozen(slots=True, eq=False)
class Listener:
    """Where clients come in: a Twisted endpoint string, and how they are known.

    With ``identity`` every client is that one.  ``doorway`` is its TLS; ``balancers`` are the
    networks whose connections begin with a PROXY protocol header, and nobody else's.  Clients of
    a ``transparent`` one were redirected to it and do not know it; an ``adopted`` one was opened
    by somebody else.
    """

    endpoint: str
    name: str
    identity: str = ""
    ways: frozenset[Way] = frozenset()
    doorway: Doorway | None = None
    balancers: tuple[Network, ...] = ()
    transparent: bool = False
    adopted: bool = False

    def is_balancer(self, host: str) -> bool:
        """Whether a peer is one of the load balancers."""
        if not self.balancers:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return any(address in network for network in self.balancers)


@attrs.frozen(slots=True, eq=False)
class Claim:
    """What stands behind a connection's identity: looked at again for as long as it is open."""

    listener: Listener
    evidence: Evidence
    passport: Passport | None = None

    def event(self, who: Who) -> ClientIdentified:
        """Return the record of who a client is, by the strongest thing that it showed."""
        serial, not_after = "", 0.0
        if self.passport is not None:
            serial = f"{self.passport.certificate.serial_number:x}"
            not_after = self.passport.not_after
        way = "listener"
        if not self.listener.identity:
            if self.evidence.certificate is not None:
                way = Way.CERTIFICATE.value
            else:
                way = (Way.SOURCE if self.evidence.unix_uid is None else Way.UNIX_UID).value
        return ClientIdentified(who, way, serial, not_after)

    def objection(self, identity: str, identified: Identified) -> Reason | None:
        """Return why the connection may not go on as ``identity``; ``identified`` is today's."""
        doorway = self.listener.doorway
        if doorway is not None and self.passport is not None:
            reason = doorway.objection(self.passport)
            if reason is not None:
                return reason
        if self.listener.identity or not identity or identified.name == identity:
            return None
        return identified.reason if not identified.name else Reason.IDENTITY_CHANGED


class Arrival(Bystander):
    """The owner of a new client's Flow (``flow``) until a session takes it over.

    ``host`` and ``port`` are the TCP peer's, empty for a UNIX socket.
    """

    def __init__(self, clients: Clients, listener: Listener, number: int, peer: Peer) -> None:
        self._clients = clients
        self._gateway = clients.gateway
        self._listener = listener
        self._number = number
        self._peer = peer
        self._reader = ProxyHeaderReader() if listener.is_balancer(peer.host) else None
        self._deadline: IDelayedCall | None = None
        self._started = 0.0
        self._passport: Passport | None = None
        self.flow = Flow(self._gateway.clock, self._gateway.limits, self)

    @property
    def behind_balancer(self) -> bool:
        """Whether a load balancer has still to say who it is."""
        return self._reader is not None

    @property
    def source(self) -> str:
        """What it counts as a stranger of."""
        return source_of(self._peer.host, self._listener.name)

    # What the Flow says.

    def flow_open(self, flow: Flow) -> None:
        """Start the clock; go on to whatever comes first."""
        self._clients.arrived(self)
        clock = self._gateway.clock
        self._deadline = clock.callLater(self._gateway.limits.arrival_seconds, self._overdue)
        if self._reader is None:
            self._begin(b"")

    def flow_data(self, flow: Flow, data: bytes) -> None:
        """Take bytes of the PROXY header."""
        if self._reader is None:
            self.abort()  # a session owns the Flow before anything else is read
            return
        try:
            found = self._reader.feed(data)
        except RemoteProtocolError as error:
            self._refuse(Reason.PROTOCOL_ERROR, error.reason, silent=True)
            return
        if found is not None:
            forwarded, rest = found
            if forwarded.host:
                self._peer = Peer(forwarded.host, forwarded.port)
            self._reader = None
            if self._clients.introduced(self, self._who(self._listener.identity)):
                self._begin(rest)
            else:
                self.abort()

    def flow_secured(self, flow: Flow) -> None:
        """Look at the certificate that the client showed, then at who it is."""
        self._handshake_ended("")
        doorway, tls = self._listener.doorway, flow.tls
        try:
            if doorway is not None and isinstance(tls, Tls):
                self._passport = doorway.passport(tls.connection)
        except Untrusted as error:
            self._refuse(error.reason, error.detail)
        except Exception as error:
            self._crashed(error)
        else:
            self._identify(b"")

    def flow_insecure(self, flow: Flow, error: TlsError) -> None:
        """Record a handshake that failed; one for the client's certificate is a denial."""
        self._handshake_ended(error.reason)
        if error.untrusted or error.reason == "peer did not return a certificate":
            self._record(Reason.CERTIFICATE_REFUSED, error.reason)

    def flow_half_closed(self, flow: Flow) -> None:
        """End: a client that says no more will never be known."""
        self.abort()

    def flow_gone(self, flow: Flow) -> None:
        """Forget it."""
        self._stop_clock()
        self._clients.left(self)

    # Steps.

    def _begin(self, received: bytes) -> None:
        doorway = self._listener.doorway
        if doorway is None:
            self._identify(received)
            return
        self._started = self._gateway.clock.seconds()
        self.flow.start_tls(Tls(doorway.connection()), received)

    def _identify(self, received: bytes) -> None:
        """Find out who it is, and hand over to a session or refuse."""
        listener, peer = self._listener, self._peer
        ways = listener.ways
        names = self._passport.names if self._passport and Way.CERTIFICATE in ways else None
        evidence = Evidence(
            certificate=names,
            source=peer.host if Way.SOURCE in ways else "",
            unix_uid=self._uid() if Way.UNIX_UID in ways else None,
        )
        found = Identified(listener.identity)
        if not listener.identity:
            found = self._clients.identify(evidence)
        # A token may still say who it is, but not of a certificate that is nobody's.
        asks = Way.TOKEN in ways and not (names is not None and not found.name)
        if not found.name and not (asks and found.reason is Reason.IDENTITY_UNKNOWN):
            self._refuse(found.reason)
            return
        self._stop_clock()
        who = self._who(found.name)
        claim = Claim(listener, evidence, self._passport)
        self._clients.admit(self, who, claim, asks, received)

    def _uid(self) -> int | None:
        """Return the user at the other end of a UNIX socket, as the kernel knows it."""
        handle = getattr(self.flow.transport, "socket", None)
        if handle is None or handle.family != socket.AF_UNIX:
            return None
        data = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        uid: int = _UCRED.unpack(data)[1]
        return uid

    # Ends.

    def abort(self) -> None:
        """Cut the client off."""
        self._stop_clock()
        self.flow.abort()

    def _overdue(self) -> None:
        self._deadline = None
        if self._started:
            self._handshake_ended("timed out")
        self.flow.abort()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, reason: Reason, detail: str = "", silent: bool = False) -> None:
        """Record why the client is nobody, tell it, and close."""
        self._stop_clock()
        self._record(reason, detail)
        if silent:
            self.flow.abort()
            return
        decision = Decision(Stage.IDENTIFY, Action.DENY, reason)
        self.flow.write(answers.denial(decision).encode())
        self.flow.close_gently()

    def _record(self, reason: Reason, detail: str) -> None:
        event = Decided(self._who(""), 0, Stage.IDENTIFY, Action.DENY, reason, detail=detail)
        try:
            self._gateway.publisher.publish(event)
        except AuditError as error:  # it is refused whether that is recorded or not
            self._gateway.publisher.publish(AuditFailed(str(error)))

    def _handshake_ended(self, error: str) -> None:
        seconds = self._gateway.clock.seconds() - self._started
        event = TlsHandshake(Side.LISTENER, self._listener.name, seconds, error)
        self._gateway.publisher.publish(event)

    def _crashed(self, error: Exception) -> None:
        self.abort()
        self._gateway.publisher.publish(InternalError("arrival", type(error).__name__))

    def _who(self, identity: str) -> Who:
        return Who(self._number, self._listener.name, identity, str(self._peer))


@attrs.frozen(slots=True)
class Peer:
    """An address and a port; no address for a UNIX socket."""

    host: str = ""
    port: int = 0

    @classmethod
    def of(cls, address: Any) -> Peer:
        """Return the peer of a Twisted address."""
        host, port = getattr(address, "host", None), getattr(address, "port", None)
        if host is not None and "." in host:
            host = host.removeprefix("::ffff:")  # on a listener of both families
        return cls() if host is None else cls(host, port or 0)

    def __str__(self) -> str:
        """Return ``address:port``, with brackets around IPv6; ``unix`` for what has neither."""
        if not self.host:
            return "unix"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
