"""Everything that a sandbox is made of, decided before anything is made."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from slapenir.errors import ConfigErrors, SandboxError
from slapenir.sandbox.cgroups import Bounds
from slapenir.sandbox.view import View, check_workspace, is_visible, of_command

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
    """What will be done.  ``config`` is empty where only a running gateway is joined."""

    request: Request
    config: str
    gateway: str
    bundle: str
    uid: int
    gid: int
    rootless: bool
    view: View
    environment: dict[str, str]


def make_plan(request: Request, environ: Mapping[str, str]) -> Plan:
    """Decide everything; raises SandboxError or ConfigErrors with what to do about it."""
    rootless = request.rootless or os.geteuid() != 0
    workspace = os.path.realpath(request.workspace or os.getcwd())
    uid, gid, home, name = _user(request.user, workspace, environ, rootless)
    config, settings = find_configuration(request, environ)
    hidden = gateways_files(settings)
    check_workspace(workspace, hidden, _homes(home))
    path = [one for one in environ.get("PATH", _PATH).split(":") if one.startswith("/")]
    kept = os.path.realpath(request.home) if request.home else ""
    if kept:
        check_workspace(kept, hidden, _homes(home))
    shown = [_shown(one) for one in request.shown]
    view = View(
        workspace=workspace,
        home=home,
        uid=uid,
        gid=gid,
        kept=kept,
        hidden=hidden,
        shown=(*shown, *of_command(request.command[0], path)),
        path=tuple(path),
    )
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
    )


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
        owner = os.stat(workspace).st_uid if os.path.isdir(workspace) else 0
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


def _homes(home: str) -> list[str]:
    return [
        home,
        "/root",
        *(one.pw_dir for one in pwd.getpwall() if one.pw_dir.startswith("/home/")),
    ]


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
    kind, _, rest = settings.sandboxes.endpoint.partition(":")
    return rest.partition(":")[0] if kind == "unix" else ""


def gateways_files(settings: Settings | None) -> tuple[str, ...]:
    """Return the files and directories of the gateway that no agent may see or change."""
    if settings is None:
        return ("/etc/slapenir",)
    found = [settings.file, settings.gateway.state_dir, settings.gateway.audit, "/etc/slapenir"]
    found.append(os.path.join(os.path.dirname(settings.file), "slapenir.toml"))
    for one in settings.credentials:
        kind, _, name = one.source.partition(":")
        if kind == "file":
            found.append(name)
    return tuple(dict.fromkeys(os.path.realpath(one) for one in found))


def _shown(path: str) -> str:
    real = os.path.realpath(path)
    if not os.path.exists(real) or real in ("/", "/run", "/proc", "/sys", "/dev"):
        raise SandboxError(f"--ro {path} is not a file or directory to show", "check the path")
    return real
