"""Real clients that are given a trust kit and nothing else; without it each of them refuses.

The server's leaf is signed by a CA of the test's own, as a gateway's is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from slapenir.sandbox.trust import Kit, make_kit
from tests.integration.case import need, need_module
from tests.integration.scene import CLIENTS, Ran
from tests.support.certs import ThrowawayCA
from tests.support.gateway import ROOT
from tests.support.index_origin import NAME, VERSION, index_origin
from tests.support.origin import Close, Origin, Request, Step, ok

SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
PASSWORD = "not-a-secret"
SECONDS = 60.0


def answer(request: Request) -> Iterable[Step]:
    """Answer what a client asks first, well enough that it is content."""
    if b"/info/refs" in request.target:
        return [ok(b"a" * 40 + b"\trefs/heads/main\n"), Close()]
    if b"config.json" in request.target:
        return [ok(b'{"dl": "https://localhost/dl", "api": "https://localhost/"}'), Close()]
    if b"aws" in (request.header(b"user-agent") or b""):
        return [ok(b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"), Close()]
    return [ok(b"{}", b"Content-Type: application/json"), Close()]


class TrustCase(SynchronousTestCase):
    """A kit, a home without anything in it, and a server behind the kit's CA."""

    def setUp(self) -> None:
        if not os.path.exists(SYSTEM):
            raise SkipTest(f"{SYSTEM} is missing: ca-certificates is not installed")
        self.directory = Path(tempfile.mkdtemp(prefix="slapenir-trust-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.ca = ThrowawayCA(self.directory)
        place = self.directory / "kit"
        place.mkdir(mode=0o700)
        self.kit: Kit = make_kit(str(place), self.ca.ca_file.read_bytes(), SYSTEM)
        self.variables = self.kit.environment(str(place))
        self.home = self.directory / "home"
        self.home.mkdir()
        self.server = self.serve(Origin(answer, self.ca.server_context("localhost", "127.0.0.1")))
        self.url = f"https://localhost:{self.server.port}/"

    def serve(self, server: Origin) -> Origin:
        """Close a server when the test is over."""
        self.addCleanup(server.close)
        return server

    def run_client(self, argv: Iterable[str | Path], variables: dict[str, str], text: str) -> Ran:
        """Run a client in an empty environment but for a home, a path and these."""
        done = subprocess.run(
            [str(part) for part in argv],
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **variables},
            cwd=self.home,
            timeout=SECONDS,
        )
        return Ran(done.returncode, done.stdout)

    def assert_refused(self, ran: Ran) -> None:
        """The client connected, and asked nothing of a server that it did not trust."""
        said = ran.output.decode("utf-8", "replace")
        self.assertNotEqual(self.server.connections, [], said)
        self.assertEqual(self.server.requests, [], said)

    def assert_trusts(
        self, *argv: str | Path, only: Iterable[str] = (), text: str = "", **others: str
    ) -> None:
        """The client fails without the kit before it asks anything, and succeeds with it.

        ``only`` are the variables of the kit that it is given, ``others`` what it gets both times.
        """
        chosen = {name: self.variables[name] for name in only} if only else self.variables
        without = self.run_client(argv, others, text)
        self.assertNotEqual(without.status, 0, without.output.decode("utf-8", "replace"))
        self.assert_refused(without)
        ran = self.run_client(argv, {**chosen, **others}, text)
        self.assertEqual(ran.status, 0, ran.output.decode("utf-8", "replace"))
        self.assertNotEqual(self.server.requests, [], ran.output.decode("utf-8", "replace"))


class CommandTests(TrustCase):
    """Programs of the command line."""

    def test_openssl_by_file_and_by_directory(self) -> None:
        argv = [need("openssl"), "s_client", "-verify_return_error", "-quiet", "-connect"]
        argv += [f"localhost:{self.server.port}", "-servername", "localhost"]
        get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            self.server.requests.clear()
            self.server.connections.clear()
            self.assert_trusts(*argv, only=[variable], text=get)

    def test_curl(self) -> None:
        self.assert_trusts(need("curl"), "-sS", self.url)

    def test_wget(self) -> None:
        self.assert_trusts(need("wget"), "-nv", "-t", "1", "-O", "-", self.url)

    def test_git(self) -> None:
        self.assert_trusts(need("git"), "ls-remote", f"{self.url}repo.git", GIT_TERMINAL_PROMPT="0")

    def test_npm(self) -> None:
        npm = [need("npm"), "ping", "--registry", self.url, "--fetch-retries=0"]
        self.assert_trusts(*npm, npm_config_update_notifier="false")

    def test_cargo(self) -> None:
        """cargo asks for the registry's configuration; that it does not like the rest is fine."""
        rust = os.path.expanduser("~/.rustup")
        argv = [need("cargo"), "search", "--registry", "mine", "x"]
        others = {"CARGO_REGISTRIES_MINE_INDEX": f"sparse+{self.url}", "CARGO_NET_RETRY": "0"}
        if os.path.isdir(rust):
            others["RUSTUP_HOME"] = rust
        without = self.run_client(argv, others, "")
        self.assertIn(b"certificate", without.output)
        self.assert_refused(without)
        ran = self.run_client(argv, {**self.variables, **others}, "")
        self.assertNotEqual(self.server.requests, [], ran.output.decode("utf-8", "replace"))

    def test_aws(self) -> None:
        aws = [need("aws"), "s3", "ls", "--no-sign-request", "--endpoint-url", self.url[:-1]]
        settings = {"AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
        self.assert_trusts(*aws, AWS_DEFAULT_REGION="us-east-1", **settings)


class PythonTests(TrustCase):
    """Python's libraries."""

    def assert_code_trusts(self, code: str) -> None:
        """The program, which gets the URL as its argument, trusts by the kit only."""
        self.assert_trusts(sys.executable, "-c", code, self.url)

    def test_standard_library(self) -> None:
        self.assert_code_trusts("import sys, urllib.request as u; u.urlopen(sys.argv[1]).read()")

    def test_httpx(self) -> None:
        need_module("httpx")
        self.assert_code_trusts("import sys, httpx; httpx.get(sys.argv[1]).raise_for_status()")

    def test_requests(self) -> None:
        need_module("requests")
        self.assert_code_trusts("import sys, requests; requests.get(sys.argv[1])")

    def test_pip(self) -> None:
        tls = self.ca.server_context("localhost")
        self.server = self.serve(index_origin(tls, PASSWORD))
        index = f"https://agent:{PASSWORD}@localhost:{self.server.port}/simple/"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0"]
        pip += ["--no-cache-dir", "--disable-pip-version-check", "--index-url", index]
        self.assert_trusts(*pip, f"{NAME}=={VERSION}", PIP_CONFIG_FILE="/dev/null")


class RuntimeTests(TrustCase):
    """Node, Java, Go and NSS."""

    def test_node_fetch(self) -> None:
        self.assert_trusts(need("node"), "-e", f"await fetch({json.dumps(self.url)})", "--", "x")

    def test_node_https(self) -> None:
        get = f'require("https").get({json.dumps(self.url)}, (r) => r.resume())'
        self.assert_trusts(need("node"), "-e", get)

    def test_java(self) -> None:
        self.assert_trusts(need("java"), CLIENTS / "Get.java", self.url)

    def test_go_by_file_and_by_directory(self) -> None:
        """Go reads the file that is named and every file of the directory that is named."""
        client = ROOT / "build" / "tools" / "go-get"
        if not client.exists():
            raise SkipTest("build/tools/go-get is missing; run: .ci/go-tools")
        for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            self.server.requests.clear()
            self.server.connections.clear()
            self.assert_trusts(client, self.url, only=[variable])

    def _bring_home(self) -> None:
        """Copy the files for the home; skip where there are none."""
        need("certutil")
        files = self.kit.home_files()
        self.assertEqual(sorted(files), [".pki/nssdb/cert9.db", ".pki/nssdb/key4.db"])
        (self.home / ".pki" / "nssdb").mkdir(parents=True)
        for name, source in files.items():
            shutil.copy(source, self.home / name)

    def test_nss(self) -> None:
        """NSS's own client, with the database and with an empty one; the handshake decides."""
        client = [need("tstclnt"), "-h", "127.0.0.1", "-p", str(self.server.port), "-Q", "-d"]
        self._bring_home()
        empty = self.directory / "empty"
        empty.mkdir()
        make = [need("certutil"), "-N", "--empty-password", "-d", f"sql:{empty}"]
        subprocess.run(make, check=True, timeout=SECONDS)
        without = self.run_client([*client, f"sql:{empty}"], {}, "")
        self.assertIn(b"SEC_ERROR_UNKNOWN_ISSUER", without.output)
        ran = self.run_client([*client, f"sql:{self.home}/.pki/nssdb"], {}, "")
        self.assertEqual(ran.status, 0, ran.output)

    def test_chromium(self) -> None:
        """It exits with 0 either way: what the server was asked decides."""
        chromium = [need("chromium"), "--headless=new", "--no-sandbox", "--disable-quic"]
        argv = [*chromium, "--disable-gpu", "--dump-dom", self.url]
        self.assert_refused(self.run_client(argv, {}, ""))
        shutil.rmtree(self.home / ".pki", ignore_errors=True)
        self._bring_home()
        ran = self.run_client(argv, {}, "")
        self.assertNotEqual(self.server.requests, [], ran.output.decode("utf-8", "replace"))


class OverlayTests(TrustCase):
    """Programs that are told nothing find the kit where the system's list was."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("mounts need root")
        self.unshare = [need("unshare"), "--mount", "--propagation", "private"]

    def assert_covered(self, *argv: str) -> None:
        """Run without any variable: as the host is, and with its files covered."""
        mounts = [f"mount --bind {ours} {real}" for ours, real in self.kit.overlays("/run/kit")]
        script = " && ".join([*mounts, 'exec "$@"'])
        without = self.run_client(argv, {}, "")
        self.assertNotEqual(without.status, 0)
        self.assert_refused(without)
        ran = self.run_client([*self.unshare, "sh", "-c", script, "sh", *argv], {}, "")
        self.assertEqual(ran.status, 0, ran.output.decode("utf-8", "replace"))
        self.assertNotEqual(self.server.requests, [])

    def test_wget(self) -> None:
        self.assert_covered(need("wget"), "-nv", "-t", "1", "-O", "-", self.url)

    def test_curl(self) -> None:
        self.assert_covered(need("curl"), "-sS", self.url)

    def test_java(self) -> None:
        """Java opens its own list without a password."""
        if not os.path.exists("/etc/ssl/certs/java/cacerts"):
            raise SkipTest("this Java keeps its list elsewhere")
        self.assert_covered(need("java"), str(CLIENTS / "Get.java"), self.url)

    def test_the_host_is_as_it_was(self) -> None:
        """What is covered in the sandbox is not written."""
        before = Path(SYSTEM).read_bytes()
        self.assert_covered(need("curl"), "-sS", self.url)
        self.assertEqual(Path(SYSTEM).read_bytes(), before)
