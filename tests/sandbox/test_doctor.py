"""``slapenir doctor``: all is well where it is, and it says what is not."""

from __future__ import annotations

import ast
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from slapenir.cli.doctor import _outside
from slapenir.config.load import load
from slapenir.sandbox import doctor_dial as dial
from slapenir.sandbox import tools
from slapenir.sandbox.doctor_check import (
    CLIENTS,
    FAILED,
    HOLE,
    HOLES,
    MISSING,
    OK,
    SKIPPED,
    Finding,
    exit_status,
)
from slapenir.sandbox.doctor_clients import table
from slapenir.sandbox.doctor_gateway import gateway_findings
from slapenir.sandbox.doctor_inside import carry_out
from slapenir.sandbox.doctor_origin import wheel
from slapenir.sandbox.doctor_trial import INSIDE, Trial, archive, trial
from slapenir.sandbox.doctor_wiring import inside_findings
from slapenir.sandbox.variables import CA_VARIABLES
from tests.support.certs import ThrowawayCA
from tests.support.gateway import ROOT
from tests.support.netns import Namespace, need_namespaces
from tests.support.ports import free_port

SECONDS = 240
PUBLIC = "8.8.8.8"


class PartsTests(SynchronousTestCase):
    """What needs no sandbox."""

    def test_exit_status(self) -> None:
        """A hole or a failure is 1, whatever is missing beside it; skipping is nothing."""
        for results, expected in (
            ((), 0),
            ((OK, SKIPPED), 0),
            ((OK, MISSING), 2),
            ((MISSING, HOLE), 1),
            ((MISSING, FAILED), 1),
        ):
            found = [Finding(HOLES, "a", one) for one in results]
            self.assertEqual(exit_status(found), expected, results)

    def test_the_modules_for_inside_need_nothing_else(self) -> None:
        """They import the standard library and each other: slapenir is not visible inside."""
        names = {module.__name__ for module in INSIDE}
        for module in INSIDE:
            for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text("utf-8"))):
                found = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    whole = node.module == "slapenir.sandbox"
                    found = [f"{node.module}.{one.name}" if whole else str(node.module)
                             for one in node.names]  # fmt: skip
                for name in found:
                    known = name.partition(".")[0] in sys.stdlib_module_names
                    self.assertTrue(known or name in names, f"{module.__name__}: {name}")

    def test_dns(self) -> None:
        """A question is one, and an answer's code and count are read."""
        asked = dial.question("dns.google")
        self.assertEqual(asked[2:], b"\1\0\0\1\0\0\0\0\0\0\3dns\6google\0\0\1\0\1")
        self.assertEqual(dial.answered(b"\0\0\x81\x83\0\1\0\0\0\0\0\0"), (dial.NAME_ERROR, 0))
        self.assertEqual(dial.answered(b"\0\0\x81\x80\0\1\0\2\0\0\0\0"), (0, 2))
        self.assertEqual(dial.answered(b""), (-1, 0))

    def test_http_answers(self) -> None:
        """The gateway's refusals are known by their mark, others by their status."""
        ours = b"HTTP/1.1 403 Forbidden\r\nX-Slapenir-Decision: deny; reason=no_rule\r\n\r\n"
        self.assertEqual((dial.status_of(ours), dial.is_ours(ours)), (403, True))
        self.assertEqual(dial.status_of(b"SSH-2.0-x\r\n"), 0)
        self.assertEqual(dial.status_of(b"HTTP/1.1 abc"), 0)
        self.assertFalse(dial.is_ours(b"HTTP/1.1 200 OK\r\n\r\n"))

    def test_the_echo_request_sums_up(self) -> None:
        """The checksum of the whole is all ones (RFC 1071)."""
        data = dial.echo_request(4)
        total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
        self.assertEqual((total & 0xFFFF) + (total >> 16), 0xFFFF)

    def test_the_wheel_is_the_same_at_every_call(self) -> None:
        """Its digest is in a page that another request asked for."""
        first = wheel()
        time.sleep(0.01)
        self.assertEqual(first, wheel())

    def test_the_page_is_the_table(self) -> None:
        """docs/doctor.rst lists each client with what it needs and what it is given, no other."""
        page = (ROOT / "docs" / "doctor.rst").read_text("utf-8")
        _, _, text = page.partition("* - Client\n")
        rows = [part.splitlines()[:3] for part in text.split("   * - ")[1:]]
        shown = [(one[0].strip("`"), one[1].strip(" -"), one[2].strip(" -")) for one in rows]
        self.assertEqual(shown, list(table()))


