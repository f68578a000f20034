"""Show the gateway at work: a credential swapped on the way out and overwritten on the way back.

Starts ``twistd slapenir`` and a local TLS origin on loopback, lets an agent that holds only a
placeholder ask the origin something, and prints what each side saw.  Exits 0 only when the
origin received the real credential and the agent's bytes never held it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from slapenir.pki.authority import CertificateAuthority
from slapenir.pki.leaves import LeafMinter

HOST = "api.demo.test"
SCRIPTS = Path(sys.executable).parent
CONFIG = """
[gateway]
state_dir = "{top}/state"
audit = "{top}/audit"
admin = "tcp:{admin}:interface=127.0.0.1"
ca_bundle = "{top}/agent-ca.pem"

[[listener]]
endpoint = "tcp:{proxy}:interface=127.0.0.1"
mode = "explicit"
identity = "agent"

[resolver]
hosts = {{ "{host}" = ["127.0.0.1"] }}
allow_private = ["127.0.0.1:{origin}"]

[origin]
ca_file = "{top}/origin/ca.pem"

[[credential]]
id = "demo"
source = "env:DEMO_API_KEY"
hosts = ["{host}"]
inject = [{{ header = "Authorization", scheme = "Bearer" }}]

[[rule]]
id = "demo"
identities = ["agent"]
hosts = ["{host}"]
ports = [{origin}]
methods = ["GET"]
paths = ["/v1/*"]
credentials = ["demo"]
"""


class Echo(http.server.BaseHTTPRequestHandler):
    """An API that says back what it was sent, plain and in base64: the worst kind of origin."""

    protocol_version = "HTTP/1.1"
    seen: list[str] = []

    def do_GET(self) -> None:
        """Answer with the Authorization header in the body and in a header."""
        value = self.headers.get("Authorization", "")
        self.seen.append(value)
        coded = base64.b64encode(value.encode()).decode()
        body = json.dumps({"you_sent": value, "base64": coded}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Echo", value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def origin(top: Path) -> Iterator[int]:
    """Serve the echo API over TLS, with a certificate of an authority of its own."""
    (top / "origin").mkdir(mode=0o700)
    authority = CertificateAuthority.create(str(top / "origin"), "Demo origin CA")
    leaf = LeafMinter(authority, time.time).mint(HOST)
    pair = top / "origin" / "leaf.pem"
    pair.write_bytes(leaf.certificate_pem + leaf.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def gateway(config: Path, admin: int, environ: dict[str, str]) -> Iterator[None]:
    """Run ``twistd slapenir`` until it is ready, and stop it at the end."""
    log = config.with_name("gateway.log")
    command = [str(SCRIPTS / "twistd"), "-n", "--pidfile=", "slapenir", "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=output)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1)
                break
            if process.poll() is not None:
                raise SystemExit(f"the gateway did not start:\n{log.read_text()}")
            time.sleep(0.1)
        else:
            raise SystemExit(f"the gateway was not ready in time:\n{log.read_text()}")
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def placeholder_for(config: Path, environ: dict[str, str]) -> str:
    """Return the agent's placeholder, as ``slapenir env`` prints it."""
    command = [str(SCRIPTS / "slapenir"), "env", str(config), "--identity", "agent"]
    exports = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    for line in exports.stdout.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        if name == "DEMO_API_KEY":
            return value.strip().strip("'\"")
    raise SystemExit(f"no placeholder in:\n{exports.stdout}")


def ask(top: Path, proxy: int, port: int, path: str, placeholder: str) -> tuple[int, str, bytes]:
    """Be the agent: one request through the proxy.  Returns status, head and body."""
    context = ssl.create_default_context(cafile=str(top / "agent-ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", proxy, context=context, timeout=10)
    connection.set_tunnel(HOST, port)
    connection.request("GET", path, headers={"Authorization": f"Bearer {placeholder}"})
    response = connection.getresponse()
    head = "".join(f"{name}: {value}\n" for name, value in response.getheaders())
    body = response.read()
    connection.close()
    return response.status, head, body


def forms(secret: str) -> list[bytes]:
    """Return what must not be among the agent's bytes: raw, hex, base64 at each alignment."""
    raw = secret.encode()
    coded = [base64.b64encode(b"x" * pad + raw)[4:-4] for pad in range(3)]
    return [raw, raw.hex().encode(), *coded]


def story(top: Path, port: int) -> bool:
    """Run the demo and print it; return whether it held."""
    secret = "sk-demo-" + secrets.token_urlsafe(24)
    environ = {**os.environ, "DEMO_API_KEY": secret}
    proxy, admin = free_port(), free_port()
    config = top / "slapenir.toml"
    config.write_text(CONFIG.format(top=top, admin=admin, proxy=proxy, origin=port, host=HOST))
    config.chmod(0o600)
    subprocess.run([str(SCRIPTS / "slapenir"), "ca", "init", str(config)], check=True, stdout=-3)
    placeholder = placeholder_for(config, environ)
    with gateway(config, admin, environ):
        status, head, body = ask(top, proxy, port, "/v1/hello", placeholder)
        denied, _, refusal = ask(top, proxy, port, "/admin", placeholder)
    records = [json.loads(x) for x in (top / "audit" / "audit.jsonl").read_text().splitlines()]
    audit = next(r for r in records if r.get("credentials"))
    received = Echo.seen[0] if Echo.seen else ""
    reached = received == f"Bearer {secret}"
    leaked = any(form in head.encode() + body + refusal for form in forms(secret))
    print(f"agent sent       GET https://{HOST}/v1/hello   Authorization: Bearer {placeholder}")
    print(f"origin received  Authorization: {received}")
    print(f"agent got back   {status}  {body.decode()[:200]}")
    print(f"audit record     {json.dumps(audit)}")
    print(f"agent sent       GET https://{HOST}/admin")
    print(f"agent got back   {denied}  {refusal.decode().strip()}")
    print(f"origin saw       {len(Echo.seen)} request(s)")
    print(f"credential reached the origin: {'yes' if reached else 'NO'}")
    print(f"credential among the agent's bytes: {'YES' if leaked else 'no'}")
    return reached and not leaked and status == 200 and denied == 403 and len(Echo.seen) == 1


def main() -> int:
    """Run in a directory that is removed afterwards; return the exit status."""
    top = Path(tempfile.mkdtemp(prefix="slapenir-demo-"))
    try:
        for name in ("state", "audit"):
            (top / name).mkdir(mode=0o700)
        with origin(top) as port:
            return 0 if story(top, port) else 1
    finally:
        shutil.rmtree(top)


if __name__ == "__main__":
    sys.exit(main())
