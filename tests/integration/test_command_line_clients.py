"""curl, wget, git and pip through the running gateway."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.integration.case import ClientCase, need
from tests.integration.scene import ANTHROPIC, API, GIT, INDEX, Ran
from tests.support.git_origin import basic_password
from tests.support.index_origin import NAME, VERSION

MESSAGES = "/v1/messages"


class TestCurl(ClientCase):
    """curl finds proxy and CA in its environment."""

    def test_get(self) -> None:
        header = "Authorization: Bearer " + self.scene.environment["API_KEY"]
        curl = [need("curl"), "-sS", "-v", "-i", "--max-time", "20", "-H", header]
        ran = self.scene.run([*curl, self.scene.url(API, "/v1/x?y=z")])
        self.assert_swapped(ran, "api", API)
        self.assertIn(b'"said"', ran.output)
        self.assertEqual([one.target for one in self.requests(API)], [b"/v1/x?y=z"])

    def test_upload_and_a_second_request_on_the_same_connection(self) -> None:
        header = "Authorization: Bearer " + self.scene.environment["API_KEY"]
        upload = self.scene.directory / "upload"
        upload.write_bytes(bytes(range(256)) * 8192)
        curl = [
            need("curl"),
            "-sS",
            "-v",
            "-i",
            "--max-time",
            "20",
            "-H",
            header,
            "-T",
            str(upload),
        ]
        ran = self.scene.run([*curl, self.scene.url(API, "/a"), self.scene.url(API, "/b")])
        self.assert_swapped(ran, "api", API)
        first, _ = self.requests(API)
        self.assertEqual(first.body, upload.read_bytes())
        self.assertIn(b"Re-using existing connection", ran.output)

    def test_a_header_without_scheme(self) -> None:
        """The same credential may have two surfaces; this is the one SDKs do not use."""
        header = "x-api-key: " + self.scene.environment["ANTHROPIC_API_KEY"]
        curl = [need("curl"), "-sS", "-v", "-i", "--max-time", "20", "-H", header]
        ran = self.scene.run([*curl, "-d", '{"model":"test"}', self.scene.url(ANTHROPIC, MESSAGES)])
        self.assert_swapped(ran, "anthropic", ANTHROPIC)

    def test_without_the_placeholder_nothing_is_injected(self) -> None:
        """Negative control: the rule names the credential, but the agent did not ask for it."""
        curl = [need("curl"), "-sS", "-i", "--max-time", "20"]
        ran = self.scene.run([*curl, self.scene.url(API, "/")])
        self.assertEqual(ran.status, 0, ran.output)
        (request,) = self.requests(API)
        self.assertEqual(request.all_headers(b"authorization"), [])


class TestWget(ClientCase):
    """wget takes the proxy from its environment; the CA it has to be told on its command line."""

    def test_get(self) -> None:
        header = "--header=Authorization: Bearer " + self.scene.environment["API_KEY"]
        trust = f"--ca-certificate={self.scene.gateway.ca_file}"
        wget = [need("wget"), "-q", "-S", "-O", "-", "-t", "1", "-T", "20", trust, header]
        self.assert_swapped(self.scene.run([*wget, self.scene.url(API, "/v1/x")]), "api", API)


class TestGit(ClientCase):
    """git clones and pushes over https; its Basic password is swapped (T171)."""

    def test_clone_and_push(self) -> None:
        need("git")
        work = Path(self.mktemp()).resolve()
        token = self.scene.environment["GIT_TOKEN"]
        trace = {"GIT_TRACE_CURL": "1", "GIT_TRACE_REDACT": "0", "GIT_TERMINAL_PROMPT": "0"}
        url = self.scene.url(GIT, "/repo.git", user=f"agent:{token}")
        cloned = self.scene.run(["git", "clone", "-q", url, work], None, **trace)
        self._assert_git(cloned)
        self.assertEqual((work / "file.txt").read_text("ascii"), "first\n")

        (work / "file.txt").write_text("second\n" * 100_000, "ascii")
        identity = ["-c", "user.name=agent", "-c", "user.email=agent@example.test"]
        commit = ["git", *identity, "commit", "-q", "-a", "-m", "second"]
        self.assertEqual(self.scene.run(commit, cwd=work).status, 0)
        pushed = self.scene.run(["git", "push", "-q", "origin", "main"], work, **trace)
        self._assert_git(pushed)
        bare = self.scene.directory / "repositories" / "repo.git"
        log = ["git", "-C", str(bare), "log", "--format=%s", "main"]
        self.assertEqual(self.scene.run(log).output.split(), [b"second", b"first"])

    def _assert_git(self, ran: Ran) -> None:
        """git asks once without credentials, is told to send them, and then always does."""
        secret = self.scene.credentials["git"].secret
        self.assertEqual(ran.status, 0, ran.output)
        passwords = [basic_password(request) for request in self.requests(GIT)]
        self.assertEqual(set(passwords), {None, secret})
        self.assert_clean(ran.output)
        self.assert_clean(self.scene.gateway.written())


class TestPip(ClientCase):
    """pip installs from an index that wants a password."""

    def test_install(self) -> None:
        target = Path(self.mktemp()).resolve()
        user = f"agent:{self.scene.environment['INDEX_TOKEN']}"
        pip = [sys.executable, "-m", "pip", "-vvv", "install", "--no-cache-dir", "--no-deps"]
        pip += ["--disable-pip-version-check", "--target", str(target)]
        pip += ["--index-url", self.scene.url(INDEX, "/simple/", user=user), f"{NAME}=={VERSION}"]
        ran = self.scene.run(pip)
        self.assert_swapped(ran, "index", INDEX)
        self.assertIn(b"you sent ", ran.output)
        self.assertEqual((target / f"{NAME}.py").read_text("ascii"), "ANSWER = 42\n")
