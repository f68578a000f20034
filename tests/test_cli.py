"""The command line: what it prints, where, and how it exits."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time

import attrs
from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from slapenir import __version__
from slapenir.cli import main
from slapenir.cli.environment import proxy_url, render
from slapenir.cli.initial import first_configuration, template
from slapenir.config.load import load, parse
from tests.config.base import mode_of, with_changes, write_file

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@attrs.frozen
class Result:
    """How a command ended and what it wrote."""

    code: object
    out: str
    err: str


def run(*arguments: str) -> Result:
    """Run one command in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return Result(code, *texts)


class CommandCase(SynchronousTestCase):
    """A directory with a configuration, and secrets in the environment."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        origins = ("[limits]", '[origin]\nca_file = "origins.pem"\n\n[limits]')
        self.file = write_file(self.directory, with_changes(origins))
        write_file(self.directory, b"", "origins.pem")
        self.one, self.two = "sk-" + secrets.token_hex(20), secrets.token_hex(20)
        environ = {"OPENAI_API_KEY": self.one, "OTHER_KEY": self.two, "PATH": os.environ["PATH"]}
        self.patch(os, "environ", environ)

    def change(self, *changes: tuple[str, str]) -> None:
        """Change the configuration in place."""
        with open(self.file) as file:
            text = file.read()
        write_file(self.directory, with_changes(*changes, text=text))

    def good(self, *arguments: str) -> str:
        """Run a command that succeeds and return its standard output."""
        result = run(*arguments)
        self.assertEqual(result.code, 0, result.err)
        return result.out

    def bad(self, *arguments: str) -> str:
        """Run a command that fails with 2, prints no result, and return what it said."""
        result = run(*arguments)
        self.assertEqual((result.code, result.out), (2, ""), result.err)
        for secret in (self.one, self.two):
            self.assertNotIn(secret, result.err)
        return result.err


class AuthorityTests(CommandCase):
    """slapenir ca."""

    def test_init_show_export(self) -> None:
        """init makes everything private, show describes it, export prints the certificate only."""
        result = run("ca", "init", self.file)
        self.assertEqual((result.code, result.out), (0, ""))
        state = os.path.join(self.directory, "state")
        self.assertEqual(mode_of(state), 0o700)
        modes = {name: mode_of(os.path.join(state, name)) for name in os.listdir(state)}
        self.assertEqual(modes, {"ca.key": 0o600, "ca.pem": 0o644, "gateway.key": 0o600})
        pem = self.good("ca", "export", self.file)
        self.assertNotIn("PRIVATE", pem)
        certificate = x509.load_pem_x509_certificate(pem.encode())
        shown = self.good("ca", "show", self.file)
        self.assertIn(certificate.subject.rfc4514_string(), shown)
        self.assertIn(f"{certificate.serial_number:X}", shown)
        with open(os.path.join(self.directory, "slapenir-ca.pem")) as file:
            self.assertEqual(file.read(), pem + "\n")

    def test_t115_never_twice_and_never_silently(self) -> None:
        """T115: a second init changes nothing; show and export do not make one."""
        for command in ("show", "export"):
            self.assertIn("slapenir ca init", self.bad("ca", command, self.file))
        self.assertFalse(os.path.exists(os.path.join(self.directory, "state")))
        self.good("ca", "init", self.file, "--common-name", "Mine", "--days", "30")
        pem = self.good("ca", "export", self.file)
        self.assertIn("never overwritten", self.bad("ca", "init", self.file))
        self.assertEqual(self.good("ca", "export", self.file), pem)
        self.assertIn("CN=Mine", self.good("ca", "show", self.file))


class CheckTests(CommandCase):
    """slapenir check."""

    def setUp(self) -> None:
        super().setUp()
        self.good("ca", "init", self.file)
        os.mkdir(os.path.join(self.directory, "audit"), 0o700)

    def test_good(self) -> None:
        """One line on standard output; notes on standard error."""
        result = run("check", self.file)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.out, f"{self.file}: good (1 listener, 2 credentials, 2 rules)\n")
        self.assertIn("note: credential other is in no rule", result.err)

    def test_bad_file(self) -> None:
        """What, where, remedy, for each problem."""
        self.change(('"*.openai.com"', '"*"'), ("mode =", "mdoe ="))
        err = self.bad("check", self.file)
        self.assertIn(f"{self.file}: $.listener[0].mdoe: unknown key", err)
        self.assertIn("remedy: did you mean mode?", err)
        self.change(("mdoe =", "mode ="))
        self.assertIn("$.rule[0].hosts[1]: matches every host", self.bad("check", self.file))

    def test_surroundings(self) -> None:
        """Everything that is missing around the file is said at once, with the file's name."""
        del os.environ["OTHER_KEY"]
        os.rmdir(os.path.join(self.directory, "audit"))
        os.unlink(os.path.join(self.directory, "origins.pem"))
        os.chmod(os.path.join(self.directory, "state"), 0o755)  # noqa: S103
        err = self.bad("check", self.file)
        for place in ("gateway.state_dir", "gateway.audit", "origin.ca_file", "credential[1]"):
            self.assertIn(f"{self.file}: $.{place}", err)
        self.good("check", "--file-only", self.file)

    def test_t115_missing_gateway_key(self) -> None:
        """T115: the CA's key readable by others, or no gateway key, is a failure."""
        state = os.path.join(self.directory, "state")
        os.chmod(os.path.join(state, "ca.key"), 0o644)
        self.assertIn("chmod 600", self.bad("check", self.file))
        os.chmod(os.path.join(state, "ca.key"), 0o600)
        os.unlink(os.path.join(state, "gateway.key"))
        self.assertIn("gateway.key is missing", self.bad("check", self.file))


