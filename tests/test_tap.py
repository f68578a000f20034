"""``twistd slapenir``: how it ends when the gateway cannot start."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from slapenir.cli.authority import make_authority
from slapenir.config.load import load
from tests.support.gateway import ROOT
from tests.support.ports import free_port

CONFIG = """
[gateway]
state_dir = "state"
audit = "audit"
admin = ""
[origin]
ca_file = "slapenir-ca.pem"
[[listener]]
endpoint = "tcp:{port}:interface=127.0.0.1"
identity = "sandbox"
[[credential]]
id = "api"
source = "env:TEST_SECRET"
hosts = ["api.example.test"]
"""


class StartTests(SynchronousTestCase):
    """What a person reads who started it wrongly."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory, 0o700)
        self.file = os.path.join(self.directory, "slapenir.toml")
        self.secret = "sk-" + secrets.token_hex(20)

    def write(self, port: int) -> None:
        """Write a configuration and what it needs beside it."""
        with open(self.file, "w") as file:
            file.write(CONFIG.format(port=port))
        os.chmod(self.file, 0o600)
        os.mkdir(os.path.join(self.directory, "audit"), 0o700)
        make_authority(load(self.file), None, 10)

    def fails(self, **environ: str) -> str:
        """Start the gateway, which must end with 1 and no traceback; return what it said."""
        twistd = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"
        command = [sys.executable, "-c", twistd, "-n", "--pidfile="]
        done = subprocess.run(
            [*command, "slapenir", "--config", self.file],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
            capture_output=True,
            text=True,
            timeout=30,
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 1, said)
        self.assertNotIn("Traceback", said)
        self.assertNotIn(self.secret, said)
        return said

    def test_a_bad_configuration(self) -> None:
        """The problem, its place and the remedy, and no traceback."""
        self.assertIn(f"error: {self.file}: $: does not exist (run: slapenir init", self.fails())
        self.write(free_port())
        self.assertIn("$.credential[0].source: env:TEST_SECRET: the environment", self.fails())

    def test_a_port_in_use(self) -> None:
        """The status is 1, not 0: whatever started it has to know."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.write(port)
            said = self.fails(TEST_SECRET=self.secret)
        self.assertIn(
            f"error: the gateway cannot listen: Couldn't listen on 127.0.0.1:{port}", said
        )
