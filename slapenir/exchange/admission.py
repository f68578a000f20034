"""May this request go out?  Every check on a request's head, made once, in one order.

Malformed heads, the policy, what the agent wrote (real secrets, stray placeholders), the body's
coding and its announced length: the first that refuses decides.
"""

from __future__ import annotations

import attrs

from slapenir.credentials.inject import Injection
from slapenir.errors import CodingError, RemoteProtocolError
from slapenir.events import CredentialUse, Decided, Who
from slapenir.exchange import answers
from slapenir.exchange.answers import Answer
from slapenir.exchange.outbound import Refusal, RequestBody, inject_head, scan_head, scan_name
from slapenir.exchange.terms import Terms
from slapenir.names import Action, Authority, Reason, Scheme, Stage
from slapenir.policy.decide import decide_request
from slapenir.policy.model import Decision, Destination, RequestFacts
from slapenir.wire.headers import first
from slapenir.wire.messages import Framing, HeaderList, RequestHead
from slapenir.wire.target import checked_origin, host_authority, parse_absolute, parse_origin

PATH_BOUND = 512
_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
)
_MALFORMED = Decision(Stage.REQUEST, Action.DENY, Reason.PROTOCOL_ERROR)


@attrs.define(slots=True, eq=False)
class Admission:
    """What was found out about one request, and whether it may go out.

    ``refusal`` None means it may, with ``target`` and ``fields`` as they go to the origin, the
    credentials in ``uses`` put in, and ``body`` as the transform of its body.  ``path`` and
    ``authority_text`` are for records, and empty where they may hold a secret.
    """

    terms: Terms
    method: str
    scheme: Scheme
    authority: Authority
    authority_text: str
    path: str
    decision: Decision
    refusal: Refusal | None = None
    target: bytes = b""
    fields: HeaderList = attrs.field(factory=list, repr=False)
    credentials: tuple[str, ...] = ()
    uses: tuple[CredentialUse, ...] = ()
    body: RequestBody | None = None
    has_body: bool = False
    detail: str = ""
    status: int = 0

    def record(self, who: Who, exchange: int) -> Decided:
        """Return the audit record."""
        refusal, decision = self.refusal, self.decision
        return Decided(
            who,
            exchange,
            decision.stage,
            decision.action if refusal is None else Action.DENY,
            decision.reason if refusal is None else refusal.reason,
            decision.rule,
            self.scheme._value_,
            self.authority_text,
            self.method,
            self.path,
            self.uses if refusal is None else (),
            refusal.finding if refusal else None,
            "",
            self.detail,
        )

    def answer(self) -> Answer:
        """Return what the client is told when the request is refused."""
        if self.detail:
            return answers.malformed(self.detail, self.status)
        reason = self.refusal.reason if self.refusal else Reason.RULE
        return answers.denial(attrs.evolve(self.decision, action=Action.DENY, reason=reason))


