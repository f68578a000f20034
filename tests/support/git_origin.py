"""A git server for tests: ``git http-backend`` behind Basic authentication, over TLS.

Like the LLM origin it gives away the credential it saw, in a header of every answer.
"""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.support.origin import Origin, Request, Step, ok

GIT_SECONDS = 30.0


def git(*arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> bytes:
    """Run git in ``cwd`` and return its output; raises CalledProcessError."""
    return subprocess.run(
        ["git", *map(str, arguments)],
        cwd=cwd,
        env=env,
        check=True,
        capture_output=True,
        timeout=GIT_SECONDS,
    ).stdout


def make_repository(root: Path, name: str) -> None:
    """Make a bare repository with one commit on ``main`` that accepts pushes over HTTP."""
    bare = root / name
    identity = {"NAME": "test", "EMAIL": "test@example.test"}
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    for key, value in identity.items():
        env[f"GIT_AUTHOR_{key}"] = env[f"GIT_COMMITTER_{key}"] = value
    git("init", "-q", "--bare", "-b", "main", bare, cwd=root, env=env)
    git("config", "http.receivepack", "true", cwd=bare, env=env)
    work = root / f"{name}.work"
    git("init", "-q", "-b", "main", work, cwd=root, env=env)
    (work / "file.txt").write_text("first\n", "ascii")
    git("add", "file.txt", cwd=work, env=env)
    git("commit", "-q", "-m", "first", cwd=work, env=env)
    git("push", "-q", bare, "main", cwd=work, env=env)


def basic_password(request: Request) -> str | None:
    """Return the password of the request's Basic credentials, None when it has none."""
    scheme, _, blob = (request.header(b"authorization") or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    return base64.b64decode(blob, validate=True).partition(b":")[2].decode("utf-8")


def git_origin(tls: ssl.SSLContext, root: Path, password: str) -> Origin:
    """Return a listening origin that serves the repositories below ``root`` to ``password``."""

    def respond(request: Request) -> Iterable[Step]:
        echo = b"X-Echo-Authorization: " + (request.header(b"authorization") or b"none")
        if basic_password(request) != password:
            ask = b'WWW-Authenticate: Basic realm="git"'
            return [ok(b"who are you?", ask, echo, status=b"401 Unauthorized")]
        return [_backend(request, root, echo)]

    return Origin(respond, tls)


def _backend(request: Request, root: Path, echo: bytes) -> bytes:
    """Run the CGI program for one request and return its answer."""
    path, _, query = request.target.decode("ascii").partition("?")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REMOTE_USER": "agent",
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_METHOD": request.method.decode("ascii"),
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(request.body)),
    }
    for variable, name in (
        ("CONTENT_TYPE", b"content-type"),
        ("HTTP_CONTENT_ENCODING", b"content-encoding"),
        ("HTTP_GIT_PROTOCOL", b"git-protocol"),
        ("GIT_PROTOCOL", b"git-protocol"),
    ):
        value = request.header(name)
        if value is not None:
            env[variable] = value.decode("ascii")
    done = subprocess.run(
        ["git", "http-backend"],
        input=request.body,
        env=env,
        capture_output=True,
        timeout=GIT_SECONDS,
        check=True,
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    status = b"200 OK"
    for line in [line for line in lines if line.lower().startswith(b"status:")]:
        lines.remove(line)
        status = line.partition(b":")[2].strip()
    return ok(body, *lines, echo, status=status)