class ExplainTests(CommandCase):
    """slapenir explain."""

    def explain(self, method: str, url: str, identity: str = "sandbox") -> Result:
        return run("explain", self.file, "--identity", identity, method, url)

    def test_allowed(self) -> None:
        """Both stages, the rule, the credential and its surface; exit 0; no secret is read."""
        os.environ.clear()
        result = self.explain("POST", "https://api.openai.com/v1/x?y=1")
        self.assertEqual(result.code, 0, result.err)
        lines = [" ".join(line.split()) for line in result.out.splitlines()]
        self.assertEqual(
            lines,
            [
                "connect allow rule openai (rule)",
                "request allow rule openai (rule)",
                "swap openai in header:authorization",
                "address later judged when the name is resolved",
            ],
        )

    def test_a_credential_of_another_host(self) -> None:
        """The rule covers more hosts than the credential: it is said that nothing is swapped."""
        result = self.explain("GET", "https://x.openai.com/v1/x")
        self.assertEqual(result.code, 0)
        self.assertIn("nothing of openai: it is not for x.openai.com", result.out)

    def test_denied(self) -> None:
        """Exit 1, with what kept each rule for that host from matching."""
        for method, url, identity, text in (
            ("DELETE", "https://api.openai.com/v1/x", "sandbox", "it is for GET, POST"),
            ("GET", "https://api.openai.com/v2", "sandbox", "it is for /v1/*"),
            ("GET", "https://api.openai.com:8443/v1/x", "sandbox", "it is for port 443"),
            ("GET", "http://api.openai.com/v1/x", "sandbox", "it is for https"),
            ("GET", "https://openai.com/", "sandbox", "no rule names openai.com"),
            ("TRACE", "https://api.openai.com/v1/x", "sandbox", "method_refused"),
            ("GET", "https://api.openai.com/v1/../x", "sandbox", "dot segment (answered 400)"),
            ("GET", "https://u:p@api.openai.com/v1/x", "sandbox", "answered 400"),
            ("get", "https://api.openai.com/v1/x", "sandbox", "not an upper-case token"),
            ("GET", "ftp://api.openai.com/v1/x", "sandbox", "answered 400"),
        ):
            with self.subTest(url, method=method):
                result = self.explain(method, url, identity)
                self.assertEqual(result.code, 1, result.out)
                self.assertIn(text, result.out)

    def test_passthrough(self) -> None:
        """A blind tunnel is said to be one, and the request is not judged."""
        result = self.explain("GET", "https://a.pinned.example/x")
        self.assertEqual(result.code, 0)
        self.assertIn("passthrough  rule blind", result.out)
        self.assertNotIn("request", result.out.split("\n")[2])

    def test_addresses(self) -> None:
        """Static answers are judged, and a denied one is a denial."""
        self.change(
            (
                'hosts = { "llm.internal"',
                'hosts = { "a.pinned.example" = ["10.21.0.1"], "llm.internal"',
            ),
            ('"pinned.example"', '"llm.internal"'),
        )
        result = self.explain("GET", "https://llm.internal/")
        self.assertEqual(result.code, 0)
        self.assertIn("10.20.0.5 (address_permitted)", result.out)
        result = self.explain("GET", "https://a.pinned.example/")
        self.assertEqual(result.code, 1)
        self.assertIn("10.21.0.1 (address_special_purpose)", result.out)

    def test_own_listener(self) -> None:
        """An opened loopback port is refused where the gateway listens itself, and there only."""
        self.change(
            ("127.0.0.1:8081", '127.0.0.1:8080", "127.0.0.1:9464", "127.0.0.1:8081'),
            ("10.20.0.5", "127.0.0.1"),
            ('id = "blind"', 'id = "blind"\nports = [8080, 8081, 9464]'),
            ('"pinned.example"', '"llm.internal"'),
        )
        for port, code, text in (
            (8080, 1, "127.0.0.1 (address_own_listener)"),
            (9464, 1, "127.0.0.1 (address_own_listener)"),
            (8081, 0, "127.0.0.1 (address_permitted)"),
        ):
            result = self.explain("GET", f"https://llm.internal:{port}/")
            self.assertEqual(result.code, code, result.out)
            self.assertIn(text, result.out)

    def test_unknown_identity(self) -> None:
        """A misspelt identity is an error, not a denial."""
        result = self.explain("GET", "https://api.openai.com/v1/x", "sandobx")
        self.assertEqual(result.code, 2)
        self.assertIn("known: sandbox", result.err)


