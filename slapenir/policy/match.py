"""Rules made ready: which of them can apply to an identity and an authority, and what they say."""

from __future__ import annotations

import re

import attrs

from slapenir.names import Action, Reason, Scheme, Stage, host_matches
from slapenir.policy.addresses import AddressPolicy
from slapenir.policy.model import Decision, Rule
from slapenir.policy.paths import climbs, compile_globs, readings

CACHE_LIMIT = 4096

# Names of cloud metadata services: refused whatever a rule says, wherever they resolve to.
METADATA_NAMES = frozenset(
    {"metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)


@attrs.frozen(slots=True, eq=False)
class ReadyRule:
    """A rule with its method set, its compiled globs and the decisions it leads to."""

    rule: Rule
    methods: frozenset[str] | None
    pattern: re.Pattern[str] | None
    decision: Decision
    climbing: Decision

    @classmethod
    def of(cls, rule: Rule) -> ReadyRule:
        """Make a rule ready; a credential goes with an https allow only.

        A passthrough and a tunnel allow no request: what they let through is never read as one.
        """
        deny = rule.action is Action.DENY
        if rule.action is Action.ALLOW:
            credentials = rule.credentials if rule.scheme is Scheme.HTTPS else ()
            decision = Decision(Stage.REQUEST, Action.ALLOW, Reason.RULE, rule.id, credentials)
        elif deny:
            decision = Decision(Stage.REQUEST, Action.DENY, Reason.DENY_RULE, rule.id)
        else:
            decision = Decision(Stage.REQUEST, Action.DENY, Reason.NO_RULE, rule.id)
        return cls(
            rule=rule,
            methods=frozenset(rule.methods) or None,
            pattern=compile_globs(rule.paths, ignore_case=deny) if rule.paths else None,
            decision=decision,
            climbing=Decision(Stage.REQUEST, Action.DENY, Reason.PATH_REFUSED, rule.id),
        )

    @property
    def raw(self) -> bool:
        """Whether the rule is for raw TCP, which has no scheme."""
        return self.rule.action is Action.TUNNEL

    @property
    def conditional(self) -> bool:
        """Whether the rule needs a method or a path to say anything."""
        return self.methods is not None or self.pattern is not None

    def judge(self, method: str, path: str) -> Decision | None:
        """Return what the rule says about a request to one of its hosts, None for nothing.

        An allow compares method and path as sent, and where it is limited to paths it refuses
        one that may climb out of them.  A deny is compared broadly: any case of the method, any
        case and any reading of the path.
        """
        if self.rule.action is Action.DENY:
            return self._judge_deny(method, path)
        if self.methods is not None and method not in self.methods:
            return None
        if self.pattern is not None:
            if self.pattern.fullmatch(path) is None:
                return None
            if climbs(path):
                return self.climbing
        return self.decision

    def _judge_deny(self, method: str, path: str) -> Decision | None:
        if self.methods is not None:
            if method not in self.methods and method.upper() not in self.methods:
                return None
        pattern = self.pattern
        if pattern is not None and not any(pattern.fullmatch(p) for p in readings(path)):
            return None
        return self.decision


@attrs.frozen(slots=True, eq=False)
class Candidates:
    """The rules that can apply to one (identity, host, port, scheme), in file order."""

    rules: tuple[ReadyRule, ...]
    connect: Decision
    fallback: Decision


@attrs.frozen(slots=True)
class Named:
    """Whether a rule could allow something at a host, and whether one names it outright."""

    allowed: bool
    exact: bool


_UNNAMED = Named(False, False)


@attrs.frozen(slots=True, eq=False)
class Policy:
    """An immutable policy: rules in file order and the addresses that may be dialled.

    What it remembers of earlier look-ups is bounded by ``CACHE_LIMIT`` and changes no answer.
    """

    rules: tuple[Rule, ...]
    addresses: AddressPolicy = attrs.field(factory=AddressPolicy)
    _ready: tuple[ReadyRule, ...] = attrs.field(init=False, repr=False)
    _cache: dict[tuple[str, str, int, bool], Candidates] = attrs.field(
        init=False, repr=False, factory=dict
    )

    _named: dict[tuple[str, str], Named] = attrs.field(init=False, repr=False, factory=dict)

    @_ready.default
    def _make_ready(self) -> tuple[ReadyRule, ...]:
        return tuple(ReadyRule.of(rule) for rule in self.rules)

    def candidates(self, identity: str, host: str, port: int, tls: bool) -> Candidates:
        """Return the rules for an identity and an origin; the same every time."""
        key = (identity, host, port, tls)
        found = self._cache.get(key)
        if found is None:
            found = self._find(identity, host, port, tls)
            if len(self._cache) >= CACHE_LIMIT:
                self._cache.clear()
            self._cache[key] = found
        return found

    def names(self, identity: str, host: str) -> Named:
        """Return whether a host may be asked for by name: whether some rule could allow it.

        That is any rule but a deny, for any port, unless a deny for everything on one of the same
        ports stands before it.  What is asked of the host is decided when it is asked.
        """
        key = (identity, host)
        found = self._named.get(key)
        if found is None:
            found = self._name(identity, host)
            if len(self._named) >= CACHE_LIMIT:
                self._named.clear()
            self._named[key] = found
        return found

    def _name(self, identity: str, host: str) -> Named:
        if host in METADATA_NAMES:
            return _UNNAMED
        denied: set[tuple[bool, int]] = set()
        allowed = exact = False
        for ready in self._ready:
            rule = ready.rule
            if not _is_for(rule, identity, host):
                continue
            exact = exact or host in rule.hosts
            tls = rule.scheme is Scheme.HTTPS
            if rule.action is Action.DENY:
                if not ready.conditional:
                    denied |= {(tls, port) for port in rule.ports}
            elif any((tls, port) not in denied for port in rule.ports):
                allowed = True
        return Named(allowed, exact) if allowed else _UNNAMED

    def _find(self, identity: str, host: str, port: int, tls: bool) -> Candidates:
        if host in METADATA_NAMES:
            return Candidates(
                (),
                Decision(Stage.CONNECT, Action.DENY, Reason.ADDRESS_METADATA),
                Decision(Stage.REQUEST, Action.DENY, Reason.ADDRESS_METADATA),
            )
        every = tuple(r for r in self._ready if _applies(r.rule, identity, host, port))
        rules = tuple(r for r in every if (r.rule.scheme is Scheme.HTTPS) is tls or r.raw)
        fallback = Decision(Stage.REQUEST, Action.DENY, Reason.NO_RULE)
        return Candidates(rules, _connect_decision(every), fallback)


def _applies(rule: Rule, identity: str, host: str, port: int) -> bool:
    return port in rule.ports and _is_for(rule, identity, host)


def _is_for(rule: Rule, identity: str, host: str) -> bool:
    return ("*" in rule.identities or identity in rule.identities) and any(
        host_matches(pattern, host) for pattern in rule.hosts
    )


def _connect_decision(rules: tuple[ReadyRule, ...]) -> Decision:
    """Decide a CONNECT, where method and path are still unknown.

    The first rule that needs neither, or allows, decides.  A deny that needs them says nothing
    yet, but a passthrough or a tunnel after it is refused: what is not read could not be held to
    it.  Rules for plain http say nothing about a CONNECT, but a tunnel after one is refused too:
    it would be a way around what that rule looks at.
    """
    pending: ReadyRule | None = None
    plain: ReadyRule | None = None
    for ready in rules:
        rule = ready.rule
        if ready.raw:
            earlier = pending or plain
            if earlier is not None:
                return Decision(Stage.CONNECT, Action.DENY, Reason.DENY_RULE, earlier.rule.id)
            return Decision(Stage.CONNECT, Action.TUNNEL, Reason.RULE, rule.id)
        if rule.scheme is Scheme.HTTP:
            plain = plain or ready
            continue
        if rule.action is Action.ALLOW:
            return Decision(Stage.CONNECT, Action.ALLOW, Reason.RULE, rule.id)
        if rule.action is Action.DENY and ready.conditional:
            pending = pending or ready
        elif rule.action is Action.DENY:
            return Decision(Stage.CONNECT, Action.DENY, Reason.DENY_RULE, rule.id)
        elif pending is not None:
            return Decision(Stage.CONNECT, Action.DENY, Reason.DENY_RULE, pending.rule.id)
        else:
            return Decision(Stage.CONNECT, Action.PASSTHROUGH, Reason.RULE, rule.id)
    return Decision(Stage.CONNECT, Action.DENY, Reason.NO_RULE)
