"""Agents with certificates and tokens at a real gateway: real clients, and what is whose.

One gateway has a TLS listener for certificates and a plain one for tokens.  Two agents have an
origin and a credential each, and share one host.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from slapenir.wire.proxyauth import token_digest
from tests.integration.case import need, need_module
from tests.integration.scene import BEARER, CLIENTS, echo, new_secret
from tests.integration.test_library_clients import undici_directory
from tests.support.agents import SERVER, AgentCA, AgentCertificate, pem, spiffe
from tests.support.certs import ThrowawayCA
from tests.support.gateway import ROOT, Credential, Gateway, clean_environment
from tests.support.origin import Origin, Request, Step, ok
from tests.support.ports import free_port
from tests.support.tls_in_tls import TlsInTls, proxy_tls, tunnel_through
from tests.support.traces import traces

ONE, TWO, BOTH = "one.example.test", "two.example.test", "both.example.test"
SECONDS = 20.0
GATEWAY_NAME = "localhost"


class Bed:
    """The gateway, its CAs, its agents' certificates and tokens, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.go = threading.Event()
        self.begun = threading.Event()
        self.origin_ca = ThrowawayCA(directory)
        self.server_ca, self.agents = AgentCA("Server CA"), AgentCA("Agents CA")
        self.origin = Origin(self._respond, self.origin_ca.server_context(ONE, TWO, BOTH))
        own = self.server_ca.issue(dns=[GATEWAY_NAME], usage=(SERVER,))
        own.write(directory, "tls")
        (directory / "server-ca.pem").write_bytes(pem([self.server_ca.certificate]))
        (directory / "agents-ca.pem").write_bytes(pem([self.agents.certificate]))
        self.list()
        self.certificates: dict[str, AgentCertificate] = {}
        self.files: dict[str, tuple[Path, Path]] = {}
        for name in ("1", "2", "9"):
            self.certificates[name] = one = self.agents.agent(name)
            self.files[name] = one.write(directory, f"agent-{name}")
        self.tokens = {name: secrets.token_urlsafe(32) for name in ("1", "2")}
        self.tls_port, self.token_port = free_port(), free_port()
        port = self.origin.port
        self.secrets = {"1": new_secret("key-"), "2": new_secret("key-")}
        self.credentials = [
            Credential("one", self.secrets["1"], (ONE, BOTH), (BEARER,), None, "KEY_ONE"),
            Credential("two", self.secrets["2"], (TWO, BOTH), (BEARER,), None, "KEY_TWO"),
        ]
        hosts = dict.fromkeys((ONE, TWO, BOTH), port)
        self.gateway = Gateway(
            directory, self.credentials, [], hosts, self.origin_ca.ca_file, extra=self.tables()
        )

    def tables(self, agents: tuple[str, ...] = ("1", "2")) -> str:
        """Return the listeners, identities and rules."""
        port = self.origin.port
        text = f"""
[[listener]]
name = "mtls"
endpoint = "tcp:{self.tls_port}:interface=127.0.0.1"
tls = {{ client_auth = "required", certificate = "tls.pem", key = "tls.key",
        client_ca = "agents-ca.pem", crl = "agents.crl" }}

[[listener]]
name = "tokens"
endpoint = "tcp:{self.token_port}:interface=127.0.0.1"
identify = ["token"]
"""
        for name in agents:
            digest = token_digest(self.tokens[name].encode())
            text += f"""
[[identity]]
name = "agent-{name}"
groups = ["agents"]
match = [{{ spiffe = "{spiffe(name)}" }}, {{ token = "{digest}" }}]
"""
        for name, rule, host in (("1", "one", ONE), ("2", "two", TWO)):
            if name in agents:
                text += f"""
[[rule]]
id = "{rule}"
identities = ["agent-{name}"]
hosts = ["{host}", "{BOTH}"]
ports = [{port}]
credentials = ["{rule}"]
"""
        return text

    def list(self, *revoked: AgentCertificate) -> None:
        """Write the list of revoked certificates, in one step."""
        new = self.directory / "agents.crl.new"
        new.write_bytes(self.agents.crl(*revoked))
        new.replace(self.directory / "agents.crl")

    def _respond(self, asked: Request) -> Iterator[Step]:
        if asked.target == b"/theirs":
            yield ok(f"it is {self.secrets['2']}!".encode())
            return
        if asked.target != b"/slow":
            yield from echo(asked)
            return
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
        self.begun.set()
        self.go.wait(SECONDS)
        yield b"half"

    def placeholder(self, agent: str, variable: str = "") -> str:
        """Return what an agent was given instead of its key, by ``slapenir env``."""
        text = self.gateway.command(
            "env", str(self.gateway.config_file), "--identity", f"agent-{agent}", "--shell", "json",
            "--listener", "mtls",
        )  # fmt: skip
        found: str = json.loads(text)[variable or {"1": "KEY_ONE", "2": "KEY_TWO"}[agent]]
        return found

    def url(self, host: str, path: str = "/") -> str:
        return f"https://{host}:{self.origin.port}{path}"

    @property
    def proxy(self) -> str:
        return f"https://{GATEWAY_NAME}:{self.tls_port}"

    def connect(self, agent: str, host: str) -> TlsInTls:
        """Return TLS to an origin, in TLS to the gateway with an agent's certificate."""
        roots = self.directory / "server-ca.pem"
        outer = proxy_tls(self.tls_port, GATEWAY_NAME, roots, *self.files[agent])
        context = ssl.create_default_context(cafile=str(self.gateway.ca_file))
        return tunnel_through(outer, f"{host}:{self.origin.port}", context)


