"""requests, httpx, aiohttp, the OpenAI and Anthropic SDKs, and Node through the running gateway."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.integration.case import ClientCase, need, need_module
from tests.integration.scene import ANTHROPIC, API, CLIENTS, OPENAI
from tests.support.gateway import ROOT

NPM_SECONDS = 120.0
UNDICI = "undici@7"


class TestPythonHttp(ClientCase):
    """Python's HTTP libraries."""

    def test_requests(self) -> None:
        need_module("requests")
        ran = self.scene.run_python("with_requests.py", self.scene.url(API, "/v1/x"))
        self.assert_swapped(ran, "api", API)
        self.assertEqual([one.method for one in self.requests(API)], [b"GET", b"POST"])

    def test_httpx(self) -> None:
        need_module("httpx")
        ran = self.scene.run_python("with_httpx.py", self.scene.url(API, "/v1/x"))
        self.assert_swapped(ran, "api", API)
        self.assertEqual([one.body for one in self.requests(API)], [b"", b"onetwo"])

    def test_aiohttp(self) -> None:
        need_module("aiohttp")
        ran = self.scene.run_python("with_aiohttp.py", self.scene.url(API, "/v1/x"))
        self.assert_swapped(ran, "api", API)
        self.assertEqual(len(self.requests(API)), 2)


class TestSdks(ClientCase):
    """The SDKs check the shape of their key: the minted placeholder must pass for one."""

    def test_openai_plain(self) -> None:
        self._openai("plain")

    def test_openai_stream(self) -> None:
        self._openai("stream")

    def test_anthropic_plain(self) -> None:
        self._anthropic("plain")

    def test_anthropic_stream(self) -> None:
        self._anthropic("stream")

    def _openai(self, mode: str) -> None:
        need_module("openai")
        ran = self.scene.run_python("with_openai.py", self.scene.url(OPENAI, "/v1"), mode)
        self.assert_swapped(ran, "openai", OPENAI)
        self._assert_told(ran.output, "OPENAI_API_KEY")

    def _anthropic(self, mode: str) -> None:
        need_module("anthropic")
        ran = self.scene.run_python("with_anthropic.py", self.scene.url(ANTHROPIC), mode)
        self.assert_swapped(ran, "anthropic", ANTHROPIC)
        self._assert_told(ran.output, "ANTHROPIC_API_KEY")

    def _assert_told(self, output: bytes, variable: str) -> None:
        """The client was told its placeholder where the origin had written the key."""
        placeholder = self.scene.environment[variable]
        self.assertIn(f"You sent {placeholder} which is".encode("ascii"), output)


class TestNode(ClientCase):
    """Node's own fetch ignores proxies; undici's ProxyAgent and a CONNECT by hand do not."""

    def test_undici_proxy_agent(self) -> None:
        node = need("node")
        script = CLIENTS / "with_undici.mjs"
        url = self.scene.url(API, "/v1/x")
        ran = self.scene.run([node, script, url], UNDICI_DIR=str(undici_directory()))
        self.assert_swapped(ran, "api", API)
        self.assertEqual([one.method for one in self.requests(API)], [b"GET", b"POST"])

    def test_https_through_connect_by_hand(self) -> None:
        node = need("node")
        script = CLIENTS / "with_node_https.mjs"
        ran = self.scene.run([node, script, self.scene.url(API, "/v1/x")])
        self.assert_swapped(ran, "api", API)


def undici_directory() -> Path:
    """Return the directory with undici in its node_modules; install it once, or skip."""
    place = ROOT / "build" / "node"
    if not (place / "node_modules" / "undici" / "package.json").exists():
        npm = need("npm")
        place.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(place), UNDICI]
        try:
            done = subprocess.run(
                install, capture_output=True, text=True, timeout=NPM_SECONDS, env=dict(os.environ)
            )
        except subprocess.TimeoutExpired:
            raise SkipTest("npm could not install undici in time") from None
        if done.returncode != 0:
            raise SkipTest(f"npm could not install undici: {done.stderr.strip()[-200:]}")
    return place
