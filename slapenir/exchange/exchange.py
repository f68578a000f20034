"""One request with its response, from decision to outcome.

The request side ends when its last byte was taken: sent to the origin, kept until there is one,
or thrown away after a refusal; the response side when the client was sent the last byte.
``over`` needs both.  Exactly one ExchangeFinished is emitted, when the response side ends.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from slapenir.errors import CodingError, LocalProtocolError, RemoteProtocolError
from slapenir.events import ExchangeFinished, Swapped
from slapenir.exchange import answers
from slapenir.exchange.admission import Admission
from slapenir.exchange.answers import Answer
from slapenir.exchange.commands import Abort, Dial, SetTimer
from slapenir.exchange.forward import request_trailers
from slapenir.exchange.inputs import CLIENT, DialFailed, DialFailure, Dialled, Timer
from slapenir.exchange.outbound import Refusal, RequestBody, scan_trailers
from slapenir.exchange.reply import Reply
from slapenir.names import Outcome, Reason, Scheme
from slapenir.wire.http1 import encode_chunk, encode_end, encode_request
from slapenir.wire.messages import (
    BodyChunk,
    EndOfMessage,
    Framing,
    HeaderList,
    Message,
    RequestHead,
    ResponseHead,
    Trailers,
)

if TYPE_CHECKING:
    from slapenir.exchange.session import Session

_REFUSED_OUTCOME = {
    Reason.BODY_TOO_LARGE: Outcome.TOO_LARGE,
    Reason.PROTOCOL_ERROR: Outcome.PROTOCOL_ERROR,
}
_DIAL_OUTCOME = {
    DialFailure.ADDRESS_DENIED: Outcome.DENIED,
    DialFailure.INTERNAL: Outcome.INTERNAL_ERROR,
    DialFailure.RESOLVER_TIMEOUT: Outcome.TIMED_OUT,
    DialFailure.TIMED_OUT: Outcome.TIMED_OUT,
}


class Exchange:
    """The state of one exchange.  Every method may append commands to the session's list."""

    def __init__(self, session: Session, head: RequestHead, admission: Admission) -> None:
        session.exchanges += 1
        self.number = session.exchanges
        self.session = session
        self.head = head
        self.admission = admission
        self.terms = admission.terms
        self.started = session.now
        self.origin = 0  # the connection's number once dialled for, 0 when there is none
        self.connected = False
        self.request_done = False
        self.response_done = False
        self.discarded = 0
        self.progress = False
        self.began = 0.0  # when the response began
        self.early: list[Timer] = []  # those that run since an earlier exchange
        self.keep_alive = head.keep_alive
        self.body: RequestBody | None = None
        self.waiting: deque[Message] = deque()
        self.reply: Reply | None = None
        self.trailers: HeaderList = []
        self.status = 0
        self.response_bytes = 0

    # -- the request side -------------------------------------------------------------------

    def begin(self) -> None:
        """Audit the admission and act on it: dial, or answer with the refusal."""
        admission = self.admission
        self.session.emit(admission.record(self.session.who, self.number))
        if admission.refusal is not None:
            self.refuse(admission.answer())
            return
        if admission.has_body:
            self.body = admission.body
        session = self.session
        session.connections += 1
        self.origin = session.connections
        tls = admission.scheme is Scheme.HTTPS
        pool = session.pool_key(admission.authority, tls, admission.credentials)
        if session.ensure_timer(Timer.RESPONSE, self.terms.deadlines.response):
            self.early.append(Timer.RESPONSE)
        if admission.has_body:
            session.out.append(SetTimer(Timer.BODY, self.terms.deadlines.body))
        session.out.append(
            Dial(self.origin, admission.authority, tls, session.who, self.number, pool)
        )

    def message(self, message: Message) -> None:
        """Take the next part of the request."""
        self.progress = True
        if isinstance(message, EndOfMessage):
            self.request_done = True  # also while it waits: what comes next is another request
            if not self.admission.has_body:
                return
        if self.response_done or self.admission.refusal is not None:
            self._discard(message)
        elif not self.connected:
            self.waiting.append(message)
        else:
            self._forward(message)

    def _discard(self, message: Message) -> None:
        if isinstance(message, BodyChunk):
            self.discarded += len(message.data)
            if self.discarded > self.terms.bounds.discard:
                self.keep_alive = False
                self.request_done = True

    def _forward(self, message: Message) -> None:
        session, body = self.session, self.body
        if isinstance(message, BodyChunk) and body is not None:
            data = body.feed(message.data)
            if body.refusal is not None:
                self._stop(body.refusal)
            elif data:
                self._record_swaps(body)
                session.send(self.origin, encode_chunk(data, body.framing))
        elif isinstance(message, Trailers):
            refusal = scan_trailers(self.terms, message.headers)
            if refusal is not None:
                self._stop(refusal)
            else:
                self.trailers = request_trailers(message.headers)
        elif isinstance(message, EndOfMessage) and body is not None:
            data = body.finish()
            if body.refusal is not None:
                self._stop(body.refusal)
                return
            self._record_swaps(body)
            tail = encode_chunk(data, body.framing) if data else b""
            session.send(self.origin, tail + encode_end(body.framing, self.trailers))
            session.out.append(SetTimer(Timer.BODY, None))

    def _record_swaps(self, body: RequestBody) -> None:
        who = self.session.who
        for credential, count in body.take_swapped():
            self.session.emit(Swapped(who, self.number, credential, count))

    def _stop(self, refusal: Refusal) -> None:
        """Refuse a request whose body turned out to be one that must not go out."""
        admission = self.admission
        admission.refusal = refusal
        self.session.emit(admission.record(self.session.who, self.number))
        self.drop_origin()
        self.refuse(admission.answer())

    def malformed_body(self, error: RemoteProtocolError) -> None:
        """Refuse a request whose body cannot be delimited."""
        self.admission.detail, self.admission.status = error.reason, error.status
        self.keep_alive = False
        self.request_done = True
        if not self.response_done:
            self._stop(Refusal(Reason.PROTOCOL_ERROR))

    # -- the origin -------------------------------------------------------------------------

    def dialled(self, result: Dialled) -> None:
        """Send the request to the origin now that there is one."""
        self.connected = True
        admission, body = self.admission, self.body
        framing, length = (body.framing, body.length) if body else (Framing.NONE, 0)
        method, target = self.head.method, admission.target
        try:
            encoded = encode_request(method, target, admission.fields, framing, length)
        except LocalProtocolError:
            self.fail(answers.malformed("a field cannot be forwarded", 400), Outcome.PROTOCOL_ERROR)
            return
        self.session.send(self.origin, encoded)
        self.reply = Reply(self)
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, deque()
        for message in waiting:
            if self.response_done:
                self._discard(message)
            else:
                self._forward(message)

    def dial_failed(self, result: DialFailed) -> None:
        """Answer for an origin that could not be reached."""
        self.origin = 0
        failure = result.failure
        outcome = _DIAL_OUTCOME.get(failure, Outcome.ORIGIN_UNREACHABLE)
        self.refuse(answers.dial_failure(failure, self.admission.decision.rule), outcome)

    def origin_bytes(self, data: bytes) -> None:
        """Take bytes of the response; a head that drips in is no progress."""
        if self.reply is not None and not self.response_done:
            if self.reply.begun:
                self.progress = True
            try:
                self.reply.feed(data)
            except (RemoteProtocolError, CodingError) as error:
                self._origin_broke(error.reason)
            except LocalProtocolError:
                self._origin_broke("a field cannot be forwarded")

    def origin_closed(self, clean: bool) -> None:
        """The origin will send no more: the end of a close-delimited body, or a failure."""
        self.session.origin_gone(self.origin)
        self.origin = 0
        if self.reply is None or self.response_done:
            return
        try:
            self.reply.closed(clean)
        except (RemoteProtocolError, CodingError) as error:
            self._origin_broke(error.reason)
        except LocalProtocolError:
            self._origin_broke("a field cannot be forwarded")

    def _origin_broke(self, reason: str) -> None:
        self.fail(
            answers.origin_failure(reason, self.admission.decision.rule), Outcome.ORIGIN_ABORTED
        )

    def drop_origin(self) -> None:
        """Abort the origin connection: what is under way on it must not complete."""
        if self.origin:
            self.session.out.append(Abort(self.origin))
            self.session.origin_gone(self.origin)
            self.origin = 0

    # -- the response side ------------------------------------------------------------------

    def refuse(self, answer: Answer, outcome: Outcome | None = None) -> None:
        """Send an answer of our own, or cut the client off when a response has begun."""
        if self.response_done:
            return
        if outcome is None:
            refusal = self.admission.refusal
            reason = refusal.reason if refusal else Reason.RULE
            outcome = _REFUSED_OUTCOME.get(reason, Outcome.DENIED)
        if self.reply is not None and self.reply.begun:
            self.session.abort_client()
            self.finished(outcome)
            return
        if self.head.expect_continue or not self._body_is_short():
            self.keep_alive = False
        self.status = answer.status
        keep = self.keep_alive and not self.session.draining and self.head.version == b"1.1"
        self.keep_alive = keep
        data = answer.encode(head_only=self.head.method == b"HEAD", keep_alive=keep)
        self.response_bytes += len(data)
        self.session.send(CLIENT, data)
        if not self.request_done:
            self.session.out.append(SetTimer(Timer.BODY, self.terms.deadlines.close))
        self.finished(outcome)

    def fail(self, answer: Answer, outcome: Outcome) -> None:
        """Drop the origin and answer, or cut the client off when a response has begun."""
        self.drop_origin()
        self.refuse(answer, outcome)

    def _body_is_short(self) -> bool:
        """Whether what remains of the request's body is worth reading to keep the connection."""
        return self.head.framing is Framing.NONE or self.head.length <= self.terms.bounds.discard

    def responded(self, head: ResponseHead, reusable: bool) -> None:
        """The response is complete: give the origin connection back, or drop it."""
        if self.origin:
            if reusable and self.request_done:
                self.session.release_origin(self.origin)
                self.origin = 0
            else:
                self.drop_origin()
        if not self.request_done:
            self.session.out.append(SetTimer(Timer.BODY, self.terms.deadlines.close))
        self.finished(Outcome.COMPLETED)

    def finished(self, outcome: Outcome) -> None:
        """Record the outcome; once."""
        if self.response_done:
            return
        self.response_done = True
        self.reply = None
        self.session.emit(self._summary(outcome))

    def _summary(self, outcome: Outcome) -> ExchangeFinished:
        admission, session = self.admission, self.session
        return ExchangeFinished(
            session.who,
            self.number,
            outcome,
            admission.decision.rule,
            admission.method,
            admission.scheme._value_,
            admission.authority_text,
            admission.path,
            self.status,
            self.body.received if self.body else 0,
            self.response_bytes,
            session.now - self.started,
            admission.detail,
        )

    # -- everything else --------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the next request may begin."""
        return self.response_done and self.request_done

    def client_gone(self) -> None:
        """The client went away."""
        self.drop_origin()
        self.finished(Outcome.CLIENT_ABORTED)

    def timer(self, timer: Timer) -> None:
        """A deadline of this exchange passed; waits with progress are given more time."""
        deadlines, rule = self.terms.deadlines, self.admission.decision.rule
        if timer is Timer.BODY and not self.request_done:
            if self.response_done:
                self.session.close_client()
            elif self._more_time(timer, deadlines.body):
                return
            else:
                self.keep_alive = False
                self.fail(answers.timed_out("the request body", rule, 408), Outcome.TIMED_OUT)
        elif self.response_done:
            return
        elif timer is Timer.RESPONSE and not self._begun():
            if not self._too_early(timer, self.started + deadlines.response) and (
                not self._more_time(timer, deadlines.response)
            ):
                self.fail(answers.timed_out("the origin", rule, 504), Outcome.TIMED_OUT)
        elif timer is Timer.PROGRESS and self._begun():
            if not self._too_early(timer, self.began + deadlines.progress) and (
                not self._more_time(timer, deadlines.progress)
            ):
                self.fail(answers.timed_out("the response body", rule, 504), Outcome.TIMED_OUT)

    def responding(self) -> None:
        """Watch over the progress of the response, which begins."""
        session = self.session
        self.began = session.now
        if session.ensure_timer(Timer.PROGRESS, self.terms.deadlines.progress):
            self.early.append(Timer.PROGRESS)

    def _too_early(self, timer: Timer, due: float) -> bool:
        """Set a timer that ran since an earlier exchange for what is left of this one's time."""
        if timer not in self.early:
            return False
        self.early.remove(timer)
        left = due - self.session.now
        if left > 0:
            self.session.again(timer, left)
        return left > 0

    def _more_time(self, timer: Timer, seconds: float) -> bool:
        """Set the timer again when something moved since it was last set."""
        moved, self.progress = self.progress, False
        if moved:
            self.session.again(timer, seconds)
        return moved

    def _begun(self) -> bool:
        return self.reply is not None and self.reply.begun

    def wants_client(self) -> bool:
        """Whether more of the request may be read now."""
        if self.response_done or self.admission.refusal is not None:
            return not self.request_done
        if self.request_done:
            return True
        return not self.waiting and not self.session.is_full(self.origin)
