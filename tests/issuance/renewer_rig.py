"""A renewer on a clock of the test's own, with a CA that does what it is told."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from slapenir.events import Event
from slapenir.issuance.provider import IssuanceError
from slapenir.issuance.renewer import Renewer
from slapenir.pki.held import Held, new_key

DAY = 86400.0
BEGIN = 1_800_000_000.0


def held(begins: float, life: float = DAY, name: str = "gateway") -> Held:
    """Return a certificate with its key, signed by itself."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(begins, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(begins + life, datetime.UTC))
        .sign(key, hashes.SHA256())
    )
    return Held(key, (certificate,), (certificate,))


class Threads:
    """A pool that does what it is given at once; ``later`` keeps it instead."""

    def __init__(self) -> None:
        self.later = False
        self.kept: list[Callable[[], None]] = []

    def callInThreadWithCallback(self, done: Any, call: Any, *args: Any, **kwargs: Any) -> None:
        """Run it, or keep it."""

        def run() -> None:
            try:
                result = call(*args, **kwargs)
            except Exception as error:
                done(False, _failure(error))
            else:
                done(True, result)

        if self.later:
            self.kept.append(run)
        else:
            run()


def _failure(error: Exception) -> Any:
    from twisted.python.failure import Failure

    return Failure(error)


class Reactor(Clock):
    """A clock that has threads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.threads = Threads()

    def getThreadPool(self) -> Threads:
        """Return the pool."""
        return self.threads

    def callFromThread(self, call: Any, *args: Any, **kwargs: Any) -> None:
        """Call it at once."""
        call(*args, **kwargs)


class FakeCA:
    """A provider; ``broken`` is what it fails with, ``slow`` makes it answer only when told."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.life = DAY
        self.broken: Exception | None = None
        self.slow = False
        self.asked: list[tuple[float, Held | None]] = []
        self.open: list[Deferred[Held]] = []
        self.cancelled = 0

    def obtain(self) -> Deferred[Held]:
        """Give a first one."""
        return self._give(None)

    def renew(self, held: Held) -> Deferred[Held]:
        """Give the next."""
        return self._give(held)

    def _give(self, before: Held | None) -> Deferred[Held]:
        self.asked.append((self._now(), before))
        answer: Deferred[Held] = Deferred(self._cancel)
        if self.slow:
            self.open.append(answer)
        elif self.broken is not None:
            answer.errback(self.broken)
        else:
            answer.callback(held(self._now(), self.life))
        return answer

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class RenewerTestCase(SynchronousTestCase):
    """``self.offset`` is the wall clock's difference, to be changed as somebody sets it."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.offset = BEGIN
        self.random = 0.0
        self.directory = os.path.join(self.mktemp(), "managed")
        self.events: list[Event] = []
        self.told: list[Held] = []
        self.ca = FakeCA(self.now)
        self.renewer = self.make()

    def now(self) -> float:
        """Return the wall clock's time."""
        return float(self.reactor.seconds()) + self.offset

    def make(self, **more: Any) -> Renewer:
        """Make another renewer of the same directory."""
        made = Renewer(
            self.reactor,
            self.now,
            self.ca,
            self.directory,
            "managed",
            self.events.append,
            lambda: self.random,
            **more,
        )
        made.subscribe(self.told.append)
        return made

    def keep(self, one: Held) -> None:
        """Put a certificate where the renewer looks for it."""
        os.makedirs(self.directory, 0o700)
        one.save(self.directory)

    def run_for(self, seconds: float, step: float = 5.0) -> None:
        """Let time go by."""
        end = self.reactor.seconds() + seconds
        while self.reactor.seconds() < end:
            self.reactor.advance(min(step, end - self.reactor.seconds()))

    def of(self, kind: type) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def failing(self, phrase: str = "the CA cannot be reached") -> None:
        """Let the CA fail."""
        self.ca.broken = IssuanceError(phrase)