class EnvironmentTests(CommandCase):
    """slapenir env."""

    def test_sh(self) -> None:
        """What a shell reads back: proxy, CA bundle, placeholder; never a secret."""
        out = self.good("env", self.file, "--identity", "sandbox")
        self.assertNotIn(self.one, out)
        names = dict(word.partition("=")[::2] for word in shlex.split(out) if "=" in word)
        for name in ("HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "http_proxy", "ALL_PROXY"):
            self.assertEqual(names[name], "http://127.0.0.1:8080")
        self.assertEqual(names["NO_PROXY"], "")
        self.assertEqual(names["no_proxy"], "")
        self.assertEqual(names["NODE_USE_ENV_PROXY"], "1")
        for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "PIP_CERT"):
            self.assertEqual(names[name], os.path.join(self.directory, "slapenir-ca.pem"))
        self.assertEqual(names["OPENAI_API_KEY"], "DUMMY_OPENAI")
        self.assertNotIn("OTHER_KEY", names)

    def test_minted(self) -> None:
        """A minted placeholder has the secret's length and prefix, and is the same every time."""
        self.change(('placeholder = "DUMMY_OPENAI"\n', ""))
        self.bad("env", self.file, "--identity", "sandbox")
        self.good("ca", "init", self.file)
        first = json.loads(self.good("env", self.file, "--identity", "sandbox", "--shell", "json"))
        value = first["OPENAI_API_KEY"]
        self.assertEqual((len(value), value[:3]), (len(self.one), "sk-"))
        self.assertNotEqual(value, self.one)
        again = json.loads(self.good("env", self.file, "--identity", "sandbox", "--shell", "json"))
        self.assertEqual(again, first)

    def test_another_identity(self) -> None:
        """Each identity gets its own listener's proxy and its own placeholders only."""
        self.change(
            ("[resolver]", '[[listener]]\nendpoint = "tcp:8082"\nidentity = "b"\n\n[resolver]')
        )
        out = self.good("env", self.file, "--identity", "b")
        self.assertIn("HTTPS_PROXY=http://127.0.0.1:8082\n", out)
        self.assertNotIn("OPENAI", out)
        self.assertIn("known: sandbox", self.bad("env", self.file, "--identity", "c"))
        wrong = ("env", self.file, "--identity", "b", "--listener", "listener-1")
        self.assertIn("no listener", self.bad(*wrong))
        self.good("env", self.file, "--identity", "b", "--listener", "listener-2")

    def test_url(self) -> None:
        """An endpoint that does not say its address needs a url."""
        self.change(("tcp:8080:interface=127.0.0.1", "systemd:domain=INET:index=0"))
        self.assertIn("$.listener[0].url", self.bad("env", self.file, "--identity", "sandbox"))
        self.change(('mode = "explicit"', 'url = "http://10.1.2.3:3128"'))
        out = self.good("env", self.file, "--identity", "sandbox")
        self.assertIn("https_proxy=http://10.1.2.3:3128\n", out)

    def test_proxy_url(self) -> None:
        """The URLs of endpoints; all addresses means loopback."""
        for endpoint, url in (
            ("tcp:8080", "http://127.0.0.1:8080"),
            ("tcp:port=8080:interface=10.0.0.1", "http://10.0.0.1:8080"),
            ("tcp:8080:interface=", "http://127.0.0.1:8080"),
            ("tcp:8080:interface=0.0.0.0", "http://127.0.0.1:8080"),
            ("tcp:8080:interface=\\:\\:", "http://[::1]:8080"),
            ("tcp6:8080", "http://[::1]:8080"),
            ("tcp6:8080:interface=fd00\\:\\:1", "http://[fd00::1]:8080"),
            ("tcp:x", None),
            ("unix:/run/x", None),
            ("systemd:domain=INET:index=0", None),
        ):
            self.assertEqual(proxy_url(endpoint), url, endpoint)

    def test_quoting(self) -> None:
        """Whatever a value holds, the shell gives it back and runs nothing."""
        value = "a b'c\"d$(touch x)`e`\\f;*\\'"
        printed = f'{render({"V": value}, "sh")}printf %s "$V"'
        done = subprocess.run(["sh", "-c", printed], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, value)
        self.assertEqual(json.loads(render({"V": value}, "json")), {"V": value})
        self.assertEqual(render({"V": "a'b\\c"}, "fish"), "set -gx V 'a\\'b\\\\c'\n")
        if shutil.which("fish"):
            printed = f"{render({'V': value}, 'fish')}printf %s $V"
            done = subprocess.run(["fish", "-c", printed], capture_output=True, text=True)
            self.assertEqual(done.stdout, value)


