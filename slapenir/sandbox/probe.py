"""What ``slapenir doctor`` does inside a sandbox: ask with every client, try every way around.

This file is run as a script, with nothing but the standard library, by whatever Python is there.
Its argument is a table in JSON: ``url`` of an origin that a rule names (empty: none is known),
``key``, the variable with a placeholder, ``outside``, the addresses and port of a server that
nothing may reach (empty: none is known), and ``hidden``, paths that must not be there.  It prints a
JSON line for each thing it did: ``group``, ``name``, ``result`` (ok, hole, failed or skipped) and
``detail``.
The last line is END: without it something went wrong.
"""

import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

SECONDS = 20
FAST = 1.0
ANYWHERE = ("192.0.2.1", "2001:db8::1")  # documentation addresses: nobody's
WORD = b"reached"
END = "all was tried"

_NODE = (
    "fetch(process.argv[1],{headers:{Authorization:'Bearer '+process.env[process.argv[2]]}})"
    ".then(r=>r.text().then(t=>{console.log(t);process.exit(r.ok?0:1)}))"
    ".catch(e=>{console.error(e.cause||e);process.exit(1)})"
)
_PYTHON = (
    "import os,sys,urllib.request as u;"
    "r=u.Request(sys.argv[1],headers={'Authorization':'Bearer '+os.environ[sys.argv[2]]});"
    "print(u.urlopen(r,timeout=15).read().decode())"
)
_JAVA = """
import java.net.*; import java.net.http.*;
public class Ask { public static void main(String[] a) throws Exception {
 var r = HttpRequest.newBuilder(URI.create(a[0]))
  .header("Authorization", "Bearer " + System.getenv(a[1])).build();
 var s = HttpClient.newHttpClient().send(r, HttpResponse.BodyHandlers.ofString());
 System.out.println(s.body()); System.exit(s.statusCode() == 200 ? 0 : 1); } }
"""
_GO = """
package main
import ("fmt"; "io"; "net/http"; "os")
func main() {
 r, _ := http.NewRequest("GET", os.Args[1], nil)
 r.Header.Set("Authorization", "Bearer "+os.Getenv(os.Args[2]))
 s, err := http.DefaultClient.Do(r)
 if err != nil { fmt.Println(err); os.Exit(1) }
 b, _ := io.ReadAll(s.Body); fmt.Println(string(b)); if s.StatusCode != 200 { os.Exit(1) } }
"""
# Each client kind: the program that it takes, and its command; {url}, {key} (the variable's name)
# and {header} (the whole field) are put in.  Without one of them it asks without a credential.
CLIENTS: dict[str, tuple[str, list[str]]] = {
    "curl": ("curl", ["curl", "-fsS", "-m", "15", "-H", "{header}", "{url}"]),
    "wget": ("wget", ["wget", "-qO-", "-T", "15", "-t", "1", "--header={header}", "{url}"]),
    "git": ("git", ["git", "-c", "http.extraHeader={header}", "ls-remote", "{url}/repo.git"]),
    "python": ("python3", ["python3", "-c", _PYTHON, "{url}", "{key}"]),
    "pip": (
        "pip3",
        ["pip3", "download", "-q", "--no-deps", "--no-cache-dir", "--index-url", "{url}/simple",
         "-d", "{scratch}", "--retries", "0", "slapenir-doctor-probe"],
    ),
    "node": ("node", ["node", "-e", _NODE, "{url}", "{key}"]),
    "npm": (
        "npm",
        ["npm", "view", "slapenir-doctor-probe", "--registry", "{url}/npm/",
         "--fetch-retries=0", "--cache", "{scratch}"],
    ),
    "java": ("java", ["java", "{scratch}/Ask.java", "{url}", "{key}"]),
    "go": ("go", ["go", "run", "{scratch}/ask.go", "{url}", "{key}"]),
    "openssl": (
        "openssl",
        ["openssl", "s_client", "-verify_return_error", "-connect", "{authority}",
         "-servername", "{host}"],
    ),
}  # fmt: skip


