"""A real step-ca and a real Pebble on loopback, in directories of a test's own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from jwcrypto import jwk
from twisted.trial.unittest import SkipTest

from tests.support.agents import AgentCA, AgentCertificate, pem
from tests.support.gateway import ROOT, clean_environment
from tests.support.ports import free_port

TOOLS = ROOT / "build" / "tools"
START_SECONDS = 20.0
PROVISIONER = "slapenir-test"


def tool(name: str) -> Path:
    """Return a program that .ci/go-tools built, or skip the test."""
    path = TOOLS / name
    if not path.exists():
        raise SkipTest(f"build/tools/{name} is not there: .ci/go-tools makes it")
    return path


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when a port answers; raises AssertionError with the log's end."""
    import socket

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"it did not start: {log.read_text('utf-8', 'replace')[-1500:]}")


class StepCa:
    """step-ca; ``url``, ``root_fingerprint`` (hex), ``provisioner_key`` (a file)."""

    def __init__(self, directory: Path, http_port: int = 0) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self._http_port = http_port
        self._process: subprocess.Popen[bytes] | None = None
        root, issuing = _authorities(directory)
        self.root = root.certificate
        self.root_fingerprint = root.certificate.fingerprint(hashes.SHA256()).hex()
        (directory / "root.pem").write_bytes(pem([root.certificate]))
        AgentCertificate(issuing.certificate, issuing.key).write(directory, "issuing")
        key = jwk.JWK.generate(kty="EC", crv="P-256")
        key.update(kid=key.thumbprint(), use="sig", alg="ES256")
        self.provisioner_key = directory / "provisioner.jwk"
        self.provisioner_key.touch(0o600)
        self.provisioner_key.write_text(key.export_private(), "ascii")
        self._configure(json.loads(key.export_public()))

    def _configure(self, public: dict[str, str]) -> None:
        place = self.directory
        config = {
            "root": str(place / "root.pem"),
            "crt": str(place / "issuing.pem"),
            "key": str(place / "issuing.key"),
            "address": f"127.0.0.1:{self.port}",
            "dnsNames": ["localhost", "127.0.0.1"],
            "logger": {"format": "text"},
            "db": {"type": "badgerv2", "dataSource": str(place / "db")},
            "crl": {"enabled": True, "generateOnRevoke": True},
            "authority": {
                "provisioners": [
                    {"type": "JWK", "name": PROVISIONER, "key": public},
                    {"type": "ACME", "name": "acme"},
                ]
            },
        }
        (place / "ca.json").write_text(json.dumps(config), "utf-8")

    def start(self) -> None:
        """Start it and return when it answers."""
        log = self.directory / "step-ca.log"
        command = [str(tool("step-ca")), str(self.directory / "ca.json")]
        if self._http_port:
            command += ["--insecure", "--acme-http-port", str(self._http_port)]
        env = {**clean_environment(), "STEPPATH": str(self.directory), "HOME": str(self.directory)}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
            )
        wait_for(self._process, self.port, log)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Pebble:
    """Pebble, an ACME server for tests; ``url``, and ``roots`` once it was started."""

    def __init__(self, directory: Path, http_port: int) -> None:
        self.directory = directory
        self.port, self._management = free_port(), free_port()
        self.url = f"https://localhost:{self.port}/dir"
        server_ca = AgentCA("Pebble's own CA")
        from tests.support.agents import SERVER

        server_ca.issue(dns=["localhost"], usage=(SERVER,)).write(directory, "pebble")
        self.root = server_ca.certificate
        self.root_fingerprint = self.root.fingerprint(hashes.SHA256()).hex()
        config = {
            "pebble": {
                "listenAddress": f"127.0.0.1:{self.port}",
                "managementListenAddress": f"127.0.0.1:{self._management}",
                "certificate": str(directory / "pebble.pem"),
                "privateKey": str(directory / "pebble.key"),
                "httpPort": http_port,
                "tlsPort": 5001,
                "ocspResponderURL": "",
                "externalAccountBindingRequired": False,
            }
        }
        (directory / "pebble.json").write_text(json.dumps(config), "utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers; three nonces in ten are refused.

        A name that was verified once is not verified again.
        """
        log = self.directory / "pebble.log"
        env = {**clean_environment(), "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "100",
               "PEBBLE_WFE_NONCEREJECT": "30", "HOME": str(self.directory)}  # fmt: skip
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(tool("pebble")), "-config", str(self.directory / "pebble.json")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
            )
        wait_for(self._process, self.port, log)
        wait_for(self._process, self._management, log)

    def root_file(self) -> Path:
        """Return a file with the root of its TLS and the one it issues by."""
        import ssl
        import urllib.request

        context = ssl.create_default_context(cadata=pem([self.root]).decode("ascii"))
        with urllib.request.urlopen(
            f"https://localhost:{self._management}/roots/0", context=context, timeout=10
        ) as answer:
            issued_by = answer.read()
        path = self.directory / "roots.pem"
        path.write_bytes(pem([self.root]) + issued_by)
        return path

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _authorities(directory: Path) -> tuple[AgentCA, AgentCA]:
    os.makedirs(directory, 0o700, exist_ok=True)
    root = AgentCA("step-ca root")
    return root, AgentCA("step-ca issuing", root, 0)
