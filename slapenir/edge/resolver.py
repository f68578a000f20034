"""The one guarded resolver: every address that is ever dialled was judged here, and only here.

A name is resolved once for each dial and the judged address itself is dialled, so an answer that
changes afterwards (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import NoReturn

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.lookup import MAX_ADDRESSES, Lookup
from slapenir.exchange.budget import NameBudget
from slapenir.exchange.inputs import DialFailure
from slapenir.names import Authority
from slapenir.policy.addresses import AddressPolicy, decide_address
from slapenir.policy.model import Decision


@attrs.frozen(slots=True)
class Judged:
    """An address and whether it may be dialled."""

    address: str
    decision: Decision


class ResolutionError(Exception):
    """A name has no addresses that could be judged; ``failure`` says why."""

    def __init__(self, failure: DialFailure) -> None:
        super().__init__(failure.value)
        self.failure = failure


class Resolver:
    """Resolve and judge.

    ``policy`` and ``hosts`` are asked anew each time, so a reload is seen at once; ``hosts`` are
    static answers, asked first and judged like any other.  ``own_ports`` are the ports that this
    gateway listens on: add to it every port opened.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: EdgeLimits,
        lookup: Lookup,
        policy: Callable[[], AddressPolicy],
        hosts: Callable[[], Mapping[str, Sequence[str]]],
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._lookup = lookup
        self._policy = policy
        self._hosts = hosts
        self._asked: dict[str, _Question] = {}
        self._lookups = 0
        self._budget = NameBudget(limits.names_per_minute)
        self.own_ports: set[int] = set()

    def resolve(self, authority: Authority, identity: str) -> Deferred[list[Judged]]:
        """Return every address of the authority's host with its decision; never empty.

        Errbacks ResolutionError: UNRESOLVABLE, RESOLVER_TIMEOUT after ``resolve_seconds``, or
        LIMIT when ``lookups`` are under way or the identity's names for this minute are spent.
        """
        host, port = authority.host, authority.port
        known = [host] if authority.is_ip else self._hosts().get(host)
        if known is not None:
            return succeed(self._judge(list(known), port))
        if not self._budget.take(identity, host, self._clock.seconds()):
            return fail(ResolutionError(DialFailure.LIMIT))
        return self._ask(host).addCallbacks(self._judge, _explain, callbackArgs=(port,))

    def stop(self) -> None:
        """Let go of what the lookup keeps."""
        self._lookup.stop()

    def _judge(self, addresses: list[str], port: int) -> list[Judged]:
        policy = self._policy()
        return [
            Judged(
                address,
                decide_address(policy, address, port, port in self.own_ports and is_local(address)),
            )
            for address in _interleave(addresses)
        ]

    def _ask(self, host: str) -> Deferred[list[str]]:
        """Look a name up; dials that ask for the same name at the same time share the answer."""
        now = self._clock.seconds()
        waiter: Deferred[list[str]] = Deferred()
        question = self._asked.get(host)
        if question is not None and now - question.since < self._limits.resolve_seconds:
            question.waiters.append(waiter)
        elif self._lookups >= self._limits.lookups:
            return fail(ResolutionError(DialFailure.LIMIT))
        else:
            question = self._asked[host] = _Question(now, [waiter])
            self._lookups += 1
            self._lookup.lookup(host).addBoth(self._answered, host, question)
        return waiter.addTimeout(self._limits.resolve_seconds, self._clock)

    def _answered(self, result: list[str] | Failure, host: str, question: _Question) -> None:
        self._lookups -= 1
        if self._asked.get(host) is question:
            del self._asked[host]
        for waiter in question.waiters:
            if not waiter.called:
                waiter.callback(result)  # a Failure runs the errbacks


@attrs.define(slots=True, eq=False)
class _Question:
    """A lookup under way, since when, and who waits for it."""

    since: float
    waiters: list[Deferred[list[str]]]


def _explain(failure: Failure) -> NoReturn:
    """Turn whatever a lookup failed with into a ResolutionError."""
    error = failure.value
    if isinstance(error, ResolutionError):
        raise error
    timed_out = isinstance(error, DeferredTimeout)
    reason = DialFailure.RESOLVER_TIMEOUT if timed_out else DialFailure.UNRESOLVABLE
    raise ResolutionError(reason) from None


def _interleave(addresses: list[str]) -> list[str]:
    """Return at most MAX_ADDRESSES different ones, IPv4 and IPv6 in turn (RFC 8305, 4)."""
    four = [a for a in dict.fromkeys(addresses) if ":" not in a]
    six = [a for a in dict.fromkeys(addresses) if ":" in a]
    mixed = [a for pair in zip_longest(four, six) for a in pair if a is not None]
    return mixed[:MAX_ADDRESSES]


def is_local(address: str) -> bool:
    """Whether connecting to ``address`` would reach this host itself.

    Asks the kernel which address it would come from; nothing is sent.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            source = probe.getsockname()[0]
    except OSError:
        return False
    loopback = source == "::1" or source.removeprefix("::ffff:").startswith("127.")
    return bool(loopback or source == _kernel_form(family, address))


def _kernel_form(family: int, address: str) -> str:
    """Return an address in the form that getsockname gives."""
    return socket.inet_ntop(family, socket.inet_pton(family, address))
