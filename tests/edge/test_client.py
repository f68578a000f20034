"""The driver: rounds, timers, records that cannot be written, and exceptions."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.deadlines import Deadlines
from slapenir.edge.tls import Tls
from slapenir.edge.tlscontext import OriginContext
from slapenir.events import (
    AuditFailed,
    ConnectionClosed,
    ConnectionOpened,
    Decided,
    ExchangeFinished,
    InternalError,
    TlsHandshake,
    Who,
)
from slapenir.exchange.commands import (
    Close,
    Command,
    Dial,
    Emit,
    PoolKey,
    Release,
    Send,
    SetTimer,
    StartTLS,
)
from slapenir.exchange.inputs import (
    CLIENT,
    BytesReceived,
    Dialled,
    HandshakeDone,
    Input,
    Opened,
    PeerClosed,
    Timer,
    TimerFired,
)
from slapenir.names import Action, Authority, Outcome, Reason, Side, Stage
from tests.edge.rig import REACTOR, EdgeTestCase, Peer, TlsPeer
from tests.support.relay_session import RelaySession
from tests.support.tls import TestCA


class Scripted:
    """A session that answers each kind of input with a list set by the test."""

    def __init__(self, who: Who, script: dict[type[Input], Any]) -> None:
        self.who = who
        self.script = script
        self.inputs: list[Input] = []
        self.finished = False
        self.wanted = True
        self.depth = 0

    def receive(self, item: Input, now: float) -> list[Command]:
        """Answer from the script; a callable in it is called with the session and the input."""
        assert self.depth == 0
        self.depth += 1
        self.inputs.append(item)
        answer = self.script.get(type(item), [])
        commands: list[Command] = answer(self, item) if callable(answer) else answer
        self.finished = self.finished or Close(CLIENT) in commands
        if isinstance(item, PeerClosed) and item.connection == CLIENT and not item.half:
            self.finished = True
        self.depth -= 1
        return commands

    def wants(self, connection: int) -> bool:
        """Whether the test wants bytes."""
        return self.wanted


def decided(who: Who) -> Decided:
    """Return any decision."""
    return Decided(who, 1, Stage.REQUEST, Action.ALLOW, Reason.RULE)


def finished(who: Who) -> ExchangeFinished:
    """Return the end of any exchange."""
    return ExchangeFinished(who, 1, Outcome.COMPLETED, "", "GET", "", "", "", 200, 0, 0, 0.0)


class DriverTests(EdgeTestCase):
    """One client on a real socket."""

    async def run_script(self, script: dict[type[Input], Any], refuse: tuple[type, ...] = ()):  # type: ignore[no-untyped-def]
        """Start an edge with scripted sessions and one client."""
        edge = await self.edge(lambda who: Scripted(who, script))
        edge.recorder.refuse = refuse
        client = self.connect(edge.port, Peer())
        await client.opened
        await self.until(lambda: edge.sessions)
        return edge, client

    async def test_opened_comes_first_and_closed_last(self) -> None:
        edge, client = await self.run_script({})
        client.transport.write(b"x")
        session = edge.sessions[0]
        await self.until(lambda: len(session.inputs) == 2)
        client.transport.abortConnection()
        await self.until(lambda: edge.recorder.of(ConnectionClosed))
        self.assertEqual(
            session.inputs, [Opened(), BytesReceived(CLIENT, b"x"), PeerClosed(CLIENT, False)]
        )
        who = session.who
        self.assertEqual(edge.recorder.events, [ConnectionOpened(who), ConnectionClosed(who)])
        self.assertEqual((who.listener, who.identity), ("main", "sandbox"))
        self.assertTrue(who.peer.startswith("127.0.0.1:"))

    async def test_inputs_during_commands_wait_their_turn(self) -> None:
        """A pooled dial answers at once, yet the rest of the list is executed before."""
        port, server = self.serve(Peer)
        key = PoolKey("sandbox", Authority("127.0.0.1", port), False, ())
        order: list[str] = []

        def on_bytes(session: Scripted, item: BytesReceived) -> list[Command]:
            if item.connection != CLIENT:
                return [Release(item.connection), Send(CLIENT, b"ok")]
            number = 1 + sum(isinstance(i, Dialled) for i in session.inputs)
            order.append("asked")
            dial = Dial(number, key.authority, False, session.who, 1, key)
            return [dial, Send(CLIENT, b"listed;")]

        def on_dialled(session: Scripted, item: Dialled) -> list[Command]:
            order.append(f"dialled reused={item.reused}")
            return [Send(CLIENT, b"dialled;"), Send(item.connection, b"ping")]

        script = {BytesReceived: on_bytes, Dialled: on_dialled}
        edge = await self.edge(lambda who: Scripted(who, script), allow=[f"127.0.0.1:{port}"])
        client = self.connect(edge.port, Peer())
        await client.opened
        for round_number in (1, 2):
            client.transport.write(b"go")
            await self.until(
                lambda n=round_number: (
                    server.made and server.made[0].data == b"ping" * n and b"dialled" in client.data
                )
            )
            server.made[0].transport.write(b"pong")
            await self.until(lambda n=round_number: client.data == b"listed;dialled;ok" * n)
        self.assertEqual(order, ["asked", "dialled reused=False", "asked", "dialled reused=True"])
        self.assertEqual(len(server.made), 1)
        self.assertEqual(len(edge.recorder.of(Decided)), 1)

    async def test_timers_fire(self) -> None:
        def on_timer(session: Scripted, item: TimerFired) -> list[Command]:
            return [Close(CLIENT)] if item.timer is Timer.IDLE else []

        script = {
            Opened: [
                SetTimer(Timer.HEAD, 0.01),
                SetTimer(Timer.BODY, 0.02),
                SetTimer(Timer.BODY, None),
                SetTimer(Timer.IDLE, 0.03),
            ],
            TimerFired: on_timer,
        }
        edge, client = await self.run_script(script)
        await client.ended
        fired = [item.timer for item in edge.sessions[0].inputs if isinstance(item, TimerFired)]
        self.assertEqual(fired, [Timer.HEAD, Timer.IDLE])

    async def test_a_record_that_cannot_be_written(self) -> None:
        """Nothing after it in the list happens; the client is told, once, and dropped."""

        def on_bytes(session: Scripted, item: Input) -> list[Command]:
            return [Emit(decided(session.who)), Send(CLIENT, b"must not be seen")]

        edge, client = await self.run_script({BytesReceived: on_bytes}, refuse=(Decided,))
        client.transport.write(b"GET")
        await client.ended
        head, _, body = client.data.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 503 "))
        self.assertEqual(json.loads(body)["reason"], "audit_unavailable")
        self.assertEqual(edge.recorder.of(AuditFailed), [AuditFailed("the disk is full")])
        await self.until(lambda: edge.recorder.gauges() == (0, 0))

    async def test_a_record_that_cannot_be_written_after_the_answer_began(self) -> None:
        def on_bytes(session: Scripted, item: BytesReceived) -> list[Command]:
            if item.data == b"1":
                return [Send(CLIENT, b"begun")]
            return [Emit(decided(session.who))]

        edge, client = await self.run_script({BytesReceived: on_bytes}, refuse=(Decided,))
        client.transport.write(b"1")
        await self.until(lambda: client.data == b"begun")
        client.transport.write(b"2")
        await client.ended
        self.assertEqual(client.data, b"begun")
        self.assertEqual(len(edge.recorder.of(AuditFailed)), 1)

    async def test_a_finished_exchange_does_not_count_as_begun(self) -> None:
        def on_bytes(session: Scripted, item: BytesReceived) -> list[Command]:
            if item.data == b"1":
                return [Send(CLIENT, b"first"), Emit(finished(session.who))]
            return [Emit(decided(session.who))]

        _, client = await self.run_script({BytesReceived: on_bytes}, refuse=(Decided,))
        client.transport.write(b"1")
        await self.until(lambda: client.data == b"first")
        client.transport.write(b"2")
        await client.ended
        self.assertTrue(client.data.startswith(b"firstHTTP/1.1 503 "))

    async def test_an_address_that_cannot_be_recorded_is_not_dialled(self) -> None:
        port, server = self.serve(Peer)
        edge = await self.edge(
            lambda who: RelaySession(who, Authority("127.0.0.1", port)),
            allow=[f"127.0.0.1:{port}"],
        )
        edge.recorder.refuse = (Decided,)
        client = self.connect(edge.port, Peer())
        await client.ended
        self.assertTrue(client.data.startswith(b"HTTP/1.1 503 "))
        self.assertEqual(server.made, [])

    async def test_an_exception_aborts_this_connection_only(self) -> None:
        """Floor 7 of the design: counted, closed, and the process goes on."""

        def on_bytes(session: Scripted, item: BytesReceived) -> list[Command]:
            if item.data == b"boom":
                raise ZeroDivisionError("with a secret in it")
            return [Send(CLIENT, item.data)]

        edge, one = await self.run_script({BytesReceived: on_bytes})
        two = self.connect(edge.port, Peer())
        await two.opened
        one.transport.write(b"boom")
        await one.ended
        two.transport.write(b"hello")
        await self.until(lambda: two.data == b"hello")
        self.assertEqual(
            edge.recorder.of(InternalError), [InternalError("client", "ZeroDivisionError")]
        )
        self.assertNotIn("secret", repr(edge.recorder.events))

    async def test_reading_stops_when_the_session_does_not_want_bytes(self) -> None:
        edge, client = await self.run_script({SetTimer: []})
        session = edge.sessions[0]
        session.wanted = False
        client.transport.write(b"x")
        await self.until(lambda: len(session.inputs) == 2)
        client.transport.write(b"y" * 1000)
        await deferLater(REACTOR, 0.05)
        self.assertEqual(len(session.inputs), 2)


class ClientTlsTests(EdgeTestCase):
    """The client's side of TLS."""

    async def test_a_client_that_does_not_trust_the_leaf(self) -> None:
        """T116: recorded with OpenSSL's phrase, and nothing stays open."""
        edge = await self.edge(
            lambda who: Scripted(
                who,
                {
                    BytesReceived: lambda s, i: [StartTLS("localhost", i.data)],
                    PeerClosed: [Close(CLIENT)],
                },
            )
        )
        stranger = OriginContext(TestCA("Other").write(self.path("ca")))
        authority = Authority("localhost", 443)
        client = self.connect(edge.port, TlsPeer(Tls(stranger.connection(authority))))
        await self.until(lambda: edge.recorder.of(TlsHandshake))
        handshake = edge.recorder.of(TlsHandshake)[0]
        self.assertEqual((handshake.side, handshake.authority), (Side.CLIENT, "localhost"))
        self.assertIn("alert unknown ca", handshake.error)
        await self.until(lambda: edge.recorder.gauges() == (0, 0))
        self.assertIn(PeerClosed(CLIENT, False), edge.sessions[0].inputs)
        self.assertNotIn(HandshakeDone(), edge.sessions[0].inputs)
        self.assertFalse(client.secured)

    async def test_garbage_instead_of_a_hello(self) -> None:
        """T097."""
        script = {BytesReceived: lambda s, i: [StartTLS("localhost", i.data)]}
        edge = await self.edge(lambda who: Scripted(who, script))
        client = self.connect(edge.port, Peer())
        await client.opened
        client.transport.write(b"\x16\x03\x01\x00\x05hello")
        await client.ended
        self.assertNotEqual(edge.recorder.of(TlsHandshake)[0].error, "")
        await self.until(lambda: edge.recorder.gauges() == (0, 0))


