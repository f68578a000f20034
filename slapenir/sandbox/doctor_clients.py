"""The kinds of clients that the doctor knows, and how each asks one thing of an HTTPS server.

This file runs inside sandboxes, so it needs nothing but the standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

SECONDS = 60.0
KNOWN_SECONDS = 20.0
_MOST = 1 << 20  # bytes of output that are looked at

_PYTHON = (
    "import os, ssl, urllib.request as r\n"
    "q = r.Request({url!r}, headers={{'Authorization': 'Bearer ' + os.environ['KEY']}})\n"
    "a = r.urlopen(q, timeout=20); print(a.status, a.headers, a.read())"
)
_REQUESTS = (
    "import os, {module}\n"
    "a = {module}.get({url!r}, headers={{'Authorization': 'Bearer ' + os.environ['KEY']}})\n"
    "a.raise_for_status(); print(a.headers, a.text)"
)
_AIOHTTP = (
    "import os, asyncio, aiohttp\n"
    "async def main():\n"
    "    async with aiohttp.ClientSession() as s:\n"
    "        h = {{'Authorization': 'Bearer ' + os.environ['KEY']}}\n"
    "        async with s.get({url!r}, headers=h) as a: print(a.headers, await a.text())\n"
    "asyncio.run(main())"
)
_FETCH = (
    "const a = await fetch('{url}', {{headers: {{Authorization: 'Bearer ' + {key}}}}});"
    "console.log(a.status, [...a.headers], await a.text()); if (!a.ok) throw a.status"
)
_NODE_HTTPS = (
    "require('https').get('{url}', {{headers: {{Authorization: 'Bearer ' + process.env.KEY}}}}, "
    "a => {{console.log(a.statusCode, a.headers); a.pipe(process.stdout)}})"
)
_JAVA = """
import java.net.*; import java.io.*;
public class Doctor {{
  public static void main(String[] a) throws Exception {{
    HttpURLConnection c = (HttpURLConnection) new URL("{url}").openConnection();
    c.setRequestProperty("Authorization", "Bearer " + System.getenv("KEY"));
    System.out.println(c.getHeaderFields());
    System.out.println(new String(c.getInputStream().readAllBytes()));
  }}
}}
"""
_RUBY = (
    "require 'net/http'; u = URI('{url}'); q = Net::HTTP::Get.new(u);"
    "q['Authorization'] = 'Bearer ' + ENV['KEY'];"
    "a = Net::HTTP.start(u.host, u.port, use_ssl: true) {{ |h| h.request(q) }};"
    "puts a.to_hash, a.body; a.value"
)
_PHP = (
    "$h = ['header' => 'Authorization: Bearer ' . getenv('KEY')];"
    "$c = stream_context_create(['http' => $h]);"
    "$a = file_get_contents('{url}', false, $c); if ($a === false) exit(1);"
    "print_r($http_response_header); echo $a;"
)
_PERL = (
    "$a = HTTP::Tiny->new(verify_SSL => 1)->get('{url}', {{headers => "
    "{{Authorization => 'Bearer ' . $ENV{{KEY}}}}}}); print %{{$a->{{headers}}}}, $a->{{content}};"
    "exit !$a->{{success}}"
)


class Client(NamedTuple):
    """A kind of client: the program, what shows that it is there, and one request.

    ``known`` is a command that has to succeed where it is not enough that the program is there.
    In ``command`` stand {url} (ends with a slash), {host}, {port}, {key} and {user}, a URL with
    the placeholder as a password.  ``authenticates`` is false for what cannot send a header.
    ``file`` is a file to write first: its name and text.
    """

    name: str
    program: str
    command: tuple[str, ...]
    shows: str = ""
    known: tuple[str, ...] = ()
    authenticates: bool = True
    said: str = ""
    file: tuple[str, str] = ("", "")


_BEARER = "Authorization: Bearer {key}"
CLIENTS: tuple[Client, ...] = (
    Client("curl", "curl", ("-sS", "-f", "-i", "--max-time", "20", "-H", _BEARER, "{url}")),
    Client(
        "wget", "wget",
        ("-q", "-S", "-O", "-", "-t", "1", "-T", "20", "--header=" + _BEARER, "{url}"),
    ),
    Client("git", "git", ("-c", "http.extraHeader=" + _BEARER, "ls-remote", "{url}repository.git")),
    Client("python-urllib", "python3", ("-c", _PYTHON)),
    Client(
        "python-requests", "python3", ("-c", _REQUESTS.replace("{module}", "requests")),
        "requests", ("-c", "import requests"),
    ),
    Client(
        "python-httpx", "python3", ("-c", _REQUESTS.replace("{module}", "httpx")),
        "httpx", ("-c", "import httpx"),
    ),
    Client("python-aiohttp", "python3", ("-c", _AIOHTTP), "aiohttp", ("-c", "import aiohttp")),
    Client(
        "pip", "python3",
        (
            "-m", "pip", "-v", "download", "--no-deps", "--no-cache-dir", "--no-input",
            "--disable-pip-version-check", "--index-url", "{user}simple/", "doctorwheel",
        ),
        "pip", ("-m", "pip", "--version"),
    ),
    Client(
        "uv", "uv",
        ("pip", "install", "--no-cache", "--target", "uv", "--no-deps",
         "--default-index", "{user}simple/", "doctorwheel"),
    ),
    Client(
        "node-fetch", "node",
        ("--input-type=module", "-e", _FETCH.replace("{key}", "process.env.KEY")),
        "Node.js from 18 on", ("-e", "process.exit(typeof fetch === 'function' ? 0 : 1)"),
    ),
    Client("node-https", "node", ("-e", _NODE_HTTPS)),
    Client(
        "npm", "npm",
        ("view", "doctor", "version", "--registry", "{url}", "--userconfig", "npmrc",
         "--fetch-retries", "0", "--cache", "npm"),
        file=("npmrc", "//{host}:{port}{path}:_authToken={key}\n"),
    ),
    Client("deno", "deno", ("eval", _FETCH.replace("{key}", "Deno.env.get('KEY')"))),
    Client("bun", "bun", ("-e", _FETCH.replace("{key}", "process.env.KEY"))),
    Client(
        "openssl", "openssl",
        ("s_client", "-quiet", "-verify_return_error", "-servername", "{host}",
         "-connect", "{host}:{port}"),
        said="GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n" + _BEARER
        + "\r\nConnection: close\r\n\r\n",
    ),
    Client(
        "java", "java", ("Doctor.java",), "a JDK from 11 on", ("--list-modules", "jdk.compiler"),
        file=("Doctor.java", _JAVA),
    ),
    Client("go", "go", ("list", "-m", "-versions", "doctor.test/module@v1.0.0")),
    Client("cargo", "cargo", ("search", "--index", "sparse+{url}", "doctor"), authenticates=False),
    Client("ruby", "ruby", ("-e", _RUBY)),
    Client("php", "php", ("-r", _PHP), "openssl", ("-r", "exit(extension_loaded('openssl')?0:1);")),
    Client(
        "perl", "perl", ("-MHTTP::Tiny", "-e", _PERL),
        "IO::Socket::SSL", ("-MIO::Socket::SSL", "-MNet::SSLeay", "-e", "1"),
    ),
)  # fmt: skip
# What a client needs of its environment, beside the sandbox's own.
_VARIABLES = {
    "go": {"GOPROXY": "{user}", "GONOSUMDB": "*", "GOFLAGS": "-mod=mod", "GO111MODULE": "on"},
    "git": {"GIT_TERMINAL_PROMPT": "0"},
}


def table() -> Iterator[tuple[str, str, str]]:
    """Yield name, what has to be there, and what it is given the placeholder in."""
    for one in CLIENTS:
        needs = f"{one.program}, {one.shows}" if one.shows else one.program
        text = " ".join((*one.command, *_VARIABLES.get(one.name, {}).values()))
        password = "{user}" in text
        sent = "a password" if password else "a header" if one.authenticates else "nothing"
        yield one.name, needs, sent


def ask_all(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Let every client that is here ask its one thing.

    Returns for each its name, whether it is there, exit status, output and seconds.
    """
    return [_ask(one, task) for one in CLIENTS]