class JudgeTests(SynchronousTestCase):
    """What the doctor makes of what a client did, with a server that really was asked."""

    def client(self, made: Trial, **ran: Any) -> Finding:
        found = {"checks": [], "environment": {}, "clients": [{"status": 0, "seconds": 0.1, **ran}]}
        return made.judge(found)[0]

    def test_clients(self) -> None:
        """Each way to go wrong is told from the others, and all of them from what is right."""
        with trial(os.geteuid(), []) as made:
            asked, secret = made.origin.asked, made.secret
            absent = self.client(made, name="curl", output="curl: no\n")
            self.assertEqual(absent.result, FAILED)
            self.assertIn("curl: no", absent.detail)
            asked.append(("/client/curl/", "a placeholder"))
            self.assertEqual(self.client(made, name="curl", output="").result, FAILED)
            asked.append(("/client/curl/", secret))
            self.assertEqual(self.client(made, name="curl", output="200").result, OK)
            self.assertEqual(self.client(made, name="curl", output="", status=1).result, FAILED)
            asked.append(("/client/cargo/config.json", ""))
            self.assertEqual(self.client(made, name="cargo", output="").result, OK)
            raw = b"xy" + secret.encode()
            for form in (secret, secret.encode().hex(), base64.b64encode(raw).decode()):
                leaked = self.client(made, name="curl", output=f"you sent {form}")
                self.assertEqual((leaked.group, leaked.result), (CLIENTS, HOLE), form)

    def test_the_key_in_the_environment(self) -> None:
        with trial(os.geteuid(), []) as made:
            for value, expected in (("placeholder", OK), (f"x{made.secret}", HOLE)):
                found = {"checks": [], "clients": [], "environment": {"A": value}}
                last = made.judge(found)[-1]
                self.assertEqual((last.name, last.result), ("the key in the environment", expected))

    def test_a_forged_name_that_arrived(self) -> None:
        with trial(os.geteuid(), []) as made:
            made.origin.asked.append(("/forged/sni", ""))
            found: dict[str, Any] = {"checks": [], "clients": [], "environment": {}}
            (seen,) = (one for one in made.judge(found) if one.name == "seen from outside")
            self.assertEqual((seen.result, seen.detail), (HOLE, "/forged/sni"))