class IdentityCase(SynchronousTestCase):
    """A gateway for each test."""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True, mode=0o700)
        self.bed = Bed(directory)
        self.addCleanup(self.bed.origin.close)
        self.addCleanup(self.bed.gateway.stop)
        self.addCleanup(self.bed.go.set)
        self.bed.gateway.start()

    def run_client(self, *argv: str | Path, **env: str) -> tuple[int, bytes]:
        done = subprocess.run(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**clean_environment(), "HOME": str(self.bed.directory), **env},
            timeout=60,
        )
        return done.returncode, done.stdout

    def curl(self, agent: str, url: str, *more: str) -> tuple[int, bytes]:
        """Run curl with an agent's certificate."""
        certificate, key = self.bed.files[agent]
        return self.run_client(
            need("curl"), "-sS", "-i", "--max-time", "20", "--proxy", self.bed.proxy,
            "--proxy-cacert", self.bed.directory / "server-ca.pem",
            "--proxy-cert", certificate, "--proxy-key", key,
            "--cacert", self.bed.gateway.ca_file, *more, url,
        )  # fmt: skip

    def records(self, event: str = "Decided") -> list[dict[str, Any]]:
        return [one for one in self.bed.gateway.records() if one["event"] == event]

    def assert_clean(self, data: bytes) -> None:
        """No credential is in what a client got, nor in what the gateway wrote."""
        for secret in self.bed.secrets.values():
            self.assertEqual(traces(data, secret), [])
            self.assertEqual(traces(self.bed.gateway.written(), secret), [])

    def assert_used(self, output: tuple[int, bytes], agent: str) -> None:
        """The client got through, the origin saw the agent's key, and nobody else's."""
        self.assertEqual(output[0], 0, output[1].decode("utf-8", "replace"))
        seen = [one.header(b"authorization") for one in self.bed.origin.requests]
        self.assertTrue(seen)
        expected = f"Bearer {self.bed.secrets[agent]}".encode()
        self.assertEqual(set(seen), {expected})
        self.assert_clean(output[1])
        decided = [one for one in self.records() if one["stage"] == "request"]
        self.assertEqual({one["identity"] for one in decided}, {f"agent-{agent}"})


