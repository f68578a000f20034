"""Swapping placeholders for credentials in a request head, and only on their surfaces.

The head goes out with the credentials; beside it comes a *view* of what the client sent, in
which exactly the placeholders that were swapped are blanked.  Whoever scans the view finds every
other placeholder and every real secret, also one in a value that was replaced or dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

import attrs

from slapenir.credentials.model import (
    BasicSurface,
    Credential,
    HeaderSurface,
    QuerySurface,
    check_surface,
)
from slapenir.credentials.tokens import decode_basic, encode_basic, swap, token_pattern
from slapenir.events import CredentialUse

HeaderList: TypeAlias = list[tuple[bytes, bytes]]

_AUTHORIZATION = b"authorization"
_UNSAFE = re.compile(rb"[\r\n\0]")


@attrs.frozen(slots=True)
class Held:
    """A credential and the placeholder that one identity holds for it."""

    credential: Credential
    placeholder: bytes


@attrs.define(slots=True, eq=False)
class Injection:
    """A request head with its credentials; nothing in it may be logged but ``uses``.

    ``target`` and ``headers`` are to be sent.  ``view`` is to be scanned: what the client sent
    (target, headers and a decoded Basic value) with the swapped placeholders blanked.  ``body``
    holds (placeholder, secret) pairs for the body; they are not in ``uses``.
    """

    target: bytes = attrs.field(repr=False)
    headers: HeaderList = attrs.field(repr=False)
    uses: tuple[CredentialUse, ...]
    view: bytes = attrs.field(repr=False)
    body: tuple[tuple[bytes, bytes], ...] = attrs.field(repr=False)


@attrs.frozen(slots=True, eq=False)
class _Way:
    """One credential on one surface: ``sent`` is the whole new value, ``usual`` the old one."""

    placeholder: bytes = attrs.field(repr=False)
    sent: bytes = attrs.field(repr=False)
    usual: bytes = attrs.field(repr=False)
    blanked: bytes = attrs.field(repr=False)
    use: CredentialUse
    always: bool = False


_Key = TypeVar("_Key")
_Ways: TypeAlias = tuple[_Way, ...]


@attrs.define(slots=True, eq=False)
class _Work:
    """The head under way: what is sent, what is seen, and what falls out."""

    names: list[bytes] = attrs.field(repr=False)
    sent: HeaderList = attrs.field(repr=False)
    seen: HeaderList = attrs.field(repr=False)
    decoded: tuple[bytes, ...] = attrs.field(repr=False, default=())
    uses: tuple[CredentialUse, ...] = ()
    dropped: tuple[int, ...] = ()

    def places(self, name: bytes) -> list[int]:
        """Return where in the head the fields of this name are."""
        return [i for i, found in enumerate(self.names) if found == name]


class Injector:
    """Inject the credentials of one rule for one identity; immutable and reusable.

    Raises ValueError for a surface that check_surface refuses, an empty placeholder, and a
    secret that cannot stand on its surface (CR, LF, NUL; a colon in a user name).
    """

    __slots__ = (
        "_always",
        "_basic",
        "_body",
        "_headers",
        "_query",
        "_tokens",
        "_usual",
        "_watched",
    )

    def __init__(self, held: Sequence[Held]) -> None:
        headers: dict[bytes, _Ways] = {}
        basic: dict[str, _Ways] = {}
        query: dict[bytes, _Ways] = {}
        body: list[tuple[bytes, bytes]] = []
        for item in held:
            secret = _checked(item)
            for surface in item.credential.surfaces:
                if isinstance(surface, HeaderSurface):
                    _add(headers, surface.name, _header_way(item, secret, surface))
                elif isinstance(surface, BasicSurface):
                    _add(basic, surface.part, _plain_way(item, secret, surface.label))
                elif isinstance(surface, QuerySurface):
                    quoted = quote_from_bytes(secret, safe="").encode("ascii")
                    _add(query, surface.name, _plain_way(item, quoted, surface.label))
                else:
                    body.append((item.placeholder, secret))
        self._headers, self._basic, self._query, self._body = headers, basic, query, tuple(body)
        self._tokens = token_pattern(item.placeholder for item in held)
        self._watched = tuple(dict.fromkeys((*headers, _AUTHORIZATION)))
        self._usual = {name: ways[0] for name, ways in headers.items()}
        self._always = {
            name: next(way for way in ways if way.always)
            for name, ways in headers.items()
            if any(way.always for way in ways)
        }

    def inject(self, target: bytes, headers: HeaderList) -> Injection:
        """Return the head to send for a head without hop-by-hop fields; the input is not changed.

        A header surface leaves exactly one field of its name, where the first one was; a query
        surface exactly one parameter.  The client's own value is replaced.  Several credentials
        on one surface: the one whose placeholder is there, else the first.
        """
        names = [name.lower() for name, _ in headers]
        work = _Work(names, headers.copy(), headers.copy())
        for name in self._watched:
            if name in names:
                self._swap_field(work, name)
            elif name in self._always:
                way = self._always[name]
                work.sent.append((name.title(), way.sent))
                work.uses += (way.use,)
        sent, uses, view_target = work.sent, work.uses, target
        if work.dropped:
            sent = [field for i, field in enumerate(sent) if i not in work.dropped]
        if self._query and b"?" in target:
            target, view_target, more = self._swap_query(target)
            uses += more
        lines = map(b": ".join, work.seen)
        view = b"\r\n".join((view_target, *lines, *work.decoded, b""))
        return Injection(target, sent, uses, view, self._body)

    def _swap_field(self, work: _Work, name: bytes) -> None:
        usual = self._usual.get(name)
        if usual is not None and work.names.count(name) == 1:
            i = work.names.index(name)
            field, value = work.sent[i]
            if value == usual.usual:
                work.sent[i] = (field, usual.sent)
                work.seen[i] = (field, usual.blanked)
                work.uses += (usual.use,)
                return
        places = work.places(name)
        if name == _AUTHORIZATION and self._swap_basic(work, places):
            return
        ways = self._headers.get(name)
        if ways is None:
            return
        way = self._choose(ways, [work.sent[i][1] for i in places])
        for i in places:
            field, value = work.seen[i]
            work.seen[i] = (field, self._blank(value, way))
        work.sent[places[0]] = (work.sent[places[0]][0], way.sent)
        work.dropped += tuple(places[1:])
        work.uses += (way.use,)

    def _swap_basic(self, work: _Work, places: list[int]) -> bool:
        """Add decoded Basic values to the view; whether the first one was the one to swap."""
        swapped = False
        for i in places:
            name, value = work.seen[i]
            basic = decode_basic(value)
            if basic is None:
                continue
            halves = {"username": basic[0], "password": basic[1]}
            shown = dict(halves)
            if i == places[0]:
                for part, ways in self._basic.items():
                    way = self._choose(ways, [halves[part]])
                    shown[part] = self._blank(halves[part], way)
                    if shown[part] != halves[part]:
                        halves[part] = swap(self._tokens, halves[part], way.placeholder, way.sent)
                    else:
                        halves[part] = way.sent
                    work.uses += (way.use,)
                    swapped = True
            work.decoded += (shown["username"] + b":" + shown["password"],)
            if shown["username"] != basic[0] or shown["password"] != basic[1]:
                work.seen[i] = (name, value.replace(basic[2], b" " * len(basic[2])))
            if i == places[0] and swapped:
                work.sent[i] = (name, encode_basic(halves["username"], halves["password"]))
                work.dropped += tuple(places[1:])
        return swapped

    def _swap_query(self, target: bytes) -> tuple[bytes, bytes, tuple[CredentialUse, ...]]:
        """Return the target to send, the target to scan, and what was put where."""
        path, _, query = target.partition(b"?")
        sent = query.split(b"&")
        seen = sent.copy()
        found: dict[bytes, list[int]] = {}
        for i, parameter in enumerate(sent):
            name = unquote_to_bytes(parameter.partition(b"=")[0])
            if name in self._query:
                found.setdefault(name, []).append(i)
        uses: list[CredentialUse] = []
        dropped: set[int] = set()
        for name, places in found.items():
            values = [sent[i].partition(b"=")[2] for i in places]
            way = self._choose(self._query[name], [*values, *map(unquote_to_bytes, values)])
            for i, value in zip(places, values, strict=True):
                blanked = self._blank(value, way)
                if blanked == value and unquote_to_bytes(value) == way.placeholder:
                    blanked = b" " * len(value)
                seen[i] = sent[i].partition(b"=")[0] + b"=" + blanked
            sent[places[0]] = sent[places[0]].partition(b"=")[0] + b"=" + way.sent
            dropped.update(places[1:])
            uses.append(way.use)
        kept = [parameter for i, parameter in enumerate(sent) if i not in dropped]
        return path + b"?" + b"&".join(kept), path + b"?" + b"&".join(seen), tuple(uses)

    def _choose(self, ways: _Ways, values: Sequence[bytes]) -> _Way:
        """Return the way whose placeholder is in one of the values, else the first."""
        present = {token for value in values for token in self._tokens.findall(value)}
        for way in ways:
            if way.placeholder in present:
                return way
        return ways[0]

    def _blank(self, text: bytes, way: _Way) -> bytes:
        return swap(self._tokens, text, way.placeholder, b" " * len(way.placeholder))


def _checked(item: Held) -> bytes:
    """Return the secret, or raise ValueError where it cannot stand on one of its surfaces."""
    credential = item.credential
    secret = credential.secret.reveal()
    if not item.placeholder:
        raise ValueError(f"credential {credential.id}: the placeholder is empty")
    if _UNSAFE.search(secret) is not None:
        raise ValueError(f"credential {credential.id}: the secret has CR, LF or NUL")
    for surface in credential.surfaces:
        check_surface(surface)
        if isinstance(surface, BasicSurface) and surface.part == "username" and b":" in secret:
            raise ValueError(f"credential {credential.id}: a user name cannot hold a colon")
    return secret


def _add(ways: dict[_Key, _Ways], key: _Key, way: _Way) -> None:
    ways[key] = (*ways.get(key, ()), way)


def _header_way(item: Held, secret: bytes, surface: HeaderSurface) -> _Way:
    before = b"" if surface.scheme is None else surface.scheme + b" "
    return _Way(
        placeholder=item.placeholder,
        sent=before + secret,
        usual=before + item.placeholder,
        blanked=before + b" " * len(item.placeholder),
        use=CredentialUse(item.credential.id, surface.label),
        always=surface.when == "always",
    )


def _plain_way(item: Held, sent: bytes, label: str) -> _Way:
    use = CredentialUse(item.credential.id, label)
    return _Way(item.placeholder, sent, item.placeholder, b" " * len(item.placeholder), use)
