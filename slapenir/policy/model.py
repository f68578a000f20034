"""Rules, facts and decisions."""

from __future__ import annotations

import attrs

from slapenir.names import Action, Authority, Reason, Scheme, Stage, value

_DENY = Action.DENY  # found in the class it takes ten times longer


@attrs.frozen(slots=True)
class Rule:
    """One ``[[rule]]``, checked and canonical.

    ``hosts`` are canonical hosts or ``*.`` and a canonical host; ``identities`` are exact names
    or ``*``; ``methods`` exact and case-sensitive, empty for any; ``paths`` globs where ``*`` is
    any run of bytes, empty for any; ``ports`` never empty.
    """

    id: str
    identities: tuple[str, ...]
    hosts: tuple[str, ...]
    scheme: Scheme = Scheme.HTTPS
    ports: tuple[int, ...] = (443,)
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    action: Action = Action.ALLOW


@value
class Destination:
    """Where a redirected connection was going, as the kernel tells it.

    ``authority`` is the address and the port that the client dialled; the address is believed
    for nothing.  ``name`` is the name that the gateway's own DNS gave that address out for,
    empty when it did not.  ``own`` says that it is the listener itself: nothing was redirected.
    """

    authority: Authority
    name: str = ""
    own: bool = False

    @property
    def named(self) -> Authority:
        """The name with the port where there is one, else the address with it."""
        return Authority(self.name, self.authority.port) if self.name else self.authority


@attrs.frozen(slots=True)
class ConnectFacts:
    """What is known at a CONNECT, or of a connection that was redirected to ``destination``."""

    identity: str
    authority: Authority
    destination: Destination | None = None


@value
class RequestFacts:
    """What is known at a request.  ``path`` is the path without the query, as it will be sent.

    ``tunnel`` is the CONNECT authority the request came through, None for absolute-form.
    ``host`` is the Host header's authority.  ``sni`` is the name in the ClientHello, None when
    absent or no TLS.  ``destination`` is where a plain request was going that was redirected.
    """

    identity: str
    scheme: Scheme
    authority: Authority
    host: Authority
    method: str
    path: str
    tunnel: Authority | None = None
    sni: str | None = None
    destination: Destination | None = None


@attrs.frozen(slots=True)
class Decision:
    """The policy's answer; made once and carried along."""

    stage: Stage
    action: Action
    reason: Reason
    rule: str = ""
    credentials: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether anything but a refusal was decided."""
        return self.action is not _DENY