def clients(plan: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Ask the origin with each client that is there; what it printed must say that it was heard."""
    origin = str(plan["url"])
    authority = origin.partition("://")[2]
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in (("Ask.java", _JAVA), ("ask.go", _GO)):
            with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
                file.write(text)
        values = {
            "key": str(plan["key"]),
            "header": f"Authorization: Bearer {os.environ.get(str(plan['key']), '')}",
            "scratch": scratch,
            "authority": authority,
            "host": authority.rpartition(":")[0],
        }
        for name, (program, words) in CLIENTS.items():
            if shutil.which(program) is None:
                yield told("client", name, "skipped", f"{program} is not there")
            else:
                url = f"{origin}/{name}"  # the origin notes who asks
                filled = [_fill(word, {"url": url, **values}) for word in words]
                yield _client(name, filled, scratch)


def _fill(word: str, values: dict[str, str]) -> str:
    """Put values in; other braces, as programs have them, stay."""
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


def _client(name: str, words: list[str], scratch: str) -> dict[str, str]:
    environment = {**os.environ, "GOCACHE": scratch, "GO111MODULE": "off", "HOME": scratch}
    try:
        done = subprocess.run(
            words, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS * 3,
            env=environment, cwd=scratch,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return told("client", name, "failed", f"{type(error).__name__}")
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
    if done.returncode == 0:
        return told("client", name, "ok", "")
    last = said.splitlines()[-1] if said else ""
    return told("client", name, "failed", f"status {done.returncode}: {last}"[:200])


def told(group: str, name: str, result: str, detail: str) -> dict[str, str]:
    """Return one line of the answer."""
    return {"group": group, "name": name, "result": result, "detail": detail}


# -- ways around ----------------------------------------------------------------------------------


def _stream(address: str, port: int, data: bytes = WORD) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as conn:
        conn.settimeout(3)
        conn.connect((address, port))
        conn.sendall(data)
        return conn.recv(200)


def _datagram(address: str, port: int, data: bytes = WORD) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as conn:
        conn.settimeout(FAST / 2)
        conn.connect((address, port))
        conn.send(data)
        return conn.recv(200)


def _tls(address: str, port: int, name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), 3) as conn:
        with context.wrap_socket(conn, server_hostname=name):
            return WORD + b": a handshake"


def _open(family: int, kind: int, protocol: int) -> bytes:
    socket.socket(family, kind, protocol).close()
    return WORD + b": it may be opened"


def _lookup(server: str) -> bytes:
    """Ask a DNS server on the Internet for a name that no rule has; an answer is a hole."""
    name = b"\x08slapenir\x07invalid\x00"
    query = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + name + b"\0\1\0\1"
    answer = _datagram(server, 53, query)
    return WORD + b": it answered" if answer[3] & 15 == 0 and answer[6:8] != b"\0\0" else b""


def _ways(plan: dict[str, Any]) -> dict[str, Callable[[], bytes]]:
    """Return every way around by name; what returns bytes with WORD in them is a hole."""
    outside = plan.get("outside") or {}
    four, six = outside.get("four", ANYWHERE[0]), outside.get("six", ANYWHERE[1])
    port = int(outside.get("port", 8443))
    http = b"GET / HTTP/1.1\r\nHost: slapenir.invalid\r\n\r\n"
    return {
        "TCP to an address": lambda: _stream(four, port),
        "TCP over IPv6": lambda: _stream(six, port),
        "TCP to port 22": lambda: _stream(four, 22),
        "TCP to port 25": lambda: _stream(four, 25),
        "DNS over TLS (853)": lambda: _tls(four, 853, "dns.slapenir.invalid"),
        "DNS over HTTPS": lambda: _tls(four, 443, "dns.slapenir.invalid"),
        "DNS over UDP": lambda: _lookup(four),
        "DNS over TCP": lambda: _dns_over_tcp(four),
        "UDP": lambda: _datagram(four, port),
        "UDP over IPv6": lambda: _datagram(six, port),
        "QUIC (UDP 443)": lambda: _datagram(four, 443),
        "NTP": lambda: _datagram(four, 123),
        "TLS without a name": lambda: _tls(four, port, None),
        "TLS with a foreign name": lambda: _tls(four, port, "slapenir.invalid"),
        "HTTP with a foreign Host": lambda: _reached(_stream(four, 80, http)),
        "HTTP with a forged Host": lambda: _reached(_stream(four, port, http)),
        "metadata service": lambda: _reached(_stream("169.254.169.254", 80, http)),
        "ICMP": lambda: _ping(four),
        "raw IP socket": lambda: _open(socket.AF_INET, socket.SOCK_RAW, 255),
        "raw ICMP socket": lambda: _open(socket.AF_INET, socket.SOCK_RAW, 1),
        "packet socket": lambda: _open(17, socket.SOCK_RAW, 0),
        "VM socket": lambda: _open(40, socket.SOCK_STREAM, 0),
        "a host's container engine": lambda: _unix("/var/run/docker.sock"),
    }


def _reached(answer: bytes) -> bytes:
    """Tell an answer of our own gateway from anybody else's."""
    ours = b"x-slapenir-decision" in answer.lower() or not answer
    return b"" if ours else WORD + b": " + answer[:40]


def _dns_over_tcp(server: str) -> bytes:
    query = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x08slapenir\x07invalid\x00\0\1\0\1"
    answer = _stream(server, 53, struct.pack("!H", len(query)) + query)
    return WORD + b": it answered" if len(answer) > 9 and answer[5] & 15 == 0 else b""


def _ping(address: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as conn:
        conn.settimeout(FAST / 2)
        conn.sendto(b"\x08\0\0\0\0\1\0\1", (address, 0))
        return WORD + b": it answered" if conn.recv(100) else b""


def _unix(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(FAST)
        conn.connect(path)
        return WORD + b": it can be connected to"


def ways(plan: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Try every way around; each has to fail, and soon."""
    for name, way in _ways(plan).items():
        began = time.monotonic()
        try:
            answer = way()
            detail = answer.decode("latin-1") if WORD in answer else "refused by an answer"
            hole = WORD in answer
        except Exception as error:
            detail, hole = f"{type(error).__name__}: {error}"[:80], False
        seconds = time.monotonic() - began
        if not hole and seconds > FAST:
            yield told("way around", name, "failed", f"refused after {seconds:.1f} s: {detail}")
        else:
            yield told("way around", name, "hole" if hole else "ok", detail)
    for path in plan.get("hidden", ()):
        there = os.path.lexists(path) and os.access(path, os.R_OK)
        detail = "it can be read" if there else "it is not there"
        yield told("way around", f"read {path}", "hole" if there else "ok", detail)


def surroundings() -> Iterator[dict[str, str]]:
    """Look at what a sandbox gives its programs."""
    for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"):
        path = os.environ.get(name, "")
        if path and os.access(path, os.R_OK):
            yield told("trust", name, "ok", path)
        else:
            detail = f"{path} is not there" if path else "is not set"
            yield told("trust", name, "failed", detail)


def main() -> None:
    """Do everything and print a line for each."""
    plan = json.loads(sys.argv[1])
    groups = [surroundings(), ways(plan)]
    if plan.get("url"):
        groups.insert(1, clients(plan))
    for group in groups:
        for line in group:
            print(json.dumps(line), flush=True)  # noqa: T201 - this is its output
    print(END, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
