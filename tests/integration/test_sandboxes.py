"""Sandboxes that join a running gateway: sockets of a namespace without a way out, handed over."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.case import need
from tests.integration.scene import API, BEARER, echo, new_secret
from tests.support.certs import ThrowawayCA
from tests.support.gateway import ROOT, Credential, Gateway, GatewayFailed, Rule
from tests.support.joining import Runner, listeners
from tests.support.netns import Namespace, need_namespaces
from tests.support.origin import Origin
from tests.support.traces import traces

OTHER_USER = 65534
RULES = """
table inet sandbox {{
  chain output {{
    type nat hook output priority -100;
    ip daddr 127.0.0.0/8 return
    ip6 daddr ::1 return
    meta nfproto ipv4 meta l4proto tcp redirect to :{tcp}
    meta nfproto ipv6 meta l4proto tcp redirect to :{tcp6}
  }}
}}
"""


def until(true: Callable[[], bool]) -> bool:
    """Wait up to ten seconds for something to become true."""
    deadline = time.monotonic() + 10
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Case(SynchronousTestCase):
    """A gateway with ``[sandboxes]`` and one origin."""

    most = 4

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("other users' sockets need root")
        # Another user has to reach the socket, and trial's directory may be below a private one.
        made = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
        self.directory = Path(made.stdout.strip())
        self.directory.chmod(0o755)
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.directory)], check=False)
        ca = ThrowawayCA(self.directory)
        self.origin = Origin(echo, ca.server_context(API))
        self.addCleanup(self.origin.close)
        self.secret = new_secret("key-")
        credential = Credential("api", self.secret, (API,), (BEARER,), None, "API_KEY")
        place = self.directory / "gateway"
        place.mkdir(mode=0o755)
        self.path = str(self.directory / "join.sock")
        self.gateway = Gateway(
            place,
            [credential],
            [Rule("api", (API,), (self.origin.port,), ("api",))],
            {API: self.origin.port},
            ca.ca_file,
            extra=self.tables(),
        )
        self.addCleanup(self.gateway.stop)
        self.gateway.start()

    def tables(self) -> str:
        """Return what the configuration ends with."""
        return (
            f'[sandboxes]\nendpoint = "unix:{self.path}:mode=666"\n'
            f"[limits]\nsandboxes = {self.most}\n"
            f'[[identity]]\nname = "other"\nmatch = [{{ unix_uid = {OTHER_USER} }}]\n'
        )

    def runner(self) -> Runner:
        """Return a new connection to the socket."""
        made = Runner(self.path)
        self.addCleanup(made.close)
        return made

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the audit records of one kind."""
        return [one for one in self.gateway.records() if one["event"] == name]

    def descriptors(self) -> int:
        """Return how many files the gateway has open."""
        return len(os.listdir(f"/proc/{self.gateway.process.pid}/fd"))


