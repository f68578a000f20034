"""Real clients in ``slapenir run``, without any proxy variable: the origin sees the real key, and
the client never does (T186, T228)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.integration.case import ClientCase, need, need_module
from tests.integration.scene import ANTHROPIC, API, CLIENTS, GIT, INDEX, OPENAI, Ran
from tests.support.gateway import ROOT
from tests.support.git_origin import basic_password
from tests.support.index_origin import NAME, VERSION
from tests.support.netns import need_namespaces

PYTHON = "/usr/bin/python3"
NPM_SECONDS = 180.0
SDKS = ("openai@6", "@anthropic-ai/sdk@1")
BEARER = "Authorization: Bearer $API_KEY"


class SandboxedCase(ClientCase):
    """A test whose client runs in a sandbox."""

    def setUp(self) -> None:
        need_namespaces("nft", "bwrap")
        super().setUp()
        self.work = self.scene.sandbox_workspace
        self.addCleanup(self.empty)

    def empty(self) -> None:
        """Leave nothing for the next test."""
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def put(self, *names: str) -> None:
        """Put client programs into the workspace."""
        for name in names:
            shutil.copy(CLIENTS / name, self.work / name)

    def shell(self, script: str, *arguments: str, **env: str) -> Ran:
        """Run a shell script in the sandbox."""
        return self.scene.run_sandboxed(["sh", "-c", script, "sh", *arguments], **env)


class TestCommandLine(SandboxedCase):
    """Programs as they are."""

    def test_curl(self) -> None:
        need("curl")
        ran = self.shell(f'curl -sS -v -i -H "{BEARER}" "$1"', self.scene.url(API, "/v1/x"))
        self.assert_swapped(ran, "api", API)

    def test_wget(self) -> None:
        need("wget")
        ran = self.shell(f'wget -q -S -O - --header "{BEARER}" "$1"', self.scene.url(API, "/v1/x"))
        self.assert_swapped(ran, "api", API)

    def test_openssl(self) -> None:
        """s_client verifies the chain and the name, and sends what it is given."""
        need("openssl")
        port = self.scene.origins[API].port
        script = (
            f'(printf "GET / HTTP/1.1\\r\\nHost: $1:$2\\r\\n{BEARER}\\r\\n";'
            ' printf "Connection: close\\r\\n\\r\\n";'
            " sleep 1) | openssl s_client -quiet -verify_return_error -verify_hostname $1"
            " -connect $1:$2 -servername $1 2>&1"
        )
        self.assert_swapped(self.shell(script, API, str(port)), "api", API)

    def test_git(self) -> None:
        """Clone, commit and push."""
        need("git")
        host = self.scene.url(GIT, "/repo.git").removeprefix("https://")
        script = (
            'git clone -q "https://agent:$GIT_TOKEN@$1" repo && cd repo && date > file.txt &&'
            " git -c user.name=a -c user.email=a@b.c commit -q -a -m sandboxed &&"
            " git push -q origin HEAD:sandboxed 2>&1"
        )
        ran = self.shell(script, host, GIT_TERMINAL_PROMPT="0")
        self.assertEqual(ran.status, 0, ran.output)
        secret = self.scene.credentials["git"].secret
        passwords = {basic_password(request) for request in self.requests(GIT)}
        self.assertEqual(passwords, {None, secret})
        self.assert_clean(ran.output)

    def test_pip(self) -> None:
        """From an index that wants a password, by the system's pip."""
        if not os.path.exists(PYTHON):
            raise SkipTest("the system has no python3")
        if subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode:
            raise SkipTest("the system's python3 has no pip")
        host = self.scene.url(INDEX, "/simple/").removeprefix("https://")
        script = (
            f"{PYTHON} -m pip -v install --no-cache-dir --no-deps --target out"
            f' --index-url "https://agent:$INDEX_TOKEN@$1" {NAME}=={VERSION} 2>&1'
        )
        ran = self.shell(script, host)
        self.assert_swapped(ran, "index", INDEX)
        self.assertEqual((self.work / "out" / f"{NAME}.py").read_text("ascii"), "ANSWER = 42\n")

    def test_npm(self) -> None:
        """A registry that wants a token."""
        need("npm")
        authority = self.scene.url(API, "/").removeprefix("https://")
        script = (
            'echo "//$1:_authToken=$API_KEY" > .npmrc &&'
            ' npm ping --registry "https://$1" --fetch-retries=0 --cache /tmp/npm 2>&1'
        )
        self.assert_swapped(self.shell(script, authority), "api", API)

    def test_what_no_rule_names(self) -> None:
        """Negative control: a name of no rule does not resolve, at once, and is recorded."""
        need("curl")
        began = time.monotonic()
        ran = self.shell("curl -sS -m 10 https://evil.example.test/ 2>&1")
        self.assertEqual(ran.status, 6, ran.output)
        self.assertLess(time.monotonic() - began, 5)
        denied = [one for one in self.records() if one.get("stage") == "name"]
        self.assertEqual([one["authority"] for one in denied], ["evil.example.test"])


