"""The benchmark's origin: a threaded TLS HTTP/1.1 server with prebuilt answers.

``GET /v1/small`` answers about 300 bytes of JSON; ``GET /v1/down/BYTES`` answers that many bytes
of text; ``POST /v1/up`` swallows a body with Content-Length.  Run as a process:
``python -m bench.origin CERT KEY``; it prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import sys
import threading

BLOCK = 1 << 20
SMALL = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Twelve fish swim past."},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":5,'
    b'"total_tokens":14}}'
)


def _head(kind: str, length: int) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {length}\r\n"
        "X-Request-Id: 0123456789abcdef\r\nCache-Control: no-store\r\n\r\n"
    ).encode("ascii")


SMALL_ANSWER = _head("application/json", len(SMALL)) + SMALL
UP_ANSWER = _head("application/json", 2) + b"{}"


def text_block() -> bytes:
    """Return 1 MiB of text that no coding shrinks much and that looks like base64 lines."""
    line = base64.b64encode(os.urandom(BLOCK * 3 // 4))
    rows = [line[at : at + 75] for at in range(0, len(line), 76)]
    return b"\n".join(rows)[:BLOCK].ljust(BLOCK, b"\n")


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _serve(conn: ssl.SSLSocket, block: memoryview) -> None:
    """Answer requests on one connection until its peer goes away."""
    buffer = bytearray()
    while True:
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            data = conn.recv(65536)
            if not data:
                return
            buffer += data
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        target = head.split(b" ", 2)[1]
        if target.startswith(b"/v1/down/"):
            left = int(target.rpartition(b"/")[2])
            conn.sendall(_head("text/plain", left))
            while left > 0:
                conn.sendall(block[: min(left, BLOCK)])
                left -= BLOCK
        elif target == b"/v1/up":
            _swallow(conn, _content_length(head) - len(buffer))
            buffer.clear()
            conn.sendall(UP_ANSWER)
        else:
            conn.sendall(SMALL_ANSWER)


def _swallow(conn: ssl.SSLSocket, left: int) -> None:
    sink = bytearray(1 << 18)
    while left > 0:
        got = conn.recv_into(sink, min(left, len(sink)))
        if got == 0:
            raise ConnectionError("the body ended early")
        left -= got


def _connection(raw: socket.socket, context: ssl.SSLContext, block: memoryview) -> None:
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(raw, server_side=True) as conn:
            _serve(conn, block)
    except OSError:
        raw.close()


def _accept(listener: socket.socket, context: ssl.SSLContext, block: memoryview) -> None:
    while True:
        raw, _ = listener.accept()
        threading.Thread(target=_connection, args=(raw, context, block), daemon=True).start()


def main(cert: str, key: str) -> None:
    """Serve on a free loopback port until standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    block = memoryview(text_block())
    threading.Thread(target=_accept, args=(listener, context, block), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
