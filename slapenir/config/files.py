"""Which files, directories and sockets a configuration names; an agent must not have them.

Each attribute of the settings that names one is marked with its kind, so that nothing keeps a list
of them: a test fails for an attribute of text that is neither marked nor known to name none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs

_UNESCAPED_COLON = re.compile(r"(?<!\\):")
_KIND = "names"
_SECRET, _OPEN, _ENDPOINT, _SOURCE = "secret", "open", "endpoint", "source"

SECRET = {_KIND: _SECRET}
"""Metadata of a path that no agent may see or change."""

OPEN = {_KIND: _OPEN}
"""Metadata of a path that everybody may read and no agent may change; URLs are passed over."""

ENDPOINT = {_KIND: _ENDPOINT}
"""Metadata of an endpoint, of which ``unix:`` ones are paths that no agent may reach."""

SOURCE = {_KIND: _SOURCE}
"""Metadata of where a secret is, of which ``file:`` ones are paths that no agent may see."""


@attrs.frozen
class Files:
    """Absolute paths: ``secret`` ones no agent may see, ``open`` ones none may change."""

    secret: tuple[str, ...]
    open: tuple[str, ...]


def is_marked(attribute: attrs.Attribute[Any]) -> bool:
    """Whether an attribute of the settings is said to name a path."""
    return _KIND in attribute.metadata


def files_of(settings: Any) -> Files:
    """Return every path that settings name, of whatever class they are."""
    found = list(_walk(settings))
    return Files(
        tuple(dict.fromkeys(path for secret, path in found if secret)),
        tuple(dict.fromkeys(path for secret, path in found if not secret)),
    )


def socket_path(endpoint: str) -> str:
    """Return the path of a ``unix:`` endpoint; empty for any other."""
    kind, *words = _UNESCAPED_COLON.split(endpoint)
    if kind.lower() != "unix":
        return ""
    named = [one for one in words if one.startswith("address=")]
    path = (named or [*words, ""])[0].removeprefix("address=")
    return re.sub(r"\\(.)", r"\1", path)


def _walk(value: Any) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is secret, path) for everything below a value."""
    if isinstance(value, tuple):
        for one in value:
            yield from _walk(one)
    elif attrs.has(type(value)):
        for attribute in attrs.fields(type(value)):
            inner = getattr(value, attribute.name)
            if is_marked(attribute):
                yield from _marked(attribute.metadata[_KIND], inner or "")
            else:
                yield from _walk(inner)


def _marked(kind: str, text: str) -> Iterator[tuple[bool, str]]:
    if kind == _ENDPOINT:
        text = socket_path(text)
    elif kind == _SOURCE:
        text = text.partition(":")[2] if text.startswith("file:") else ""
    if text.startswith("/"):
        yield kind != _OPEN, text