class RunTests(SynchronousTestCase):
    """The command itself."""

    def doctor(self, *arguments: str, **env: str) -> tuple[int, list[dict[str, Any]], str]:
        """Run it; return its status, what it found and what it said besides."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(directory)}
        done = subprocess.run(
            [sys.executable, "-m", "slapenir.cli", "doctor", "--json", *arguments],
            capture_output=True,
            text=True,
            env={**base, **env},
            timeout=SECONDS,
        )
        lines = done.stdout.splitlines()
        return done.returncode, [json.loads(line) for line in lines], done.stderr

    def config(self, port: int = 0) -> str:
        """Return a first configuration, its listener at a port that is free."""
        directory = Path(self.mktemp()).resolve()
        words = [sys.executable, "-m", "slapenir.cli", "init", str(directory)]
        subprocess.run(words, check=True, capture_output=True, env={"PYTHONPATH": str(ROOT)})
        port = port or free_port()
        file = directory / "slapenir.toml"
        file.write_text(file.read_text("utf-8").replace("tcp:8080:", f"tcp:{port}:"), "utf-8")
        return str(file)

    def test_all_is_well_T228_T237(self) -> None:
        """Every client that is there is served, and nothing gets around."""
        need_namespaces("nft", "bwrap")
        status, found, said = self.doctor("--config", self.config(), HTTPS_PROXY="http://x:1")
        wrong = [one for one in found if one["result"] not in (OK, SKIPPED)]
        self.assertEqual((status, wrong), (0, []), said)
        results = {one["name"]: one for one in found}
        for name, program in (("curl", "curl"), ("git", "git"), ("node-https", "node")):
            if shutil.which(program, path="/usr/bin"):
                self.assertEqual(results[name]["result"], OK, results[name])
        around = [one for one in found if one["group"] == HOLES and one["result"] == OK]
        self.assertGreaterEqual(len(around), 20)
        self.assertEqual(results["writing to the host"]["result"], OK)

    def test_something_is_missing(self) -> None:
        """Without nft nothing else is tried; what to do is said, and the status is 2."""
        self.patch(tools, "PATH", "/nonexistent")
        found = [one._asdict() for one in _outside(self.config(), quiet=True)]
        self.assertEqual(exit_status([Finding(**one) for one in found]), 2)
        (nft,) = (one for one in found if one["name"] == "nftables")
        self.assertEqual((nft["result"], nft["remedy"]), (MISSING, "install nftables"))
        for group in (CLIENTS, HOLES):
            (only,) = (one for one in found if one["group"] == group)
            self.assertEqual(only["result"], SKIPPED)
            self.assertIn("nftables", only["detail"])

    def test_no_configuration(self) -> None:
        """It is missing, and what does not need it is tried all the same."""
        status, found, _ = self.doctor("--config", "/no/such.toml")
        (one,) = (one for one in found if one["name"] == "configuration")
        self.assertEqual((status, one["result"]), (2, MISSING))
        self.assertTrue(one["remedy"])

    def test_a_port_that_somebody_has(self) -> None:
        """It is missing while no gateway runs, with the way to find out who it is."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            file = self.config(taken.getsockname()[1])
            settings = load(file)
            found = {one.name: one for one in gateway_findings(file, settings, os.environ)}
        self.assertEqual(found["gateway"].result, OK)
        self.assertEqual(found["interception CA"].result, OK)
        (port,) = (one for name, one in found.items() if name.startswith("port of "))
        self.assertEqual(port.result, MISSING)
        self.assertIn("ss -ltnp", port.remedy)
        found = {one.name: one for one in gateway_findings(file, settings, os.environ)}
        self.assertEqual(found[port.name].result, OK)

    def test_a_gateway_that_cannot_start(self) -> None:
        """What is wrong with it is said; so is a CA that is not there."""
        file = self.config()
        os.unlink(Path(file).parent / "state" / "ca.pem")
        found = {one.name: one for one in gateway_findings(file, load(file), os.environ)}
        self.assertEqual(found["gateway"].result, MISSING)
        self.assertEqual(found["interception CA"].result, MISSING)
        self.assertTrue(found["interception CA"].remedy.startswith("run: slapenir ca init"))

    def test_holes_outside_of_any_sandbox(self) -> None:
        """The same attempts with nothing around them come through: each is told, and was seen."""
        need_namespaces()
        space = Namespace()
        self.addCleanup(space.remove)
        space.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        space.ip("-6", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
        place = Path(self.mktemp()).resolve()
        place.mkdir()
        with space.inside(), trial(os.geteuid(), ["192.0.2.1", "2001:db8::1"]) as made:
            self.assertEqual(made.unreachable, "")
            made.directories[:] = [str(place)]
            task = {**made.task(), "sockets": [made.canary.abstract], "ours": self.ours(),
                    "process": "twisted.trial", "workspace": str(place)}  # fmt: skip
            found = carry_out(task, {})
            self.assertEqual(len(list(place.iterdir())), 1)
            judged = {one.name: one for one in made.judge(found)}
        self.assertEqual(list(place.iterdir()), [])
        holes = {name for name, one in judged.items() if one.result == HOLE}
        self.assertLessEqual(
            {
                "TCP to an address", "TCP over IPv6", "UDP to an address", "UDP over IPv6",
                "DNS over UDP", "DNS over TCP", "DNS over TLS", "forged SNI", "forged Host", "QUIC",
                "raw and packet sockets", "loopback of the host", "UNIX sockets of the host",
                "writing to the host", "the gateway's files", "seen from outside",
                "a namespace of its own", "processes of the host",
            },
            holes,
            [one for one in judged.values() if one.result != HOLE],
        )  # fmt: skip
        self.assertTrue(all(one.remedy for one in judged.values() if one.result == HOLE))
        self.assertEqual(exit_status(judged.values()), 1)

    def ours(self) -> str:
        """Return the file of a CA that nobody in the test signs with."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        return str(ThrowawayCA(directory).ca_file)

    def test_silence_is_not_a_refusal(self) -> None:
        """A packet filter that drops: nothing came through, but clients hang."""
        need_namespaces("nft")
        space = Namespace()
        self.addCleanup(space.remove)
        space.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        space.ip("route", "add", "default", "dev", "lo")
        space.nft(
            "table inet t {\n chain c {\n type filter hook output priority 0; policy drop;\n }\n}\n"
        )
        with space.inside():
            found = carry_out({"hosts": ["192.0.2.1"], "tcp": 9, "udp": 9, "quick": True}, {})
        by_name = {one[1]: one for one in found["checks"]}
        self.assertEqual(by_name["TCP to an address"][2], FAILED)
        self.assertIn("silence", by_name["TCP to an address"][3])

    def test_inside_with_a_hole(self) -> None:
        """--inside where a server of the Internet is reached: 1, and which way it was."""
        need_namespaces()
        space = Namespace()
        self.addCleanup(space.remove)
        space.ip("addr", "add", f"{PUBLIC}/32", "dev", "lo")
        with space.inside():
            server = socket.create_server((PUBLIC, 80))
        self.addCleanup(server.close)
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        with space.inside():
            status, found, _ = self.doctor("--inside")
        holes = {one["name"] for one in found if one["result"] == HOLE}
        self.assertEqual(status, 1)
        self.assertIn("TCP to an address", holes)
        self.assertNotIn("UDP to an address", holes)
        (trust,) = (one for one in found if one["name"] == "SSL_CERT_FILE")
        self.assertEqual((trust["result"], trust["detail"]), (FAILED, "it is not set"))

    def test_inside_trust(self) -> None:
        """A variable has to name a file with certificates; those of single tools may be unset."""
        good = self.ours()
        empty = Path(self.mktemp()).resolve()
        empty.write_bytes(b"")
        self.assertEqual(self.trust(dict.fromkeys(CA_VARIABLES, good)), set())
        needed = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"}
        self.assertEqual(self.trust({}), needed)
        for path in ("/no/such", str(empty)):
            wrong = {**dict.fromkeys(CA_VARIABLES, good), "PIP_CERT": path}
            self.assertEqual(self.trust(wrong), {"PIP_CERT"})

    def test_a_bundle_of_everybody_says_nothing(self) -> None:
        """With all the world's CAs as ours a foreign server would pass: TLS is not judged then."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        many = directory / "many.pem"
        made = [ThrowawayCA(directory).ca_file.read_bytes() for _ in range(9)]
        many.write_bytes(b"".join(made))
        few = directory / "few.pem"
        few.write_bytes(b"".join(made[:2]))
        need_namespaces()
        for path, expected in ((str(many), SKIPPED), (str(few), OK)):
            space = Namespace()
            self.addCleanup(space.remove)
            with space.inside():
                found = {one.name: one for one in inside_findings({"NODE_EXTRA_CA_CERTS": path})}
            self.assertEqual(found["DNS over TLS"].result, expected)

    def trust(self, environ: Mapping[str, str]) -> set[str]:
        """Return the variables that are found wanting; nothing is dialled for that."""
        found = set()
        for one in inside_findings(environ):
            if one.name == "proxy variables":
                return found
            if one.result == FAILED:
                found.add(one.name)
        return found

    def test_inside_a_sandbox_of_ours(self) -> None:
        """The two agree: --inside finds nothing wrong in ``slapenir run``."""
        need_namespaces("nft", "bwrap")
        workspace = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
        place = workspace.stdout.strip()
        self.addCleanup(shutil.rmtree, place)
        os.chmod(place, 0o755)  # noqa: S103 - its user is another
        config = self.config()
        code = (
            "import os, sys; sys.path.insert(0, sys.argv[1])\n"
            "from slapenir.sandbox.doctor_probes import try_all\n"
            "found = try_all({'ours': os.environ['NODE_EXTRA_CA_CERTS'], 'resolvers': "
            "['127.0.0.1'], 'quick': True})\n"
            "print([one for one in found if one.result not in ('ok', 'skipped')], len(found))\n"
        )
        Path(place, "doctor.pyz").write_bytes(archive())
        done = subprocess.run(
            [
                sys.executable, "-m", "slapenir.cli", "run", "--config", config,
                "--workspace", place, "--user", "nobody", "--", "python3", "-c", code,
                f"{place}/doctor.pyz",
            ],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            timeout=SECONDS,
        )  # fmt: skip
        self.assertEqual(done.stdout, "[] 21\n", done.stderr)


def answer(server: socket.socket) -> None:
    """Answer whoever comes, as a web server would."""
    while True:
        try:
            conn, _ = server.accept()
        except OSError:
            return
        with conn:
            conn.recv(1000)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
