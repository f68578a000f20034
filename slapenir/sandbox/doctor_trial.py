"""The doctor's trial: a gateway of its own, a server behind it, one beside it, and a sandbox."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from slapenir.errors import SandboxError
from slapenir.pki.authority import CertificateAuthority
from slapenir.pki.leaves import LeafMinter
from slapenir.sandbox import (
    doctor_check,
    doctor_clients,
    doctor_dial,
    doctor_inside,
    doctor_probes,
)
from slapenir.sandbox.doctor_canary import Canary, own_addresses, unix_sockets, writable_places
from slapenir.sandbox.doctor_check import CLIENTS, FAILED, HOLE, HOLES, OK, SKIPPED, Finding
from slapenir.sandbox.doctor_origin import NAME, Origin
from slapenir.sandbox.tools import ISOLATED, for_python
from slapenir.sandbox.view import interpreter

VARIABLE = "DOCTOR_API_KEY"
INSIDE = (doctor_check, doctor_clients, doctor_dial, doctor_inside, doctor_probes)
"""The modules that go into the sandbox."""

_SECONDS = 900.0
_NOBODY = 65534
_MAIN = "import sys\nfrom slapenir.sandbox.doctor_inside import main\nmain(sys.argv[1])\n"
_CONFIG = """
[gateway]
state_dir = "{top}/state"
audit = "{top}/audit"
admin = ""
ca_bundle = "{top}/agent-ca.pem"

[[listener]]
endpoint = "tcp:8443:interface=127.0.0.1"
identity = "doctor"

[resolver]
hosts = {{ "{name}" = ["127.0.0.1"] }}
allow_private = ["127.0.0.1:{port}"]

[origin]
ca_file = "{top}/origin/ca.pem"

[[credential]]
id = "doctor"
source = "env:{variable}"
hosts = ["{name}"]
inject = [{{ header = "Authorization", scheme = "Bearer" }}, {{ basic = "password" }}]

[[rule]]
id = "doctor"
identities = ["doctor"]
hosts = ["{name}"]
ports = [{port}]
credentials = ["doctor"]
"""


@attrs.frozen
class Trial:
    """What a sandbox is tried with; ``reachable`` says why the canary proves nothing, or is empty.

    ``top`` is the gateway's directory, ``workspace`` what the sandbox may write to.
    """

    top: str
    workspace: str
    secret: str
    origin: Origin
    canary: Canary
    marker: str
    unreachable: str
    directories: list[str]

    def task(self) -> dict[str, Any]:
        """Return what the part inside is told; no secret is in it."""
        known = [self.canary.abstract, *unix_sockets()]
        return {
            "variable": VARIABLE,
            "name": NAME,
            "port": self.origin.port,
            "token": self.canary.token,
            "hosts": [] if self.unreachable else self.canary.hosts,
            "loopback": self.canary.loopback,
            "tcp": self.canary.tcp_port,
            "udp": self.canary.udp_port,
            "sockets": list(dict.fromkeys(known)),
            "directories": self.directories,
            "marker": self.marker,
            "files": [f"{self.top}/state", f"{self.top}/slapenir.toml", "/etc/slapenir"],
            "process": f"{self.top}/slapenir.toml",
            "quick": True,
        }

    def judge(self, found: Mapping[str, Any]) -> list[Finding]:
        """Return what the part inside found, beside what was seen from outside."""
        checks = [Finding(*one) for one in found["checks"]]
        checks = [self._written(one) if one.name == "writing to the host" else one
                  for one in checks]  # fmt: skip
        arrived = list(dict.fromkeys([*self.canary.arrived, *self.origin.forged()]))
        seen = HOLE if arrived else SKIPPED if self.unreachable else OK
        detail = "; ".join(arrived[:3]) or self.unreachable or "nothing arrived"
        checks.append(Finding(HOLES, "seen from outside", seen, detail, "see the lines above"))
        leaked = _holds(json.dumps(found["environment"]), self.secret)
        checks.append(
            Finding(
                HOLES,
                "the key in the environment",
                HOLE if leaked else OK,
                "the sandbox was given the key" if leaked else "a placeholder stands for it",
                "take it out of --env",
            )
        )
        return [*(self._client(one) for one in found["clients"]), *checks]

    def _written(self, check: Finding) -> Finding:
        there = []
        for directory in self.directories:
            path = os.path.join(directory, self.marker)
            if os.path.lexists(path):
                there.append(path)
                os.unlink(path)
        if not there:
            return check
        remedy = "mount the workspace only for writing"
        return Finding(HOLES, check.name, HOLE, f"written: {', '.join(there[:3])}", remedy)

    def _client(self, ran: Mapping[str, Any]) -> Finding:
        name, output = ran["name"], str(ran.get("output", ""))
        if "missing" in ran:
            return Finding(CLIENTS, name, SKIPPED, ran["missing"])
        if _holds(output, self.secret):
            return Finding(CLIENTS, name, HOLE, "the key is in its output", "tell its maintainers")
        keys = self.origin.keys_of(name)
        words = [line.strip() for line in output.splitlines() if line.strip()]
        telling = [line for line in words if "rror" in line and "complete log" not in line]
        last = (telling or words or ["it said nothing"])[-1][:120]
        remedy = "see docs/clients.rst for what it has to be told"
        if not keys:
            return Finding(CLIENTS, name, FAILED, f"its request did not arrive: {last}", remedy)
        authenticates = {one.name: one.authenticates for one in doctor_clients.CLIENTS}[name]
        if authenticates and self.secret not in keys:
            return Finding(CLIENTS, name, FAILED, "its request arrived without the key", remedy)
        if ran["status"]:
            return Finding(CLIENTS, name, FAILED, f"it ended with {ran['status']}: {last}", remedy)
        detail = "the server saw the key, it did not" if authenticates else "its request arrived"
        return Finding(CLIENTS, name, OK, f"{detail} ({ran['seconds']:.1f} s)")


def _holds(text: str, secret: str) -> bool:
    """Whether a secret is in a text: raw, in hex, or in base64 at each alignment."""
    raw = secret.encode()
    coded = [base64.b64encode(b"x" * pad + raw)[4:-4].decode() for pad in range(3)]
    return any(form in text for form in (secret, raw.hex(), *coded))


@contextlib.contextmanager
def trial(uid: int, hosts: list[str] | None = None) -> Iterator[Trial]:
    """Make everything but the sandbox, whose user is ``uid``, and remove it at the end.

    ``hosts`` are the addresses where the canary listens, by default the host's own.
    """
    with contextlib.ExitStack() as undo:
        top = undo.enter_context(tempfile.TemporaryDirectory(prefix="slapenir-doctor-"))
        workspace = undo.enter_context(tempfile.TemporaryDirectory(prefix="slapenir-trial-"))
        if os.geteuid() == 0:
            os.chown(workspace, uid, -1)
        for name in ("state", "audit", "origin"):
            os.mkdir(f"{top}/{name}", 0o700)
        authority = CertificateAuthority.create(f"{top}/origin", "SLAPENIR doctor's origin CA")
        leaf = LeafMinter(authority, time.time).mint(NAME)
        pair = f"{top}/origin/leaf.pem"
        with open(os.open(pair, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(leaf.certificate_pem + leaf.key_pem)
        origin = Origin(pair)
        undo.callback(origin.close)
        canary = Canary(own_addresses() if hosts is None else hosts, origin.port, pair)
        undo.callback(canary.close)
        with open(os.open(f"{top}/slapenir.toml", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(_CONFIG.format(top=top, name=NAME, port=origin.port, variable=VARIABLE))
        yield Trial(
            top=top,
            workspace=workspace,
            secret="key-" + secrets.token_hex(24),
            origin=origin,
            canary=canary,
            marker=f"slapenir-doctor-{secrets.token_hex(8)}",
            unreachable=canary.answers(),
            directories=writable_places(workspace),
        )


def sandbox_user(environ: Mapping[str, str]) -> int:
    """Return whom the trial's sandbox runs as: this user, or for root who called sudo."""
    sudo = environ.get("SUDO_UID", "")
    return os.geteuid() or (int(sudo) if sudo.isdigit() and int(sudo) else _NOBODY)


