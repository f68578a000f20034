"""A secret value that cannot be printed, formatted, compared by accident or pickled."""

from __future__ import annotations

import hmac
from typing import NoReturn, final


@final
class Secret:
    """Hold the bytes of one real credential.

    Nothing but :meth:`reveal` gives the bytes back.  ``repr``, ``str`` and ``format`` give a
    fixed text; pickling and copying raise ``TypeError``.  Python cannot promise to wipe the
    memory: SECURITY.rst says what that means.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """Return the raw bytes.  The caller must not log or store them."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        raise TypeError("a Secret is not hashable")

    def __repr__(self) -> str:
        return "<Secret>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<Secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    def __copy__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")
