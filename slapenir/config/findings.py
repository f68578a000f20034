"""What the checks of a configuration have in common: a list of problems, and hosts."""

from __future__ import annotations

import re

from slapenir.errors import AuthorityError, ConfigError, ConfigErrors
from slapenir.names import host_matches, is_ipv4, parse_host_pattern

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_IP_REMEDY = "give the address a name under [resolver] hosts and write that name"


class Findings:
    """Collect every problem of one file, so that the operator sees them all at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[ConfigError] = []

    def add(self, path: str, message: str, remedy: str = "") -> None:
        """Note one problem: where in the file, what, and what to do."""
        self.errors.append(ConfigError(message, path, remedy, self.file))

    def raise_any(self) -> None:
        """Raise ConfigErrors when anything was noted."""
        if self.errors:
            raise ConfigErrors(self.errors)

    def name(self, path: str, value: str) -> None:
        """Note an id that could not stand in a label, a log line and a file name alike."""
        if _ID.fullmatch(value) is None:
            self.add(path, "is not a name", "use 1 to 64 of A-Z a-z 0-9 . _ -")

    def host(self, path: str, value: str) -> str | None:
        """Return the canonical form of a host or wildcard; None when it was noted as a problem."""
        try:
            pattern = parse_host_pattern(value.encode("utf-8"))
        except AuthorityError as error:
            if value == "*":
                self.add(path, "matches every host", "name the hosts")
            elif value.count("*") != value.startswith("*."):
                self.add(path, "has a star that is not '*.' before a name", "write *.example.com")
            else:
                self.add(path, str(error), "write a host name, in ASCII and without a port")
            return None
        if is_ipv4(pattern) or ":" in pattern:
            self.add(path, "is an IP address", _IP_REMEDY)
            return None
        return pattern


def overlap(one: str, other: str) -> bool:
    """Whether some host is covered by both canonical patterns."""
    if one[:2] == "*." and other[:2] == "*.":
        return one[1:].endswith(other[1:]) or other[1:].endswith(one[1:])
    return host_matches(one, other) or host_matches(other, one)