def admit(
    terms: Terms,
    identity: str,
    head: RequestHead,
    tunnel: Authority | None,
    sni: str | None,
    destination: Destination | None = None,
) -> Admission:
    """Judge a request; never raises.

    ``tunnel`` is the authority of the TLS that it came through, ``destination`` where a plain one
    was going that was redirected: its authority is that of its Host field.
    """
    method = head.method.decode("ascii", "replace")
    scheme = Scheme.HTTPS
    try:
        written = first(head.headers, b"host")
        if tunnel is not None:
            authority, target = tunnel, parse_origin(head.target)
        elif destination is not None and head.target[:1] == b"/":
            if written is None:
                raise RemoteProtocolError("the request has no Host field")
            scheme, target = Scheme.HTTP, parse_origin(head.target)
            authority = host_authority(written, scheme.port)
        else:
            absolute = parse_absolute(head.target)
            if absolute.scheme is not Scheme.HTTP:
                raise RemoteProtocolError("an https origin needs CONNECT")
            scheme, authority, target = absolute.scheme, absolute.authority, absolute.path
        host = authority if written is None else host_authority(written, scheme.port)
        path = checked_origin(target)
    except RemoteProtocolError as error:
        return malformed(terms, method, tunnel, error)
    facts = RequestFacts(identity, scheme, authority, host, method, path, tunnel, sni, destination)
    decision = decide_request(terms.policy, facts)
    admission = Admission(
        terms, method, scheme, authority, str(authority), path[:PATH_BOUND], decision
    )
    admission.has_body = head.framing is not Framing.NONE
    credentials = decision.credentials
    if credentials:
        credentials = terms.bound_to(credentials, authority.host, identity)
    elif not decision.allowed and tunnel is not None:
        # Nothing is sent, so nothing is swapped: a placeholder in its own place is no honeytoken.
        credentials = terms.usable_at(identity, authority.host)
    admission.credentials = credentials
    injection = inject_head(terms, identity, head, target, authority, scheme, credentials)
    admission.target, admission.fields = injection.target, injection.headers
    admission.uses = injection.uses
    refusal = scan_head(terms, head.method + b"\n" + injection.view)
    if refusal is None and tunnel is None:  # a tunnel's host was looked at before
        refusal = scan_name(terms, b"\n".join((_sent_host(head.target), written or b"")))
    if refusal is not None:
        _withhold(admission)
    elif not decision.allowed:
        refusal = Refusal(decision.reason)
    elif head.upgrade:
        refusal = Refusal(Reason.UPGRADE_UNSUPPORTED)
    elif admission.has_body:
        refusal = _admit_body(admission, identity, head, injection)
    admission.refusal = refusal
    return admission


def _sent_host(target: bytes) -> bytes:
    """Return the authority of a target in absolute form as it was sent, or nothing."""
    _, found, rest = target.partition(b"://")
    return rest.partition(b"/")[0] if found else b""


def _withhold(admission: Admission) -> None:
    """Keep what a secret may stand in out of the records."""
    admission.path = ""
    if scan_name(admission.terms, admission.authority_text.encode("ascii")) is not None:
        admission.authority_text = ""
    admission.method = known_method(admission.method)


def known_method(method: str) -> str:
    """Return the method when it is a registered one, else nothing: it may hold anything."""
    return method if method in _METHODS else ""


def _admit_body(
    admission: Admission, identity: str, head: RequestHead, injection: Injection
) -> Refusal | None:
    """Prepare the body's transform; refuse a coding or a length that cannot be taken."""
    bound = admission.terms.bounds.request_body
    if bound and head.length > bound:
        return Refusal(Reason.BODY_TOO_LARGE)
    try:
        admission.body = RequestBody(
            admission.terms, identity, head, admission.credentials, injection.body
        )
    except CodingError:
        return Refusal(Reason.CODING_UNSUPPORTED)
    return None


def unidentified(terms: Terms, head: RequestHead, reason: Reason) -> Admission:
    """Return the refusal of a request that does not prove whose it is; nothing of it is kept."""
    method = known_method(head.method.decode("ascii", "replace"))
    decision = Decision(Stage.IDENTIFY, Action.DENY, reason)
    nowhere = Authority("", 0)
    return Admission(terms, method, Scheme.HTTP, nowhere, "", "", decision, Refusal(reason))


def malformed(
    terms: Terms, method: str, tunnel: Authority | None, error: RemoteProtocolError
) -> Admission:
    """Return the refusal of a head that cannot be understood."""
    authority = tunnel or Authority("", 0)
    return Admission(
        terms,
        known_method(method),
        Scheme.HTTPS if tunnel else Scheme.HTTP,
        authority,
        str(tunnel) if tunnel else "",
        "",
        _MALFORMED,
        Refusal(Reason.PROTOCOL_ERROR),
        detail=error.reason,
        status=error.status,
    )
