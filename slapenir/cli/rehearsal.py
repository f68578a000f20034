"""A whole world for ``slapenir doctor``: an origin, a gateway's configuration, a server outside.

Everything is made in a directory of its own and gone afterwards; the real configuration and its
secrets are not touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import secrets
import socket
import ssl
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator

import attrs

from slapenir.cli.authority import DAYS, make_authority
from slapenir.config.load import load
from slapenir.config.state import make_directory
from slapenir.pki.authority import CertificateAuthority
from slapenir.pki.leaves import LeafMinter

HOST = "origin.slapenir.test"
IDENTITY = "doctor"
VARIABLE = "DOCTOR_API_KEY"
_PROBE = "slapenir-doctor-probe"
_CONFIG = """
[gateway]
state_dir = "state"
audit = "audit"
admin = ""
access_log = false

[[listener]]
endpoint = "tcp:1:interface=127.0.0.1"
identity = "{identity}"

[resolver]
hosts = {{ "{host}" = ["127.0.0.1"] }}
allow_private = ["127.0.0.1:{port}"]

[origin]
ca_file = "origin/ca.pem"

[[credential]]
id = "doctor"
source = "env:{variable}"
hosts = ["{host}"]

[[rule]]
id = "doctor"
identities = ["{identity}"]
hosts = ["{host}"]
ports = [{port}]
credentials = ["doctor"]
"""


@attrs.define
class Rehearsal:
    """What was made: where the configuration is, whom to ask, and who may not be reached."""

    directory: str
    config: str
    url: str
    secret: str = attrs.field(repr=False)
    asked: dict[str, list[str]]
    outside: dict[str, object]
    contacts: list[str]

    def leaked(self, text: str) -> bool:
        """Whether the secret is in what the sandbox printed, raw or in hex."""
        return self.secret in text or self.secret.encode().hex() in text

    @property
    def workspace(self) -> str:
        """A directory that the sandbox may write to."""
        return os.path.join(self.directory, "work")


@contextlib.contextmanager
def rehearsal() -> Iterator[Rehearsal]:
    """Make everything, and take it down again."""
    with contextlib.ExitStack() as undo:
        directory = undo.enter_context(tempfile.TemporaryDirectory(prefix="slapenir-doctor-"))
        os.chmod(directory, 0o755)  # noqa: S103 - the sandbox's user goes through to its workspace
        asked: dict[str, list[str]] = {}
        port = undo.enter_context(_origin(directory, asked))
        config = os.path.join(directory, "slapenir.toml")
        text = _CONFIG.format(identity=IDENTITY, host=HOST, port=port, variable=VARIABLE)
        with open(os.open(config, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        settings = load(config)
        make_directory(settings.gateway.audit, "$.gateway.audit")
        make_authority(settings, None, DAYS)
        made = Rehearsal(
            directory,
            config,
            f"https://{HOST}:{port}",
            "sk-doctor-" + secrets.token_urlsafe(24),
            asked,
            {},
            [],
        )
        os.mkdir(made.workspace)
        os.chmod(made.workspace, 0o777)  # noqa: S103 - whoever the command runs as
        made.outside = undo.enter_context(_outside(made.contacts))
        yield made


@contextlib.contextmanager
def _origin(directory: str, asked: dict[str, list[str]]) -> Iterator[int]:
    """Serve over TLS; note the credential of each request by the first part of its path."""
    place = os.path.join(directory, "origin")
    os.mkdir(place, 0o700)
    authority = CertificateAuthority.create(place, "slapenir doctor's origin")
    leaf = LeafMinter(authority, time.time).mint(HOST)
    pair = os.path.join(place, "leaf.pem")
    with open(os.open(pair, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(leaf.certificate_pem + leaf.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(asked))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _handler(asked: dict[str, list[str]]) -> type[http.server.BaseHTTPRequestHandler]:
    class Origin(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer as what the client takes it for, and say back what it was sent."""
            said = self.headers.get("Authorization", "")
            client = self.path.lstrip("/").partition("/")[0]
            asked.setdefault(client, []).append(said)
            kind, body = _answer(self.path, said)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    return Origin


def _answer(path: str, said: str) -> tuple[str, bytes]:
    """Return what a git repository, a package index or a registry says; else what came, back."""
    wheel = _wheel()
    name = f"{_PROBE.replace('-', '_')}-1-py3-none-any.whl"
    if "/info/refs" in path:
        return "text/plain", b"0123456789abcdef0123456789abcdef01234567\trefs/heads/main\n"
    if path.endswith(f"/simple/{_PROBE}/"):
        digest = hashlib.sha256(wheel).hexdigest()
        return "text/html", f'<a href="../../{name}#sha256={digest}">{name}</a>'.encode()
    if path.endswith(".whl"):
        return "application/zip", wheel
    if "/npm/" in path:
        version = {"name": _PROBE, "version": "1.0.0", "dist": {"tarball": "", "shasum": ""}}
        document = {
            "name": _PROBE,
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": version},
        }
        return "application/json", json.dumps(document).encode()
    return "application/json", json.dumps({"you_sent": said}).encode()


def _wheel() -> bytes:
    """Return an empty package."""
    stem = f"{_PROBE.replace('-', '_')}-1.dist-info"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in (
            ("METADATA", f"Metadata-Version: 2.1\nName: {_PROBE}\nVersion: 1\n"),
            ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            ("RECORD", ""),
        ):
            archive.writestr(zipfile.ZipInfo(f"{stem}/{name}"), text)
    return data.getvalue()


@contextlib.contextmanager
def _outside(contacts: list[str]) -> Iterator[dict[str, object]]:
    """Listen on every address of this host, TCP and UDP: nothing from a sandbox may arrive."""
    with contextlib.ExitStack() as undo:
        four = _own_address(socket.AF_INET, "192.0.2.1") or "127.0.0.1"
        six = _own_address(socket.AF_INET6, "2001:db8::1") or "::1"
        tcp = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        undo.callback(tcp.close)
        port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        undo.callback(udp.close)
        udp.bind(("", port))
        for one in (tcp, udp):
            threading.Thread(target=_note, args=(one, contacts), daemon=True).start()
        undo.callback(_wake, (tcp, udp))
        yield {"four": four, "six": six, "port": port}


def _own_address(family: int, towards: str) -> str:
    """Return the address that packets to somewhere would come from; nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _note(one: socket.socket, contacts: list[str]) -> None:
    with contextlib.suppress(OSError):
        while True:
            if one.type == socket.SOCK_STREAM:
                conn, peer = one.accept()
                contacts.append(f"TCP from {peer[0]}")
                with conn:
                    conn.sendall(b"reached")
            else:
                data, peer = one.recvfrom(2048)
                if not data:
                    return
                contacts.append(f"UDP from {peer[0]}")
                one.sendto(b"reached", peer)


def _wake(sockets: tuple[socket.socket, ...]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