class JoinTests(Case):
    """What a sandbox is told, what it may do, and how it ends."""

    def sandbox(self) -> tuple[Namespace, dict[str, socket.socket]]:
        """Return a namespace that redirects its own TCP to sockets in it, which are not served."""
        need_namespaces("nft")
        space = Namespace()
        self.addCleanup(space.remove)
        space.ip("addr", "add", "192.0.0.8/32", "dev", "lo")
        space.ip("-6", "addr", "add", "fd5a::8/128", "dev", "lo", "nodad")
        space.ip("route", "add", "default", "dev", "lo")
        space.ip("-6", "route", "add", "default", "dev", "lo")
        with space.inside():
            handed = listeners()
        for one in handed.values():
            self.addCleanup(one.close)
        ports = {kind: one.getsockname()[1] for kind, one in handed.items()}
        space.nft(RULES.format(**ports))
        return space, handed

    def test_curl_T186(self) -> None:
        """curl in a namespace with nothing but loopback: the origin sees the key, curl never."""
        space, handed = self.sandbox()
        runner = self.runner()
        told = runner.join(handed, "sandbox")
        self.assertEqual((told["ok"], told["identity"]), (True, "sandbox"))
        self.assertEqual(traces(json.dumps(told).encode(), self.secret), [])
        trust = self.directory / "trust.pem"
        trust.write_text(told["ca"], "ascii")
        port = self.origin.port
        for address in ("203.0.113.9", "[2001:db8::9]"):
            with space.inside():
                done = subprocess.run(
                    [
                        need("curl"), "-sS", "-i", "--max-time", "10", "--cacert", str(trust),
                        "--resolve", f"{API}:{port}:{address}",
                        "-H", f"Authorization: Bearer {told['environment']['API_KEY']}",
                        f"https://{API}:{port}/",
                    ],
                    env={"PATH": os.environ["PATH"]},
                    capture_output=True,
                    timeout=20,
                )  # fmt: skip
            self.assertIn(b"HTTP/1.1 200", done.stdout + done.stderr)
            self.assertEqual(traces(done.stdout + done.stderr, self.secret), [])
        seen = {one.header(b"authorization") for one in self.origin.requests}
        self.assertEqual(seen, {b"Bearer " + self.secret.encode()})
        (joined,) = self.events("SandboxJoined")
        self.assertEqual((joined["identity"], joined["uid"]), ("sandbox", 0))

    def test_its_own_socket_dialled_T032(self) -> None:
        """A dial of the handed socket that nothing redirected is reset and recorded."""
        space, handed = self.sandbox()
        self.assertTrue(self.runner().join(handed, "sandbox")["ok"])
        with space.inside(), contextlib.suppress(ConnectionResetError):
            conn = socket.create_connection(handed["tcp"].getsockname(), 5)
            self.assertEqual(conn.recv(100), b"")
        self.assertTrue(until(lambda: bool(self.events("Decided"))))
        self.assertEqual(self.events("Decided")[0]["reason"], "address_own_listener")

    def test_the_end_of_the_runner(self) -> None:
        """Its connections are cut and its sockets closed; another may join."""
        space, handed = self.sandbox()
        runner = self.runner()
        told = runner.join(handed, "sandbox")
        before = self.descriptors()
        with space.inside():
            conn = socket.create_connection(("203.0.113.9", self.origin.port), 5)
        trust = ssl.create_default_context(cadata=told["ca"])
        inner = trust.wrap_socket(conn, server_hostname=API)
        runner.close()
        inner.settimeout(5)
        with contextlib.suppress(OSError):
            self.assertEqual(inner.recv(100), b"")
        for one in handed.values():
            one.close()
        with space.inside(), self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("203.0.113.9", self.origin.port), 5)
        self.assertTrue(until(lambda: self.descriptors() <= before - 2))
        self.assertTrue(until(lambda: bool(self.events("SandboxLeft"))))
        self.assertEqual(self.events("SandboxLeft")[0]["reason"], "its runner is gone")

    def test_a_report(self) -> None:
        """What its packet filter refused is recorded and counted; rubbish is not."""
        runner = self.runner()
        self.assertTrue(runner.join(listeners(), "sandbox")["ok"])
        runner.report(udp443=3, made_up=2, icmp=-1)
        runner.conn.sendall(b'{"refused": 7}\n{"refused": {"udp": "x", "icmp": true}}\n')
        self.assertTrue(until(lambda: len(self.events("TrafficRefused")) == 2))
        found = {(one["kind"], one["packets"]) for one in self.events("TrafficRefused")}
        self.assertEqual(found, {("udp443", 3), ("other", 2)})
        metrics = self.gateway.admin_get("/metrics")[1]
        wanted = r'slapenir_sandbox_refused_packets_total\{identity="sandbox",kind="udp443"\} 3.0'
        self.assertTrue(re.search(wanted, metrics), metrics[-3000:])

    def test_too_many(self) -> None:
        """No more than the limit; one that leaves makes room."""
        runners = [self.runner() for _ in range(self.most + 1)]
        told = [one.join(listeners(), "sandbox") for one in runners]
        self.assertEqual([one["ok"] for one in told], [True] * self.most + [False])
        self.assertIn("limits.sandboxes", told[-1]["remedy"])
        runners[0].close()
        self.assertTrue(until(lambda: self.runner().join(listeners(), "sandbox")["ok"]))

    def test_a_reload_takes_the_identity_away(self) -> None:
        """Who is nobody any more is sent away; the others stay."""
        stays, goes = self.runner(), self.runner()
        self.assertTrue(stays.join(listeners(), "sandbox")["ok"])
        self.assertTrue(goes.join(listeners(), "other")["ok"])
        self.gateway.extra = self.gateway.extra.replace('"other"', '"another"')
        self.gateway.config_file.write_text(self.gateway.toml(), "utf-8")
        self.gateway.process.send_signal(signal.SIGHUP)
        self.assertTrue(goes.ended())
        stays.report(udp=1)
        self.assertTrue(until(lambda: bool(self.events("TrafficRefused"))))

    def test_a_stop(self) -> None:
        """When the gateway stops its sandboxes are told by the end of the connection."""
        runner = self.runner()
        self.assertTrue(runner.join(listeners(), "sandbox")["ok"])
        self.assertIn(self.gateway.stop(), (0, -signal.SIGTERM))
        self.assertTrue(runner.ended())
        self.assertEqual(self.events("SandboxLeft")[0]["reason"], "the gateway stops")


