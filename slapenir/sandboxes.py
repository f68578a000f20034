"""Sandboxes of this host join the gateway here: they hand over the sockets of their network.

``slapenir run`` makes a network namespace that has no way out, opens listening sockets inside it
and hands them over a UNIX socket (SCM_RIGHTS, unix(7)).  A socket stays in the namespace that it
was made in, so the gateway serves that sandbox, and nothing is routed between the two.

One line of JSON each way: the sandbox asks with ``{"version": 1, "identity": "", "sockets":
["tcp", ...]}`` and the descriptors, in that order; the gateway answers ``{"ok": true,
"identity": ..., "environment": {...}, "ca": "..."}`` or ``{"ok": false, "error": ...,
"remedy": ...}``.  Later lines ``{"refused": {"udp443": 3}}`` tell what the sandbox's packet filter
refused.  The end of the connection is the end of the sandbox.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IFileDescriptorReceiver,
    IListeningPort,
)
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from slapenir.config.build import may_use, variable_of
from slapenir.config.settings import Settings
from slapenir.edge.arrival import Listener, Way
from slapenir.edge.handed_sockets import HandedListener, take_over
from slapenir.edge.listen import Clients, ListenerFactory
from slapenir.edge.unix_sockets import beware, let_go
from slapenir.errors import AuditError, ConfigError
from slapenir.events import (
    AuditFailed,
    Event,
    InternalError,
    SandboxJoined,
    SandboxLeft,
    TrafficRefused,
)
from slapenir.evidence import Evidence
from slapenir.handed import KINDS, JoinRefused, take
from slapenir.loading import Loaded
from slapenir.names import REFUSED_TRAFFIC

NAME = "sandboxes"
"""What the records call the listener of every sandbox."""

VERSION = 1
_WAITING, _WAITING_EACH = 64, 8  # connections that have said nothing, of all and of one user
_LINE = 65536
_SECONDS = 10.0  # until the first line is there
_COUNTED = 1 << 40  # packets in one report
_UCRED = struct.Struct("3i")


class NameService(Protocol):
    """Who answers the sandboxes' questions for names."""

    def adopt(
        self, handed: socket.socket, identity: str, suspicious: Callable[[], None]
    ) -> IListeningPort:
        """Serve one bound UDP socket or listening TCP socket, for the clients of an identity."""


@attrs.frozen(slots=True, eq=False)
class Sandboxes:
    """Every sandbox that has joined; ``most`` may at one time.

    ``loaded`` says what is in force; ``publish`` takes events and may raise AuditError.
    """

    reactor: Any
    clients: Clients
    loaded: Callable[[], Loaded]
    publish: Callable[[Event], None]
    names: NameService
    most: int
    _joined: set[Joining] = attrs.field(factory=set)
    _waiting: Counter[int] = attrs.field(factory=Counter)
    _ports: list[IListeningPort] = attrs.field(factory=list)

    def listen(self, endpoint: str) -> Deferred[None]:
        """Open the ``unix:`` endpoint where sandboxes join."""
        opened = maybeDeferred(serverFromString, self.reactor, endpoint)
        opened.addCallback(lambda found: found.listen(_Factory(self)))
        return opened.addCallback(lambda port: self._ports.append(beware(port, True)))

    def stop(self) -> Deferred[Any]:
        """Let no more join; those that have stay until they are cut."""
        ports = list(self._ports)
        self._ports.clear()
        for one in list(self._joined):
            one.leave("the gateway stops")
        return maybeDeferred(ports[0].stopListening) if ports else maybeDeferred(lambda: None)

    def revise(self) -> None:
        """Look at every sandbox again after a reload; send away who is not what it was."""
        for one in list(self._joined):
            try:
                self.identify(one.uid, one.identity)
            except JoinRefused as refused:
                one.leave(refused.error)

    def identify(self, uid: int, wanted: str) -> str:
        """Return the identity of a sandbox of a user; raises JoinRefused.

        The gateway's own user and root choose among all identities: they could read every secret
        anyway.  Anybody else is the identity whose ``match`` has that ``unix_uid``.
        """
        loaded = self.loaded()
        if uid in (0, os.geteuid()):
            known = loaded.settings.identities
            if wanted in known:
                return wanted
            if not wanted and len(known) == 1:
                return known[0]
            error = f"nobody is called {wanted!r}" if wanted else "it is not said whose sandbox"
            raise JoinRefused(error, f"choose --identity of: {', '.join(known)}")
        found = loaded.identities.identify(Evidence(unix_uid=uid))
        if not found.name:
            raise JoinRefused(
                f"user {uid} is no identity of this gateway",
                f"ask for an [[identity]] with match = [{{ unix_uid = {uid} }}]",
            )
        if wanted not in ("", found.name):
            raise JoinRefused(
                f"user {uid} is the identity {found.name}, not {wanted}", "leave --identity out"
            )
        return found.name

    def answer(self, identity: str) -> dict[str, Any]:
        """Return what a sandbox is told: placeholders and what to trust, no secret."""
        loaded = self.loaded()
        return {
            "ok": True,
            "identity": identity,
            "environment": _placeholders(loaded.settings, loaded, identity),
            "ca": _trusted(loaded, identity).decode("ascii", "replace"),
        }

    def tell(self, event: Event) -> None:
        """Publish what happened already, whether it can be recorded or not."""
        try:
            self.publish(event)
        except AuditError as error:
            self.publish(AuditFailed(str(error)))

    def join(self, one: Joining) -> None:
        """Count a sandbox; raises JoinRefused when there are too many."""
        if len(self._joined) >= self.most:
            raise JoinRefused("there are too many sandboxes", "raise $.limits.sandboxes")
        self._joined.add(one)

    def comes(self, uid: int) -> bool:
        """Count a connection of a user that has said nothing yet, unless there are too many."""
        if self._waiting[uid] >= _WAITING_EACH or self._waiting.total() >= _WAITING:
            return False
        self._waiting[uid] += 1
        return True

    def has_spoken(self, uid: int) -> None:
        """Make room for the next connection of a user."""
        self._waiting[uid] -= 1
        if not self._waiting[uid]:
            del self._waiting[uid]

    def left(self, one: Joining) -> None:
        """Forget a sandbox."""
        self._joined.discard(one)


