"""The benchmark's load generator: a process that does a bounded amount of work through a proxy.

``python -m bench.load JOB PROXY_PORT HOST:PORT CA_FILE COUNT SIZE CONNECTIONS TOKEN [HOW]``.
HOW is a directory with ca.pem, client.pem and client.key, for a proxy that speaks TLS and wants a
certificate, or ``redirected`` for a load that knows no proxy.  It sets up and warms up, prints
``ready``, waits for a line, does COUNT units,
prints ``{"seconds": ..., "units": ...}`` and leaves when its standard input ends.  Jobs:
``requests`` (COUNT small GETs over CONNECTIONS kept connections, one in flight on each),
``connections`` (COUNT times connect, CONNECT, TLS, one GET, close), ``down`` and ``up`` (a body of
SIZE bytes on each of CONNECTIONS connections, one after the other).
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from typing import TypeAlias

import attrs

from bench.origin import text_block
from tests.support.tls_in_tls import TlsInTls, proxy_tls, tunnel_through

TIMEOUT = 60.0
MUTUAL_NAME = "gateway.internal"
REDIRECTED = "redirected"
_ANYWHERE = "192.0.2.10"  # whatever is dialled, the kernel brings it to the gateway
Connection: TypeAlias = ssl.SSLSocket | TlsInTls
_WARM_REQUESTS = 20
_WARM_CONNECTIONS = 3


@attrs.frozen
class Plan:
    """What to do and through which proxy."""

    job: str
    proxy_port: int
    authority: str
    ca_file: str
    count: int
    size: int
    connections: int
    token: str
    mutual: str = ""

    def head(self, method: str, path: str, length: int | None = None) -> bytes:
        """Return a request head as a small API client would write it."""
        body = "" if length is None else f"Content-Length: {length}\r\n"
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {self.authority}\r\n"
            f"Authorization: Bearer {self.token}\r\nAccept: application/json\r\n"
            "User-Agent: slapenir-bench/1\r\nAccept-Encoding: identity\r\n"
            f"X-Stainless-Lang: python\r\n{body}\r\n"
        ).encode("ascii")


def connect(plan: Plan, context: ssl.SSLContext) -> Connection:
    """Return TLS to the origin through a CONNECT to the proxy."""
    name, _, port = plan.authority.rpartition(":")
    if plan.mutual == REDIRECTED:
        raw = socket.create_connection((_ANYWHERE, int(port)), TIMEOUT)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(raw, server_hostname=name)
    if plan.mutual:
        files = [os.path.join(plan.mutual, name) for name in ("ca.pem", "client.pem", "client.key")]
        outer = proxy_tls(plan.proxy_port, MUTUAL_NAME, *files)
        return tunnel_through(outer, plan.authority, context)
    raw = socket.create_connection(("127.0.0.1", plan.proxy_port), TIMEOUT)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.sendall(f"CONNECT {plan.authority} HTTP/1.1\r\nHost: {plan.authority}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = raw.recv(4096)
        if not data:
            raise ConnectionError("the proxy closed during CONNECT")
        answer += data
    if answer.split(b" ", 2)[1] != b"200":
        raise ConnectionError(f"CONNECT was answered {answer[:200]!r}")
    return context.wrap_socket(raw, server_hostname=name)


def read_answer(conn: Connection, sink: bytearray) -> int:
    """Read one answer with a Content-Length, check its status, and return its body's length."""
    data = conn.recv(16384)
    while (end := data.find(b"\r\n\r\n")) < 0:
        more = conn.recv(16384)
        if not more:
            raise ConnectionError("the connection ended in a head")
        data += more
    if not data.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"the answer was {data[:400]!r}")
    lower = data[:end].lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        raise ConnectionError("the answer has no Content-Length")
    total = int(lower[at + 17 :].split(b"\r\n", 1)[0])
    left = total - (len(data) - end - 4)
    while left > 0:
        got = conn.recv_into(sink, min(left, len(sink)))
        if got == 0:
            raise ConnectionError("the connection ended in a body")
        left -= got
    return total


def _requests(conns: list[Connection], request: bytes, count: int) -> int:
    sink = bytearray(65536)
    done = 0
    while done < count:
        for conn in conns:
            conn.sendall(request)
        for conn in conns:
            read_answer(conn, sink)
        done += len(conns)
    return done


def _connections(plan: Plan, context: ssl.SSLContext, request: bytes, count: int) -> int:
    sink = bytearray(65536)
    for _ in range(count):
        with connect(plan, context) as conn:
            conn.sendall(request)
            read_answer(conn, sink)
    return count


def _down(conns: list[Connection], request: bytes) -> int:
    sink = bytearray(1 << 18)
    total = 0
    for conn in conns:
        conn.sendall(request)
        total += read_answer(conn, sink)
    return total


def _up(conns: list[Connection], head: bytes, block: memoryview, size: int) -> int:
    sink = bytearray(65536)
    for conn in conns:
        conn.sendall(head)
        left = size
        while left > 0:
            conn.sendall(block[: min(left, len(block))])
            left -= len(block)
        read_answer(conn, sink)
    return size * len(conns)


def _wait_for_go() -> None:
    print("ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit(1)


def run(plan: Plan) -> tuple[float, int]:
    """Set up, warm up, wait for the word, work; return seconds and units (requests or bytes)."""
    context = ssl.create_default_context(cafile=plan.ca_file)
    small = plan.head("GET", "/v1/small")
    if plan.job == "connections":
        _connections(plan, context, small, _WARM_CONNECTIONS)
        _wait_for_go()
        start = time.perf_counter()
        units = _connections(plan, context, small, plan.count)
        return time.perf_counter() - start, units
    conns = [connect(plan, context) for _ in range(plan.connections)]
    _requests(conns, small, _WARM_REQUESTS * len(conns))
    if plan.job == "requests":
        _wait_for_go()
        start = time.perf_counter()
        units = _requests(conns, small, plan.count)
    elif plan.job == "down":
        _wait_for_go()
        start = time.perf_counter()
        units = _down(conns, plan.head("GET", f"/v1/down/{plan.size}"))
    else:
        block = memoryview(text_block())
        head = plan.head("POST", "/v1/up", plan.size)
        _wait_for_go()
        start = time.perf_counter()
        units = _up(conns, head, block, plan.size)
    return time.perf_counter() - start, units


def main(argv: list[str]) -> None:
    """Parse the arguments, run, report, and stay until standard input ends."""
    job, port, authority, ca_file, count, size, connections, token, *mutual = argv
    numbers = int(count), int(size), int(connections)
    plan = Plan(job, int(port), authority, ca_file, *numbers, token, *mutual)
    seconds, units = run(plan)
    print(json.dumps({"seconds": seconds, "units": units}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
