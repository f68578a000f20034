"""Directories of programs that a sandbox is shown beside the system's: those on PATH, judged."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

import attrs

from slapenir.sandbox.links import Agent, Link, contains, links_of
from slapenir.sandbox.places import SYSTEM, home_of, is_private

Shown = tuple[str, str]
"""A real directory, and where it is seen inside."""

# Below a home, what is shown at all: where installers put programs, and nobody anything else.
_OF_A_HOME = (
    ".local/bin", ".local/lib", "bin", ".cargo", ".rustup", ".nvm", ".fnm", ".nodenv", ".n",
    ".volta", ".pyenv", ".rbenv", ".rvm", ".gem", ".goenv", "go", "sdk", ".deno", ".bun", ".asdf",
    ".sdkman", ".jenv",
    ".pixi", ".poetry", ".juliaup", ".ghcup", ".cabal", ".opam", ".elan", ".dotnet", ".npm-global",
    ".npm-packages", ".yarn", ".linuxbrew", ".foundry", ".krew", ".claude/local", ".opencode/bin",
    "miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba",
    *(f".local/share/{name}" for name in (
        "uv", "pnpm", "mise", "rtx", "fnm", "pipx", "claude", "cursor-agent", "pypoetry", "gem",
    )),
)  # fmt: skip
# Of those, what holds interpreters as they were installed and nothing of a person's: a virtual
# environment in a workspace links to them, and whoever else links to them learns nothing.
_INTERPRETERS = (
    ".pyenv/versions", ".local/share/uv/python", ".local/share/mise/installs", ".asdf/installs",
    ".nvm/versions", ".rustup/toolchains", ".rbenv/versions", "miniconda3", "anaconda3",
    "miniforge3", "mambaforge",
)  # fmt: skip
# Beside a directory of programs: what they load.
_BESIDE = ("lib", "lib64", "libexec")


@attrs.frozen
class Judge:
    """Says which directories of programs are shown to an agent."""

    agent: Agent
    workspace: str
    homes: tuple[str, ...]

    def toolchains(self, path: Sequence[str], command: str) -> tuple[Shown, ...]:
        """Return the directories on PATH that are not the system's, and what lies beside them.

        Where PATH has only a link to the command, also the directory that it is really in.
        """
        found: list[Shown] = []
        for entry in path:
            entry = os.path.normpath(entry)
            if any(contains(root, entry) for root in (*SYSTEM, self.workspace)):
                continue
            real = self._real(entry)
            if real and not any(contains(root, real) for root in SYSTEM):
                found += self._with_beside(real)
            if real and entry != real:
                found.append((real, entry))
        behind = self._behind(command, path)
        if behind:
            found += self._with_beside(behind)
        return tuple(dict.fromkeys(found))

    def _real(self, entry: str) -> str:
        """Return where a directory on PATH really is, empty where it is not to be shown."""
        try:
            real, links = links_of(entry)
        except OSError:
            return ""
        if any(contains(root, real) for root in SYSTEM):
            return real if not self._is_led(links, "") else ""
        return real if self._fit(real, links) else ""

    def _behind(self, command: str, path: Sequence[str]) -> str:
        """Return the directory that a command is really in, where only a link to it is seen."""
        candidates = [command] if "/" in command else [os.path.join(one, command) for one in path]
        for candidate in candidates:
            if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
                try:
                    real, links = links_of(candidate)
                except OSError:
                    return ""
                real = os.path.dirname(real)
                if not links or any(contains(root, real) for root in SYSTEM):
                    return ""
                return real if self._fit(real, links) else ""
        return ""

    def _fit(self, real: str, links: Sequence[Link]) -> bool:
        """Whether a directory that is not the system's may be shown."""
        if not os.path.isdir(real) or contains(self.workspace, real) or real == "/":
            return False
        if any(contains(real, home) for home in self.homes):
            return False
        home = home_of(real, self.homes)
        if not self._known(real, home):
            return False
        if self._is_led(links, home) and not _is_interpreter(real, home):
            return False
        if os.stat(real).st_mode & stat.S_IWOTH:
            return False
        return _reachable(real, self.agent.uid, self.agent.gid)

    def _with_beside(self, real: str) -> Iterator[Shown]:
        yield real, real
        if os.path.basename(real) not in ("bin", "sbin"):
            return
        for name in _BESIDE:
            beside = os.path.join(os.path.dirname(real), name)
            there = os.path.realpath(beside)  # lib64 is often a link to the lib beside it
            if os.path.dirname(there) == os.path.dirname(real) and os.path.isdir(there):
                if self._known(there, home_of(there, self.homes)):
                    yield there, beside

    def _known(self, real: str, home: str) -> bool:
        """Whether a directory is outside of homes, or where programs are installed in one."""
        if not home:
            return not is_private(real)
        places = [os.path.join(home, name) for name in _OF_A_HOME]
        top = next((one for one in places if contains(one, real)), "")
        return bool(top) and not is_private(real[len(top) :])

    def _is_led(self, links: Iterable[Link], home: str) -> bool:
        """Whether an agent may have led there: below a home, only from where it writes now."""
        led = self.agent.holds if home else self.agent.made
        return any(led(link) for link in links)


def _is_interpreter(real: str, home: str) -> bool:
    """Whether a directory is one of interpreters that were installed in a home."""
    return bool(home) and any(contains(os.path.join(home, one), real) for one in _INTERPRETERS)


def _reachable(path: str, uid: int, gid: int) -> bool:
    """Whether a user could look into a directory; the view shows nobody more than that."""
    while True:
        status = os.stat(path)
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not status.st_mode >> shift & 1:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)