class TestRuntimes(SandboxedCase):
    """Standard libraries, SDKs and a browser."""

    def test_node_fetch(self) -> None:
        script = (
            "fetch(process.argv[1],{headers:{Authorization:'Bearer '+process.env.API_KEY}})"
            ".then(r=>r.text()).then(console.log)"
        )
        ran = self.scene.run_sandboxed([need("node"), "-e", script, self.scene.url(API, "/v1/x")])
        self.assert_swapped(ran, "api", API)

    def test_go(self) -> None:
        built = ROOT / "build" / "tools" / "go-get"
        if not built.exists():
            raise SkipTest("build/tools/go-get was not built (.ci/go-tools)")
        shutil.copy(built, self.work / "go-get")
        (self.work / "go-get").chmod(0o755)
        ran = self.scene.run_sandboxed([self.work / "go-get", self.scene.url(API, "/v1/x")])
        self.assert_swapped(ran, "api", API)

    def test_java(self) -> None:
        need("java")
        self.put("Get.java")
        ran = self.scene.run_sandboxed(["java", "Get.java", self.scene.url(API, "/v1/x")])
        self.assert_swapped(ran, "api", API)

    def test_python_sdks(self) -> None:
        """OpenAI's and Anthropic's, plain and streaming, by the system's Python."""
        need_module("openai")
        need_module("anthropic")
        packages = sysconfig.get_paths()["purelib"]
        version = (
            subprocess.run(
                [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
            ).stdout.strip()
            if os.path.exists(PYTHON)
            else ""
        )
        if version != sysconfig.get_python_version():
            raise SkipTest("the system's python3 is of another version than this one")
        self.put("with_openai.py", "with_anthropic.py")
        for script, url, credential, host in (
            ("with_openai.py", self.scene.url(OPENAI, "/v1"), "openai", OPENAI),
            ("with_anthropic.py", self.scene.url(ANTHROPIC), "anthropic", ANTHROPIC),
        ):
            for mode in ("plain", "stream"):
                ran = self.scene.run_sandboxed(
                    [PYTHON, script, url, mode], shown=[packages], PYTHONPATH=packages
                )
                self.assert_swapped(ran, credential, host)
                self.assertIn(b"You sent ", ran.output)

    def test_node_sdks(self) -> None:
        """OpenAI's and Anthropic's."""
        node, place = need("node"), sdk_directory()
        self.put("sdk_openai.mjs", "sdk_anthropic.mjs")
        for script, url, credential, host in (
            ("sdk_openai.mjs", self.scene.url(OPENAI, "/v1"), "openai", OPENAI),
            ("sdk_anthropic.mjs", self.scene.url(ANTHROPIC), "anthropic", ANTHROPIC),
        ):
            ran = self.scene.run_sandboxed([node, script, url], shown=[place], SDK_DIR=str(place))
            self.assert_swapped(ran, credential, host)
            self.assertIn(b"You sent ", ran.output)

    def test_chromium(self) -> None:
        """Headless, by the NSS database in its home; the password of the page is swapped."""
        chromium = need("chromium")
        host = self.scene.url(INDEX, f"/simple/{NAME}/").removeprefix("https://")
        script = (
            f"{chromium} --headless=new --no-sandbox --disable-gpu --disable-quic"
            " --disable-dev-shm-usage --timeout=15000 --dump-dom"
            ' "https://agent:$INDEX_TOKEN@$1" 2>/dev/null'
        )
        ran = self.shell(script, host)
        self.assertIn(NAME.encode(), ran.output)
        secret = self.scene.credentials["index"].secret
        self.assertIn(secret, {basic_password(request) for request in self.requests(INDEX)})
        self.assert_clean(ran.output)


def sdk_directory() -> Path:
    """Return the directory with the SDKs in its node_modules; install them once, or skip."""
    place = ROOT / "build" / "node-sdks"
    if not (place / "node_modules" / "openai" / "package.json").exists():
        npm = need("npm")
        place.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(place), *SDKS]
        try:
            done = subprocess.run(install, capture_output=True, text=True, timeout=NPM_SECONDS)
        except subprocess.TimeoutExpired:
            raise SkipTest("npm could not install the SDKs in time") from None
        if done.returncode != 0:
            raise SkipTest(f"npm could not install the SDKs: {done.stderr.strip()[-200:]}")
    return place
