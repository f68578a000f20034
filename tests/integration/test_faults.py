"""Things that break: origins, clients, disks, the process itself; what is left must be right.

After a fault the client must be able to tell a whole response from a cut one, nothing may be left
open, and the audit log must be whole.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from twisted.trial.unittest import SkipTest

from tests.integration.agent import answer, connect, dial, request, tunnel
from tests.integration.storm import (
    CLOSED,
    DENIED,
    MUTE,
    PLACEHOLDER,
    PLAIN,
    SECURE,
    SHORT,
    WAIT_SECONDS,
    Plain,
    StormCase,
    StormGateway,
    drained,
    reset,
)
from tests.support.origin import Close, Connection, Pause, Request, Reset, Step, chunked, ok
from tests.support.traces import traces

MEGA = 1 << 20
STRAY = b"meant-for-the-first"
HEAD = b"HTTP/1.1 200 OK\r\n"

CUT_HEADS: dict[str, list[Step]] = {
    "reset at once": [Reset()],
    "closed at once": [Close()],
    "reset in the head": [HEAD + b"Content-Le", Reset()],
    "closed in the head": [HEAD + b"Content-Le", Close()],
    "reset after a 103": [b"HTTP/1.1 103 Early Hints\r\n\r\n", Reset()],
}
CUT_BODIES: dict[str, list[Step]] = {
    "reset in the body": [HEAD + b"Content-Length: 100\r\n\r\nhalf", Pause(0.02), Reset()],
    "closed in the body": [HEAD + b"Content-Length: 100\r\n\r\nhalf", Close()],
    "closed in a chunk": [HEAD + b"Transfer-Encoding: chunked\r\n\r\na\r\nhalf", Close()],
    "closed between chunks": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", Close()],
    "reset in a size line": [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n1",
        Pause(0.02),
        Reset(),
    ],
    "reset instead of an end": [HEAD + b"\r\nhalf", Pause(0.02), Reset()],
}


class TestOrigins(StormCase):
    """Origins that break off, or never begin."""

    def play(self, steps: Iterable[Step]) -> str:
        """Return a path at which the origin plays these steps."""
        path = f"/{secrets.token_hex(4)}"
        self.storm.scripts[path.encode()] = lambda asked: steps
        return path

    def secure(self, path: str, method: str = "GET") -> ssl.SSLSocket:
        """Ask through a tunnel."""
        conn = tunnel(self.gateway, SECURE)
        self.addCleanup(conn.close)
        conn.sendall(request(self.gateway, SECURE, method, path))
        return conn

    def strict(self) -> ssl.SSLSocket:
        """Return a tunnel that takes an end without close_notify for what it is."""
        conn = dial(self.gateway)
        connect(conn, f"{SECURE}:{self.gateway.hosts[SECURE]}")
        trust = ssl.create_default_context(cafile=str(self.gateway.ca_file))
        return trust.wrap_socket(conn, server_hostname=SECURE, suppress_ragged_eofs=False)

    def test_cut_heads_are_answered(self) -> None:
        """T220: RST and FIN before the head is whole: 502, and the client's connection goes on."""
        for what, steps in CUT_HEADS.items():
            path = self.play(steps)
            with Plain(self.gateway) as client:
                for _ in range(5):
                    if what == "reset after a 103":
                        client.send(path, "Connection: close")
                        data = drained(client.conn)[0]
                        self.assertIn(b"\r\n\r\nHTTP/1.1 502 ", data, what)
                        break
                    self.assertEqual(client.get(path)[0], 502, what)
            if what != "reset after a 103":
                with self.secure(path) as conn:
                    self.assertEqual(answer(conn).status, 502, what)
        self.assert_nothing_left()

    def test_cut_bodies_are_cut(self) -> None:
        """T073, T220: RST and FIN in a body reset the client; no end is made up."""
        for what, steps in CUT_BODIES.items():
            path = self.play(steps)
            for _ in range(3):
                with Plain(self.gateway) as client:
                    client.send(path)
                    data, clean = drained(client.conn)
                self.assertFalse(clean, what)
                self.assertFalse(data.endswith(b"0\r\n\r\n"), what)
            with self.strict() as conn, self.assertRaises(OSError, msg=what):
                conn.sendall(request(self.gateway, SECURE, "GET", path))
                while conn.recv(65536):
                    continue
        whole = self.play([HEAD + b"\r\nwhole", Close()])
        with Plain(self.gateway) as client:
            client.send(whole, "Connection: close")
            data, clean = drained(client.conn)
        self.assertTrue(clean and data.endswith(b"0\r\n\r\n"), data)
        with self.strict() as conn:
            conn.sendall(request(self.gateway, SECURE, "GET", whole, "Connection: close"))
            self.assertTrue(drained(conn)[0].endswith(b"0\r\n\r\n"))
        self.assert_nothing_left()

    def test_handshakes_that_break(self) -> None:
        """T220: RST, FIN, garbage and half a record instead of a ServerHello: 502."""
        ways: list[Callable[[socket.socket], None]] = [
            reset,
            lambda conn: conn.close(),
            lambda conn: (conn.sendall(b"SSH-2.0-x\r\n"), conn.close()),  # type: ignore[func-returns-value]
            lambda conn: (conn.sendall(b"\x16\x03\x03\x40\x00\x02"), reset(conn)),  # type: ignore[func-returns-value]
        ]

        def serve() -> None:
            for way in ways * 3:
                conn, _ = self.storm.mute.accept()
                conn.recv(65536)
                way(conn)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        for _ in ways * 3:
            with tunnel(self.gateway, MUTE) as conn:
                conn.sendall(request(self.gateway, MUTE, "GET", "/"))
                self.assertEqual(answer(conn).status, 502)
        thread.join(WAIT_SECONDS)
        self.assert_nothing_left()

    def test_origins_that_never_answer(self) -> None:
        """T203: neither a response nor a handshake: 504, in bounded time, and nothing is left."""
        go = threading.Event()
        self.addCleanup(go.set)

        def hang(asked: Request) -> Iterator[Step]:
            go.wait(WAIT_SECONDS)
            return iter(())

        self.storm.scripts[b"/never"] = hang
        begun = time.monotonic()
        plain = [Plain(self.gateway) for _ in range(20)]
        for client in plain:
            self.addCleanup(client.conn.close)
            client.send("/never")
        mute = [tunnel(self.gateway, MUTE) for _ in range(10)]
        for conn in mute:
            self.addCleanup(conn.close)
            conn.sendall(request(self.gateway, MUTE, "GET", "/"))
        self.assertEqual({answer(conn).status for conn in mute}, {504})
        self.assertEqual({client.answer()[0] for client in plain}, {504})
        took = time.monotonic() - begun
        self.say(f"504 after {took:.1f} s, both deadlines being 2 s")
        self.assertLess(took, 6.0)
        for client in plain:
            client.conn.close()
        for conn in mute:
            conn.close()
        go.set()
        for conn in self.storm.accepted():
            conn.close()
        self.assert_nothing_left()