class DeadlineTests(SynchronousTestCase):
    """Many deadlines on one delayed call."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fired: list[Timer] = []
        self.deadlines = Deadlines(self.clock, self.fired.append)

    def test_in_order(self) -> None:
        self.deadlines.set(Timer.IDLE, 3)
        self.deadlines.set(Timer.HEAD, 1)
        self.deadlines.set(Timer.BODY, 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for second in (1, 2, 3):
            self.clock.advance(1)
            self.assertEqual(len(self.fired), second)
        self.assertEqual(self.fired, [Timer.HEAD, Timer.BODY, Timer.IDLE])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moved_and_cleared(self) -> None:
        self.deadlines.set(Timer.HEAD, 1)
        self.deadlines.set(Timer.HEAD, 5)
        self.deadlines.set(Timer.BODY, 1)
        self.deadlines.set(Timer.BODY, None)
        self.clock.advance(4.9)
        self.assertEqual(self.fired, [])
        self.clock.advance(0.2)
        self.assertEqual(self.fired, [Timer.HEAD])

    def test_setting_again_while_firing(self) -> None:
        def fire(timer: Timer) -> None:
            self.fired.append(timer)
            if len(self.fired) < 3:
                self.deadlines.set(Timer.HEAD, 1)

        self.deadlines = Deadlines(self.clock, fire)
        self.deadlines.set(Timer.HEAD, 1)
        self.clock.pump([1, 1, 1, 1])
        self.assertEqual(self.fired, [Timer.HEAD] * 3)

    def test_one_that_is_cleared_in_the_same_moment_does_not_fire(self) -> None:
        def fire(timer: Timer) -> None:
            self.fired.append(timer)
            self.deadlines.set(Timer.BODY, None)

        self.deadlines = Deadlines(self.clock, fire)
        self.deadlines.set(Timer.HEAD, 1)
        self.deadlines.set(Timer.BODY, 1)
        self.clock.advance(1)
        self.assertEqual(self.fired, [Timer.HEAD])

    def test_clear_leaves_nothing(self) -> None:
        self.deadlines.set(Timer.HEAD, 1)
        self.deadlines.clear()
        self.assertEqual(self.clock.getDelayedCalls(), [])
