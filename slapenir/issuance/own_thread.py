"""One blocking call in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Result = TypeVar("Result")


def in_own_thread(
    reactor: Any, name: str, call: Callable[..., Result], *arguments: Any
) -> Deferred[Result]:
    """Return what ``call`` returns.

    It may take minutes, so it takes no place in the reactor's pool, and the process does not wait
    for it at its end.  Cancelling only stops waiting: ``call`` has to be told in its own way.
    """
    answer: Deferred[Result] = Deferred()

    def run() -> None:
        try:
            result = call(*arguments)
        except Exception:
            reactor.callFromThread(answer.errback, Failure())
        else:
            reactor.callFromThread(answer.callback, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer
