"""``tls = "managed"`` with the embedded CA: enrol, use, revoke, rotate, with real processes."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from slapenir.issuance.stepca_provider import minted_tokens, wanted_of
from slapenir.pki.held import Held, from_pem, new_key
from tests.integration.case import need
from tests.integration.scene import BEARER, echo, new_secret
from tests.support.agents import spiffe
from tests.support.certs import ThrowawayCA
from tests.support.gateway import Credential, Gateway, clean_environment
from tests.support.origin import Origin
from tests.support.ports import free_port
from tests.support.step_ca import PROVISIONER, StepCa
from tests.support.traces import traces

HOST = "api.example.test"
SECONDS = 25.0


class ManagedBed:
    """A gateway that has its own CA for two agents, and an origin."""

    def __init__(
        self, directory: Path, more: str = "", gateway: str = "", pki: str | None = None
    ) -> None:
        self.directory = directory
        ca = ThrowawayCA(directory)
        self.origin = Origin(echo, ca.server_context(HOST))
        self.tls_port, self.enrol_port = free_port(), free_port()
        self.secret = new_secret("key-")
        key = Credential("key", self.secret, (HOST,), (BEARER,), None, "API_KEY")
        own = f"""provider = "embedded"
names = ["localhost", "127.0.0.1"]
enrol = "tcp:{self.enrol_port}:interface=127.0.0.1"
url = "https://localhost:{self.enrol_port}"
lifetime = "24h"
"""
        tables = f"""
[pki]
{own if pki is None else pki}

[[listener]]
name = "mtls"
endpoint = "tcp:{self.tls_port}:interface=127.0.0.1"
tls = "managed"

[[identity]]
name = "agent-1"
groups = ["agents"]
match = [{{ spiffe = "{spiffe("1")}" }}]

[[identity]]
name = "agent-2"
groups = ["agents"]
match = [{{ dns = "agent-2.internal" }}]

[[identity]]
name = "agent-3"
groups = ["agents"]
match = [{{ cn = "agent-3" }}]

[[rule]]
id = "agents"
groups = ["agents"]
hosts = ["{HOST}"]
ports = [{self.origin.port}]
credentials = ["key"]
{more}
"""
        ports = {HOST: self.origin.port}
        self.gateway = Gateway(
            directory, [key], [], ports, ca.ca_file, extra=tables, gateway_extra=gateway
        )

    @property
    def file(self) -> str:
        return str(self.gateway.config_file)

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.origin.port}/"

    def ca(self, command: str, *arguments: str) -> str:
        """Run ``slapenir ca COMMAND FILE ...``."""
        return self.gateway.command("ca", command, self.file, *arguments)

    def token(self, agent: str, lifetime: str = "15m") -> str:
        return self.ca("token", agent, "--lifetime", lifetime).strip()

    def placeholder(self, agent: str) -> str:
        text = self.gateway.command("env", self.file, "--identity", agent, "--shell", "json")
        found: str = json.loads(text)["API_KEY"]
        return found

    def slapenir(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``slapenir`` as an agent: with nothing of the gateway's environment."""
        return subprocess.run(
            [sys.executable, "-m", "slapenir.cli", *arguments],
            capture_output=True,
            text=True,
            env={**clean_environment(), **env},
            cwd=os.getcwd(),
            timeout=60,
        )

    def enrol(self, agent: str) -> Path:
        """Enrol as an agent; return the directory with its files."""
        out = self.directory / f"client-{agent}"
        done = self.slapenir("enrol", "--out", str(out), SLAPENIR_ENROLMENT_TOKEN=self.token(agent))
        if done.returncode != 0:
            raise AssertionError(done.stdout + done.stderr)
        return out

    def curl(self, files: Path, agent: str = "") -> tuple[int, bytes]:
        """Run curl with the files of an agent that enrolled."""
        header = f"Authorization: Bearer {self.placeholder(agent)}" if agent else "X-None: 1"
        done = subprocess.run(
            [need("curl"), "-sS", "-i", "--max-time", "20", "--proxy",
             f"https://localhost:{self.tls_port}", "--proxy-cacert", str(files / "roots.pem"),
             "--proxy-cert", str(files / "chain.pem"), "--proxy-key", str(files / "key.pem"),
             "--cacert", str(self.gateway.ca_file), "-H", header, self.url],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(), timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout

    def records(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.gateway.records() if one["event"] == event]


class ManagedCase(SynchronousTestCase):
    more = ""
    gateway_more = ""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True, mode=0o700)
        self.bed = ManagedBed(directory, self.more, self.gateway_more)
        self.addCleanup(self.bed.origin.close)
        self.addCleanup(self.bed.gateway.stop)

    def wait(self, condition: Callable[[], Any], seconds: float = SECONDS) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.fail(f"it took too long: {self.bed.gateway.log()[-2000:]}")
            time.sleep(0.2)

    def assert_used(self, ran: tuple[int, bytes]) -> None:
        """The origin saw the real key, and the client never did."""
        self.assertEqual(ran[0], 0, ran[1].decode("utf-8", "replace"))
        self.assertIn(b"HTTP/1.1 200", ran[1])
        self.assertEqual(traces(ran[1], self.bed.secret), [])
        self.assertEqual(traces(self.bed.gateway.written(), self.bed.secret), [])
        seen = self.bed.origin.requests[-1].header(b"authorization")
        self.assertEqual(seen, f"Bearer {self.bed.secret}".encode())


class TestEnrolment(ManagedCase):
    """A token becomes a certificate, which opens the listener until it is revoked."""

    def test_all_of_it(self) -> None:
        bed = self.bed
        bed.gateway.start()
        for agent in ("agent-1", "agent-2", "agent-3"):
            self.assert_used(bed.curl(bed.enrol(agent), agent))
        known = [one["identity"] for one in bed.records("ClientIdentified")]
        self.assertEqual(known, ["agent-1", "agent-2", "agent-3"])
        issued = bed.records("CertificateIssued")
        self.assertEqual({one["how"] for one in issued}, {"token"})
        self.assertEqual(issued[0]["serial"], bed.records("ClientIdentified")[0]["serial"])
        files = bed.directory / "client-agent-1"
        before = (files / "chain.pem").read_bytes()
        done = bed.slapenir("enrol", "--out", str(files), "--renew")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotEqual((files / "chain.pem").read_bytes(), before)
        self.assert_used(bed.curl(files, "agent-1"))
        self.assertEqual(bed.records("CertificateIssued")[-1]["how"], "renewal")
        self.assertEqual((files / "key.pem").stat().st_mode & 0o777, 0o600)
        bed.ca("revoke", "--identity", "agent-1")
        self.wait(lambda: bed.curl(files)[0] != 0, 10.5)
        reasons = [one["reason"] for one in bed.records("Decided") if one["stage"] == "identify"]
        self.assertEqual(set(reasons), {"certificate_revoked"})
        done = bed.slapenir("enrol", "--out", str(files), "--renew")
        self.assertEqual(done.returncode, 1)
        self.assertIn("revoked", done.stdout + done.stderr)
        self.assert_used(bed.curl(bed.directory / "client-agent-2", "agent-2"))
        _, metrics = bed.gateway.admin_get("/metrics")
        for label in ("managed", "identity-root", "identity-issuing", "client:agent-2"):
            self.assertIn(f'slapenir_cert_expiry_timestamp_seconds{{cert="{label}"}}', metrics)
        issued_of = 'slapenir_certificates_issued_total{how="token",identity="agent-1"} 1.0'
        self.assertIn(issued_of, metrics)

    def test_a_token_works_once_and_for_one(self) -> None:
        bed = self.bed
        bed.gateway.start()
        token = bed.token("agent-1")
        for number, status in ((1, 0), (2, 1)):
            out = bed.directory / f"out-{number}"
            done = bed.slapenir("enrol", "--out", str(out), SLAPENIR_ENROLMENT_TOKEN=token)
            self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn("used", done.stdout + done.stderr)
        self.assertNotIn(token, done.stdout + done.stderr + bed.gateway.log())
        self.assertEqual(len(bed.records("CertificateIssued")), 1)
        self.assertEqual(len(bed.records("EnrolmentRefused")), 1)


class TestSidecar(ManagedCase):
    """A tool that knows no certificates, by way of the sidecar."""

    def test_curl_through_it(self) -> None:
        bed = self.bed
        bed.gateway.start()
        port = free_port()
        state = bed.directory / "sidecar"
        state.mkdir(mode=0o700)
        token = bed.directory / "token"
        token.touch(0o600)
        token.write_text(bed.token("agent-1"), "ascii")
        log = (bed.directory / "sidecar.log").open("wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            [sys.executable, "-m", "slapenir.cli", "sidecar",
             "--gateway", f"localhost:{bed.tls_port}", "--listen", f"127.0.0.1:{port}",
             "--state", str(state), "--token-file", str(token)],
            stdout=log, stderr=subprocess.STDOUT, env=clean_environment(),
        )  # fmt: skip
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.terminate)

        def curl() -> tuple[int, bytes]:
            done = subprocess.run(
                [need("curl"), "-sS", "-i", "--max-time", "20", "-x", f"http://127.0.0.1:{port}",
                 "--cacert", str(bed.gateway.ca_file),
                 "-H", f"Authorization: Bearer {bed.placeholder('agent-1')}", bed.url],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(),
                timeout=60,
            )  # fmt: skip
            return done.returncode, done.stdout

        self.wait(lambda: curl()[0] == 0)
        self.assert_used(curl())
        self.assertEqual(bed.records("Decided")[-1]["identity"], "agent-1")


class TestOtherProviders(SynchronousTestCase):
    """The gateway's certificate, and an agent's, from a step-ca; the gateway's by ACME."""

    def start(self, pki: str) -> ManagedBed:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True, mode=0o700)
        bed = ManagedBed(directory, pki=pki)
        self.addCleanup(bed.origin.close)
        self.addCleanup(bed.gateway.stop)
        bed.gateway.start()
        return bed

    def ca(self, http_port: int = 0) -> StepCa:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True, mode=0o700)
        ca = StepCa(directory, http_port)
        ca.start()
        self.addCleanup(ca.stop)
        return ca

    def curl_with(self, bed: ManagedBed, ca: StepCa, agent: str, uri: str) -> tuple[int, bytes]:
        """Enrol with step-ca by its own token and run curl."""
        mint = minted_tokens(str(ca.provisioner_key), PROVISIONER, ca.root_fingerprint)
        key, wanted = new_key(), wanted_of(agent, (uri,), 3600.0)
        request = wanted.request(key).public_bytes(Encoding.PEM).decode("ascii")
        body = json.dumps({"csr": request, "ott": mint(ca.url, wanted)}).encode("ascii")
        context = ssl.create_default_context(cafile=str(ca.directory / "root.pem"))
        asked = urllib.request.Request(
            f"{ca.url}/1.0/sign", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, context=context, timeout=20) as answer:
            chain = "".join(json.load(answer)["certChain"])
        files = bed.directory / f"files-{agent}"
        files.mkdir(exist_ok=True)
        Held(key, from_pem(chain.encode("ascii"), "chain"), (ca.root,)).save(str(files))
        return bed.curl(files, "agent-1")

    def test_step_ca(self) -> None:
        ca = self.ca()
        bed = self.start(
            f'''provider = "step-ca"
names = ["localhost"]
url = "{ca.url}"
root_fingerprint = "{ca.root_fingerprint}"
provisioner = "{PROVISIONER}"
provisioner_key = "{ca.provisioner_key}"
lifetime = "1h"'''
        )
        status, output = self.curl_with(bed, ca, "agent-1", spiffe("1"))
        self.assertEqual(status, 0, output)
        self.assertIn(b"HTTP/1.1 200", output)
        self.assertEqual(traces(output, bed.secret), [])
        self.assertEqual(bed.records("ClientIdentified")[-1]["identity"], "agent-1")
        status, _ = self.curl_with(bed, ca, "stranger", spiffe("9"))
        self.assertNotEqual(status, 0)
        self.assertEqual(bed.records("Decided")[-1]["reason"], "identity_unknown")

    def test_step_ca_and_the_sidecar(self) -> None:
        ca = self.ca()
        bed = self.start(
            f'''provider = "step-ca"
names = ["localhost"]
url = "{ca.url}"
root_fingerprint = "{ca.root_fingerprint}"
provisioner = "{PROVISIONER}"
provisioner_key = "{ca.provisioner_key}"'''
        )
        mint = minted_tokens(str(ca.provisioner_key), PROVISIONER, ca.root_fingerprint)
        token = mint(ca.url, wanted_of("agent-1", (spiffe("1"),), 3600.0))
        port, admin = free_port(), free_port()
        state = bed.directory / "sidecar"
        state.mkdir(mode=0o700)
        with (bed.directory / "sidecar.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "slapenir.cli", "sidecar",
                 "--gateway", f"localhost:{bed.tls_port}", "--listen", f"127.0.0.1:{port}",
                 "--admin", f"127.0.0.1:{admin}", "--state", str(state), "--step-ca", ca.url,
                 "--root-fingerprint", ca.root_fingerprint, "--provisioner", PROVISIONER,
                 "--name", "agent-1", "--san", spiffe("1"), "--lifetime", "1h"],
                stdout=log, stderr=subprocess.STDOUT,
                env={**clean_environment(), "SLAPENIR_ENROLMENT_TOKEN": token},
            )  # fmt: skip
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.terminate)
        end = time.monotonic() + SECONDS
        while not (state / "chain.pem").exists() and time.monotonic() < end:
            time.sleep(0.1)
        done = subprocess.run(
            [need("curl"), "-sS", "-i", "--max-time", "20", "-x", f"http://127.0.0.1:{port}",
             "--cacert", str(bed.gateway.ca_file),
             "-H", f"Authorization: Bearer {bed.placeholder('agent-1')}", bed.url],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(), timeout=60,
        )  # fmt: skip
        said = done.stdout + (bed.directory / "sidecar.log").read_bytes()
        self.assertEqual(done.returncode, 0, said)
        self.assertIn(b"HTTP/1.1 200", done.stdout)
        self.assertNotIn(token.encode("ascii"), said)

    def test_acme(self) -> None:
        port = free_port()
        ca = self.ca(port)
        bed = self.start(
            f'''provider = "acme"
names = ["localhost"]
directory = "{ca.url}/acme/acme/directory"
root_fingerprint = "{ca.root_fingerprint}"
challenge = "tcp:{port}:interface=127.0.0.1"'''
        )
        status, output = self.curl_with(bed, ca, "agent-1", spiffe("1"))
        self.assertEqual(status, 0, output)
        self.assertIn(b"HTTP/1.1 200", output)