def _ask(client: Client, task: Mapping[str, Any]) -> dict[str, Any]:
    directory = os.path.join(task["workspace"], client.name)
    os.makedirs(directory, exist_ok=True)
    program = shutil.which(client.program)
    if program is None:
        return {"name": client.name, "missing": f"{client.program} is not there"}
    environment = {**os.environ, "KEY": task["key"]}
    if client.known:
        known, _ = _run((program, *client.known), directory, environment, b"", KNOWN_SECONDS)
        if known:
            return {"name": client.name, "missing": f"{client.shows} is not there"}
    path = f"/client/{client.name}/"
    host, port, key = task["name"], str(task["port"]), task["key"]
    words = {
        "url": f"https://{host}:{port}{path}",
        "user": f"https://doctor:{key}@{host}:{port}{path}",
        "host": host,
        "port": port,
        "path": path,
        "key": key,
    }
    name, text = client.file
    if name:
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text.format(**words))
    for variable, value in _VARIABLES.get(client.name, {}).items():
        environment[variable] = value.format(**words)
    command = (program, *(word.format(**words) for word in client.command))
    said = client.said.format(**words).encode()
    began = time.monotonic()
    status, output = _run(command, directory, environment, said, SECONDS)
    return {
        "name": client.name,
        "status": status,
        "output": output[-_MOST:].decode("latin-1"),
        "seconds": time.monotonic() - began,
    }


def _run(
    command: tuple[str, ...], directory: str, environment: dict[str, str], said: bytes, wait: float
) -> tuple[int, bytes]:
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, input=said, capture_output=True, timeout=wait
        )
    except subprocess.TimeoutExpired as late:
        return -1, (late.stdout or b"") + (late.stderr or b"")
    except OSError as error:
        return -1, str(error).encode()
    return done.returncode, done.stdout + done.stderr
