"""The listener for http-01 challenges: what it says, to how many, and for how long."""

from __future__ import annotations

import secrets
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from slapenir.issuance import challenge
from slapenir.issuance.challenge import MAX_CONNECTIONS, Challenges
from tests.support.ports import free_port

REACTOR: Any = reactor
PATH = b"/.well-known/acme-challenge/"


class Asker(Protocol):
    """A connection that keeps what came."""

    def __init__(self) -> None:
        self.data = b""
        self.open = self.lost = False

    def connectionMade(self) -> None:
        self.open = True

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


class ChallengeTests(TestCase):
    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        self.token, self.answer = secrets.token_urlsafe(16), secrets.token_urlsafe(32)
        self.answers: dict[str, str] = {self.token: self.answer}
        self.port = free_port()
        self.endpoint = f"tcp:{self.port}:interface=127.0.0.1"
        self.challenges = Challenges(REACTOR, self.answers)
        await self.challenges.listen(self.endpoint)
        self.askers: list[Asker] = []

    async def tearDown(self) -> None:
        await self.challenges.close()
        for asker in self.askers:
            if asker.open and not asker.lost:
                transport: Any = asker.transport
                transport.abortConnection()
        await self.until(lambda: all(one.lost or not one.open for one in self.askers))

    def connect(self, data: bytes = b"") -> Asker:
        """Connect, and send when it is open."""
        asker = Asker()

        class Connect(ClientFactory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Asker:
                return asker

        REACTOR.connectTCP("127.0.0.1", self.port, Connect())
        self.askers.append(asker)
        REACTOR.callLater(0.01, lambda: asker.open and data and asker.transport.write(data))
        return asker

    async def ask(
        self, path: bytes, method: bytes = b"GET", more: bytes = b""
    ) -> tuple[int, bytes]:
        """Return status and body."""
        asker = self.connect(b"%b %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (method, path, more))
        await self.until(lambda: asker.lost)
        head, _, body = asker.data.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]) if head else 0, body

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        """Wait for a condition; fail when it takes too long."""
        end = REACTOR.seconds() + seconds
        while not condition():
            if REACTOR.seconds() > end:
                self.fail("it took too long")
            await deferLater(REACTOR, 0.005)

    async def test_only_the_tokens_of_the_order_are_answered(self) -> None:
        """Every other path is refused; what is added later is answered, too."""
        token = self.token.encode()
        self.assertEqual(await self.ask(PATH + token), (200, self.answer.encode()))
        self.answers["later"] = "answer"
        self.assertEqual(await self.ask(PATH + b"later"), (200, b"answer"))
        for path in (
            b"/",
            PATH,
            PATH + b"other",
            PATH + token[:-1],
            PATH + token + b"x",
            b"/x" + PATH + token,
            PATH + b"%2e%2e/" + token,
            PATH + b"\xff",
            b"/" + token,
        ):
            status, body = await self.ask(path)
            self.assertIn(status, (400, 404), path)
            self.assertNotIn(self.answer.encode(), body)

    async def test_other_methods_and_bodies(self) -> None:
        """Neither is taken; HEAD is a GET without the answer."""
        path = PATH + self.token.encode()
        self.assertEqual((await self.ask(path, b"HEAD")), (200, b""))
        self.assertEqual((await self.ask(path, b"DELETE"))[0], 501)
        status, body = await self.ask(path, b"POST", b"Content-Length: 1000000\r\n")
        self.assertNotEqual(status, 200)
        self.assertNotIn(self.answer.encode(), body)

    async def test_one_request_for_each_connection(self) -> None:
        """A second one in the same segment is not answered."""
        request = b"GET " + PATH + self.token.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        asker = self.connect(request * 2)
        await self.until(lambda: asker.lost)
        self.assertEqual(asker.data.count(self.answer.encode()), 1)

    async def test_the_bound_on_connections(self) -> None:
        """One more than MAX_CONNECTIONS is closed at once; when one ends, there is room."""
        idle = [self.connect() for _ in range(MAX_CONNECTIONS)]
        await self.until(lambda: all(one.open for one in idle))
        await self.until(lambda: len(self.challenges._factory.protocols) == MAX_CONNECTIONS)
        more = self.connect()
        await self.until(lambda: more.lost)
        self.assertEqual([one for one in idle if one.lost], [])
        transport: Any = idle[0].transport
        transport.abortConnection()
        await self.until(lambda: len(self.challenges._factory.protocols) < MAX_CONNECTIONS)
        self.assertEqual((await self.ask(PATH + self.token.encode()))[0], 200)

    async def test_one_that_is_slow(self) -> None:
        """A byte now and then does not keep it open."""
        self.patch(challenge, "SECONDS", 0.3)
        slow = self.connect(b"G")
        await self.until(lambda: slow.open)
        begun = REACTOR.seconds()
        while not slow.lost and REACTOR.seconds() < begun + 2:
            transport: Any = slow.transport
            transport.write(b"x")
            await deferLater(REACTOR, 0.05)
        self.assertTrue(slow.lost)
        self.assertLess(REACTOR.seconds() - begun, 1.0)

    async def test_closing(self) -> None:
        """Nobody is listened to any more, and what was open is cut."""
        idle = self.connect()
        await self.until(lambda: idle.open)
        await self.until(lambda: len(self.challenges._factory.protocols) == 1)
        await self.challenges.close()
        await self.until(lambda: idle.lost)
        late = self.connect()
        await deferLater(REACTOR, 0.1)
        self.assertFalse(late.open)
        await self.challenges.close()

    async def test_a_port_that_is_taken(self) -> None:
        """It is an error of the endpoint's."""
        other = Challenges(REACTOR, {})
        with self.assertRaises(CannotListenError):
            await other.listen(self.endpoint)
        await other.close()
