"""What is covered of what a sandbox is shown: the gateway's files, and sockets of the host.

A mount on a file is gone as soon as somebody renames another over it, also outside: secrets are
rotated like that, and daemons make their sockets anew.  So their directory is covered.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator

from slapenir.errors import SandboxError
from slapenir.sandbox.links import contains
from slapenir.sandbox.places import SYSTEM

SOCKET_PLACES = ("/opt", "/etc", "/usr/local")
MOST_ENTRIES = 50_000
# Without these there is no system to run anything on.
_NEEDED = (
    "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/libexec",
    "/usr/share", "/usr/local/bin", "/usr/local/sbin", "/usr/local/lib", "/usr/local/share",
    "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store",
    "/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust", "/etc/ca-certificates",
    "/etc/alternatives", "/etc/ld.so.conf.d",
)  # fmt: skip
_LIBRARIES = re.compile(r"/usr/lib\d*/[^/]*-linux-[^/]*")


def covers(
    hidden: Iterable[str], sockets: Iterable[str], shown: Iterable[tuple[str, str]]
) -> dict[str, bool]:
    """Return what to cover, by where it is inside; true for a directory.

    ``shown`` are places and where they are seen.  Raises SandboxError where one of ``hidden`` is
    directly in a directory that has to be shown; of such a socket only the name is covered.
    """
    shown = list(shown)
    seen = [*((one, one) for one in SYSTEM), *shown]
    found: dict[str, bool] = {}
    for path in hidden:
        directory = _directory_of(path)
        for source, place in seen:
            if contains(path, source) and path != source:
                raise SandboxError(
                    f"{source} would be shown, which is in {path}, the gateway's", "do not show it"
                )
            if not contains(source, path):
                continue
            if contains(source, directory) and not _is_needed(directory, seen):
                found[_inside(directory, source, place)] = True
            elif os.path.lexists(path) and not _leads_to_directory(path):
                raise SandboxError(
                    f"the sandbox would be shown {path}, which is the gateway's",
                    f"move it to a directory of its own: {directory} cannot be covered",
                )
    for path in sockets:
        directory = os.path.dirname(path)
        coverable = not _is_needed(directory, seen)
        found[directory if coverable else path] = coverable
    whole = [path for path, is_directory in found.items() if is_directory]
    places = [place for _, place in shown]
    return {path: found[path] for path in found if not _is_below(path, whole, places)}


def _is_below(path: str, covered: Iterable[str], places: Iterable[str]) -> bool:
    """Whether a place is gone with one that is covered, and nothing between is shown again."""
    return any(
        path != one
        and contains(one, path)
        and not any(contains(one, place) and contains(place, path) for place in places)
        for one in covered
    )


def find_sockets(places: Iterable[str]) -> tuple[list[str], bool]:
    """Return the sockets below some directories, and whether all of them were looked through.

    Those that are near the top are found first; links are not followed.
    """
    found: list[str] = []
    waiting, left = deque(places), MOST_ENTRIES
    while waiting:
        for entry in _entries(waiting.popleft()):
            left -= 1
            if left < 0:
                return found, False
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif not entry.is_file(follow_symlinks=False) and _is_socket(entry.path):
                found.append(entry.path)
    return found, True


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except OSError:
        return  # not there, or not for this user: nor for an agent


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _directory_of(path: str) -> str:
    """Return the directory to cover for a path: itself where it is one."""
    real = os.path.isdir(path) and not os.path.islink(path)
    return path if real else os.path.dirname(path)


def _leads_to_directory(path: str) -> bool:
    """Whether a path is a link to a directory, which is covered where it is."""
    return os.path.islink(path) and os.path.isdir(path)


def _is_needed(directory: str, seen: Iterable[tuple[str, str]]) -> bool:
    """Whether a directory is one that has to be shown, or holds what the system needs."""
    if any(directory == source for source, _ in seen) or _LIBRARIES.fullmatch(directory):
        return True
    return any(contains(directory, one) for one in _NEEDED)


def _inside(path: str, source: str, place: str) -> str:
    return os.path.normpath(os.path.join(place, os.path.relpath(path, source)))
