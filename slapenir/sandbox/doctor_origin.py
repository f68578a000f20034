"""The server that the doctor's clients ask: an HTTPS origin that gives away the key it was sent."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import ssl
import threading
import zipfile

NAME = "api.doctor.test"
_WHEEL = "doctorwheel-1.0-py3-none-any.whl"
_COMMIT = "5ee9ab3ed0000000000000000000000000000000"


class Origin:
    """It listens on loopback; ``asked`` are the path and the credential of every request."""

    def __init__(self, pair: str) -> None:
        self.asked: list[tuple[str, str]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        asked = self.asked

        class Handler(_Answers):
            """One connection, whose requests this origin keeps."""

            kept = asked

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def keys_of(self, client: str) -> list[str]:
        """Return the credentials that a client's requests came with."""
        return [key for path, key in self.asked if path.startswith(f"/client/{client}/")]

    def forged(self) -> list[str]:
        """Return the paths of requests that should never have come."""
        return [path for path, _ in self.asked if path.startswith("/forged/")]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    kept: list[tuple[str, str]]

    def do_GET(self) -> None:
        """Answer as the registry, index or API that a path belongs to."""
        sent = self.headers.get("Authorization", "")
        self.kept.append((self.path, _credential(sent)))
        _, kind, client, *rest = (*self.path.partition("?")[0].split("/"), "", "")
        if kind == "client" and not sent and client != "cargo":
            self._answer(401, b"who are you?\n", sent)
            return
        host = self.headers.get("Host", NAME)
        found = _special(client, "/".join(rest).rstrip("/"), host)
        status, body = found or (200, json.dumps({"you_sent": sent}).encode() + b"\n")
        self._answer(status, body, sent)

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, sent: str) -> None:
        kind = "text/html" if body.startswith(b"<") else "application/json"
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="doctor"')
        self.send_header("Content-Type", "text/plain" if b"refs/heads" in body else kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Echo", sent)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def _credential(sent: str) -> str:
    """Return the token or the password in an Authorization field."""
    scheme, _, rest = sent.partition(" ")
    if scheme.lower() != "basic":
        return rest
    try:
        return base64.b64decode(rest).decode("latin-1").partition(":")[2]
    except ValueError:
        return rest


def _special(client: str, path: str, host: str) -> tuple[int, bytes] | None:
    """Return what a tool needs that speaks its own protocol over HTTPS."""
    base = f"https://{host}/client/{client}"
    if client == "git":
        refs = f"{_COMMIT}\trefs/heads/main\n"
        return 200, (refs if path.endswith("info/refs") else "ref: refs/heads/main\n").encode()
    if client in ("pip", "uv"):
        if path.endswith(".whl"):
            return 200, wheel()
        digest = hashlib.sha256(wheel()).hexdigest()
        return 200, f'<a href="{base}/{_WHEEL}#sha256={digest}">{_WHEEL}</a>'.encode()
    if client == "npm":
        release = {"name": "doctor", "version": "1.0.0", "dist": {"tarball": f"{base}/doctor.tgz"}}
        tags = {"latest": "1.0.0"}
        text = {"name": "doctor", "dist-tags": tags, "versions": {"1.0.0": release}}
        return 200, json.dumps(text).encode()
    if client == "go":
        if path.endswith("list"):
            return 200, b"v1.0.0\n"
        if path.endswith(".mod"):
            return 200, b"module doctor.test/module\n"
        return 200, b'{"Version": "v1.0.0", "Time": "2025-01-01T00:00:00Z"}\n'
    if client == "cargo":
        if path == "config.json":
            return 200, json.dumps({"dl": f"{base}/dl", "api": base}).encode()
        return 200, b'{"crates": [], "meta": {"total": 0}}'
    return None


def wheel() -> bytes:
    """Return a wheel with one empty module, the same at every call."""
    info = "doctorwheel-1.0.dist-info"
    files = {
        "doctorwheel.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: doctorwheel\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: doctor\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in files)
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return buffer.getvalue()