class TestClients(IdentityCase):
    """curl, httpx, undici and Go, each with its certificate."""

    def arguments(self, host: str = ONE) -> list[str | Path]:
        bed = self.bed
        return [bed.proxy, bed.url(host), bed.directory / "server-ca.pem", bed.gateway.ca_file,
                *bed.files["1"]]  # fmt: skip

    def test_curl(self) -> None:
        header = f"Authorization: Bearer {self.bed.placeholder('1')}"
        self.assert_used(self.curl("1", self.bed.url(ONE), "-H", header), "1")
        (known,) = self.records("ClientIdentified")
        serial = self.bed.certificates["1"].certificate.serial_number
        self.assertEqual((known["identity"], known["serial"]), ("agent-1", f"{serial:x}"))

    def test_httpx(self) -> None:
        need_module("httpx")
        ran = self.run_client(sys.executable, CLIENTS / "certificate_httpx.py", *self.arguments(),
                              API_KEY=self.bed.placeholder("1"))  # fmt: skip
        self.assert_used(ran, "1")

    def test_undici(self) -> None:
        ran = self.run_client(
            need("node"), CLIENTS / "certificate_undici.mjs", *self.arguments(),
            API_KEY=self.bed.placeholder("1"), UNDICI_DIR=str(undici_directory()),
        )  # fmt: skip
        self.assert_used(ran, "1")

    def test_go(self) -> None:
        client = ROOT / "build" / "tools" / "go-client"
        if not client.exists():
            raise SkipTest("build/tools/go-client is not there: .ci/go-tools makes it")
        ran = self.run_client(client, *self.arguments(), API_KEY=self.bed.placeholder("1"))
        self.assert_used(ran, "1")

    def test_token_by_curl(self) -> None:
        """T112: fields with which a client claims to be somebody are nobody's."""
        bed = self.bed
        for argv, agent in (
            (["-U", f"agent-1:{bed.tokens['1']}"], "1"),
            (["--proxy-header", f"Proxy-Authorization: Bearer {bed.tokens['1']}"], "1"),
        ):
            ran = self.run_client(
                need("curl"), "-sS", "-i", "--max-time", "20", "--cacert", bed.gateway.ca_file,
                "-x", f"http://127.0.0.1:{bed.token_port}", *argv,
                "-H", f"Authorization: Bearer {bed.placeholder('1')}",
                "-H", "X-Agent-Id: agent-2", "-H", "X-Forwarded-Client-Cert: Subject=agent-2",
                bed.url(ONE),
            )  # fmt: skip
            self.assert_used(ran, agent)
        names = {name.lower() for one in bed.origin.requests for name, _ in one.headers}
        self.assertFalse(
            names & {b"x-agent-id", b"x-forwarded-client-cert", b"proxy-authorization"}
        )
        for token in bed.tokens.values():
            self.assertNotIn(token.encode(), bed.gateway.written())

    def test_no_token(self) -> None:
        ran = self.run_client(
            need("curl"), "-sS", "-i", "--max-time", "20", "-x",
            f"http://127.0.0.1:{self.bed.token_port}", "http://one.example.test/",
        )  # fmt: skip
        self.assertIn(b"407 Proxy Authentication Required", ran[1])
        self.assertIn(b'"reason": "identity_required"', ran[1])
        self.assertEqual(self.bed.origin.requests, [])


