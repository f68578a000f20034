"""Two ways from a name to addresses: the configured DNS servers, or the system's resolver.

Neither judges anything.  Both do a bounded amount of work for one name, and fail with
LookupError when there is no answer.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from threading import Thread
from typing import Any, NoReturn, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.names import client, dns
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

MAX_ADDRESSES = 16
MAX_ALIASES = 8
# Seconds to wait for each server in turn, then again; the caller's deadline stands above this.
_TIMEOUTS = (1, 2, 4)
_SECOND_FAMILY_SECONDS = 0.25


class Lookup(Protocol):
    """A way to look names up."""

    def lookup(self, host: str) -> Deferred[list[str]]:
        """Return at most MAX_ADDRESSES addresses; errback LookupError when there are none."""

    def stop(self) -> None:
        """Let go of threads."""


class DnsLookup:
    """Ask ``servers`` (address and port) for A and AAAA records (RFC 1035, RFC 3596).

    After ``seconds`` it lets go of its sockets and fails with Twisted's TimeoutError: a name that
    nobody waits for any more must not keep its place among the lookups under way.
    """

    def __init__(
        self, reactor: Any, servers: Sequence[tuple[str, int]], seconds: float = 5.0
    ) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._resolver: Any = client.Resolver(
            servers=list(servers), timeout=_TIMEOUTS, reactor=reactor
        )

    def lookup(self, host: str) -> Deferred[list[str]]:
        """Follow at most MAX_ALIASES aliases; take at most MAX_ADDRESSES addresses."""
        four = self._follow(host, dns.A, MAX_ALIASES)
        six = self._follow(host, dns.AAAA, MAX_ALIASES)
        four.addCallback(self._hasten, six)
        six.addCallback(self._hasten, four)
        both = DeferredList([four, six], consumeErrors=True).addCallback(_combine)
        return both.addTimeout(self._seconds, self._reactor, _too_late)

    def stop(self) -> None:
        """Nothing is kept."""

    def _hasten(self, found: list[str], other: Deferred[list[str]]) -> list[str]:
        """Wait only a moment for the other family once one has answered (RFC 8305, 3)."""
        if found:
            other.addTimeout(_SECOND_FAMILY_SECONDS, self._reactor)
        return found

    def _follow(self, host: str, kind: int, left: int) -> Deferred[list[str]]:
        ask = self._resolver.lookupAddress if kind == dns.A else self._resolver.lookupIPV6Address
        answer: Deferred[Any] = ask(host)
        return answer.addCallback(self._answered, host, kind, left)

    def _answered(
        self, answer: Any, host: str, kind: int, left: int
    ) -> list[str] | Deferred[list[str]]:
        records = answer[0]
        aliases = {
            _text(record.name.name): _text(record.payload.name.name)
            for record in records
            if record.type == dns.CNAME
        }
        name = host
        while name in aliases:
            left -= 1
            if left < 0:
                raise LookupError("too many aliases")
            name = aliases.pop(name)
        found = []
        for record in records:
            if record.type == kind and _text(record.name.name) == name:
                family = socket.AF_INET if kind == dns.A else socket.AF_INET6
                found.append(socket.inet_ntop(family, record.payload.address))
                if len(found) == MAX_ADDRESSES:
                    break
        if found or name == host:
            return found
        if left <= 0:
            raise LookupError("too many aliases")
        return self._follow(name, kind, left - 1)


class _DaemonThread(Thread):
    """A thread that the interpreter does not wait for."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named, daemon=True)


class SystemLookup:
    """Ask getaddrinfo, in threads of its own so that a slow server holds up nothing else."""

    def __init__(self, reactor: IReactorFromThreads, threads: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, "lookup")
        # A lookup that hangs must not keep the process from ending.
        self._pool.threadFactory = _DaemonThread

    def lookup(self, host: str) -> Deferred[list[str]]:
        """Ask in a thread; the thread ends when the system's resolver gives up."""
        if not self._pool.started:
            self._pool.start()
        asked = deferToThreadPool(self._reactor, self._pool, _getaddrinfo, host)
        return asked.addErrback(_no_answer)

    def stop(self) -> None:
        """Stop the threads without waiting for those that are busy."""
        if self._pool.started:
            Thread(target=self._pool.stop, daemon=True).start()


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace").lower().rstrip(".")


def _combine(results: list[tuple[bool, Any]]) -> list[str]:
    found: list[str] = []
    for success, value in results:
        if success:
            found.extend(value)
    if found:
        return found
    raise LookupError("no answer")


def _too_late(result: object, seconds: float) -> Failure:
    """Return the same failure as a waiter's own deadline, whatever the cancelling made of it."""
    return Failure(DeferredTimeout(f"no answer in {seconds} seconds"))


def _getaddrinfo(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[: 2 * MAX_ADDRESSES]


def _no_answer(failure: Failure) -> NoReturn:
    if isinstance(failure.value, OSError | UnicodeError):
        raise LookupError("no answer") from None
    failure.raiseException()
