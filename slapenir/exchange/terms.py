"""What a session works under: one immutable set of policy, patterns, credentials and bounds.

A reload makes a new Terms; an exchange keeps the one it began with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from slapenir.credentials.inject import Held, Injector
from slapenir.credentials.model import BodySurface, Credential
from slapenir.names import Action, Form, host_matches
from slapenir.policy.match import Policy
from slapenir.scan.engine import Engine
from slapenir.scan.forms import Pattern, patterns_of, replacements_of
from slapenir.scan.rewrite import Redactions
from slapenir.wire.limits import WireLimits

EVERYBODY = "*"
# Entries that the cache of credentials by host may have before it is emptied.
_CACHED = 4096
_LONGEST_NAME = 253


@attrs.frozen(slots=True)
class Deadlines:
    """Every wait of a session, in seconds.  HEAD and HANDSHAKE are absolute; the others
    bound the time without progress and fire between one and two times their length."""

    head: float = 30.0
    idle: float = 75.0
    handshake: float = 10.0
    body: float = 60.0
    response: float = 600.0
    progress: float = 600.0
    tunnel: float = 3600.0
    close: float = 5.0


@attrs.frozen(slots=True)
class Bounds:
    """Sizes that a session enforces itself, in bytes; ``request_body`` 0 means no bound.

    ``coding_ratio`` is the largest ratio of decoded to coded bytes; ``coding_hold`` the largest
    coded body with a Content-Length that is checked whole, so that a clean one arrives
    unchanged; ``discard`` how much of a refused request's body is read before closing.
    """

    request_body: int = 0
    coding_ratio: int = 200
    coding_hold: int = 262144
    discard: int = 262144


@attrs.frozen(slots=True)
class Watched:
    """What a request pattern stands for: a credential, or its placeholder for ``identity``.

    A placeholder that the operator chose is the same for EVERYBODY.
    """

    credential: str
    identity: str = ""


@attrs.frozen(slots=True, eq=False)
class Protection:
    """What guards one identity: the response table, and the injectors by credential set."""

    redactions: Redactions
    placeholders: Mapping[str, bytes]


@attrs.define(slots=True, eq=False)
class Terms:
    """Everything a session asks for.  Immutable but for its bounded caches.

    ``response`` finds real secrets; ``request`` finds real secrets and every identity's
    placeholders; ``names`` finds the same in host names, raw and in any case.  ``secrets[i]`` and
    ``watched[i]`` name what owner ``i`` of their patterns is.
    """

    policy: Policy
    wire: WireLimits
    deadlines: Deadlines
    bounds: Bounds
    credentials: Mapping[str, Credential]
    response: Engine
    request: Engine
    names: Engine
    secrets: tuple[str, ...]
    watched: tuple[Watched, ...]
    protections: Mapping[str, Protection]
    _injectors: dict[tuple[str, tuple[str, ...]], Injector] = attrs.field(factory=dict)
    _bound: dict[tuple[tuple[str, ...], str, str], tuple[str, ...]] = attrs.field(factory=dict)
    _ignored: dict[tuple[str, tuple[str, ...]], frozenset[int]] = attrs.field(factory=dict)

    def injector(self, identity: str, credentials: tuple[str, ...]) -> Injector:
        """Return the injector of a rule's credential set for one identity.

        The sets come from rules, so there are at most identities x rules of them.
        """
        key = (identity, credentials)
        found = self._injectors.get(key)
        if found is None:
            placeholders = self.protections[identity].placeholders
            held = [Held(self.credentials[c], placeholders[c]) for c in credentials]
            found = self._injectors[key] = Injector(held)
        return found

    def bound_to(self, credentials: tuple[str, ...], host: str, identity: str) -> tuple[str, ...]:
        """Return those of a rule's credentials that are for this host and this identity.

        A rule may name more.
        """
        key = (credentials, host, identity)
        found = self._bound.get(key)
        if found is None:
            if len(self._bound) >= _CACHED:
                self._bound.clear()
            held = self.credentials
            found = tuple(
                c for c in credentials if held[c].allows(host) and held[c].is_for(identity)
            )
            self._bound[key] = found
        return found

    def usable_at(self, identity: str, host: str) -> tuple[str, ...]:
        """Return the credentials that some rule lets an identity use on this host."""
        granted = {
            name
            for rule in self.policy.rules
            if rule.action is Action.ALLOW
            and (identity in rule.identities or EVERYBODY in rule.identities)
            and any(host_matches(pattern, host) for pattern in rule.hosts)
            for name in rule.credentials
        }
        return self.bound_to(tuple(c for c in self.secrets if c in granted), host, identity)

    def has_body_surface(self, credential: str) -> bool:
        """Whether a credential may be swapped in request bodies."""
        return any(isinstance(s, BodySurface) for s in self.credentials[credential].surfaces)

    def body_placeholders(self, identity: str, credentials: tuple[str, ...]) -> frozenset[int]:
        """Return the request patterns that may stand raw in a body: they will be swapped."""
        key = (identity, credentials)
        found = self._ignored.get(key)
        if found is None:
            named = [c for c in credentials if self.has_body_surface(c)]
            allowed = {Watched(c, who) for c in named for who in (identity, EVERYBODY)}
            found = self._ignored[key] = frozenset(
                index
                for index, pattern in enumerate(self.request.patterns)
                if pattern.form is Form.RAW and self.watched[pattern.owner] in allowed
            )
        return found


def build_terms(
    policy: Policy,
    credentials: Mapping[str, Credential],
    placeholders: Mapping[str, Mapping[str, bytes]],
    wire: WireLimits,
    deadlines: Deadlines,
    bounds: Bounds,
) -> Terms:
    """Compile the scan databases and put everything together.

    ``placeholders[identity][credential id]`` holds every configured identity.  Compiling takes
    milliseconds per hundred credentials; it touches no reactor and may run in a thread.
    """
    secrets = tuple(credentials)
    response = Engine(
        [
            pattern
            for owner, name in enumerate(secrets)
            for pattern in patterns_of(credentials[name].secret.reveal(), owner, None)
        ]
    )
    watched = [Watched(name) for name in secrets]
    values = [credentials[name].secret.reveal() for name in secrets]
    request_patterns = list(response.patterns)
    for owned, placeholder in _placeholders(credentials, placeholders).items():
        request_patterns += patterns_of(placeholder, len(watched), None)
        watched.append(owned)
        values.append(placeholder)
    protections = {
        identity: Protection(_redactions(response, secrets, credentials, held), dict(held))
        for identity, held in placeholders.items()
    }
    return Terms(
        policy=policy,
        wire=wire,
        deadlines=deadlines,
        bounds=bounds,
        credentials=dict(credentials),
        response=response,
        request=Engine(request_patterns),
        names=Engine(_in_names(values)),
        secrets=secrets,
        watched=tuple(watched),
        protections=protections,
    )


def _in_names(values: Sequence[bytes]) -> list[Pattern]:
    """Return what is looked for in host names: what fits in one, in any case (RFC 4343)."""
    return [
        Pattern(owner, Form.RAW, value, True, value)
        for owner, value in enumerate(values)
        if len(value) <= _LONGEST_NAME
    ]


def _placeholders(
    credentials: Mapping[str, Credential], placeholders: Mapping[str, Mapping[str, bytes]]
) -> dict[Watched, bytes]:
    """Return every placeholder once, by what it stands for."""
    return {
        Watched(name, EVERYBODY if credentials[name].placeholder else identity): placeholder
        for identity, held in placeholders.items()
        for name, placeholder in held.items()
    }


def _redactions(
    engine: Engine,
    secrets: tuple[str, ...],
    credentials: Mapping[str, Credential],
    placeholders: Mapping[str, bytes],
) -> Redactions:
    """Return one identity's table: what each pattern of ``engine`` is overwritten with."""
    fills = [
        fill
        for name in secrets
        for fill in replacements_of(credentials[name].secret.reveal(), placeholders[name])
    ]
    return Redactions(engine, fills)