def run_trial(environ: Mapping[str, str], say: Callable[[str], None]) -> list[Finding]:
    """Make a sandbox by ``slapenir run`` and try it; raises SandboxError when there is none."""
    uid = sandbox_user(environ)
    with trial(uid) as made:
        given = {k: v for k, v in for_python(environ).items() if k != "SLAPENIR_CONFIG"}
        given[VARIABLE] = made.secret
        _command(["ca", "init", f"{made.top}/slapenir.toml"], given)
        _write(f"{made.workspace}/doctor.pyz", archive())
        _write(f"{made.workspace}/task.json", json.dumps(made.task()).encode())
        words = ["run", "--config", f"{made.top}/slapenir.toml", "--workspace", made.workspace]
        words += ["--user", str(uid)] if os.geteuid() == 0 else []
        python, _ = interpreter()
        words += ["--", python, "-I", "-S", f"{made.workspace}/doctor.pyz", made.workspace]
        say("trying clients and ways out in a sandbox; this takes up to a minute")
        said = _command(words, given)
        try:
            # The sandbox's user made it: a link must not lead to another file.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with open(os.open(f"{made.workspace}/found.json", flags), encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            raise SandboxError(f"the trial in the sandbox told nothing: {said[-500:]}") from None
        return made.judge(found)


def archive() -> bytes:
    """Return the modules that go into the sandbox as an archive that Python runs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("__main__.py", _MAIN)
        file.writestr("slapenir/__init__.py", "")
        file.writestr("slapenir/sandbox/__init__.py", "")
        for module in INSIDE:
            name = module.__name__.replace(".", "/")
            file.write(str(module.__file__), f"{name}.py")
    return buffer.getvalue()


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o644)


def _command(words: list[str], environ: Mapping[str, str]) -> str:
    """Run one of our own commands; return what it said.  Raises SandboxError."""
    command = [sys.executable, *ISOLATED, "-m", "slapenir.cli", *words]
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(f"slapenir {words[0]} did not end in {_SECONDS:.0f} s") from None
    if done.returncode:
        raise SandboxError(f"slapenir {words[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout + done.stderr