class TestIdentities(IdentityCase):
    """What is one agent's is not the other's."""

    def test_t163_anothers_placeholder_is_a_honeytoken(self) -> None:
        """T163: on a host that both may use; the record says whose it was."""
        theirs = f"Authorization: Bearer {self.bed.placeholder('2')}"
        _, output = self.curl("1", self.bed.url(BOTH), "-H", theirs)
        self.assertIn(b"403 Forbidden", output)
        self.assertEqual(self.bed.origin.requests, [])
        (hit,) = [one for one in self.records() if one["reason"] == "honeytoken"]
        self.assertEqual((hit["identity"], hit["found_owner"]), ("agent-1", "agent-2"))
        self.assertEqual(hit["found_credential"], "two")
        _, metrics = self.bed.gateway.admin_get("/metrics")
        self.assertIn('slapenir_honeytokens_total{identity="agent-1"} 1.0', metrics)
        mine = f"Authorization: Bearer {self.bed.placeholder('1')}"
        self.assert_used(self.curl("1", self.bed.url(BOTH), "-H", mine), "1")

    def test_t158_anothers_secret_in_a_response(self) -> None:
        """T158: the scan set is global: B's secret in an answer to A is overwritten."""
        header = f"Authorization: Bearer {self.bed.placeholder('1')}"
        status, output = self.curl("1", self.bed.url(ONE, "/theirs"), "-H", header)
        self.assertEqual(status, 0)
        self.assertIn(b"it is ", output)
        self.assert_clean(output)

    def test_rules_are_by_identity(self) -> None:
        for agent, host, status in (("1", ONE, b"200"), ("1", TWO, b"403"), ("2", TWO, b"200")):
            _, output = self.curl(agent, self.bed.url(host))
            self.assertIn(b"HTTP/1.1 " + status, output)

    def test_t104_a_stranger(self) -> None:
        """T104: a good certificate of an agent that nobody configured."""
        status, _ = self.curl("9", self.bed.url(ONE))
        self.assertNotEqual(status, 0)
        (record,) = [one for one in self.records() if one["stage"] == "identify"]
        self.assertEqual((record["reason"], record["identity"]), ("identity_unknown", ""))
        self.assertEqual(self.bed.origin.connections, [])

    def test_t118_pools_are_apart(self) -> None:
        """T118, T071: two agents at one host never share a connection to it."""
        for agent in ("1", "2", "1", "2"):
            header = f"Authorization: Bearer {self.bed.placeholder(agent)}"
            self.assertEqual(self.curl(agent, self.bed.url(BOTH), "-H", header)[0], 0)
        by_connection: dict[int, set[bytes]] = {}
        for one in self.bed.origin.requests:
            by_connection.setdefault(one.connection, set()).add(one.header(b"authorization"))
        self.assertEqual(len(by_connection), 2)
        self.assertEqual([len(found) for found in by_connection.values()], [1, 1])

    def test_t105_an_open_tunnel_dies_when_its_certificate_is_revoked(self) -> None:
        """T105, T106: within ten seconds, which is twice the time between two looks at the file."""
        bed = self.bed
        one, two = bed.connect("1", ONE), bed.connect("2", TWO)
        head = f"GET /slow HTTP/1.1\r\nHost: {ONE}:{bed.origin.port}\r\n\r\n"
        one.sendall(head.encode())
        self.assertTrue(bed.begun.wait(SECONDS))
        started = time.monotonic()
        bed.list(bed.certificates["1"])
        with self.assertRaises((ConnectionError, ssl.SSLError, OSError)):
            while True:
                one.recv(4096)
                if time.monotonic() > started + 15:
                    return
        self.assertLess(time.monotonic() - started, 10.5)
        (record,) = [one for one in self.records() if one["stage"] == "identify"]
        self.assertEqual((record["reason"], record["identity"]), ("certificate_revoked", "agent-1"))
        with self.assertRaises((ConnectionError, ssl.SSLError, OSError)):
            bed.connect("1", ONE)
        two.sendall(f"GET / HTTP/1.1\r\nHost: {TWO}:{bed.origin.port}\r\n\r\n".encode())
        self.assertTrue(two.recv(4096).startswith(b"HTTP/1.1 200"))

    def test_t211_an_identity_that_a_reload_removes(self) -> None:
        """T211: its tunnels are cut at the reload; the other agent's are not."""
        bed = self.bed
        one, two = bed.connect("1", ONE), bed.connect("2", TWO)
        bed.gateway.extra = bed.tables(("2",))
        bed.gateway.config_file.write_text(bed.gateway.toml(), "utf-8")
        bed.gateway.process.send_signal(signal.SIGHUP)
        with self.assertRaises((ConnectionError, ssl.SSLError, OSError)):
            one.recv(4096)
            raise ConnectionError
        self.assertEqual([one["error"] for one in self.records("Reloaded")], [""])
        (record,) = [one for one in self.records() if one["stage"] == "identify"]
        self.assertEqual((record["reason"], record["identity"]), ("identity_unknown", "agent-1"))
        two.sendall(f"GET / HTTP/1.1\r\nHost: {TWO}:{bed.origin.port}\r\n\r\n".encode())
        self.assertTrue(two.recv(4096).startswith(b"HTTP/1.1 200"))

    def test_t105_a_list_that_cannot_be_read(self) -> None:
        """T105: corrupt or missing while the gateway runs: nobody gets in until it is mended."""
        bed = self.bed
        listed = bed.directory / "agents.crl"
        listed.write_bytes(b"rubbish")
        self.wait(lambda: self.curl("1", bed.url(ONE))[0] != 0)
        reasons = {one["reason"] for one in self.records() if one["stage"] == "identify"}
        self.assertEqual(reasons, {"revocation_unknown"})
        _, metrics = bed.gateway.admin_get("/metrics")
        self.assertIn('slapenir_revocation_failures_total{listener="mtls"}', metrics)
        bed.list()
        self.wait(lambda: self.curl("1", bed.url(ONE))[0] == 0)

    def test_t218_a_new_certificate_and_a_new_ca(self) -> None:
        """T218: files are replaced while the gateway runs; what is open goes on."""
        bed = self.bed
        one = bed.connect("1", ONE)
        new_ca = AgentCA("New agents CA")
        bed.server_ca.issue(dns=[GATEWAY_NAME], usage=(SERVER,)).write(bed.directory, "tls")
        both = pem([bed.agents.certificate, new_ca.certificate])
        (bed.directory / "agents-ca.pem").write_bytes(both)
        (bed.directory / "agents.crl").write_bytes(bed.agents.crl() + new_ca.crl())
        bed.files["new"] = new_ca.agent("2").write(bed.directory, "new")
        self.wait(lambda: self.curl("new", bed.url(TWO))[0] == 0)
        one.sendall(f"GET / HTTP/1.1\r\nHost: {ONE}:{bed.origin.port}\r\n\r\n".encode())
        self.assertTrue(one.recv(4096).startswith(b"HTTP/1.1 200"))
        _, metrics = bed.gateway.admin_get("/metrics")
        for label in ("listener:mtls", "listener:mtls:client-ca-2", "client:agent-1"):
            self.assertIn(f'slapenir_cert_expiry_timestamp_seconds{{cert="{label}"}}', metrics)

    def wait(self, condition: Any) -> None:
        end = time.monotonic() + 25
        while not condition():
            if time.monotonic() > end:
                self.fail("it took too long")
            time.sleep(0.3)


