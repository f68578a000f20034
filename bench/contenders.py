"""What is compared: how each proxy is set up, started, and stopped, each in its own directory."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from tests.support.certs import ThrowawayCA

ROOT = Path(__file__).resolve().parent.parent
HOST = "api.example.test"
START_SECONDS = 30.0
STOP_SECONDS = 10.0


class Unavailable(Exception):
    """A contender cannot run here; the text says why."""


@attrs.frozen
class Bed:
    """What all contenders share: a scratch directory, the CA, the origin's port, and build/."""

    directory: Path
    ca: ThrowawayCA
    origin_port: int
    build: Path

    def subdirectory(self, name: str) -> Path:
        """Return a new directory that every user may enter (some proxies change their user)."""
        path = self.directory / name
        path.mkdir(mode=0o755)
        return path


@attrs.frozen
class Running:
    """A started contender; ``token`` is what the client sends as its bearer token.

    ``mutual`` is the directory of a client certificate for one that asks for it; ``enter`` is what
    a client does first for one that is in a sandbox's network.
    """

    name: str
    process: subprocess.Popen[bytes]
    port: int
    ca_file: Path
    token: str
    close: Callable[[], object]
    mutual: Path | None = None
    enter: Callable[[], None] | None = None


def free_port() -> int:
    """Return a loopback TCP port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def spawn(command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
    """Start a process of our own with its output in ``log``."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process of our own, kill it if it lingers, and reap it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when ``port`` accepts; raise Unavailable with the log's end if it never does."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    stop(process)
    tail = log.read_text("utf-8", "replace")[-500:].strip()
    raise Unavailable(f"it did not start listening: {tail}")


def _started(
    name: str, command: Sequence[str | Path], directory: Path, port: int, ca_file: Path
) -> Running:
    log = directory / "output.log"
    process = spawn(command, log)
    wait_for_port(process, port, log)
    return Running(name, process, port, ca_file, "bench-placeholder", lambda: stop(process))


def start_relay(bed: Bed) -> Running:
    """Start the bare Twisted relay of bench/relay.py."""
    directory = bed.subdirectory("relay")
    cert, key = bed.ca.leaf(HOST)
    port = free_port()
    command: list[str | Path] = [sys.executable, "-m", "bench.relay", str(port), cert, key]
    command += [HOST, str(bed.origin_port), bed.ca.ca_file]
    return _started("relay", command, directory, port, bed.ca.ca_file)


# With its default request buffer (512 KB) squid 5.7 takes a full buffer for the client's end and
# aborts one large upload in ten.
_SQUID_CONF = """\
http_port 127.0.0.1:{port} ssl-bump tls-cert={ca} tls-key={key} \
generate-host-certificates=on dynamic_cert_mem_cache_size=16MB
sslcrtd_program {certgen} -s {directory}/ssl_db -M 16MB
sslcrtd_children 2 startup=1 idle=1
{bump}
tls_outgoing_options cafile={ca}
http_access allow all
cache deny all
cache_mem 8 MB
client_request_buffer_max_size 4 MB
hosts_file {directory}/hosts
dns_nameservers 127.0.0.1
visible_hostname bench
pid_filename none
coredump_dir {directory}
cache_log {directory}/cache.log
access_log stdio:{directory}/access.log
logfile_rotate 0
shutdown_lifetime 0 seconds
"""
SQUID_BUMPS = {
    "squid": "ssl_bump bump all",
    "squid-peek": "acl step1 at_step SslBump1\nssl_bump peek step1\nssl_bump bump all",
}
_CERTGEN = ("/usr/lib/squid/security_file_certgen", "/usr/libexec/squid/security_file_certgen")


def start_squid(bed: Bed, name: str = "squid") -> Running:
    """Start squid with ssl-bump, generated certificates, an access log and no cache.

    ``squid`` bumps at the CONNECT, so its origin connections are pooled; ``squid-peek`` reads the
    ClientHello first and then has one origin connection per client connection.
    """
    squid = shutil.which("squid", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    certgen = next((path for path in _CERTGEN if Path(path).exists()), None)
    if squid is None or certgen is None:
        raise Unavailable("squid with OpenSSL is not installed (Debian: squid-openssl)")
    directory = bed.subdirectory(name)
    port = free_port()
    (directory / "hosts").write_text(f"127.0.0.1 {HOST}\n", "ascii")
    config = _SQUID_CONF.format(
        port=port,
        ca=bed.ca.ca_file,
        key=bed.ca.ca_key_file,
        certgen=certgen,
        directory=directory,
        bump=SQUID_BUMPS[name],
    )
    (directory / "squid.conf").write_text(config, "ascii")
    database = [certgen, "-c", "-s", str(directory / "ssl_db"), "-M", "16MB"]
    subprocess.run(database, check=True, capture_output=True)
    if os.geteuid() == 0:
        _give_to_proxy_user(directory)
    command = [squid, "-N", "-f", str(directory / "squid.conf")]
    return _started(name, command, directory, port, bed.ca.ca_file)


def _give_to_proxy_user(directory: Path) -> None:
    """Squid started by root changes to the user ``proxy``, who must own what it writes."""
    try:
        owner = pwd.getpwnam("proxy")
    except KeyError:
        raise Unavailable("there is no user 'proxy' for squid to change to") from None
    for path in (directory, *directory.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid)


_ADDON = """\
def server_connect(data):
    data.server.address = ("127.0.0.1", {port})
"""


def start_mitmproxy(bed: Bed) -> Running:
    """Start mitmdump, bodies streamed, nothing printed; install it first when it is missing."""
    directory = bed.subdirectory("mitmproxy")
    mitmdump = _install_mitmproxy(bed.build / "bench-venv")
    port = free_port()
    addon = directory / "addon.py"
    addon.write_text(_ADDON.format(port=bed.origin_port), "ascii")
    command = [str(mitmdump), "-q", "--listen-host", "127.0.0.1", "--listen-port", str(port)]
    command += ["-s", str(addon)]
    options = {
        "confdir": directory,
        "flow_detail": 0,
        "stream_large_bodies": 1,
        "ssl_verify_upstream_trusted_ca": bed.ca.ca_file,
    }
    for key, value in options.items():
        command += ["--set", f"{key}={value}"]
    ca_file = directory / "mitmproxy-ca-cert.pem"
    return _started("mitmproxy", command, directory, port, ca_file)


def _install_mitmproxy(venv: Path) -> Path:
    """Return mitmdump of a virtual environment of its own, made on the first call."""
    mitmdump = venv / "bin" / "mitmdump"
    if mitmdump.exists():
        return mitmdump
    print("bench: installing mitmproxy into", venv.name, flush=True)
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "mitmproxy"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(venv, ignore_errors=True)
            raise Unavailable(f"mitmproxy could not be installed: {done.stderr[-300:].strip()}")
    return mitmdump
