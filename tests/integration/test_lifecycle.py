"""The gateway as a process: ready, reload, drain, crash, and what it shows of itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.agent import answer, connect, dial, request, tunnel
from tests.integration.scene import API, BEARER, new_secret
from tests.support.certs import ThrowawayCA
from tests.support.gateway import Credential, Gateway, Rule
from tests.support.origin import Origin, Request, Step, ok
from tests.support.traces import traces

OTHER = "other.example.test"
WAIT_SECONDS = 10.0


class TestLifecycle(SynchronousTestCase):
    """One gateway a test, one origin with two names."""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        directory.chmod(0o700)
        self.ca = ThrowawayCA(directory)
        self.go = threading.Event()
        self.begun = threading.Event()
        self.origin = Origin(self._respond, self.ca.server_context(API, OTHER))
        self.addCleanup(self.origin.close)
        self.secret = new_secret("key-")
        api = Credential("api", self.secret, (API,), (BEARER,), "DUMMY_API_KEY_1", "API_KEY")
        port = self.origin.port
        self.rule = Rule("api", (API,), (port,), ("api",))
        hosts = {API: port, OTHER: port}
        self.gateway = Gateway(directory, [api], [self.rule], hosts, self.ca.ca_file)
        self.addCleanup(self.gateway.stop)
        self.addCleanup(self.go.set)

    def _respond(self, asked: Request) -> Iterator[Step]:
        if asked.target != b"/slow":
            yield ok(b"fast")
            return
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
        self.begun.set()
        self.go.wait(WAIT_SECONDS)
        yield b"half"

    def get(self, host: str, target: str = "/") -> int:
        """Return the status of one GET with the placeholder."""
        with tunnel(self.gateway, host) as conn:
            bearer = "Authorization: Bearer DUMMY_API_KEY_1"
            conn.sendall(request(self.gateway, host, "GET", target, bearer))
            return answer(conn).status

    def until(self, what: str) -> None:
        """Wait until the process has logged ``what``."""
        deadline = time.monotonic() + WAIT_SECONDS
        while what not in self.gateway.log():
            self.assertLess(time.monotonic(), deadline, self.gateway.log())
            time.sleep(0.05)

    def test_ready_metrics_and_nothing_secret_in_sight(self) -> None:
        """T157, T226: logs, metrics, command line and core limit of the running process."""
        self.gateway.start()
        self.assertEqual(self.get(API), 200)
        self.assertEqual(self.origin.requests[0].header(b"authorization"), self._real())
        for path in ("/readyz", "/healthz"):
            self.assertEqual(self.gateway.admin_get(path)[0], 200)
        status, metrics = self.gateway.admin_get("/metrics")
        self.assertEqual(status, 200)
        self.assertIn("slapenir_proxy_http_requests_total", metrics)
        name = "slapenir_credentials_injected_total"
        self.assertIn(f'{name}{{credential="api",identity="sandbox"}} 1.0', metrics)
        proc = Path(f"/proc/{self.gateway.process.pid}")
        shown = metrics.encode() + self.gateway.written() + (proc / "cmdline").read_bytes()
        self.assertEqual(traces(shown, self.secret), [])
        limits = (proc / "limits").read_text("ascii").splitlines()
        (core,) = [line for line in limits if line.startswith("Max core file size")]
        self.assertEqual(core.split()[4:6], ["0", "0"])

    def test_drains_on_sigterm(self) -> None:
        """T208: what is under way is finished, nothing new is taken, the exit is clean."""
        self.gateway.start()
        conn = tunnel(self.gateway, API)
        self.addCleanup(conn.close)
        conn.sendall(request(self.gateway, API, "GET", "/slow"))
        self.assertTrue(self.begun.wait(WAIT_SECONDS))
        self.gateway.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                dial(self.gateway).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.05)
        else:
            self.fail("the listener stayed open")
        self.go.set()
        self.assertEqual(answer(conn).read(8), b"halfhalf")
        # twistd ends itself by the signal that stopped it, after everything was shut down
        status = self.gateway.process.wait(WAIT_SECONDS)
        self.assertIn(status, (0, -signal.SIGTERM))
        self.assertIn("GatewayStopping", [one["event"] for one in self.gateway.records()])

    def test_reload_takes_a_good_policy_and_keeps_the_old_one_otherwise(self) -> None:
        """T210: a bad file changes nothing, loudly; a good one counts from the next CONNECT."""
        self.gateway.start()
        good = self.gateway.config_file.read_text("utf-8")
        with dial(self.gateway) as conn:
            self.assertEqual(connect(conn, f"{OTHER}:{self.origin.port}").status, 403)

        self.gateway.config_file.write_text(good + "\n[nonsense]\n", "utf-8")
        self.gateway.process.send_signal(signal.SIGHUP)
        self.until("nonsense")
        self.assertEqual(self.get(API), 200)

        more = Rule("other", (OTHER,), (self.origin.port,))
        self.gateway.config_file.write_text(good + "\n" + more.toml(), "utf-8")
        self.gateway.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + WAIT_SECONDS
        status = 0
        while status != 200 and time.monotonic() < deadline:
            with dial(self.gateway) as conn:
                status = connect(conn, f"{OTHER}:{self.origin.port}").status
        self.assertEqual(status, 200)

    def test_killed_and_started_again(self) -> None:
        """T207: every line of the audit log is whole, and the CA and placeholders are the same."""
        self.gateway.start()
        self.assertEqual(self.get(API), 200)
        ca = self.gateway.ca_file.read_bytes()
        self.gateway.process.send_signal(signal.SIGKILL)
        self.gateway.process.wait()
        self.gateway.launch()
        self.assertEqual(self.get(API), 200)
        self.assertEqual(
            self.gateway.command("ca", "export", str(self.gateway.config_file)).encode(), ca
        )
        allowed = [one for one in self.gateway.records() if one.get("stage") == "request"]
        self.assertEqual(len(allowed), 2)

    def test_its_own_environment_does_not_steer_it(self) -> None:
        """T229, T237: proxies, CAs and switches in the environment are not configuration."""
        poison = {
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            "SSL_CERT_FILE": "/nonexistent",
            "ALLOW_ALL": "1",
            "ALLOW_BUILD": "1",
        }
        self.gateway.extra_environment.update(poison)
        self.gateway.start()
        self.assertEqual(self.get(API), 200)
        with dial(self.gateway) as conn:
            self.assertEqual(connect(conn, f"{OTHER}:{self.origin.port}").status, 403)

    def test_gauges_return_to_zero(self) -> None:
        """T224: after successes, refusals and aborts, nothing counts as active."""
        self.gateway.start()
        for _ in range(3):
            self.assertEqual(self.get(API), 200)
            with dial(self.gateway) as conn:
                connect(conn, f"{OTHER}:{self.origin.port}")
            dial(self.gateway).close()
            conn = tunnel(self.gateway, API)
            conn.sendall(b"GET / HTTP/1.1\r\nHost:")
            conn.close()
        deadline = time.monotonic() + WAIT_SECONDS
        name = 'slapenir_active_connections{side="client"} '
        while name + "0.0" not in self.gateway.admin_get("/metrics")[1]:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def _real(self) -> bytes:
        return b"Bearer " + self.secret.encode("ascii")