class TestStart(SynchronousTestCase):
    """T115, T239: what keeps a TLS listener from starting is told, and nothing listens."""

    def test_files(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True, mode=0o700)
        bed = Bed(directory)
        self.addCleanup(bed.origin.close)
        bed.gateway.prepare()
        for name, change, phrase in (
            ("tls.key", lambda path: path.chmod(0o640), "can be read or written by others"),
            ("tls.key", lambda path: path.unlink(), "does not exist"),
            ("tls.pem", lambda path: path.write_bytes(b"rubbish"), "is not a certificate in PEM"),
            ("agents-ca.pem", lambda path: path.unlink(), "does not exist"),
            ("agents.crl", lambda path: path.unlink(), "does not exist"),
            ("agents.crl", lambda path: path.write_bytes(b"rubbish"), "cannot be read"),
            ("tls.pem", lambda path: path.chmod(0o666), "can be written by others"),
        ):
            path = directory / name
            kept, mode = path.read_bytes(), path.stat().st_mode
            change(path)
            done = subprocess.run(
                [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n",
                 "--pidfile=", "slapenir", "--config", str(bed.gateway.config_file)],
                capture_output=True, text=True, env=bed.gateway.environment(), timeout=60,
            )  # fmt: skip
            said = done.stdout + done.stderr
            self.assertEqual(done.returncode, 1, said)
            self.assertRegex(said, f"error: .*{phrase}")
            self.assertNotIn("Traceback", said)
            path.unlink(missing_ok=True)
            path.touch(0o600)
            path.chmod(mode & 0o777)
            path.write_bytes(kept)
        bed.gateway.launch()
        self.addCleanup(bed.gateway.stop)
        self.assertEqual(bed.gateway.admin_get("/readyz")[0], 200)
        self.assertEqual(os.stat(directory / "tls.key").st_mode & 0o777, 0o600)
