"""Everything that a sandbox is made of, decided before anything is made."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from slapenir.errors import ConfigErrors, SandboxError
from slapenir.sandbox.cgroups import Bounds, physical_memory
from slapenir.sandbox.covers import MOST_ENTRIES, SOCKET_PLACES, find_sockets
from slapenir.sandbox.links import Agent, contains, resolve
from slapenir.sandbox.places import Belongings, check_writable, every_name, homes, private_place
from slapenir.sandbox.toolchains import Judge
from slapenir.sandbox.view import View, is_visible, mounts

if TYPE_CHECKING:
    from slapenir.config.settings import Settings

# What passes of the environment: what programs need to show text, and no more.
_PASSED = (
    "COLORTERM", "COLUMNS", "EDITOR", "LANG", "LANGUAGE", "LINES", "NO_COLOR", "PAGER",
    "TERM", "TERM_PROGRAM", "TZ", "VISUAL",
)  # fmt: skip
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SOCKET = "/run/slapenir/sandboxes.sock"
_NOBODY = 65534
_INCOMPLETE = (
    f"{', '.join(SOCKET_PLACES)} hold more than {MOST_ENTRIES} files; "
    "sockets of the host further down can be reached"
)


@attrs.frozen(kw_only=True)
class Request:
    """What the command line asked for."""

    command: tuple[str, ...]
    config: str = ""
    gateway: str = ""
    identity: str = ""
    rootless: bool = False
    workspace: str = ""
    home: str = ""
    user: str = ""
    restart: bool = False
    shown: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    bounds: Bounds = attrs.field(factory=Bounds)
    asked: Bounds = attrs.field(factory=Bounds)


@attrs.frozen(kw_only=True)
class Plan:
    """What will be done.  ``config`` is empty where only a running gateway is joined.

    ``scratch`` is where private directories are made, and ``notes`` what a person should know.
    """

    request: Request
    config: str
    gateway: str
    bundle: str
    uid: int
    gid: int
    rootless: bool
    view: View
    environment: dict[str, str]
    scratch: str
    notes: tuple[str, ...] = ()


def make_plan(request: Request, environ: Mapping[str, str]) -> Plan:
    """Decide everything; raises SandboxError or ConfigErrors with what to do about it."""
    rootless = request.rootless or os.geteuid() != 0
    uid, gid, home, name = _user(request.user, request.workspace, environ, rootless)
    config, settings = find_configuration(request, environ)
    path = [one for one in environ.get("PATH", _PATH).split(":") if one.startswith("/")]
    known = homes(home, environ.get("HOME", ""), uids=(uid, os.geteuid()))
    agent = Agent(uid, gid, anybody=os.geteuid() == 0)
    view = _view(request, agent, home, gateways_files(settings, request.gateway), known)
    judge = Judge(attrs.evolve(agent, trees=_trees(view)), view.workspace, known)
    found, complete = find_sockets(SOCKET_PLACES)
    view = attrs.evolve(
        view,
        toolchains=judge.toolchains(path, request.command[0]),
        sockets=tuple(one for one in found if not any(contains(w, one) for w in _trees(view))),
    )
    mounts(view)  # what cannot be covered is refused before anything is made
    environment = {
        **{key: value for key, value in environ.items() if _passes(key)},
        **_named(request.environment, environ),
        "PATH": ":".join(one for one in path if is_visible(one, view)) or _PATH,
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": "/bin/sh",
        "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own
        "SLAPENIR_SANDBOX": "1",
    }
    return Plan(
        request=request,
        config=config,
        gateway=request.gateway or joining_socket(settings),
        bundle=settings.origin.ca_file if settings else "/etc/ssl/certs/ca-certificates.crt",
        uid=uid,
        gid=gid,
        rootless=rootless,
        view=view,
        environment=environment,
        scratch=private_place((*_trees(view), *view.sources)),
        notes=() if complete else (_INCOMPLETE,),
    )


def _view(
    request: Request, agent: Agent, home: str, belongings: Belongings, known: tuple[str, ...]
) -> View:
    """Return what the options ask to see, every one judged by where it really leads."""
    workspace = resolve(request.workspace or os.getcwd(), "--workspace", agent)
    check_writable(workspace, "--workspace", belongings, known)
    agent = attrs.evolve(agent, trees=(workspace,))
    kept = ""
    if request.home:
        kept = resolve(request.home, "--home", agent)
        check_writable(kept, "--home", belongings, known)
        agent = attrs.evolve(agent, trees=(workspace, kept))
    return View(
        workspace=workspace,
        home=home,
        uid=agent.uid,
        gid=agent.gid,
        kept=kept,
        hidden=belongings.hidden,
        shown=tuple(_shown(one, agent) for one in request.shown),
        memory=request.asked.memory or physical_memory(),
    )


def _trees(view: View) -> tuple[str, ...]:
    """Return where on the host the sandbox may write."""
    return (view.workspace, view.kept) if view.kept else (view.workspace,)


def _passes(key: str) -> bool:
    return key in _PASSED or key.startswith("LC_")


def _named(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what ``--env NAME`` and ``--env NAME=VALUE`` say."""
    found = {}
    for one in names:
        key, equals, value = one.partition("=")
        if not key or (not equals and key not in environ):
            raise SandboxError(f"--env {key or one} names nothing that is set", "write NAME=VALUE")
        found[key] = value if equals else environ[key]
    return found


