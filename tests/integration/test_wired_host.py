"""One host as docs/rules.rst wires it: trust kit, rules by user id, DNS, and a real gateway.

Everything comes from the command line: ``slapenir env``, ``trust`` and ``rules``.  The agent is a
process of another user.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.case import need
from tests.integration.scene import API, BEARER, Ran, echo, new_secret
from tests.support.certs import ThrowawayCA
from tests.support.gateway import IDENTITY, Credential, Gateway, Rule
from tests.support.netns import Namespace, command, join, need_namespaces
from tests.support.origin import Origin
from tests.support.ports import free_port
from tests.support.probes import tcp, udp, user
from tests.support.traces import traces

AGENT = 1001


class WiredHostTests(SynchronousTestCase):
    """An agent that knows of no proxy."""

    def setUp(self) -> None:
        need_namespaces("nft", "iptables", "curl")
        self.directory = Path(tempfile.mkdtemp(prefix="slapenir-wired-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.directory.chmod(0o755)
        self.host, outside = Namespace(), Namespace()
        self.addCleanup(self.host.remove)
        self.addCleanup(outside.remove)
        join(self.host, outside)
        with self.host.inside():
            self._start()
        env = self.gateway.client_environment()
        self.environment = {k: v for k, v in env.items() if not k.lower().endswith("_proxy")}
        kit = self.gateway.command(
            "trust", str(self.gateway.config_file), "--identity", IDENTITY, "--shell", "json",
            "--out", str(self.directory / "kit"),
        )  # fmt: skip
        self.environment.update(json.loads(kit))

    def _start(self) -> None:
        ca = ThrowawayCA(self.directory)
        self.origin = Origin(echo, ca.server_context(API))
        self.addCleanup(self.origin.close)
        self.secret = new_secret("key-")
        place = self.directory / "gateway"
        place.mkdir(mode=0o700)
        self.port, self.dns_port = free_port(), free_port()
        self.gateway = Gateway(
            place,
            [Credential("api", self.secret, (API,), (BEARER,), None, "API_KEY")],
            [Rule("api", (API,), (self.origin.port,), ("api",))],
            {API: self.origin.port},
            ca.ca_file,
            extra=(
                f'[[listener]]\nendpoint = "tcp:{self.port}"\nmode = "transparent"\n'
                f'identity = "{IDENTITY}"\n'
                f'[dns]\nendpoint = "127.0.0.1:{self.dns_port}"\nidentity = "{IDENTITY}"\n'
            ),
        )
        self.addCleanup(self.gateway.stop)
        self.gateway.start()

    def load(self, tool: str) -> None:
        """Load what ``slapenir rules`` prints for this configuration."""
        config = str(self.gateway.config_file)
        text = self.gateway.command(
            "rules", tool, "--for", "user", "--uid", str(AGENT), "--config", config
        )
        with self.host.inside():
            command(*(("nft", "-f", "-") if tool == "nft" else ("sh",)), text=text)

    def as_agent(self, *argv: str, env: dict[str, str]) -> Ran:
        """Run a client as the agent."""
        with self.host.inside():
            done = subprocess.run(
                argv,
                env={**env, "HOME": "/nonexistent"},
                user=AGENT,
                group=AGENT,
                extra_groups=[],
                cwd="/",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
            )
        return Ran(done.returncode, done.stdout)

    def address(self) -> str:
        """Ask any server for the name; the gateway's DNS answers."""
        message = dns.Message(id=7)
        message.addQuery(API.encode(), dns.A)
        with self.host.inside(), user(AGENT):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with client:
                client.settimeout(5)
                client.connect(("192.0.2.53", 53))
                client.send(message.toStr())
                data = client.recv(1000)
        answer = dns.Message()
        answer.fromStr(data)
        return str(answer.answers[0].payload.dottedQuad())

    def check(self, tool: str) -> None:
        """Name, key, refusals: as the pages say."""
        self.load(tool)
        address = self.address()
        self.assertTrue(address.startswith("198.1"), address)
        url = f"https://{API}:{self.origin.port}/v1/x"
        curl = [need("curl"), "-sS", "-i", "--max-time", "20"]
        curl += ["--resolve", f"{API}:{self.origin.port}:{address}"]
        curl += ["-H", f"Authorization: Bearer {self.environment['API_KEY']}", url]
        ran = self.as_agent(*curl, env=self.environment)
        self.assertIn(b"HTTP/1.1 200", ran.output)
        self.assertEqual(traces(ran.output, self.secret), [])
        (request,) = self.origin.requests
        self.assertEqual(request.header(b"authorization"), b"Bearer " + self.secret.encode())
        with self.host.inside(), user(AGENT):
            for place, port in (("127.0.0.1", self.port), ("::1", self.port)):
                self.assertEqual(tcp(place, port).said, "ECONNREFUSED")
            for port in (self.gateway.admin_port, self.origin.port):
                said = tcp("127.0.0.1", port, seconds=1)
                self.assertTrue(said.failed or said.said == "EOF", said)
            self.assertTrue(udp("192.0.2.1", 443).failed)
        self.assertEqual(len(self.origin.requests), 1)
        self.assertEqual(len(self.origin.connections), 1)

    def test_nft(self) -> None:
        self.check("nft")

    def test_iptables(self) -> None:
        self.check("iptables")

    def test_without_the_kit_a_client_refuses(self) -> None:
        """The control of the kit, with the gateway's own leaf: the system's list alone fails."""
        self.load("nft")
        curl = [need("curl"), "-sS", "--max-time", "20", "--resolve"]
        curl += [f"{API}:{self.origin.port}:192.0.2.7", f"https://{API}:{self.origin.port}/"]
        bare = {"PATH": self.environment["PATH"]}
        ran = self.as_agent(*curl, env=bare)
        self.assertEqual(ran.status, 60, ran.output)
        ran = self.as_agent(*curl, env=self.environment)
        self.assertEqual(ran.status, 0, ran.output)
