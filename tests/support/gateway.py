"""A real gateway for tests: ``twistd -n slapenir --config FILE`` in a directory of its own.

The configuration is written here; secrets reach the process by its environment, as an operator
would do it.  Everything is on loopback: origins are names mapped to 127.0.0.1 by ``[resolver]``.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
IDENTITY = "sandbox"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
COMMAND_SECONDS = 30.0

CA_VARIABLES = (
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",
    "HTTPLIB2_CA_CERTS",
    "JAVA_TOOL_OPTIONS",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "WGETRC",
)
"""Variables by which a machine hands its own CA to clients: unset for every client under test."""


class GatewayFailed(Exception):
    """The gateway or one of its commands did not do what it should; the text is its output."""


@attrs.frozen
class Credential:
    """One ``[[credential]]``; ``inject`` holds TOML inline tables.  ``secret`` is not shown.

    ``variable`` is where the agent finds its placeholder.
    """

    id: str
    secret: str = attrs.field(repr=False)
    hosts: tuple[str, ...]
    inject: tuple[str, ...]
    placeholder: str | None = None
    variable: str | None = None

    @property
    def source_variable(self) -> str:
        """The environment variable the gateway reads the secret from."""
        return "TEST_SECRET_" + self.id.upper().replace("-", "_")

    def toml(self) -> str:
        """Return the table."""
        lines = ["[[credential]]", f'id = "{self.id}"', f'source = "env:{self.source_variable}"']
        if self.placeholder is not None:
            lines.append(f'placeholder = "{self.placeholder}"')
        if self.variable is not None:
            lines.append(f'variable = "{self.variable}"')
        lines += [f"hosts = {_strings(self.hosts)}", f"inject = [{', '.join(self.inject)}]"]
        return "\n".join(lines) + "\n"


@attrs.frozen
class Rule:
    """One ``[[rule]]`` for the identity of the test's listener."""

    id: str
    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    credentials: tuple[str, ...] = ()
    scheme: str = "https"
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    action: str = "allow"

    def toml(self) -> str:
        """Return the table; empty tuples are left out, since an empty list is refused."""
        lines = ["[[rule]]", f'id = "{self.id}"', f'identities = ["{IDENTITY}"]']
        lines += [f"hosts = {_strings(self.hosts)}", f'scheme = "{self.scheme}"']
        lines += [f"ports = [{', '.join(map(str, self.ports))}]", f'action = "{self.action}"']
        for key in ("credentials", "methods", "paths"):
            values: tuple[str, ...] = getattr(self, key)
            if values:
                lines.append(f"{key} = {_strings(values)}")
        return "\n".join(lines) + "\n"


def _strings(values: Sequence[str]) -> str:
    return "[" + ", ".join(json.dumps(value) for value in values) + "]"


def clean_environment() -> dict[str, str]:
    """Return this process's environment without proxies, CAs and settings of single clients."""
    return {
        key: value
        for key, value in os.environ.items()
        if key not in CA_VARIABLES
        and not key.upper().startswith(("PIP_", "GIT_", "NPM_CONFIG_"))
        and key.lower() not in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    }