def _user(
    wanted: str, workspace: str, environ: Mapping[str, str], rootless: bool
) -> tuple[int, int, str, str]:
    """Return uid, gid, home and name of whom the command runs as; never root itself.

    Root says ``--user``; else it is who called sudo, else the workspace's owner, else nobody.
    """
    if rootless and os.geteuid() != 0:
        if wanted:
            raise SandboxError("only root can choose a user", "leave --user out")
        uid = os.geteuid()
    elif wanted:
        try:
            uid = int(wanted) if wanted.isdigit() else pwd.getpwnam(wanted).pw_uid
        except KeyError:
            raise SandboxError(f"there is no user {wanted}", "name one of /etc/passwd") from None
    else:
        place = workspace or os.getcwd()
        owner = os.stat(place).st_uid if os.path.isdir(place) else 0
        sudo = environ.get("SUDO_UID", "")
        uid = int(sudo) if sudo.isdigit() and int(sudo) else owner or _NOBODY
    if uid == 0:
        raise SandboxError("the command must not run as root", "name another --user")
    try:
        entry = pwd.getpwuid(uid)
        gid, home, name = entry.pw_gid, entry.pw_dir, entry.pw_name
    except KeyError:
        gid, home, name = uid, "", "agent"
    if not home.startswith(("/home/", "/root")) or "/../" in home:
        home = "/home/agent"
    return uid, gid, home, name


def find_configuration(request: Request, environ: Mapping[str, str]) -> tuple[str, Settings | None]:
    """Find and read the configuration; never one in the working directory, which may be anybody's.

    Without one that can be read, a running gateway at the usual place is enough.
    """
    own = os.path.join(
        environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "slapenir"
    )
    named = request.config or environ.get("SLAPENIR_CONFIG", "")
    places = [named] if named else [f"{own}/slapenir.toml", "/etc/slapenir/slapenir.toml"]
    for place in places:
        if named or os.access(place, os.R_OK):
            path = os.path.abspath(place)
            from slapenir.config.load import load  # not needed to join a gateway that runs

            try:
                return path, load(path)
            except ConfigErrors:
                if request.gateway:
                    return "", None
                raise
    if request.gateway or os.path.exists(SOCKET):
        return "", None
    raise SandboxError(
        "there is no configuration and no gateway",
        f"run: slapenir init {own}",
    )


def joining_socket(settings: Settings | None) -> str:
    """Return the path of the socket where a running gateway would be joined."""
    if settings is None:
        return SOCKET
    from slapenir.config.files import socket_path

    return socket_path(settings.sandboxes.endpoint)


def gateways_files(settings: Settings | None, socket: str) -> Belongings:
    """Return the files and directories of the gateway that no agent may see or change.

    ``socket`` is where it is joined, if the command line says so.
    """
    usual = ("/etc/slapenir", SOCKET, *filter(None, [socket]))
    if settings is None:
        return Belongings(every_name(usual))
    from slapenir.config.files import files_of

    files = files_of(settings)
    beside = os.path.join(os.path.dirname(settings.file), "slapenir.toml")
    return Belongings(every_name((*files.secret, beside, *usual)), every_name(files.open))


def _shown(path: str, agent: Agent) -> str:
    real = resolve(path, "--ro", agent)
    if real in ("/", "/run", "/proc", "/sys", "/dev"):
        raise SandboxError(
            f"--ro {path} would show {real}, with what the sandbox is there to hide",
            "name what is needed of it",
        )
    return real
