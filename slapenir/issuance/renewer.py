"""Look after one certificate: get it, keep it in a directory, renew it at two thirds of its life.

Timers go by the reactor's clock.  The wall clock is looked at as well, at least once a minute, and
whichever says first that it is time is believed: a clock that is set forwards or back does not let
a certificate end unseen (T216).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from slapenir.errors import PkiError, SlapenirError
from slapenir.events import (
    CertificateLoaded,
    CertificateRenewed,
    Event,
    InternalError,
    RenewalFailed,
)
from slapenir.issuance.provider import Provider
from slapenir.issuance.timing import Timing
from slapenir.pki.held import Held


def _any(held: Held) -> bool:
    return True


class Renewer:
    """Keep ``current`` good: None until there is one that has not ended.

    ``now`` is Unix time; ``random`` returns numbers from 0 to 1.  ``directory`` holds the
    certificate between two runs and is made when it is missing.  ``label`` is the certificate's
    in events.  One that ``suits`` says no to is used, and renewed at once.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        provider: Provider,
        directory: str,
        label: str,
        publish: Callable[[Event], None],
        random: Callable[[], float],
        suits: Callable[[Held], bool] = _any,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._provider = provider
        self._directory = directory
        self._label = label
        self._publish = publish
        self._suits = suits
        self._timing = Timing(reactor.seconds, now, random)
        self._subscribers: list[Callable[[Held], None]] = []
        self._call: IDelayedCall | None = None
        self._working = False
        self._waiting: list[Deferred[None]] = []
        self._asked: Deferred[Held] | None = None
        self._held: Held | None = None  # what was got last; it may have ended
        self._saved = True
        self._problem = ""
        self._stopped = False
        self.current: Held | None = None

    def subscribe(self, subscriber: Callable[[Held], None]) -> None:
        """Tell about each certificate that comes into use, in the reactor's thread.

        Subscribe before ``start``; the first one is told as well.
        """
        self._subscribers.append(subscriber)

    def start(self) -> Deferred[None]:
        """Take what is in the directory, or ask the provider at once.

        The Deferred fires when the first attempt is over, however it ended; it never fails.
        """
        return self._work(self._first())

    def stop(self) -> Deferred[None]:
        """Renew no more; fires when nothing is under way any more.

        A question to the provider is cancelled; what is being written is written.
        """
        self._stopped = True
        self._cancel_call()
        if self._asked is not None:
            self._asked.cancel()
        return self._wait()

    def renew_now(self) -> Deferred[None]:
        """Renew without waiting for the time; one that is under way is not begun twice.

        The Deferred fires when that is over, however it ended; it never fails.
        """
        if self._working or self._stopped:
            return self._wait()
        return self._work(self._renew())

    # One thing at a time.

    def _wait(self) -> Deferred[None]:
        if not self._working:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _work(self, step: Coroutine[Any, Any, None]) -> Deferred[None]:
        self._cancel_call()
        self._working = True
        over = self._wait()
        done = Deferred.fromCoroutine(step).addErrback(self._failed).addBoth(self._rest)
        done.addErrback(lambda failure: self._log.failure("cannot tell of a renewal", failure))
        return over

    def _rest(self, result: Any) -> Any:
        """Wait for the next look, and tell who waits for the end of this one."""
        self._working = False
        self._schedule()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)
        return result

    def _schedule(self) -> None:
        if not self._stopped:
            self._call = self._reactor.callLater(self._timing.look_in(), self._look)

    def _look(self) -> None:
        self._call = None
        if self._timing.left() <= 0:
            self._work(self._renew())
        else:
            self._schedule()

    def _cancel_call(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # Steps.

    async def _first(self) -> None:
        held, self._problem = await self._in_thread(self._load)
        if self._stopped:
            return
        self._held = held
        if held is None or self._now() >= held.not_after:
            await self._renew()
            return
        self._use(held)
        if not self._suits(held):
            await self._renew()

    async def _renew(self) -> None:
        held = self._held
        if self._saved or held is None or self._timing.is_old(held.not_before, held.not_after):
            if held is None:
                self._asked = maybeDeferred(self._provider.obtain)
            else:
                self._asked = maybeDeferred(self._provider.renew, held)
            try:
                self._held = await self._asked
            finally:
                self._asked = None
            self._saved = False
        await self._save()

    async def _save(self) -> None:
        """Write it, then use it.  One that cannot be written is used, and written later."""
        held = self._held
        if held is None:
            raise AssertionError("there is one")
        try:
            await self._in_thread(self._write, held)
            self._saved, self._problem = True, ""
            self._timing.plan(held.not_before, held.not_after)
        finally:
            if held is not self.current and not self._stopped:
                self._use(held)

    def _use(self, held: Held) -> None:
        first, self.current = self.current is None, held
        self._timing.plan(held.not_before, held.not_after)
        self._publish(
            CertificateLoaded(self._label, held.not_after, True)
            if first
            else CertificateRenewed(self._label, held.not_after)
        )
        for subscriber in self._subscribers:
            try:
                subscriber(held)
            except Exception as error:
                self._log.failure("a subscriber to certificates failed")
                self._publish(InternalError("issuance", type(error).__name__))

    def _failed(self, failure: Failure) -> None:
        """Try again: sooner the shorter its life, later each time, never at the same moment."""
        if self._stopped:
            return
        error, held = failure.value, self._held
        wait = self._timing.retry(*(() if held is None else (held.not_after - held.not_before,)))
        if isinstance(error, SlapenirError):
            phrase = str(error)
        elif isinstance(error, CancelledError):
            phrase = "it was interrupted"
        else:
            phrase = f"an unexpected {type(error).__name__}"
            self._publish(InternalError("issuance", type(error).__name__))
        phrase = f"{self._problem}; {phrase}" if self._problem else phrase
        ends = 0.0 if held is None else held.not_after
        self._publish(RenewalFailed(self._label, phrase, wait, ends))

    # In a thread.

    def _load(self) -> tuple[Held | None, str]:
        """Return what is kept, or None and what is wrong with it."""
        try:
            return Held.load(self._directory), ""
        except FileNotFoundError:
            return None, ""
        except PkiError as error:
            return None, str(error)

    def _write(self, held: Held) -> None:
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
        except OSError as error:
            raise PkiError(f"{self._directory} cannot be made: {error.strerror}") from None
        held.save(self._directory)

    def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *arguments)