@attrs.define
class Gateway:
    """A gateway process: ``start()``, then ``proxy_url``, ``ca_file``, ``audit()``, ``stop()``.

    ``hosts`` maps each origin's name to its loopback port.  ``extra`` is TOML put at the end, and
    ``gateway_extra`` goes into ``[gateway]``.  ``wrapper`` is a command that runs the process.
    """

    directory: Path
    credentials: Sequence[Credential]
    rules: Sequence[Rule]
    hosts: Mapping[str, int]
    origin_ca: Path
    extra: str = ""
    gateway_extra: str = ""
    port: int = attrs.field(factory=free_port)
    admin_port: int = attrs.field(factory=free_port)
    extra_environment: dict[str, str] = attrs.field(factory=dict)
    wrapper: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = attrs.field(init=False, default=None)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process; raises GatewayFailed before ``start()``."""
        if self._process is None:
            raise GatewayFailed("the gateway was not started")
        return self._process

    @property
    def proxy_url(self) -> str:
        """What a client puts into HTTPS_PROXY."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def config_file(self) -> Path:
        """The TOML file."""
        return self.directory / "slapenir.toml"

    @property
    def ca_file(self) -> Path:
        """The CA a client has to trust, exported when the gateway was started."""
        return self.directory / "sandbox-ca.pem"

    @property
    def log_file(self) -> Path:
        """Everything the process wrote to its standard output and error."""
        return self.directory / "output.log"

    @property
    def audit_directory(self) -> Path:
        """Where audit and access logs are."""
        return self.directory / "audit"

    def toml(self) -> str:
        """Return the configuration."""
        names = ", ".join(f'"{name}" = ["127.0.0.1"]' for name in self.hosts)
        private = _strings([f"127.0.0.1:{port}" for port in sorted(set(self.hosts.values()))])
        head = (
            f"[gateway]\nstate_dir = {json.dumps(str(self.directory / 'state'))}\n"
            f'admin = "tcp:{self.admin_port}:interface=127.0.0.1"\n'
            f"audit = {json.dumps(str(self.audit_directory))}\n{self.gateway_extra}\n"
            f'[[listener]]\nendpoint = "tcp:{self.port}:interface=127.0.0.1"\n'
            f'mode = "explicit"\nidentity = "{IDENTITY}"\n\n'
            f"[resolver]\nhosts = {{ {names} }}\nallow_private = {private}\n\n"
            f"[origin]\nca_file = {json.dumps(str(self.origin_ca))}\n\n"
        )
        tables = [one.toml() for one in self.credentials] + [one.toml() for one in self.rules]
        return head + "\n".join(tables) + self.extra

    def environment(self) -> dict[str, str]:
        """Return the gateway's own environment: this one's, cleaned, with the secrets."""
        env = clean_environment()
        env.update({one.source_variable: one.secret for one in self.credentials})
        env["PYTHONPATH"] = str(ROOT)
        return {**env, **self.extra_environment}

    def command(self, *arguments: str) -> str:
        """Run ``slapenir ARGUMENTS`` with the gateway's environment and return what it printed.

        Raises GatewayFailed when it exits with anything but 0.
        """
        done = subprocess.run(
            [sys.executable, "-m", "slapenir.cli", *arguments],
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=self.directory,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode != 0:
            text = (done.stdout + done.stderr).strip()
            raise GatewayFailed(f"slapenir {arguments[0]} exited {done.returncode}: {text}")
        return done.stdout

    def prepare(self) -> None:
        """Write the configuration, make the CA, and export its certificate."""
        self.audit_directory.mkdir(mode=0o700, exist_ok=True)
        self.config_file.write_text(self.toml(), "utf-8")
        self.command("ca", "init", str(self.config_file))
        self.ca_file.write_text(self.command("ca", "export", str(self.config_file)), "ascii")

    def start(self) -> None:
        """Prepare and launch."""
        self.prepare()
        self.launch()

    def launch(self) -> None:
        """Start the process and return when ``/readyz`` answers 200; raises GatewayFailed."""
        twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
        arguments = ["-n", "--pidfile=", "slapenir", "--config", str(self.config_file)]
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [*self.wrapper, *twistd, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                cwd=self.directory,
            )
        deadline = time.monotonic() + START_SECONDS
        while self.admin_get("/readyz")[0] != 200:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise GatewayFailed(f"the gateway did not get ready: {self.log()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> int | None:
        """Terminate the process, kill it when it lingers; return its exit status."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def admin_get(self, path: str) -> tuple[int, str]:
        """GET from the admin endpoint; status 0 when nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5.0)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8")
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def log(self) -> str:
        """Return what the process wrote to its standard output and error."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def records(self) -> list[dict[str, Any]]:
        """Return every record of every JSON-lines file in the audit directory, file by file."""
        lines: list[dict[str, Any]] = []
        for path in sorted(self.audit_directory.iterdir()):
            lines += [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
        return lines

    def written(self) -> bytes:
        """Return all bytes the gateway wrote to disk that are not its own keys and CA."""
        data = self.log_file.read_bytes() if self.log_file.exists() else b""
        for path in sorted(self.audit_directory.iterdir()):
            data += path.read_bytes()
        return data

    def client_environment(self) -> dict[str, str]:
        """Return a sandbox's environment: nothing of the machine's CAs, plus ``slapenir env``."""
        env = clean_environment()
        text = self.command("env", str(self.config_file), "--identity", IDENTITY)
        for word in shlex.split(text, comments=True):
            name, equals, value = word.partition("=")
            if equals:
                env[name] = value
        return env
