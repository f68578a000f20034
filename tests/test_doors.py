"""A listener's files while it runs: what is good counts, whatever is wrong with the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from slapenir.config.settings import ListenerTls
from slapenir.doors import FileDoor
from slapenir.edge.doorway import Passport, Untrusted
from slapenir.edge.tls import TlsError
from slapenir.events import Event, RenewalFailed
from tests.edge.test_doorway import DoorwayCase
from tests.support.agents import SERVER, AgentCA, pem


class InlineReactor(Clock):
    """A clock that also runs what is meant for threads, at once."""

    def getThreadPool(self) -> InlineReactor:
        return self

    def callInThreadWithCallback(self, result: Callable, work: Callable, *args: Any) -> None:
        try:
            answer, ok = work(*args), True
        except Exception as error:
            from twisted.python.failure import Failure

            answer, ok = Failure(error), False
        result(ok, answer)

    def callFromThread(self, work: Callable, *args: Any) -> None:
        work(*args)


class FileDoorTests(DoorwayCase):
    """A CA that was taken out of ``client_ca`` is trusted no more."""

    def setUp(self) -> None:
        self.place = Path(self.mktemp()).resolve()
        self.place.mkdir(mode=0o700)
        self.first, self.second, self.server = AgentCA("First"), AgentCA("Second"), AgentCA("S")
        self.certificate, self.key = self.server.issue(dns=["gateway.test"], usage=(SERVER,)).write(
            self.place, "tls"
        )
        self.authorities = self.place / "ca.pem"
        self.authorities.write_bytes(pem([self.first.certificate, self.second.certificate]))
        self.events: list[Event] = []
        self.reviews = 0
        tls = ListenerTls(
            certificate=str(self.certificate), key=str(self.key), client_ca=str(self.authorities)
        )
        self.door = FileDoor(
            InlineReactor(), "l", tls, self.events.append, self.review, lambda *_: None
        )
        self.agents = [ca.agent("1") for ca in (self.first, self.second)]
        self.passports = [self.enter(self.door.doorway, one) for one in self.agents]

    def review(self) -> None:
        self.reviews += 1

    def who(self) -> list[bool]:
        """Return whether the agents of both CAs get in now."""
        found = []
        for agent in self.agents:
            try:
                found.append(self.enter(self.door.doorway, agent) is not None)
            except (TlsError, Untrusted):
                found.append(False)
        return found

    def objected(self) -> list[bool]:
        """Return whether the connections that were made before are objected to."""
        return [
            self.door.doorway.objection(one) is not None
            for one in self.passports
            if isinstance(one, Passport)
        ]

    def take_out_the_first(self) -> None:
        self.authorities.write_bytes(pem([self.second.certificate]))

    def test_all_good(self) -> None:
        self.assertEqual(self.who(), [True, True])
        self.take_out_the_first()
        self.door.look()
        self.assertEqual((self.who(), self.objected()), ([False, True], [True, False]))
        self.assertGreaterEqual(self.reviews, 1)

    def test_a_certificate_that_cannot_be_used(self) -> None:
        """Of another key, or open to others: the CAs count all the same, and it recovers."""
        other, key = self.server.issue(dns=["gateway.test"], usage=(SERVER,)).write(
            self.place, "other"
        )
        good = self.certificate.read_bytes()
        for spoil, mend in (
            (
                lambda: self.certificate.write_bytes(other.read_bytes()),
                lambda: self.certificate.write_bytes(good),
            ),
            (lambda: self.key.chmod(0o666), lambda: self.key.chmod(0o600)),
        ):
            self.authorities.write_bytes(pem([self.first.certificate, self.second.certificate]))
            self.door.look()
            self.assertEqual(self.who(), [True, True])
            spoil()
            self.take_out_the_first()
            self.events.clear()
            self.door.look()
            self.assertEqual((self.who(), self.objected()), ([False, True], [True, False]))
            self.door.look()
            self.assertEqual(len([e for e in self.events if isinstance(e, RenewalFailed)]), 1)
            mend()
            self.door.look()
            self.assertEqual(self.who(), [False, True])
        self.assertTrue(key.exists())

    def test_no_list_of_cas(self) -> None:
        """Deleted, emptied or rubbish: once may be a replacement, twice is nobody."""
        for spoil in (
            self.authorities.unlink,
            lambda: self.authorities.write_bytes(b""),
            lambda: self.authorities.write_bytes(b"rubbish"),
        ):
            spoil()
            self.door.look()
            self.assertEqual(self.who(), [True, True])
            self.door.look()
            self.assertEqual((self.who(), self.objected()), ([False, False], [True, True]))
            self.authorities.write_bytes(pem([self.first.certificate, self.second.certificate]))
            self.door.look()
            self.assertEqual((self.who(), self.objected()), ([True, True], [False, False]))
