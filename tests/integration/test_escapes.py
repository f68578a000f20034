"""T228: every way out of a sandbox that comes to mind, against a server that listens for it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.integration.case import need
from tests.integration.scene import API
from tests.integration.test_sandboxes import Case, until
from tests.support.netns import need_namespaces

SCRIPT = Path(__file__).parent / "clients" / "escapes.py"
PYTHON = "/usr/bin/python3"
FEWEST = 40
PORTS = (22, 25, 53, 80, 123, 443, 853, 5228, 6667, 8080, 65535)
ANSWER = b"escaped"


class Outside:
    """Listens wherever an escape could lead, and answers with one word."""

    def __init__(self, directory: Path) -> None:
        self.contacts: list[str] = []
        self.port = 0
        self._sockets: list[socket.socket] = []
        self.four, self.six = "10.99.7.1", "fd99:7::1"
        main = self._open(socket.AF_INET6, socket.SOCK_STREAM, ("::", 0))
        self.port = main.getsockname()[1]
        self._open(socket.AF_INET6, socket.SOCK_DGRAM, ("::", self.port))
        for port in PORTS:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with contextlib.suppress(OSError):  # in use on this host
                    self._open(socket.AF_INET6, kind, ("::", port))
        self.path = str(directory / "outside.sock")
        self.abstract = f"slapenir-outside-{secrets.token_hex(8)}"
        self._open(socket.AF_UNIX, socket.SOCK_STREAM, self.path)
        os.chmod(self.path, 0o777)  # noqa: S103 - another user has to get to it
        self._open(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self.abstract)

    def _open(self, family: int, kind: int, address: Any) -> socket.socket:
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
            if kind == socket.SOCK_STREAM:
                made.listen(50)
        except OSError:
            made.close()
            raise
        self._sockets.append(made)
        threading.Thread(target=self._serve, args=(made, kind), daemon=True).start()
        return made

    def _serve(self, made: socket.socket, kind: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                if kind == socket.SOCK_STREAM:
                    conn, _ = made.accept()
                    self.contacts.append(str(made.getsockname()))
                    with conn:
                        conn.sendall(ANSWER)
                else:
                    _, peer = made.recvfrom(4096)
                    if peer is None:  # closed
                        return
                    self.contacts.append(f"datagram {made.getsockname()}")
                    made.sendto(ANSWER, peer)

    def close(self) -> None:
        """Stop listening."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            one.close()


class EscapeTests(Case):
    """As root with a namespace, and rootless with a user namespace."""

    def setUp(self) -> None:
        need_namespaces("nft", "bwrap")
        if not os.path.exists(PYTHON):
            raise SkipTest("the system has no python3 that other users can run")
        super().setUp()
        self.outside = Outside(self.directory)
        self.addCleanup(self.outside.close)
        for words in (
            ["link", "add", "slt-outside", "type", "bridge"],
            ["addr", "add", f"{self.outside.four}/24", "dev", "slt-outside"],
            ["-6", "addr", "add", f"{self.outside.six}/64", "dev", "slt-outside", "nodad"],
            ["link", "set", "slt-outside", "up"],
        ):
            subprocess.run(["ip", *words], check=True, capture_output=True)
        self.addCleanup(subprocess.run, ["ip", "link", "del", "slt-outside"], check=False)
        self.workspace = self.directory / "work"
        self.workspace.mkdir(mode=0o777)
        self.workspace.chmod(0o777)

    def arguments(self) -> list[str]:
        """Return the script's arguments."""
        out = self.outside
        state = str(self.gateway.config_file)
        return [out.four, out.six, str(out.port), out.path, out.abstract, state, API]

    def attempts(self, *prefix: str) -> list[dict[str, Any]]:
        """Run the script and return what it says."""
        done = subprocess.run(
            [*prefix, PYTHON, "-I", "-", *self.arguments()],
            stdin=SCRIPT.open("rb"),
            capture_output=True,
            cwd=self.workspace,
            timeout=120,
            env={"PATH": os.environ["PATH"]},
        )
        lines = done.stdout.decode().splitlines()
        self.assertTrue(lines, done.stderr)
        return [json.loads(line) for line in lines]

    def escape(self, *more: str) -> None:
        """Try everything from a sandbox: nothing arrives, fast, and what can be is recorded."""
        words = [sys.executable, "-m", "slapenir.cli", "run", "--gateway", self.path]
        words += ["--identity", "sandbox", "--user", "nobody", *more, "--"]
        tried = self.attempts(*words)
        self.assertEqual([one for one in tried if one["said"] == "reached"], [])
        self.assertEqual(self.outside.contacts, [])
        slow = [one for one in tried if one["seconds"] >= 1]
        self.assertEqual(slow, [])
        self.assertGreaterEqual(len(tried), FEWEST)
        wanted = Counter(one["kind"] for one in tried if one["kind"])
        denied = lambda: [one for one in self.events("Decided") if one["action"] == "deny"]  # noqa: E731
        self.assertTrue(until(lambda: len(denied()) >= wanted["record"]), (wanted, tried))
        counted: Counter[str] = Counter()
        self.assertTrue(until(lambda: bool(self.events("SandboxLeft"))))
        for one in self.events("TrafficRefused"):
            counted[one["kind"]] += one["packets"]
        for kind in ("udp", "udp443", "direct"):
            self.assertGreaterEqual(counted[kind], wanted[kind], (kind, counted, tried))

    def test_as_root(self) -> None:
        self.escape()

    def test_rootless(self) -> None:
        self.escape("--rootless")

    def test_control(self) -> None:
        """The same attempts without a sandbox: most of them get through to the server."""
        number = "65534"
        setpriv = [need("setpriv"), "--reuid", number, "--regid", number, "--clear-groups"]
        reached = {one["name"] for one in self.attempts(*setpriv) if one["said"] == "reached"}
        for name in ("tcp_plain", "tcp_six", "udp_plain", "udp_six", "unix_path", "unix_abstract",
                     "tcp_host_loopback", "call_unshare_user"):  # fmt: skip
            self.assertIn(name, reached)
        self.assertGreater(len(self.outside.contacts), 10)