def _placeholders(settings: Settings, loaded: Loaded, identity: str) -> dict[str, str]:
    held = loaded.terms.protections[identity].placeholders
    return {
        variable_of(one): os.fsdecode(held[one.id])
        for one in settings.credentials
        if may_use(settings, identity, one.id)
    }


def _trusted(loaded: Loaded, identity: str) -> bytes:
    trusted = loaded.interception.trusted
    return trusted.get(identity) or trusted[""]


@implementer(IFileDescriptorReceiver)
class Joining(LineOnlyReceiver):
    """One connection of a sandbox's runner, from its first line to its end."""

    delimiter = b"\n"
    MAX_LENGTH = _LINE

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes
        self._handed: list[int] = []
        self._ports: list[IListeningPort] = []
        self._listener: Listener | None = None
        self._deadline: IDelayedCall | None = None
        self.identity = ""
        self.uid = -1

    # What the reactor says.

    def connectionMade(self) -> None:
        """Learn whose process it is; wait for its first line."""
        handle = self.transport.socket  # type: ignore[union-attr]
        credentials = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        self.uid = _UCRED.unpack(credentials)[1]
        if not self._sandboxes.comes(self.uid):
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        self._deadline = self._sandboxes.reactor.callLater(_SECONDS, self._overdue)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Keep a descriptor until the line that says what it is."""
        if self._listener is not None or len(self._handed) >= len(KINDS):
            let_go(descriptor)
        else:
            self._handed.append(descriptor)

    def lineReceived(self, line: bytes) -> None:
        """Take the first line, or a report."""
        try:
            message = json.loads(line)
            if type(message) is not dict:
                raise ValueError("not a table")
        except (ValueError, RecursionError):
            self._refuse(JoinRefused("the line is not JSON", "use slapenir run of this version"))
            return
        if self._listener is not None:
            self._report(message)
            return
        try:
            self._join(message)
        except JoinRefused as refused:
            self._refuse(refused)
        except AuditError as error:
            self._refuse(JoinRefused("the audit record cannot be written"))
            self._sandboxes.publish(AuditFailed(str(error)))
        except Exception as error:
            self._refuse(JoinRefused("the gateway failed"))
            self._sandboxes.publish(InternalError("sandboxes", type(error).__name__))

    def lineLengthExceeded(self, line: bytes) -> None:
        """End: no line is that long."""
        self._refuse(JoinRefused("the line is too long"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Let go of the sandbox: its runner is gone."""
        self._stop_clock()
        self._close("its runner is gone")

    # Steps.

    def _join(self, message: dict[str, Any]) -> None:
        self._stop_clock()
        wanted, kinds = message.get("identity", ""), message.get("sockets", [])
        if message.get("version") != VERSION:
            raise JoinRefused("another version of slapenir run", "install the gateway's version")
        if type(wanted) is not str or type(kinds) is not list or len(wanted) > 255:
            raise JoinRefused("the line does not say what it should")
        identity = self._sandboxes.identify(self.uid, wanted)
        descriptors, self._handed = self._handed, []
        handed = take(descriptors, kinds)
        try:
            self._sandboxes.join(self)
            self._serve(identity, handed)
        finally:
            for _, one in handed:
                let_go(one.detach())
        self._say(self._sandboxes.answer(identity))

    def _serve(self, identity: str, handed: list[tuple[str, socket.socket]]) -> None:
        sandboxes, self.identity = self._sandboxes, identity
        ways = frozenset({Way.UNIX_UID})
        self._listener = Listener("", NAME, identity, ways, transparent=True, adopted=True)
        sandboxes.publish(SandboxJoined(identity, self.uid, tuple(kind for kind, _ in handed)))
        factory = ListenerFactory(sandboxes.clients, self._listener)
        for kind, one in handed:
            one.setblocking(False)
            if kind.startswith("dns-"):
                self._ports.append(sandboxes.names.adopt(one, identity, self._suspicious))
            else:
                port = sandboxes.reactor.adoptStreamPort(one.fileno(), one.family, factory)
                take_over(port, HandedListener).suspicious = self._suspicious
                self._ports.append(port)

    def _report(self, message: dict[str, Any]) -> None:
        """Record what the sandbox's packet filter refused since the last report."""
        refused = message.get("refused")
        if type(refused) is not dict:
            return
        for kind, count in list(refused.items())[: 2 * len(REFUSED_TRAFFIC)]:
            if type(count) is int and 0 < count < _COUNTED:
                known = kind if kind in REFUSED_TRAFFIC else "other"
                self._sandboxes.tell(TrafficRefused(self.identity, known, count))

    # Ends.

    def _suspicious(self) -> None:
        """Send away who makes us wait, once the accept under way is over."""
        self._sandboxes.reactor.callLater(0, self.leave, "its socket made the gateway wait")

    def leave(self, reason: str) -> None:
        """Send the sandbox away: close its sockets and cut what it has open."""
        self._close(reason)
        self.transport.loseConnection()  # type: ignore[union-attr]

    def _close(self, reason: str) -> None:
        for descriptor in self._handed:
            let_go(descriptor)
        self._handed = []
        self._sandboxes.left(self)
        ports, self._ports = self._ports, []
        for port in ports:
            maybeDeferred(port.stopListening).addErrback(lambda _: None)
        listener, self._listener = self._listener, None
        if listener is not None:
            self._sandboxes.clients.cut_those_of(listener)
            self._sandboxes.tell(SandboxLeft(self.identity, self.uid, reason))

    def _refuse(self, refused: JoinRefused) -> None:
        self._stop_clock()
        self._close(refused.error)
        self._say({"ok": False, "error": refused.error, "remedy": refused.remedy})
        self.transport.loseConnection()  # type: ignore[union-attr]

    def _say(self, message: dict[str, Any]) -> None:
        self.sendLine(json.dumps(message).encode("utf-8"))  # type: ignore[no-untyped-call]

    def _overdue(self) -> None:
        self._deadline = None
        self._sandboxes.has_spoken(self.uid)
        self.transport.abortConnection()  # type: ignore[union-attr]

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._sandboxes.has_spoken(self.uid)


class _Factory(ServerFactory):
    """Hand each connection of a runner to Joining."""

    noisy = False

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    def buildProtocol(self, addr: IAddress) -> Joining:  # type: ignore[override]
        """Return the protocol of one connection."""
        return Joining(self._sandboxes)


def private_endpoint(path: str) -> str:
    """Return the endpoint of a gateway that one sandbox starts for itself; raises ConfigError."""
    if not os.path.isabs(path) or ":" in path or "\\" in path:
        raise ConfigError("the socket's path is not usable", "$", "give an absolute path")
    return f"unix:{path}:mode=600"
