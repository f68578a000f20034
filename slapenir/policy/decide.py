"""The decisions about a CONNECT and about a request: total functions, deny by default.

The third one, about an address, is ``decide_address`` in policy/addresses.py.
"""

from __future__ import annotations

from slapenir.names import Action, Authority, Reason, Scheme, Stage
from slapenir.policy.match import Policy
from slapenir.policy.model import ConnectFacts, Decision, Destination, RequestFacts

# TRACE echoes credentials, TRACK is its other name, CONNECT inside a tunnel makes a blind one.
REFUSED_METHODS = frozenset({"TRACE", "TRACK", "CONNECT"})


def _refusal(reason: Reason) -> Decision:
    return Decision(Stage.REQUEST, Action.DENY, reason)


_NOT_DIALLED = Decision(Stage.CONNECT, Action.DENY, Reason.SNI_MISMATCH)
_AUTHORITY_MISMATCH = _refusal(Reason.AUTHORITY_MISMATCH)
_SNI_MISMATCH = _refusal(Reason.SNI_MISMATCH)
_SCHEME_MISMATCH = _refusal(Reason.SCHEME_MISMATCH)
_METHOD_REFUSED = _refusal(Reason.METHOD_REFUSED)


def decide_connect(policy: Policy, facts: ConnectFacts) -> Decision:
    """Decide a CONNECT, or a connection that was redirected here.

    ALLOW means intercept and decide each request, PASSTHROUGH a blind relay of TLS, TUNNEL a
    scanned relay of anything.  The first rule for identity, host and port wins, of those for
    https and for raw TCP; a deny that needs a method or a path is left to the requests.  No rule
    is a refusal.  No credentials come with this decision.

    A redirected connection has to be for the port that was dialled and, where the address was
    given out for a name, for that name.
    """
    authority, destination = facts.authority, facts.destination
    if destination is not None and not _was_dialled(authority, destination):
        return _NOT_DIALLED
    return policy.candidates(facts.identity, authority.host, authority.port, True).connect


def decide_request(policy: Policy, facts: RequestFacts) -> Decision:
    """Decide one request; the first refusal in this order is the reason.

    Authority, Host and tunnel must be equal, and what a redirected connection dialled; the SNI
    must be the tunnel's host; what came through TLS must be https; TRACE, TRACK and CONNECT are
    refused.  Then rules in file order, the first match wins, and no match is a refusal.
    ``credentials`` is set for an https allow only.
    """
    authority, host, tunnel = facts.authority, facts.host, facts.tunnel
    if (authority is not host and authority != host) or (
        tunnel is not None and tunnel is not authority and tunnel != authority
    ):
        return _AUTHORITY_MISMATCH
    destination = facts.destination
    if destination is not None and not _was_dialled(authority, destination):
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


def _was_dialled(authority: Authority, destination: Destination) -> bool:
    """Whether an authority is what the client dialled, as far as that can be known."""
    if authority.port != destination.authority.port:
        return False
    return not destination.name or destination.name == authority.host
