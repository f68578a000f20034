"""The HTTP layer of a client connection: on the plain connection, or inside intercepted TLS.

Requests are taken one after another, so answers keep their order; what was pipelined waits,
decoded and bounded.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from slapenir.errors import RemoteProtocolError
from slapenir.exchange.admission import admit, malformed, unidentified
from slapenir.exchange.commands import SetTimer
from slapenir.exchange.exchange import Exchange
from slapenir.exchange.inputs import CLIENT, DialFailed, Dialled, Timer
from slapenir.names import Authority, Outcome
from slapenir.policy.model import Destination
from slapenir.wire.http1 import RequestDecoder
from slapenir.wire.messages import Framing, Message, RequestHead
from slapenir.wire.sniff import Protocol, sniff

if TYPE_CHECKING:
    from slapenir.exchange.opening import Opening
    from slapenir.exchange.session import Session

# Stands for a head that could not be decoded; it is answered and the connection closed.
_BROKEN = RequestHead(b"", b"", [], keep_alive=False)
# Seconds to wait after that answer for the client to close, so that it can read it.
_BROKEN_LINGER = 0.5
_FOREIGN = frozenset(
    {Protocol.TLS, Protocol.HTTP2_PREFACE, Protocol.SOCKS4, Protocol.SOCKS5, Protocol.SSH}
)


class HttpLayer:
    """Decode requests and run one exchange at a time.

    ``tunnel`` is the authority that it is pinned to inside of TLS, and ``opening`` how that was
    opened; ``destination`` is where a plain connection was going that was redirected here.
    """

    def __init__(
        self,
        session: Session,
        tunnel: Authority | None,
        sni: str | None,
        opening: Opening | None = None,
        destination: Destination | None = None,
    ) -> None:
        self._session = session
        self._opening = opening
        self._destination = destination
        self._tunnel = tunnel
        self._sni = sni
        self._decoder = RequestDecoder(session.terms().wire)
        self._queue: deque[Message] = deque()
        self._exchange: Exchange | None = None
        self._first = True
        self._in_head = True
        self._lingering = False
        self._half_closed = False
        self._idle_until = 0.0

    def begin(self) -> None:
        """Set the deadline for the first head."""
        session = self._session
        session.out.append(SetTimer(Timer.HEAD, session.terms().deadlines.head))

    # -- from the client --------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._lingering:
            return
        if self._first:
            self._first = False
            if sniff(data) in _FOREIGN:
                self._refuse(RemoteProtocolError("the client does not speak HTTP/1.1"), 0.0)
                return
        self._queue.extend(self._decoder.feed(data))
        self._advance()

    def _advance(self) -> None:
        """Hand messages to the exchange until it, or the connection, is done with them."""
        session, queue = self._session, self._queue
        while queue and not self._lingering:
            exchange = self._exchange
            if exchange is None:
                if session.finished:  # closed or cut off: what was pipelined is not looked at
                    return
                message = queue.popleft()
                if isinstance(message, RequestHead):
                    self._start(message)
                    if session.layer is not self:
                        return
                continue
            if exchange.request_done and not exchange.over:
                return
            exchange.message(queue.popleft())
            if exchange.response_done:
                self._settle()
                if session.layer is not self:
                    return
        if self._exchange is None or self._decoder.error is not None:
            self._tend()

    def _start(self, head: RequestHead) -> None:
        session = self._session
        if self._in_head:
            self._in_head = False
            session.out.append(SetTimer(Timer.HEAD, None))
        if session.authenticator is not None and self._tunnel is None:
            reason = session.authenticator.check(session, head.headers)
            if reason is not None:
                self._exchange = exchange = Exchange(
                    session, head, unidentified(session.terms(), head, reason)
                )
                exchange.keep_alive = False
                exchange.request_done = head.framing is Framing.NONE
                exchange.begin()
                self._settle()
                return
        redirected = self._destination
        if head.method == b"CONNECT" and self._tunnel is None and redirected is None:
            session.connect(head, self._decoder.rest)
            return
        identity = session.who.identity
        admission = admit(session.terms(), identity, head, self._tunnel, self._sni, redirected)
        self._exchange = exchange = Exchange(session, head, admission)
        exchange.begin()

    def _settle(self) -> None:
        """Leave an exchange that is over; close when the connection is not to be kept."""
        exchange = self._exchange
        if exchange is None or not exchange.response_done:
            return
        if not exchange.keep_alive or (exchange.over and self._session.draining):
            self._exchange = None
            self._end(exchange)
        elif exchange.over:
            self._exchange = None
            if not self._queue and self._half_closed:
                self._session.close_client()
            elif not self._queue:
                session = self._session
                deadline = exchange.terms.deadlines.idle
                self._idle_until = session.now + deadline
                session.ensure_timer(Timer.IDLE, deadline)

    def _end(self, exchange: Exchange) -> None:
        """Close; when more of a request may be on its way, let the client close first.

        Closing with unread bytes would make TCP reset the connection and lose the answer.
        """
        if exchange.request_done and self._decoder.error is None:
            self._session.close_client()
        else:
            self._linger(exchange.terms.deadlines.close)

    def _linger(self, seconds: float) -> None:
        """Throw away what still comes, until the client closes or the time is over."""
        if self._half_closed or not seconds:
            self._session.close_client()
            return
        self._lingering = True
        self._queue.clear()
        self._session.out.append(SetTimer(Timer.CLOSE, seconds))

    def _tend(self) -> None:
        """With the queue empty: answer a decoding error, or watch over a partial head."""
        error = self._decoder.error
        if error is not None and not self._lingering:
            if self._exchange is None:
                self._refuse(error)
            elif not self._exchange.request_done:
                self._exchange.keep_alive = False
                self._exchange.malformed_body(error)
                self._settle()
        elif self._exchange is None and not self._in_head and self._decoder.buffered:
            self._in_head = True
            deadline = self._session.terms().deadlines.head
            self._session.out.append(SetTimer(Timer.HEAD, deadline))

    def _refuse(self, error: RemoteProtocolError, linger: float = _BROKEN_LINGER) -> None:
        session = self._session
        admission = malformed(session.terms(), "", self._tunnel, error)
        Exchange(session, _BROKEN, admission).begin()
        self._linger(linger)

    def client_closed(self, half: bool) -> None:
        """The client sends no more.  After a whole request its answer is still delivered."""
        exchange = self._exchange
        if half and exchange is not None and exchange.request_done:
            self._half_closed = True
            return
        if exchange is not None:
            exchange.client_gone()
            self._exchange = None
        self._session.close_client()

    # -- from the origin --------------------------------------------------------------------

    def dialled(self, result: Dialled) -> None:
        """Pass on that the origin is there."""
        if self._exchange is not None:
            self._exchange.dialled(result)
            if self._exchange.response_done:
                self._after()

    def dial_failed(self, result: DialFailed) -> None:
        """Pass on that it is not."""
        if self._exchange is not None:
            self._exchange.dial_failed(result)
            self._after()

    def origin_received(self, data: bytes) -> None:
        """Pass on bytes of the response."""
        exchange = self._exchange
        if exchange is not None:
            exchange.origin_bytes(data)
            if exchange.response_done:
                self._after()

    def origin_closed(self, clean: bool) -> None:
        """Pass on the end of the origin's stream."""
        if self._exchange is not None:
            self._exchange.origin_closed(clean)
            self._after()

    def _after(self) -> None:
        self._settle()
        if self._session.layer is self:
            self._advance()

    # -- everything else --------------------------------------------------------------------

    @property
    def origin(self) -> int:
        """The number of the origin connection under way, or 0."""
        return self._exchange.origin if self._exchange is not None else 0

    def progress(self) -> None:
        """Something moved."""
        if self._exchange is not None:
            self._exchange.progress = True

    def timer(self, timer: Timer) -> None:
        """A deadline passed."""
        exchange = self._exchange
        if timer is Timer.CLOSE:
            self._session.close_client()
        elif exchange is not None:
            exchange.timer(timer)
            self._after()
        elif timer is Timer.IDLE and not self._in_head:
            left = self._idle_until - self._session.now
            if left > 0:  # it ran since an earlier wait
                self._session.again(Timer.IDLE, left)
            else:
                self._session.close_client()
        elif timer is Timer.HEAD and self._in_head:
            if self._decoder.buffered:
                self._refuse(RemoteProtocolError("the head did not arrive in time", 408))
            else:
                self._session.close_client()

    def drain(self) -> None:
        """Close now when idle; else the exchange under way is the last."""
        if self._exchange is None:
            self._session.close_client()

    def revised(self) -> None:
        """End a tunnel that is no longer allowed; the exchange under way ends with it."""
        if self._opening is None or self._opening.allowed_now():
            return
        if self._exchange is not None:
            self._exchange.drop_origin()
            self._exchange.finished(Outcome.DENIED)
            self._exchange = None
        self._session.abort_client()

    def wants_client(self) -> bool:
        """Whether the client's bytes may be read: not while decoded messages wait."""
        if self._lingering:
            return True
        exchange = self._exchange
        if self._session.is_full(CLIENT) and (exchange is None or exchange.response_done):
            return False  # more requests would only make more answers that nobody reads
        if exchange is None:
            return True
        return not self._queue and exchange.wants_client()
