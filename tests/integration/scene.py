"""One gateway for all tests of real clients, with the origins they talk to; made when first used.

Starting a gateway takes a second, and a client must not care who used it before: so it is shared.
Whoever needs another configuration starts a Gateway of their own.
"""

from __future__ import annotations

import atexit
import functools
import secrets
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from tests.support.certs import ThrowawayCA
from tests.support.gateway import (
    IDENTITY,
    ROOT,
    Credential,
    Gateway,
    Rule,
    clean_environment,
)
from tests.support.git_origin import git_origin, make_repository
from tests.support.index_origin import index_origin
from tests.support.llm_origin import credential_seen, llm_origin, told
from tests.support.origin import Origin, Request, Step, ok

API = "api.example.test"
OPENAI = "openai.example.test"
ANTHROPIC = "anthropic.example.test"
GIT = "git.example.test"
INDEX = "index.example.test"
CLIENTS = Path(__file__).resolve().parent / "clients"
CLIENT_SECONDS = 60.0
BEARER = '{ header = "Authorization", scheme = "Bearer" }'
BASIC = '{ basic = "password" }'


def new_secret(prefix: str, length: int = 40) -> str:
    """Return a fresh random secret of letters and digits after a prefix."""
    alphabet = string.ascii_letters + string.digits
    return prefix + "".join(secrets.choice(alphabet) for _ in range(length))


def echo(request: Request) -> Iterable[Step]:
    """Answer with the credential that came, in a header, raw, in base64, hex and JSON."""
    key = credential_seen(request)
    body = f'{{"method":"{request.method.decode()}","said":"{told(key)}","hex":"{key.hex()}"}}'
    return [ok(body.encode("latin-1"), b"Content-Type: application/json", b"X-Echo-Key: " + key)]


@attrs.frozen
class Ran:
    """What a client did: its exit status and every byte it printed."""

    status: int
    output: bytes


@attrs.define
class Scene:
    """The running gateway, its origins by host name, its credentials by id."""

    directory: Path
    ca: ThrowawayCA
    credentials: dict[str, Credential]
    origins: dict[str, Origin]
    gateway: Gateway
    environment: dict[str, str] = attrs.field(factory=dict)
    _workspace: Path | None = attrs.field(init=False, default=None)

    def url(self, host: str, path: str = "/", user: str = "") -> str:
        """Return the https URL of a path at an origin."""
        return f"https://{user}{'@' if user else ''}{host}:{self.origins[host].port}{path}"

    def run(self, argv: Sequence[str | Path], cwd: Path | None = None, **env: str) -> Ran:
        """Run a client as an agent: nothing but what ``slapenir env`` printed, and ``env``."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        done = subprocess.run(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self.environment, "HOME": str(home), "PIP_CONFIG_FILE": "/dev/null", **env},
            cwd=cwd or self.directory,
            timeout=CLIENT_SECONDS,
        )
        return Ran(done.returncode, done.stdout)

    def run_sandboxed(
        self, argv: Sequence[str | Path], *, shown: Iterable[str | Path] = (), **env: str
    ) -> Ran:
        """Run a client in a sandbox as ``slapenir run`` makes it, with no proxy variable.

        Its workspace is ``sandbox_workspace``; ``shown`` are more paths that it sees.
        """
        run = [sys.executable, "-m", "slapenir.cli", "run", "--user", "nobody"]
        run += ["--gateway", str(self.directory / "join.sock"), "--identity", IDENTITY]
        run += ["--workspace", str(self.sandbox_workspace)]
        for path in shown:
            run += ["--ro", str(path)]
        for name, value in env.items():
            run += ["--env", f"{name}={value}"]
        done = subprocess.run(
            [*run, "--", *(str(part) for part in argv)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**clean_environment(), "PYTHONPATH": str(ROOT)},
            timeout=CLIENT_SECONDS,
        )
        return Ran(done.returncode, done.stdout)

    @property
    def sandbox_workspace(self) -> Path:
        """A directory outside of the scene's, which is private, that sandboxes write to."""
        if self._workspace is None:
            self._workspace = Path(tempfile.mkdtemp(prefix="slapenir-work-"))
            self._workspace.chmod(0o777)
        return self._workspace

    def run_python(self, script: str, *arguments: str, **env: str) -> Ran:
        """Run one of the programs in ``clients`` with this interpreter."""
        return self.run([sys.executable, CLIENTS / script, *arguments], None, **env)

    def close(self) -> None:
        """Stop everything and remove the directory."""
        self.gateway.stop()
        for origin in self.origins.values():
            origin.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._workspace is not None:
            shutil.rmtree(self._workspace, ignore_errors=True)


def _credentials() -> dict[str, Credential]:
    """One credential a host, named as its rule; Anthropic's SDKs use either of its headers."""
    either = ('{ header = "x-api-key" }', BEARER)
    made = (
        Credential("api", new_secret("key-"), (API,), (BEARER,), "DUMMY_API_KEY", "API_KEY"),
        Credential("openai", new_secret("sk-proj-"), (OPENAI,), (BEARER,), None, "OPENAI_API_KEY"),
        Credential(
            "anthropic",
            new_secret("sk-ant-api03-"),
            (ANTHROPIC,),
            either,
            None,
            "ANTHROPIC_API_KEY",
        ),
        Credential("git", new_secret("ghp_", 36), (GIT,), (BASIC,), None, "GIT_TOKEN"),
        Credential("index", new_secret("pypi-"), (INDEX,), (BASIC,), "DUMMY_INDEX", "INDEX_TOKEN"),
    )
    return {one.id: one for one in made}


def make_scene() -> Scene:
    """Start the origins and the gateway; raises GatewayFailed."""
    directory = Path(tempfile.mkdtemp(prefix="slapenir-test-"))
    ca = ThrowawayCA(directory)
    credentials = _credentials()
    repositories = directory / "repositories"
    repositories.mkdir()
    make_repository(repositories, "repo.git")
    origins = {
        API: Origin(echo, ca.server_context(API)),
        OPENAI: llm_origin(ca.server_context(OPENAI)),
        ANTHROPIC: llm_origin(ca.server_context(ANTHROPIC)),
        GIT: git_origin(ca.server_context(GIT), repositories, credentials["git"].secret),
        INDEX: index_origin(ca.server_context(INDEX), credentials["index"].secret),
    }
    rules = [
        Rule(one.id, one.hosts, (origins[one.hosts[0]].port,), (one.id,))
        for one in credentials.values()
    ]
    place = directory / "gateway"
    place.mkdir(mode=0o700)
    ports = {host: origin.port for host, origin in origins.items()}
    table = f'[sandboxes]\nendpoint = "unix:{directory}/join.sock:mode=600"\n'
    gateway = Gateway(place, list(credentials.values()), rules, ports, ca.ca_file, extra=table)
    scene = Scene(directory, ca, credentials, origins, gateway)
    atexit.register(scene.close)
    gateway.start()
    scene.environment.update(gateway.client_environment())
    return scene


@functools.cache
def shared_scene() -> Scene:
    """Return the one scene of this test run."""
    return make_scene()
