"""What the tests of load and of faults stand on: a gateway with short deadlines, and its meters.

Everything is on loopback and bounded.  Origins are scripted per path, so that one gateway serves
many tests; the process is looked at from outside, in /proc and in /metrics.
"""

from __future__ import annotations

import atexit
import functools
import os
import resource
import shutil
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import attrs
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bench.measure import rss_megabytes
from tests.integration.scene import BEARER, new_secret
from tests.support.certs import ThrowawayCA
from tests.support.gateway import Credential, Gateway, Rule
from tests.support.origin import Origin, Request, Step, ok
from tests.support.ports import free_port

PLAIN = "plain.example.test"
UPLOAD = "upload.example.test"
SECURE = "secure.example.test"
MUTE = "mute.example.test"
CLOSED = "closed.example.test"
WILD = "wild.example.test"
NAMES = "names.example.test"
DENIED = "denied.example.test"
PLACEHOLDER = "DUMMY_STORM_KEY_1"
SHORT = """
[limits]
names_per_minute = 100000
connections = 4000
connections_per_identity = 4000
origin_connections = 2000
lookups = 256
leaf_cache = 32
mint_burst = 60
mints_per_second = 40.0
head_seconds = 2.0
handshake_seconds = 2.0
idle_seconds = 3.0
body_seconds = 2.0
response_seconds = 2.0
progress_seconds = 2.0
dial_seconds = 2.0
resolve_seconds = 1.0
origin_idle_seconds = 0.4
close_seconds = 1.0
drain_seconds = 20.0
"""
WAIT_SECONDS = 15.0


class NameServer:
    """A DNS server on loopback: ``dead*`` is never answered, ``fail*`` is SERVFAIL, the rest here.

    ``asked`` holds every name that was asked for.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, peer = self._socket.recvfrom(4096)
            except OSError:
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
                at += 1 + query[at]
            kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
            question = query[12 : at + 5]
            self.asked.append(".".join(labels))
            if labels[0].startswith("dead"):
                continue
            failed = labels[0].startswith("fail")
            answers = b""
            if kind == 1 and not failed:
                answers = struct.pack("!HHHIH4B", 0xC00C, 1, 1, 0, 4, 127, 0, 0, 1)
            head = struct.pack("!HHHHH", 0x8182 if failed else 0x8180, 1, bool(answers), 0, 0)
            self._socket.sendto(query[:2] + head + question + answers, peer)


@attrs.define
class StormGateway(Gateway):
    """A gateway that asks a DNS server of the test's and is looked at from outside.

    ``prepared`` is the directory of another one that was prepared: its CA is copied.
    """

    name_server: int = 0
    prepared: Path | None = None

    def toml(self) -> str:
        """Return the configuration."""
        server = f'[resolver]\nservers = ["127.0.0.1:{self.name_server}"]\n'
        return super().toml().replace("[resolver]\n", server, 1)

    def prepare(self) -> None:
        """Prepare, from ``prepared`` where that saves two processes."""
        if self.prepared is None:
            super().prepare()
            return
        self.audit_directory.mkdir(mode=0o700, exist_ok=True)
        self.config_file.write_text(self.toml(), "utf-8")
        shutil.copytree(self.prepared / "state", self.directory / "state")
        shutil.copy(self.prepared / "sandbox-ca.pem", self.ca_file)

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def limit(self, kind: int, soft: int) -> None:
        """Set a soft limit of the running process."""
        hard = resource.prlimit(self.pid, kind)[1]
        resource.prlimit(self.pid, kind, (soft if soft >= 0 else hard, hard))

    def descriptors_open(self) -> int:
        """Return how many descriptors the process has, the access log's, opened late, aside."""
        found = Path(f"/proc/{self.pid}/fd")
        return sum(not _link(one).endswith("access.jsonl") for one in found.iterdir())

    def memory(self) -> float:
        """Return the resident memory in MB."""
        return rss_megabytes(self.pid)

    def metrics(self) -> dict[str, float]:
        """Return every series of /metrics with its value."""
        text = self.admin_get("/metrics")[1]
        lines = [line.rpartition(" ") for line in text.splitlines() if line[:1] != "#"]
        return {name: float(value) for name, _, value in lines}

    def active(self) -> float:
        """Return how many client connections the gateway counts as open."""
        return self.metrics().get('slapenir_active_connections{side="client"}', -1.0)

    def audit_lines(self) -> list[bytes]:
        """Return the audit log, line by line, without line ends."""
        return (self.audit_directory / "audit.jsonl").read_bytes().split(b"\n")[:-1]