class InitialTests(CommandCase):
    """slapenir init."""

    def setUp(self) -> None:
        super().setUp()
        self.new = os.path.join(self.directory, "new")

    def test_init_then_check(self) -> None:
        """A first run needs nothing else: the result is private and passes the check."""
        ca_file = os.path.exists("/etc/ssl/certs/ca-certificates.crt")
        for example in (False, True):
            os.environ.pop("OPENAI_API_KEY", None)
            if example:
                os.environ["OPENAI_API_KEY"] = self.one
            new = f"{self.new}-{example}"
            self.good("init", new)
            file = os.path.join(new, "slapenir.toml")
            settings = load(file)
            self.assertEqual(len(settings.credentials), int(example))
            self.assertEqual(settings.gateway.state_dir, os.path.join(new, "state"))
            modes = {name: mode_of(os.path.join(new, name)) for name in os.listdir(new)}
            self.assertEqual(
                modes,
                {"slapenir.toml": 0o600, "state": 0o700, "audit": 0o700, "slapenir-ca.pem": 0o644},
            )
            self.assertEqual(mode_of(new), 0o755)
            self.good("check", "--file-only", file)
            if ca_file:
                self.good("check", file)
            self.good("env", file, "--identity", "sandbox")

    def test_never_overwrites(self) -> None:
        """A second init changes nothing."""
        self.good("init", self.new)
        before = {
            (name, os.stat(os.path.join(self.new, name)).st_mtime_ns)
            for name in os.listdir(self.new)
        }
        self.assertIn("never overwritten", self.bad("init", self.new))
        after = {
            (name, os.stat(os.path.join(self.new, name)).st_mtime_ns)
            for name in os.listdir(self.new)
        }
        self.assertEqual(after, before)

    def test_template_is_the_reference(self) -> None:
        """The packaged text is etc/slapenir.toml, and both results of init load."""
        with open(os.path.join(ROOT, "etc", "slapenir.toml"), encoding="utf-8") as file:
            self.assertEqual(template(), file.read())
        for example in (False, True):
            text = first_configuration(template(), example)
            self.assertEqual(len(parse(text.encode(), "/x").credentials), int(example))