class Load(threading.Thread):
    """About fifty requests a second with an agent's certificate, until told to stop."""

    def __init__(self, bed: ManagedBed, files: Path, agent: str) -> None:
        super().__init__(daemon=True)
        self._bed, self._files = bed, files
        self._placeholder = bed.placeholder(agent)
        self.stopped = threading.Event()
        self.done = 0
        self.failures: list[str] = []

    def run(self) -> None:
        from tests.support.tls_in_tls import proxy_tls, tunnel_through

        authority = f"{HOST}:{self._bed.origin.port}"
        request = (
            f"GET / HTTP/1.1\r\nHost: {authority}\r\n"
            f"Authorization: Bearer {self._placeholder}\r\n\r\n"
        ).encode()
        kept: Any = None
        while not self.stopped.is_set():
            began = time.monotonic()
            try:
                if kept is None or self.done % 10 == 0:  # new connections and kept ones
                    if kept is not None:
                        kept.close()
                    context = ssl.create_default_context(cafile=str(self._bed.gateway.ca_file))
                    outer = proxy_tls(
                        self._bed.tls_port, "localhost", self._files / "roots.pem",
                        self._files / "chain.pem", self._files / "key.pem",
                    )  # fmt: skip
                    kept = tunnel_through(outer, authority, context)
                kept.sendall(request)
                answer = kept.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(answer[:100])
                self.done += 1
            except (OSError, ssl.SSLError) as error:
                self.failures.append(f"{self.done}: {error!r}")
                kept = None
            self.stopped.wait(max(0.02 - (time.monotonic() - began), 0))