def _link(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except OSError:  # closed since it was listed
        return ""


@attrs.define
class Storm:
    """The origins, scripted per path by ``scripts``, and the gateway with short deadlines."""

    directory: Path
    ca: ThrowawayCA
    secret: str
    overlap: str
    names: NameServer
    scripts: dict[bytes, Callable[[Request], Iterable[Step]]] = attrs.field(factory=dict)
    origins: dict[str, Origin] = attrs.field(factory=dict)
    mute: socket.socket = attrs.field(init=False)
    hosts: dict[str, int] = attrs.field(factory=dict)
    closed_port: int = 0
    made: int = 0
    gateway: StormGateway = attrs.field(init=False)

    def respond(self, asked: Request) -> Iterable[Step]:
        """Play the script of this path."""
        script = self.scripts.get(asked.target.partition(b"?")[0])
        return [ok(b"fine")] if script is None else script(asked)

    def rules(self) -> list[Rule]:
        """Return rules for everything but DENIED."""
        plain, upload, secure = (self.origins[one].port for one in (PLAIN, UPLOAD, SECURE))
        ports = (secure, self.hosts[MUTE], self.hosts[CLOSED])
        return [
            Rule("plain", (PLAIN, f"*.{NAMES}"), (plain,), scheme="http"),
            Rule("upload", (UPLOAD,), (upload,), scheme="http"),
            Rule("closed", (CLOSED,), (self.hosts[CLOSED],), scheme="http"),
            Rule("secure", (SECURE, MUTE, f"*.{WILD}"), ports, ("storm",)),
        ]

    def new_gateway(self, extra: str) -> StormGateway:
        """Return another gateway, not started."""
        self.made += 1
        directory = self.directory / f"gateway-{self.made}"
        directory.mkdir(mode=0o700)
        hosts = (SECURE, f"*.{WILD}")
        credentials = [
            Credential("storm", self.secret, hosts, (BEARER,), PLACEHOLDER),
            Credential("overlap", self.overlap, ("nowhere.example.test",), (BEARER,), "DUMMY_LAP"),
        ]
        prepared = self.directory / "gateway-1" if self.made > 1 else None
        return StormGateway(
            directory,
            credentials,
            self.rules(),
            self.hosts,
            self.ca.ca_file,
            extra,
            name_server=self.names.port,
            prepared=prepared,
        )

    def accepted(self) -> list[socket.socket]:
        """Return the connections that MUTE got and nobody has accepted."""
        found = []
        self.mute.setblocking(False)
        try:
            while True:
                found.append(self.mute.accept()[0])
        except BlockingIOError:
            self.mute.setblocking(True)
        return found

    def close(self) -> None:
        """Stop everything."""
        self.gateway.stop()
        self.mute.close()
        self.names.close()
        for origin in self.origins.values():
            origin.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@functools.cache
def storm() -> Storm:
    """Return the one storm of this test run, started."""
    directory = Path(tempfile.mkdtemp(prefix="slapenir-storm-"))
    ca = ThrowawayCA(directory)
    overlap = "a" * 39 + new_secret("", 4)
    one = Storm(directory, ca, new_secret("key-"), overlap, NameServer())
    context = ca.server_context(SECURE, f"*.{WILD}")
    one.origins = {
        PLAIN: Origin(one.respond),
        UPLOAD: Origin(one.respond, at_head=True),
        SECURE: Origin(one.respond, context),
    }
    one.mute = socket.create_server(("127.0.0.1", 0))
    closed = free_port()
    one.hosts = {host: origin.port for host, origin in one.origins.items()}
    one.hosts |= {MUTE: one.mute.getsockname()[1], CLOSED: closed, DENIED: closed}
    one.gateway = one.new_gateway(SHORT)
    atexit.register(one.close)
    one.gateway.start()
    return one


class Plain:
    """A client of plain HTTP on one connection, fast enough to measure with."""

    def __init__(self, gateway: Gateway, host: str = PLAIN, port: int = 0) -> None:
        self._where = f"{host}:{port or gateway.hosts[host]}".encode()
        self.conn = socket.create_connection(("127.0.0.1", gateway.port), WAIT_SECONDS)
        self.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._have = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.conn.close()

    def head(self, path: str, *lines: str, method: str = "GET") -> bytes:
        """Return a request head in absolute form."""
        head = b"%s http://%s%s HTTP/1.1\r\nHost: %s\r\n" % (
            method.encode(),
            self._where,
            path.encode(),
            self._where,
        )
        return head + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"

    def send(self, path: str, *lines: str, method: str = "GET") -> None:
        """Send a request without a body."""
        self.conn.sendall(self.head(path, *lines, method=method))

    def answer(self) -> tuple[int, bytes]:
        """Read a response with Content-Length; ConnectionError when it is cut short."""
        while (end := self._have.find(b"\r\n\r\n")) < 0:
            self._more()
        head = self._have[: end + 4]
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at < 0:
            raise ValueError(f"no Content-Length: {head[:200]!r}")
        length = int(lower[at + 15 : lower.index(b"\r\n", at)])
        while len(self._have) < end + 4 + length:
            self._more()
        body = self._have[end + 4 : end + 4 + length]
        self._have = self._have[end + 4 + length :]
        return int(head.split(b" ", 2)[1]), body

    def get(self, path: str = "/") -> tuple[int, bytes]:
        """Ask and read."""
        self.send(path)
        return self.answer()

    def latencies(self, count: int) -> list[float]:
        """Return the seconds of ``count`` requests, one after another."""
        found = []
        for _ in range(count):
            begun = time.perf_counter()
            status, _ = self.get()
            found.append(time.perf_counter() - begun)
            if status != 200:
                raise ConnectionError(f"answered {status}")
        return found

    def _more(self) -> None:
        data = self.conn.recv(262144)
        if not data:
            raise ConnectionError("closed")
        self._have += data


def reset(conn: socket.socket) -> None:
    """Close with RST."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def drained(conn: socket.socket) -> tuple[bytes, bool]:
    """Read to the end; return the bytes, and whether the end was an orderly one (FIN)."""
    data = b""
    try:
        while more := conn.recv(262144):
            data += more
    except ConnectionError:
        return data, False
    return data, True


def need_descriptors(count: int) -> None:
    """Skip the test when this process cannot open so many sockets."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft < count:
        raise SkipTest(f"RLIMIT_NOFILE is {soft}, {count} are needed")


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


class StormCase(SynchronousTestCase):
    """A test with the storm's gateway; begins and ends with no client connected."""

    def setUp(self) -> None:
        self.storm = storm()
        self.gateway = self.storm.gateway
        self.settle()
        for conn in self.storm.accepted():
            conn.close()
        self.before = self.gateway.metrics()
        self.fds = self.gateway.descriptors_open()

    def settle(self, gateway: StormGateway | None = None) -> None:
        """Wait until the gateway has neither clients nor origins."""
        gateway = gateway or self.gateway
        self.until(lambda: self._quiet(gateway), "clients or origins are still counted")

    def _quiet(self, gateway: StormGateway) -> bool:
        found = gateway.metrics()
        sides = [found[f'slapenir_active_connections{{side="{s}"}}'] for s in ("client", "origin")]
        return sides == [0.0, 0.0]

    def assert_nothing_left(self) -> None:
        """Gauges at zero, no descriptor more than before, no unexpected exception (T224)."""
        self.settle()
        self.until(lambda: self.gateway.descriptors_open() <= self.fds, "descriptors leaked")
        self.assertEqual(self.grown("slapenir_internal_errors_total"), 0)
        self.assertNotIn("Traceback", self.gateway.log())

    def grown(self, series: str) -> float:
        """Return by how much a series has grown since the test began."""
        return self.gateway.metrics().get(series, 0.0) - self.before.get(series, 0.0)

    def until(self, true: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until ``true()``; fails with ``what`` after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                self.fail(what)
            time.sleep(0.05)

    def lag_over(self, bound: str) -> tuple[float, float]:
        """Return how many samples of the reactor's lag were over ``bound``, and how many in all."""
        name = "slapenir_reactor_lag_seconds_bucket"
        total = self.grown(f'{name}{{le="+Inf"}}')
        return total - self.grown(f'{name}{{le="{bound}"}}'), total

    def say(self, text: str) -> None:
        """Print a measured figure."""
        print(f"\n    {self.id().rpartition('.')[2]}: {text}", end=" ", flush=True)
