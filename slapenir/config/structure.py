"""From TOML's dictionaries to Settings: cattrs, strict about types, exact about places.

cattrs by itself turns "443" into 443 and "GET" into a tuple of letters; here a value has its type
or is refused.  Every problem is reported at once, with the path it has in the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from enum import Enum
from typing import Any, get_origin

import attrs
from cattrs import Converter
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.dispatch import StructureHook
from cattrs.errors import (
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn, override

from slapenir.config.settings import ListenerTls, Settings
from slapenir.errors import ConfigError

# Settings whose TOML key differs: arrays of tables read better in the singular.
_RENAMED = {
    "listeners": "listener",
    "credentials": "credential",
    "rules": "rule",
    "agents": "identity",
}
_WORDS = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def structure(document: dict[str, Any], file: str) -> Settings:
    """Return the settings written in a parsed file, their values not yet checked.

    Raises nothing but ConfigError by way of ``StructureFailed``, whose ``errors`` hold each
    unknown key, missing key and value of a wrong type.
    """
    try:
        return _CONVERTER.structure(document, Settings)
    except (ClassValidationError, IterableValidationError, ValueError) as error:
        raise StructureFailed(list(_flatten(error, "$", file))) from None


class StructureFailed(Exception):
    """The file's shape is wrong in each of the ``errors``."""

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__(len(errors))
        self.errors = errors


def _exact(kind: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise ValueError(f"must be {_WORDS[kind]}")
        return value

    return hook


def _choice(value: Any, kind: Any) -> Any:
    for member in kind:
        if member.value == value and type(member.value) is type(value):
            return member
    raise ValueError("must be one of: " + ", ".join(str(member.value) for member in kind))


def _list_factory(kind: Any, converter: Converter) -> StructureHook:
    inner = homogenous_tuple_structure_factory(kind, converter)

    def hook(value: Any, target: Any) -> Any:
        if type(value) is not list:
            raise ValueError("must be a list: [ ... ], or [[NAME]] for a table")
        return inner(value, target)

    return hook


def _mapping_factory(kind: Any, converter: Converter) -> StructureHook:
    inner = converter.gen_structure_mapping(kind)

    def hook(value: Any, target: Any) -> Any:
        if type(value) is not dict:
            raise ValueError("must be a table")
        return inner(value, target)

    return hook


def _table_factory(kind: Any, converter: Converter) -> StructureHook:
    overrides: dict[str, Any] = {}
    if kind is Settings:
        overrides = {name: override(rename=key) for name, key in _RENAMED.items()}
        overrides["file"] = override(omit=True)
    if kind is ListenerTls:
        overrides["managed"] = override(omit=True)
    inner = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True,
        **overrides,
    )  # fmt: skip

    def hook(value: Any, target: Any) -> Any:
        if kind is ListenerTls and value == "managed":
            return ListenerTls(managed=True)
        if type(value) is not dict:
            raise ValueError("must be a table")
        return inner(value, target)

    return hook


def _origin(kind: Any) -> Any:
    return get_origin(kind)


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in _WORDS:
        converter.register_structure_hook(kind, _exact(kind))
    converter.register_structure_hook_func(
        lambda kind: isinstance(kind, type) and issubclass(kind, Enum), _choice
    )
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is tuple, _list_factory)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is dict, _mapping_factory)
    converter.register_structure_hook_factory(attrs.has, _table_factory)
    return converter


_CONVERTER = _make_converter()


def _flatten(error: BaseException, path: str, file: str) -> list[ConfigError]:
    """Return one ConfigError for each leaf of cattrs' tree of errors."""
    found: list[ConfigError] = []
    if isinstance(error, ClassValidationError):
        named, others = error.group_exceptions()
        for inner, note in named:
            found += _flatten(inner, f"{path}.{_RENAMED.get(note.name, note.name)}", file)
        for other in others:
            found += _table_problem(other, error.cl, path, file)
    elif isinstance(error, IterableValidationError):
        indexed, others = error.group_exceptions()
        for inner, place in indexed:
            inside = f"[{place.index}]" if isinstance(place.index, int) else f".{place.index}"
            found += _flatten(inner, path + inside, file)
        found += [ConfigError(str(other), path, "", file) for other in others]
    elif isinstance(error, KeyError):
        found.append(ConfigError("is missing", path, "add this key", file))
    else:
        found.append(ConfigError(str(error), path, "", file))
    return found


def _table_problem(error: BaseException, kind: Any, path: str, file: str) -> list[ConfigError]:
    """Describe what is wrong with a table as a whole: unknown or missing keys."""
    hidden = {Settings: "file", ListenerTls: "managed"}.get(kind)
    names = [field.name for field in attrs.fields(kind) if field.name != hidden]
    known = [_RENAMED.get(name, name) for name in names]
    if isinstance(error, ForbiddenExtraKeysError):
        found = []
        for key in sorted(error.extra_fields):
            near = difflib.get_close_matches(key, known, 1)
            remedy = f"did you mean {near[0]}?" if near else "etc/slapenir.toml has every key"
            found.append(ConfigError("unknown key", f"{path}.{key}", remedy, file))
        return found
    return [ConfigError(str(error), path, "", file)]