class TestRotation(ManagedCase):
    """T218: every CA and certificate is replaced under load, and nothing fails."""

    def test_t218(self) -> None:
        bed = self.bed
        bed.gateway.start()
        files = bed.enrol("agent-1")
        load = Load(bed, files, "agent-1")
        load.start()
        self.addCleanup(load.stopped.set)
        self.wait(lambda: load.done > 20 or load.failures)

        def renewals() -> int:
            _, text = bed.gateway.admin_get("/metrics")
            name = 'slapenir_cert_renewals_total{cert="managed",outcome="renewed"} '
            return int(float(text.partition(name)[2].partition("\n")[0] or 0))

        bed.ca("rotate", "--overlap", "1h")
        self.wait(lambda: renewals() == 1)
        bed.ca("rotate", "--root", "--overlap", "1h")
        self.wait(lambda: renewals() == 2)
        reached = load.done
        self.wait(lambda: load.done > reached + 50 or load.failures)
        # The agent learns the new root by renewing, and shows a certificate of the new CA.
        self.assertEqual(bed.slapenir("enrol", "--out", str(files), "--renew").returncode, 0)
        self.assertEqual((files / "roots.pem").read_text().count("BEGIN"), 2)
        # The CA that intercepts: sandboxes get both, then the new one signs.
        bed.ca("rotate", "--interception", "--prepare")
        bed.gateway.ca_file.write_text(bed.ca("export"), "ascii")
        self.assertEqual(bed.gateway.ca_file.read_text().count("BEGIN"), 2)
        reached = load.done
        self.wait(lambda: load.done > reached + 20 or load.failures)
        bed.ca("rotate", "--interception", "--activate")
        before = bed.records("Reloaded")
        bed.gateway.process.send_signal(1)
        self.wait(lambda: len(bed.records("Reloaded")) > len(before))
        reached = load.done
        self.wait(lambda: load.done > reached + 50 or load.failures)
        old_root = 'slapenir_cert_expiry_timestamp_seconds{cert="identity-root-2"}'
        self.assertIn(old_root, bed.gateway.admin_get("/metrics")[1])
        bed.ca("rotate", "--finish")
        reached = load.done
        self.wait(lambda: load.done > reached + 50 or load.failures)
        time.sleep(6)
        reached = load.done
        self.wait(lambda: load.done > reached + 20 or load.failures)
        self.wait(lambda: old_root not in bed.gateway.admin_get("/metrics")[1])
        load.stopped.set()
        load.join(20)
        self.assertEqual(load.failures, [])
        self.assertEqual([one["error"] for one in bed.records("Reloaded")], [""])


class TestOwnAuthorities(ManagedCase):
    """``ca = "per-identity"``: what one identity trusts says nothing to another."""

    gateway_more = 'ca = "per-identity"'

    def test_each_sees_its_own(self) -> None:
        bed = self.bed
        bed.gateway.audit_directory.mkdir(mode=0o700, exist_ok=True)
        bed.gateway.config_file.write_text(bed.gateway.toml(), "utf-8")
        bed.ca("init")
        exported = bed.ca("export", "--identity", "agent-1")
        bed.gateway.ca_file.write_text(exported, "ascii")
        self.assertNotEqual(exported, bed.ca("export", "--identity", "agent-2"))
        bed.gateway.launch()
        one, two = bed.enrol("agent-1"), bed.enrol("agent-2")
        self.assert_used(bed.curl(one, "agent-1"))
        status, output = bed.curl(two, "agent-2")
        self.assertIn(status, (35, 60), output)
        self.wait(lambda: "unknown ca" in bed.gateway.log())
        text = bed.gateway.command("env", bed.file, "--identity", "agent-2", "--shell", "json")
        bundle = Path(json.loads(text)["SSL_CERT_FILE"])
        self.assertTrue(bundle.name.endswith(".agent-2.pem"), bundle)
        bed.gateway.ca_file.write_text(bundle.read_text("ascii"), "ascii")
        self.assert_used(bed.curl(two, "agent-2"))
