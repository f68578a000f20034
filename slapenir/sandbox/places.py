"""Places of a host: which an agent must not write to, and which are private to a person."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable

import attrs

from slapenir.errors import SandboxError
from slapenir.sandbox.links import contains, links_of

SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store",
)  # fmt: skip
SCRATCH = ("/tmp", "/var/tmp", "/run", "/home", "/root")  # noqa: S108
_NEVER_WRITTEN = (
    *(one for one in SYSTEM if one != "/opt"),
    "/nix", "/dev", "/proc", "/sys", "/boot", "/run", "/var/run", "/var/lock", "/root",
)  # fmt: skip
_TOPS = ("/", "/var", "/srv", "/mnt", "/media", "/opt", *SCRATCH)
# What a home has that is not for an agent, whatever option names it for writing.
_PRIVATE = frozenset((
    ".ssh", ".aws", ".azure", ".gnupg", ".config", ".docker", ".kube", ".netrc", ".mozilla",
    ".pki", ".password-store", ".thunderbird", ".git-credentials",
))  # fmt: skip
_REMEDIES = {
    "--workspace": "start in the project's directory, or name it: --workspace DIR",
    "--home": "name a directory of the sandbox's own that is there: --home DIR",
}


@attrs.frozen
class Belongings:
    """The gateway's, by every name: ``hidden`` no agent may see, ``guarded`` none may change."""

    hidden: tuple[str, ...] = ()
    guarded: tuple[str, ...] = ()


def every_name(paths: Iterable[str]) -> tuple[str, ...]:
    """Return paths by their real names, with each link that leads to one of them.

    Whoever replaces such a link on the way replaces the file.
    """
    found: list[str] = []
    for path in paths:
        try:
            real, links = links_of(path)
        except OSError:  # not there, or not for this user to see
            found += [os.path.abspath(path), os.path.realpath(path)]
            continue
        found += [*(one.place for one in links if one.place not in _SYSTEM_LINKS), real]
    return tuple(dict.fromkeys(found))


_SYSTEM_LINKS = frozenset((*SYSTEM, "/var/run", "/var/lock"))


def is_private(path: str) -> bool:
    """Whether a path is in a place where a person keeps credentials and the like."""
    return bool(_PRIVATE.intersection(path.split("/"))) or "/.local/share/" in f"{path}/"


def homes(*more: str, uids: Iterable[int] = ()) -> tuple[str, ...]:
    """Return the home directories of every user and some more, as named and by real names.

    ``uids`` are users to ask for by themselves: a directory service may not list all that it has.
    """
    named = [*more, "/root", *(one.pw_dir for one in pwd.getpwall())]
    for uid in uids:
        with contextlib.suppress(KeyError):
            named.append(pwd.getpwuid(uid).pw_dir)
    found = [os.path.normpath(one) for one in named if one.startswith("/")]
    found += [os.path.realpath(one) for one in found]
    return tuple(one for one in dict.fromkeys(found) if one.strip("/") and one not in SCRATCH[:2])


def home_of(path: str, known: Iterable[str]) -> str:
    """Return the home that a path is, or is below; empty for none."""
    parts = path.split("/")
    likely = ["/".join(parts[:3])] if path.startswith("/home/") else []
    over = [one for one in (*known, *likely) if contains(one, path)]
    return max(over, key=len, default="")


def check_writable(path: str, option: str, belongings: Belongings, homes: Iterable[str]) -> None:
    """Raise SandboxError for a real path that an agent must not write to (T239)."""
    remedy = _REMEDIES[option]
    if not os.path.isdir(path):
        raise SandboxError(f"{option} {path} is not a directory", remedy)
    if any(contains(path, home) for home in homes):
        raise SandboxError(f"{path} is, or holds, a home directory", remedy)
    if path in _TOPS or any(contains(root, path) for root in _NEVER_WRITTEN):
        raise SandboxError(f"{path} belongs to the system", remedy)
    if is_private(path):
        raise SandboxError(f"{path} is where a person keeps what is private", remedy)
    for one in (*belongings.hidden, *belongings.guarded):
        if contains(path, one):
            raise SandboxError(
                f"{option} {path} holds {one}, which is the gateway's",
                "an agent could change it: keep the two apart",
            )
    for one in belongings.hidden:
        if contains(one, path):
            raise SandboxError(
                f"{option} {path} is in {one}, which is the gateway's",
                "an agent could change it: keep the two apart",
            )


def private_place(seen: Iterable[str]) -> str:
    """Return where private directories of ours are made; never where TMPDIR says.

    ``seen`` are the directories that a sandbox is shown: a workspace may have one for temporary
    files, and what is in it is the agent's.  Raises SandboxError.
    """
    uid = os.geteuid()
    for place in (f"/run/user/{uid}" if uid else "/run", "/tmp"):  # noqa: S108
        if os.access(place, os.W_OK | os.X_OK) and not any(contains(one, place) for one in seen):
            return place
    raise SandboxError("there is no place for private files", "do not show /tmp or /run by --ro")