class WhoTests(Case):
    """Which identity a user may have."""

    def as_other(self, identity: str) -> dict[str, Any]:
        """Join as another user, in a process of that user's."""
        python = "/usr/bin/python3"
        if not os.path.exists(python):
            raise SkipTest("the system has no python3 that other users can run")
        script = (
            "import json,socket,sys\n"
            "s=socket.create_server(('127.0.0.1',0)); c=socket.socket(socket.AF_UNIX)\n"
            "c.connect(sys.argv[1])\n"
            "m={'version':1,'identity':sys.argv[2],'sockets':['tcp']}\n"
            "socket.send_fds(c,[json.dumps(m).encode()+b'\\n'],[s.fileno()])\n"
            "print(c.makefile().readline())\n"
        )
        number = str(OTHER_USER)
        done = subprocess.run(
            [
                need("setpriv"), "--reuid", number, "--regid", number, "--clear-groups",
                python, "-c", script, self.path, identity,
            ],
            capture_output=True,
            text=True,
            timeout=20,
        )  # fmt: skip
        return json.loads(done.stdout or "{}")

    def test_by_uid(self) -> None:
        """Another user is the identity that has its uid, and cannot choose."""
        for identity, ok in (("", True), ("other", True), ("sandbox", False), ("x", False)):
            told = self.as_other(identity)
            self.assertEqual(told["ok"], ok, told)
            if ok:
                self.assertEqual(told["identity"], "other")
        self.assertEqual({one["uid"] for one in self.events("SandboxJoined")}, {OTHER_USER})

    def test_own_user(self) -> None:
        """The gateway's own user has to choose where there is a choice."""
        for identity, ok in (("sandbox", True), ("other", True), ("", False), ("nobody", False)):
            told = self.runner().join(listeners(), identity)
            self.assertEqual(told["ok"], ok, told)
        self.assertIn("other", told["remedy"])


class HostileTests(Case):
    """Lines and descriptors that no runner sends."""

    def test_refused(self) -> None:
        """Each is told why, or cut; none is served, and no descriptor stays open."""
        before = self.descriptors()
        good = b'{"version": 1, "identity": "sandbox", "sockets": ["tcp"]}'
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        unix = socket.socket(socket.AF_UNIX)
        tcp = listeners(socket.AF_INET)["tcp"]
        pipe = os.pipe()
        cases: list[tuple[bytes, list[int]]] = [
            (b"", []),
            (b"\xff\xfe", []),
            (b"[]", []),
            (b"[" * 5000, []),
            (b'{"version": 2, "sockets": ["tcp"]}', [tcp.fileno()]),
            (b'{"version": 1, "identity": 7, "sockets": ["tcp"]}', [tcp.fileno()]),
            (b'{"version": 1, "identity": "sandbox", "sockets": "tcp"}', [tcp.fileno()]),
            (b'{"version": 1, "identity": "sandbox", "sockets": [[]]}', [tcp.fileno()]),
            (b'{"version": 1, "identity": "sandbox", "sockets": ["raw"]}', [tcp.fileno()]),
            (b'{"version": 1, "identity": "sandbox", "sockets": []}', []),
            (good.replace(b'"tcp"', b'"tcp", "tcp"'), [tcp.fileno()] * 2),
            (good, []),
            (good, [tcp.fileno()] * 2),
            (good, [tcp.fileno()] * 50),
            (good, [pipe[0]]),
            (good, [udp.fileno()]),
            (good, [bound.fileno()]),
            (good, [unix.fileno()]),
            (b"x" * 70000, [tcp.fileno()]),
        ]  # fmt: skip
        for line, handed in cases:
            runner = self.runner()
            with contextlib.suppress(ConnectionError):
                told = runner.ask(line, handed)
                self.assertFalse(told.get("ok"), (line[:80], told))
            runner.close()
        self.assertTrue(until(lambda: self.descriptors() <= before + 1), self.gateway.log())
        self.assertEqual(self.events("SandboxJoined"), [])
        self.assertNotIn("Traceback", self.gateway.log())
        self.assertTrue(self.runner().ask(good, [tcp.fileno()])["ok"])

    def test_many_that_say_nothing(self) -> None:
        """More of one user than may wait are cut at once; those that speak make room."""
        quiet = [self.runner() for _ in range(12)]
        cut = 0
        for one in quiet:
            one.conn.settimeout(0.5)
            try:
                cut += one.conn.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                cut += 1
        self.assertEqual(cut, 4)
        for one in quiet:
            one.close()
        self.assertTrue(until(lambda: self.runner().join(listeners(), "sandbox").get("ok")))

    def test_silence(self) -> None:
        """Who says nothing, or half a line, is cut after ten seconds."""
        quiet, half = self.runner(), self.runner()
        half.conn.sendall(b'{"version"')
        for one in (quiet, half):
            with contextlib.suppress(ConnectionError):
                self.assertTrue(one.ended())


class OnlySandboxesTests(Case):
    """The gateway that a runner starts for itself."""

    def test_listens_nowhere_else(self) -> None:
        """One UNIX socket for its own user, no port; a second one with the same log is refused."""
        self.gateway.stop()
        self.gateway.log_file.unlink()
        path = str(self.directory / "own.sock")
        twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
        command = [
            *twistd, "-n", "--pidfile=", "slapenir",
            "--config", str(self.gateway.config_file), "--only-sandboxes", path,
        ]  # fmt: skip
        environment = {**self.gateway.environment(), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        self.assertTrue(until(lambda: os.path.exists(path)))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        runner = Runner(path)
        self.addCleanup(runner.close)
        self.assertTrue(runner.join(listeners(), "sandbox")["ok"])
        for port in (self.gateway.port, self.gateway.admin_port):
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
        with self.assertRaises(GatewayFailed) as caught:
            self.gateway.launch()
        self.assertIn("in use by another process", str(caught.exception))
