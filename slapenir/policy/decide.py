"""The decisions about a CONNECT and about a request: total functions, deny by default.

The third one, about an address, is ``decide_address`` in policy/addresses.py.
"""

from __future__ import annotations

from slapenir.names import Action, Reason, Scheme, Stage
from slapenir.policy.match import Policy
from slapenir.policy.model import ConnectFacts, Decision, RequestFacts

# TRACE echoes credentials, TRACK is its other name, CONNECT inside a tunnel makes a blind one.
REFUSED_METHODS = frozenset({"TRACE", "TRACK", "CONNECT"})


def _refusal(reason: Reason) -> Decision:
    return Decision(Stage.REQUEST, Action.DENY, reason)


_AUTHORITY_MISMATCH = _refusal(Reason.AUTHORITY_MISMATCH)
_SNI_MISMATCH = _refusal(Reason.SNI_MISMATCH)
_SCHEME_MISMATCH = _refusal(Reason.SCHEME_MISMATCH)
_METHOD_REFUSED = _refusal(Reason.METHOD_REFUSED)


def decide_connect(policy: Policy, facts: ConnectFacts) -> Decision:
    """Decide a CONNECT: ALLOW means intercept and decide each request, PASSTHROUGH a blind relay.

    The first rule for identity, host, port and https wins; a deny that needs a method or a path
    is left to the requests.  No rule is a refusal.  No credentials come with this decision.
    """
    authority = facts.authority
    return policy.candidates(facts.identity, authority.host, authority.port, True).connect


def decide_request(policy: Policy, facts: RequestFacts) -> Decision:
    """Decide one request; the first refusal in this order is the reason.

    Authority, Host and tunnel must be equal; the SNI must be the tunnel's host; what came through
    TLS must be https; TRACE, TRACK and CONNECT are refused.  Then rules in file order, the first
    match wins, and no match is a refusal.  ``credentials`` is set for an https allow only.
    """
    authority, host, tunnel = facts.authority, facts.host, facts.tunnel
    if (authority is not host and authority != host) or (
        tunnel is not None and tunnel is not authority and tunnel != authority
    ):
        return _AUTHORITY_MISMATCH
    sni = facts.sni
    if sni is not None and sni != authority.host:
        return _SNI_MISMATCH
    tls = facts.scheme is Scheme.HTTPS
    if not tls and (tunnel is not None or sni is not None):
        return _SCHEME_MISMATCH
    method = facts.method
    if method.upper() in REFUSED_METHODS:
        return _METHOD_REFUSED
    found = policy.candidates(facts.identity, authority.host, authority.port, tls)
    path = facts.path
    for ready in found.rules:
        decision = ready.judge(method, path)
        if decision is not None:
            return decision
    return found.fallback