class CommandTests(CommandCase):
    """The group itself."""

    def test_version_and_help(self) -> None:
        """--version, and --help on everything."""
        self.assertIn(__version__, self.good("--version"))
        for command in ((), ("init",), ("check",), ("explain",), ("env",), ("ca",), ("ca", "init")):
            for option in ("-h", "--help"):
                self.assertIn("Usage: slapenir", self.good(*command, option))

    def test_usage(self) -> None:
        """A wrong command line exits 2 with its usage on standard error."""
        self.assertIn("No such command", self.bad("nothing"))
        self.assertIn("Missing", self.bad("explain", self.file))

    def test_a_missing_file(self) -> None:
        """Every command that reads FILE says when it is not there."""
        gone = os.path.join(self.directory, "gone.toml")
        for command in (
            ("check", gone),
            ("ca", "show", gone),
            ("env", gone, "--identity", "x"),
            ("explain", gone, "--identity", "x", "GET", "https://a/"),
        ):
            self.assertIn(f"{gone}: $: does not exist", self.bad(*command))

    def test_as_a_module(self) -> None:
        """``python -m slapenir.cli`` is the command, and it does not load Twisted."""
        code = (
            "import sys, slapenir.cli\n"
            "print([m for m in ('twisted.internet.reactor', 'hyperscan') if m in sys.modules])"
        )
        environ = dict(os.environ, PYTHONPATH=ROOT)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
        )
        self.assertEqual(done.stdout, "[]\n")
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "slapenir.cli", "check", "--file-only", self.file],
            capture_output=True,
            text=True,
            env=environ,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(time.monotonic() - start, 20)


class TrustTests(CommandCase):
    """slapenir trust; the kit itself is tested in tests/sandbox and tests/integration."""

    def setUp(self) -> None:
        super().setUp()
        self.good("ca", "init", self.file)
        self.pem = self.good("ca", "export", self.file)
        write_file(self.directory, self.pem.encode(), "origins.pem")
        self.out = os.path.join(self.directory, "kit")

    def trust(self, *more: str) -> tuple[str, ...]:
        return ("trust", self.file, "--identity", "sandbox", "--out", self.out, *more)

    def test_variables_and_files(self) -> None:
        """The variables point into the directory, or to where the sandbox sees it."""
        names = json.loads(self.good(*self.trust("--shell", "json")))
        self.assertEqual(names["CURL_CA_BUNDLE"], os.path.join(self.out, "bundle.pem"))
        with open(names["NODE_EXTRA_CA_CERTS"]) as file:
            self.assertEqual(file.read(), self.pem)
        self.assertEqual(mode_of(self.out), 0o755)
        out = self.good(*self.trust("--inside", "/run/x"))
        self.assertIn("export SSL_CERT_DIR=/run/x/certs\n", out)
        self.assertIn("-Djavax.net.ssl.trustStore=/run/x/java.p12 ", out)

    def test_the_table_is_that_of_env(self) -> None:
        """Whatever env sets for certificates, the kit sets too."""
        env = json.loads(self.good("env", self.file, "--identity", "sandbox", "--shell", "json"))
        kit = json.loads(self.good(*self.trust("--shell", "json")))
        bundle = os.path.join(self.directory, "slapenir-ca.pem")
        named = {name for name, value in env.items() if value == bundle}
        self.assertIn("npm_config_cafile", named)
        self.assertLessEqual(named, set(kit))

    def test_errors(self) -> None:
        """What is wrong is said with its place."""
        self.assertIn("known: sandbox", self.bad(*self.trust("--identity", "other")))
        self.assertIn("plain absolute path", self.bad(*self.trust("--inside", "/a b")))
        self.assertIn(
            "/none.pem does not exist", self.bad(*self.trust("--system-bundle", "/none.pem"))
        )
        os.mkdir(os.path.join(self.directory, "full"))
        write_file(self.directory, b"", "full/file")
        self.out = os.path.join(self.directory, "full")
        self.assertIn("'file'", self.bad(*self.trust()))
        self.out = os.path.join(self.file, "kit")
        self.assertIn("Not a directory", self.bad(*self.trust()))

    def test_each_identity_has_its_own_ca(self) -> None:
        """With a CA for each identity, the kit holds that of the one it is for."""
        state = os.path.join(self.directory, "state")
        shutil.rmtree(state)
        self.change(("[gateway]", '[gateway]\nca = "per-identity"'))
        self.good("ca", "init", self.file)
        self.good(*self.trust())
        with open(os.path.join(self.out, "ours.pem")) as file:
            self.assertEqual(
                file.read(), self.good("ca", "export", self.file, "--identity", "sandbox")
            )