class TestDesync(StormCase):
    """A hostile origin and two clients of one pool."""

    STRAYS: dict[str, list[Step]] = {
        "a second response": [ok(b"first") + ok(STRAY)],
        "a second response, later": [ok(b"first"), ok(STRAY)],
        "a piece of a second one": [ok(b"first") + b"HTTP/1.1 200 OK\r\nX-Stray: " + STRAY],
        "after the last chunk": [b"".join(chunked([b"first"])) + ok(STRAY)],  # type: ignore[arg-type]
        "more than Content-Length": [ok(b"first") + STRAY],
        "a body of a 204": [b"HTTP/1.1 204 No Content\r\nContent-Length: 19\r\n\r\n" + STRAY],
        "a body of a 304": [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 19\r\n\r\n" + STRAY],
        "at the end of a read": [
            HEAD + b"Content-Length: %d\r\n\r\n" % (65536 - 42) + b"x" * (65536 - 42) + ok(STRAY)
        ],
    }
    REFUSED: dict[str, list[Step]] = {
        "LF in a chunk extension": [
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=\nb\r\nfirst\r\n0\r\n\r\n" + ok(STRAY)
        ],
        "a huge chunk extension": [
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 5000 + b"\r\nfirst\r\n0\r\n\r\n"
        ],
        "an unasked 101": [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + ok(STRAY)],
        "both framings": [
            HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + ok(STRAY)
        ],
        "a thousand 103": [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000 + ok(STRAY)],
    }

    def second(self, asked: Request) -> list[Step]:
        """Answer the second client."""
        return [ok(b"mine")]

    def ask_second(self, host: str) -> bytes:
        """Return all that the second client gets."""
        if host == PLAIN:
            with Plain(self.gateway) as client:
                client.send("/second", "Connection: close")
                return drained(client.conn)[0]
        with tunnel(self.gateway, host) as conn:
            conn.sendall(request(self.gateway, host, "GET", "/second", "Connection: close"))
            return drained(conn)[0]

    def ask_first(self, host: str, path: str, method: str = "GET") -> bytes:
        """Return all that the first client gets."""
        if host == PLAIN:
            with Plain(self.gateway) as client:
                client.send(path, "Connection: close", method=method)
                return drained(client.conn)[0]
        with tunnel(self.gateway, host) as conn:
            conn.sendall(request(self.gateway, host, method, path, "Connection: close"))
            try:
                return drained(conn)[0]
            except ssl.SSLError:
                return b""

    def assert_second_is_clean(self, host: str, what: str) -> None:
        """Two further clients get their own answer, on another connection than the first's."""
        requests = self.storm.origins[host].requests
        first = [one.connection for one in requests if one.target == b"/first"][-1]
        for _ in range(2):
            got = self.ask_second(host)
            self.assertNotEqual(requests[-1].connection, first, what)
            self.assertTrue(got.endswith(b"\r\n\r\nmine"), (what, got[:200]))
            self.assertNotIn(STRAY, got, what)

    def test_bytes_after_a_response_reach_nobody(self) -> None:
        """T070, T071: whatever follows a response ends its connection; the next client is safe."""
        self.storm.scripts[b"/second"] = self.second
        for host in (PLAIN, SECURE):
            for what, steps in self.STRAYS.items():
                self.storm.scripts[b"/first"] = lambda asked, steps=steps: steps  # type: ignore[misc]
                got = self.ask_first(host, "/first")
                self.assertNotIn(STRAY, got, what)
                if what.endswith("later"):
                    time.sleep(0.05)  # it is there before the next client asks
                self.assert_second_is_clean(host, what)
            self.storm.scripts[b"/first"] = lambda asked: [ok(STRAY)]
            got = self.ask_first(host, "/first", "HEAD")
            self.assertNotIn(STRAY, got)
            self.assert_second_is_clean(host, "a body of a HEAD")
        self.assert_nothing_left()

    def test_responses_that_can_be_read_in_two_ways_are_not_read(self) -> None:
        """T047, T061, T069: refused or cut, and the connection is not used again."""
        self.storm.scripts[b"/second"] = self.second
        for host in (PLAIN, SECURE):
            for what, steps in self.REFUSED.items():
                self.storm.scripts[b"/first"] = lambda asked, steps=steps: steps  # type: ignore[misc]
                got = self.ask_first(host, "/first")
                self.assertNotIn(STRAY, got, what)
                self.assertLessEqual(got.count(b"HTTP/1.1 103"), 16, what)
                self.assert_second_is_clean(host, what)
        self.assert_nothing_left()

    def test_many_clients_each_get_their_own(self) -> None:
        """T071: 8 clients, 60 requests each, beside an origin that adds a response to every 5th."""

        def script(asked: Request) -> list[Step]:
            number = asked.target.partition(b"?")[2]
            stray = ok(STRAY) if int(number) % 5 == 0 else b""
            return [ok(b"for-" + number) + stray]

        self.storm.scripts[b"/own"] = script
        wrong: list[bytes] = []

        def client(first: int) -> None:
            with Plain(self.gateway) as conn:
                for number in range(first, first + 60):
                    status, body = conn.get(f"/own?{number}")
                    if (status, body) != (200, b"for-%d" % number):
                        wrong.append(b"%d: %b" % (status, body))

        threads = [threading.Thread(target=client, args=(1000 * n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        self.assertEqual(wrong, [])
        self.assert_nothing_left()


class TestClients(StormCase):
    """Clients that vanish."""

    def carrying(self, mark: str) -> list[Connection]:
        """Return the origin connections that got a request with this mark."""
        found = list(self.storm.origins[PLAIN].connections)
        return [one for one in found if mark.encode() in one.received]

    def test_resets(self) -> None:
        """T221: RST while dialling, in an upload and in a download; the origin is let go."""

        def endless(asked: Request) -> Iterator[Step]:
            yield HEAD + b"Content-Length: %d\r\n\r\n" % (64 * MEGA)
            for _ in range(64):
                yield bytes(MEGA)

        self.storm.scripts[b"/down"] = endless
        for _ in range(10):
            conn = tunnel(self.gateway, MUTE)
            conn.sendall(request(self.gateway, MUTE, "GET", "/"))
            time.sleep(0.01)
            reset(conn)
            for upload in (True, False):
                mark = secrets.token_hex(8)
                client = Plain(self.gateway)
                if upload:
                    client.send(f"/up?{mark}", "Content-Length: 1000000", method="POST")
                    client.conn.sendall(b"x" * 1000)
                else:
                    client.send(f"/down?{mark}")
                    client.conn.recv(1000)
                self.until(lambda m=mark: self.carrying(m), "the origin was not asked")  # type: ignore[misc]
                reset(client.conn)
                (origin,) = self.carrying(mark)
                self.assertTrue(origin.closed.wait(5.0), "the origin was not let go")
            conn = tunnel(self.gateway, SECURE)
            conn.sendall(request(self.gateway, SECURE, "GET", "/down"))
            conn.recv(1000)
            reset(conn)
        for conn in self.storm.accepted():
            conn.settimeout(5.0)
            drained(conn)  # it ends
            conn.close()
        self.assert_nothing_left()

    def test_a_thousand_mixed_failures(self) -> None:
        """T224: gauges at zero and no descriptor more than before."""
        gateway = self.gateway
        self.storm.scripts[b"/cut"] = lambda asked: [HEAD + b"Content-Length: 9\r\n\r\nx", Reset()]
        secure = f"{SECURE}:{gateway.hosts[SECURE]}"

        def plain(path: str, host: str = PLAIN) -> None:
            with Plain(gateway, host) as client:
                client.send(path)
                drained_once(client.conn)

        def partial(data: bytes) -> None:
            conn = dial(gateway)
            conn.sendall(data)
            reset(conn)

        def alien(name: str) -> None:
            with dial(gateway) as conn:
                connect(conn, secure)
                conn.sendall(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01" + name.encode())
                drained_once(conn)

        ways: list[Callable[[], None]] = [
            lambda: plain("/cut"),
            lambda: plain("/", CLOSED),
            lambda: plain("/", DENIED),
            lambda: partial(b"GET / HT"),
            lambda: partial(f"CONNECT {secure} HTTP/1.1\r\nHost: {secure}\r\n\r\n".encode()),
            lambda: alien("x"),
            lambda: partial(b""),
            lambda: plain("/a\\b"),
            lambda: dial(gateway).close(),
            lambda: partial(b"\x05\x01\x00"),
        ]
        begun = time.monotonic()
        for _ in range(100):
            for way in ways:
                way()
        self.say(f"1,000 failures in {time.monotonic() - begun:.1f} s")
        self.assert_nothing_left()
        with Plain(gateway) as client:
            self.assertEqual(client.get()[0], 200)


def drained_once(conn: socket.socket) -> None:
    """Read whatever comes first."""
    try:
        conn.recv(65536)
    except ConnectionError:
        return


class TestAudit(StormCase):
    """The audit log cannot be written: nothing is let through that it would have recorded."""

    def upstream(self) -> tuple[int, int]:
        """Return how many connections and bytes the origins got so far."""
        origins = self.storm.origins.values()
        return sum(len(o.connections) for o in origins), sum(len(o.received()) for o in origins)

    def assert_closed(self, gateway: StormGateway) -> None:
        """Requests and CONNECTs get 503, and no origin gets a byte."""
        before = self.upstream()
        with Plain(gateway) as client:
            self.assertEqual(client.get()[0], 503)
        with dial(gateway) as conn:
            self.assertEqual(connect(conn, f"{SECURE}:{gateway.hosts[SECURE]}").status, 503)
        self.assertEqual(self.upstream(), before)

    def assert_open(self, gateway: StormGateway) -> None:
        """Requests are served, and every audit line is whole."""
        with Plain(gateway) as client:
            self.assertEqual(client.get()[0], 200)
        with tunnel(gateway, SECURE) as conn:
            bearer = f"Authorization: Bearer {PLACEHOLDER}"
            conn.sendall(request(gateway, SECURE, "GET", "/", bearer))
            self.assertEqual(answer(conn).status, 200)
        for line in gateway.audit_lines():
            json.loads(line)

    def test_no_room(self) -> None:
        """T213: the file may not grow: 503 and nothing upstream; served again without a restart.

        Clients that were connected before are refused, too, on a tunnel that was allowed.
        """
        gateway = self.gateway
        self.assert_open(gateway)
        kept = tunnel(gateway, SECURE)
        self.addCleanup(kept.close)
        kept.sendall(request(gateway, SECURE, "GET", "/"))
        response = answer(kept)
        response.read()
        audit = gateway.audit_directory / "audit.jsonl"
        gateway.limit(resource.RLIMIT_FSIZE, audit.stat().st_size + 50)
        try:
            self.assert_closed(gateway)
            before = self.upstream()
            kept.sendall(request(gateway, SECURE, "GET", "/"))
            self.assertEqual(answer(kept).status, 503)
            self.assertEqual(self.upstream(), before)
            self.assertTrue(audit.read_bytes().endswith(b"}\n"))
            self.assertEqual(gateway.admin_get("/healthz")[0], 200)
        finally:
            gateway.limit(resource.RLIMIT_FSIZE, -1)
        self.assert_open(gateway)
        time.sleep(0.2)
        self.assertGreaterEqual(self.grown("slapenir_audit_failures_total"), 3)
        self.assert_nothing_left()

    def test_full_file_system(self) -> None:
        """T213: a tmpfs of 128 KB, full in the middle of serving; served again with room."""
        gateway = self.storm.new_gateway(SHORT)
        gateway.audit_directory.mkdir(mode=0o700)
        mount = ["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "none"]
        try:
            subprocess.run([*mount, str(gateway.audit_directory)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SkipTest("mount of a tmpfs is not permitted here") from error
        self.addCleanup(subprocess.run, ["umount", "-l", str(gateway.audit_directory)])
        filler = gateway.audit_directory / "filler"
        filler.touch(mode=0o600)
        gateway.prepared = self.storm.gateway.directory
        gateway.start()
        self.addCleanup(gateway.stop)
        self.assert_open(gateway)
        statuses = []
        with filler.open("wb") as file:
            file.write(b"x" * 80_000)
        while 503 not in statuses and len(statuses) < 600:
            with Plain(gateway) as client:
                statuses.append(client.get()[0])
        self.assertEqual(set(statuses), {200, 503}, len(statuses))
        self.assert_closed(gateway)
        filler.unlink()
        self.assert_open(gateway)
        self.say(f"{len(statuses)} requests until it was full")

    def test_rotated_deleted_and_replaced(self) -> None:
        """T214: renamed or deleted: a new file; a link or a pipe in its place: 503 until gone."""
        gateway = self.gateway
        audit = gateway.audit_directory / "audit.jsonl"
        old = audit.with_name("audit.jsonl.1")
        self.assert_open(gateway)

        def replaced(make: Callable[[], object] | None) -> None:
            os.rename(audit, old)
            if make is not None:
                make()
            time.sleep(1.05)  # rotation is looked for once a second

        replaced(None)
        self.assert_open(gateway)
        self.assertTrue(audit.is_file())
        elsewhere = gateway.directory / "elsewhere"
        elsewhere.touch(mode=0o600)
        for make in (lambda: audit.symlink_to(elsewhere), lambda: os.mkfifo(audit, 0o600)):
            replaced(make)
            self.assert_closed(gateway)
            self.assertEqual(elsewhere.read_bytes(), b"")
            audit.unlink()
            self.assert_open(gateway)
        audit.unlink()
        time.sleep(1.05)
        self.assert_open(gateway)
        old.unlink()
        self.assert_nothing_left()

    def test_one_line_each_whatever_is_written(self) -> None:
        """T215: CR, LF, escapes, U+2028, bad UTF-8, quotes, 1 MB: one JSON line of ASCII each."""
        gateway = self.gateway
        host = f"{PLAIN}:{gateway.hosts[PLAIN]}".encode()
        nasty = [
            b"/%0d%0a%22,%22action%22:%22allow",
            b"/\x1b[2Jx",
            "/\u2028\u2029\x85".encode(),
            b"/\xff\xfe\xc3(",
            b'/"},{"event":"Decided',
            b"/" + b"a" * MEGA,
            b"/\x00",
        ]
        heads = [
            b"GET http://%b%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, one, host) for one in nasty
        ]
        heads += [b'G"ET\x1b http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n' % (host, host)]
        heads += [b'CONNECT "\xe2\x80\xa8":443 HTTP/1.1\r\nHost: x\r\n\r\n']
        before = len(gateway.audit_lines())
        for number, head in enumerate(heads, 1):
            with dial(gateway) as conn:
                try:
                    conn.sendall(head)
                except ConnectionError:
                    pass
                conn.shutdown(socket.SHUT_WR)
                drained(conn)
            lines = gateway.audit_lines()[before:]
            found = [one for one in map(json.loads, lines) if one.get("stage") == "request"]
            found += [one for one in map(json.loads, lines) if one.get("stage") == "connect"]
            self.assertEqual(len(found), number, head[:80])
        for line in gateway.audit_lines()[before:]:
            self.assertTrue(line.isascii() and line.decode().isprintable(), line[:200])
            self.assertLess(len(line), 4096)


class TestReload(StormCase):
    """A SIGHUP with a configuration that cannot be used."""

    def test_bad_configurations_change_nothing(self) -> None:
        """T210: each is reported and refused, while requests are served under the old one."""
        gateway = self.gateway
        file = gateway.config_file
        good = file.read_text("utf-8")
        self.addCleanup(file.write_text, good, "utf-8")
        bad = {
            "not TOML": good + "\n[[[",
            "unknown key": good.replace("[limits]", "[limits]\nconections = 1"),
            "missing secret": good.replace("env:TEST_SECRET_STORM", "env:TEST_SECRET_NONE"),
            "no rule at all": good.replace("[[rule]]", "[[rool]]"),
            "a weaker address rule": good.replace('"127.0.0.1:', '"0.0.0.0/0", "127.0.0.1:', 1),
            "other limits": good.replace("connections = 4000", "connections = 4001"),
            "another port": good.replace(f"tcp:{gateway.port}:", f"tcp:{gateway.port + 1}:"),
            "nothing": "",
        }
        for what, text in bad.items():
            self.assertNotEqual(text, good, what)
            reloads = self.reloads()
            file.write_text(text, "utf-8")
            gateway.process.send_signal(signal.SIGHUP)
            with Plain(gateway) as client:
                while len(self.reloads()) == len(reloads):
                    self.assertEqual(client.get()[0], 200, what)
            self.assertTrue(self.reloads()[-1]["error"], what)
            with Plain(gateway, DENIED) as client:
                self.assertEqual(client.get()[0], 403, what)
        file.write_text(good, "utf-8")
        gateway.process.send_signal(signal.SIGHUP)
        self.until(lambda: self.reloads()[-1]["error"] == "", "a good one was refused")
        self.assertEqual(traces(gateway.written(), self.storm.secret), [])

    def test_an_audit_log_that_cannot_be_opened_changes_nothing(self) -> None:
        """T210: a reload that is reported as failed has put nothing in force."""
        gateway = self.gateway
        file, audit = gateway.config_file, gateway.audit_directory / "audit.jsonl"
        good = file.read_text("utf-8")
        self.addCleanup(file.write_text, good, "utf-8")
        file.write_text(good.replace(f'["{CLOSED}"]', f'["{CLOSED}", "{DENIED}"]'), "utf-8")
        audit.chmod(0o620)
        try:
            said = gateway.log().count("Reload failed")
            gateway.process.send_signal(signal.SIGHUP)
            self.until(lambda: gateway.log().count("Reload failed") > said, "it was not refused")
        finally:
            audit.chmod(0o600)
        with Plain(gateway, DENIED) as client:
            self.assertEqual(client.get()[0], 403)
        gateway.process.send_signal(signal.SIGHUP)  # the same, and now the log can be opened
        self.until(lambda: self.denied_status() != 403, "a good one was refused")
        file.write_text(good, "utf-8")
        gateway.process.send_signal(signal.SIGHUP)
        self.until(lambda: self.denied_status() == 403, "the old one did not come back")

    def denied_status(self) -> int:
        """Return what a request for DENIED is answered with."""
        with Plain(self.gateway, DENIED) as client:
            return client.get()[0]

    def reloads(self) -> list[dict[str, str]]:
        """Return the records of all reloads."""
        lines = [line for line in self.gateway.audit_lines() if b'"Reloaded"' in line]
        return [json.loads(line) for line in lines]


class TestProcess(StormCase):
    """The process is killed, or told to end."""

    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.storm.new_gateway(SHORT)
        self.gateway.start()
        self.addCleanup(self.gateway.stop)

    def test_killed_ten_times_under_load(self) -> None:
        """T207: SIGKILL while 4 clients ask without a pause.

        Every audit line is whole, every answer has its record, and no answer that comes while the
        gateway starts is served by less than the whole of it: secrets are overwritten, and the
        host without a rule is refused.
        """
        gateway = self.gateway
        raw = self.storm.secret.encode()
        self.storm.scripts[b"/leaky"] = lambda asked: [ok(b"here: " + raw)]
        stop = threading.Event()
        served: list[tuple[int, bytes]] = []
        refused: list[int] = []

        def load(host: str, path: str, found: Callable[[tuple[int, bytes]], object]) -> None:
            while not stop.is_set():
                try:
                    with Plain(gateway, host) as client:
                        while not stop.is_set():
                            found(client.get(path))
                except OSError:
                    time.sleep(0.005)

        threads = [
            threading.Thread(target=load, args=(PLAIN, "/leaky", served.append)) for _ in range(3)
        ]
        args = (DENIED, "/", lambda got: refused.append(got[0]))
        threads.append(threading.Thread(target=load, args=args))
        for thread in threads:
            thread.start()
        starts = []
        try:
            for _ in range(10):
                count = len(served)
                self.until(lambda count=count: len(served) > count + 20, "nothing is served")  # type: ignore[misc]
                gateway.process.send_signal(signal.SIGKILL)
                gateway.process.wait()
                log = (gateway.audit_directory / "audit.jsonl").read_bytes()
                self.assertTrue(log.endswith(b"}\n"))
                begun = time.monotonic()
                gateway.launch()
                starts.append(time.monotonic() - begun)
        finally:
            stop.set()
            for thread in threads:
                thread.join(WAIT_SECONDS)
        records = [json.loads(line) for line in gateway.audit_lines()]
        allowed = [
            one for one in records if one.get("stage") == "request" and one["action"] == "allow"
        ]
        denied = [one for one in records if one.get("action") == "deny"]
        self.say(
            f"{len(served)} answers and {len(refused)} refusals over 10 kills, ready after "
            f"{sorted(starts)[5]:.2f} s (median), {max(starts):.2f} s (longest)"
        )
        self.assertEqual({status for status, _ in served}, {200})
        self.assertFalse([body for _, body in served if raw in body])
        self.assertEqual(set(refused), {403})
        self.assertGreaterEqual(len(allowed), len(served))
        self.assertGreaterEqual(len(denied), len(refused))
        self.assertEqual([one["event"] for one in records].count("GatewayReady"), 11)
        self.assertEqual(traces(gateway.written(), self.storm.secret), [])

    def test_the_second_sigterm_ends_at_once(self) -> None:
        """T208: the first drains a long download, the second cuts it off."""
        gateway = self.gateway
        go = threading.Event()
        self.addCleanup(go.set)

        def slow(asked: Request) -> Iterator[Step]:
            yield HEAD + b"Content-Length: 1000\r\n\r\n"
            while not go.wait(0.1):
                yield b"x"

        self.storm.scripts[b"/long"] = slow
        with Plain(gateway) as client, Plain(gateway) as idle:
            self.assertEqual(idle.get()[0], 200)
            client.send("/long")
            client.conn.recv(1000)
            gateway.process.send_signal(signal.SIGTERM)
            self.assertEqual(idle.conn.recv(1), b"")  # who has nothing under way is let go
            time.sleep(0.5)
            self.assertIsNone(gateway.process.poll())
            self.assertEqual(gateway.admin_get("/readyz")[0], 503)
            self.assertNotEqual(client.conn.recv(1000), b"")
            begun = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            gateway.process.wait(WAIT_SECONDS)
            took = time.monotonic() - begun
            self.assertFalse(drained(client.conn)[1])
        self.say(f"gone {took:.2f} s after the second SIGTERM")
        self.assertLess(took, 3.0)
        for line in gateway.audit_lines():
            json.loads(line)
