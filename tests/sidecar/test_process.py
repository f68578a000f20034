"""The sidecar and ``slapenir enrol`` as processes, with the real CA and enrolment service."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from twisted.internet.threads import deferToThread

from slapenir.edge.doorway import ClientAuth, Doorway, Material
from slapenir.issuance.enrol_service import EnrolmentService
from slapenir.pki.held import Held, Wanted, new_key
from slapenir.pki.identity_authority import IdentityAuthority
from slapenir.pki.revocation import Revocations
from slapenir.pki.tokens import decode_token, encode_token
from slapenir.sidecar.options import TOKEN_VARIABLE
from tests.sidecar.rig import REACTOR, SidecarTestCase, echo
from tests.support.gateway import ROOT, clean_environment
from tests.support.ports import free_port

TWISTD = (
    "import sys; from twisted.scripts.twistd import run; sys.exit(run())",
    "-n",
    "--pidfile=",
    "slapenir-sidecar",
)
HOST = "127.0.0.1"
AGENT = "agent-1.example.test"


class ProcessTestCase(SidecarTestCase):
    """A CA, its enrolment service, and a gateway that echoes; agents are known by DNS name."""

    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir(mode=0o700)
        self.authority = IdentityAuthority.create(
            str(self.place / "pki"), domains=["example.test"], addresses=[HOST]
        )
        self.lifetime = 86400.0
        key = new_key()
        issued = self.authority.issue(
            Wanted(addresses=(HOST,), server=True), key.public_key(), identity=""
        )
        self.server = Held(key, issued.chain, self.authority.roots)
        self.processes: list[subprocess.Popen[str]] = []
        self.events: list[Any] = []
        self.enrol_port = self.serve_enrolment()
        self.gateway_port = self.gateway(self.door(ClientAuth.REQUIRED).connection, echo)

    async def tearDown(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            await deferToThread(process.communicate)
        await super().tearDown()

    def door(self, auth: ClientAuth) -> Doorway:
        """Return the gateway's TLS, with the CA's list of revoked certificates."""
        issuers = self.authority.issuers
        door = Doorway(Material(self.server.chain, self.server.key, auth, issuers), True)
        door.revise(Revocations.parse(self.authority.crl(), issuers))
        return door

    def serve_enrolment(self) -> int:
        """Listen; return the port."""
        door = self.door(ClientAuth.OPTIONAL)

        def who(connection: Any) -> str | None:
            passport = door.passport(connection)
            return passport.names.dns[0] if passport is not None else None

        service = EnrolmentService(
            REACTOR,
            lambda identity, key, replaced: self.authority.issue(
                Wanted(dns=(identity,), lifetime=self.lifetime),
                key,
                identity=identity,
                replaced=replaced,
            ),
            lambda secret, key: self.authority.enrol(
                secret, key, lambda name: Wanted(dns=(name,), lifetime=self.lifetime)
            ),
            who,
            lambda: self.authority.roots,
            self.authority.crl,
            self.events.append,
        )
        port = REACTOR.listenTCP(0, service.factory(door.connection), interface=HOST)
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def token(self) -> str:
        """Return a new token."""
        root = self.authority.roots[0].fingerprint(hashes.SHA256()).hex()
        secret = self.authority.make_token(AGENT, 900.0)
        return encode_token(f"https://{HOST}:{self.enrol_port}", root, secret)

    def token_file(self, text: str) -> str:
        """Write a token to a file of ours."""
        path = self.place / "token"
        path.touch(mode=0o600)
        path.write_text(text + "\n")
        return str(path)

    def start(self, *command: str, **environ: str) -> subprocess.Popen[str]:
        """Start a process; what it says is kept."""
        process = subprocess.Popen(
            [sys.executable, "-c" if command[0] == TWISTD[0] else "-m", *command],
            cwd=ROOT,
            env={**clean_environment(), "HOME": str(self.place), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    async def ended(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a process to end; return its status and what it said."""
        said, _ = await deferToThread(process.communicate, timeout=60)
        self.assertNotIn("Traceback", said)
        return process.returncode, said

    async def slapenir(self, *command: str, **environ: str) -> tuple[int, str]:
        """Run ``slapenir``; return its status and what it said."""
        return await self.ended(self.start("slapenir.cli", *command, **environ))

    async def status(self, port: int, path: str) -> tuple[int, str]:
        """Ask the admin endpoint; 0 while nobody is there."""

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, ""
            except OSError:
                return 0, ""

        found: tuple[int, str] = await deferToThread(ask)
        return found

    async def becomes(self, port: int, path: str, status: int) -> None:
        """Wait until a page has a status."""
        end = REACTOR.seconds() + 30
        while (await self.status(port, path))[0] != status:
            if REACTOR.seconds() > end:
                self.fail(f"{path} never was {status}")

    async def said_back(self, port: int, data: bytes) -> bytes:
        """Send bytes to a sidecar and return as many."""

        def ask() -> bytes:
            with socket.create_connection((HOST, port), timeout=20) as plain:
                plain.sendall(data)
                found = b""
                while len(found) < len(data) and (piece := plain.recv(65536)):
                    found += piece
                return found

        found: bytes = await deferToThread(ask)
        return found


class SidecarProcessTests(ProcessTestCase):
    def command(self, listen: int, admin: int, *more: str) -> tuple[str, ...]:
        """Return the options of a sidecar."""
        return (
            f"--gateway={HOST}:{self.gateway_port}",
            f"--listen={HOST}:{listen}",
            f"--admin={HOST}:{admin}",
            f"--state={self.place / 'state'}",
            *more,
        )

    async def test_it_enrols_relays_ends_and_begins_again_without_a_token(self) -> None:
        """The token is used once; the second time the certificate that is kept is enough."""
        listen, admin, token = free_port(), free_port(), self.token()
        command = self.command(listen, admin, f"--token-file={self.token_file(token)}")
        for first in (True, False):
            process = self.start("slapenir.cli", "sidecar", *command)
            await self.becomes(admin, "/readyz", 200)
            self.assertEqual(await self.said_back(listen, b"hello"), b"hello")
            _, page = await self.status(admin, "/metrics")
            self.assertRegex(page, r'slapenir_cert_expiry_timestamp_seconds{cert="client"} 1\.\d')
            process.send_signal(signal.SIGTERM)
            status, said = await self.ended(process)
            self.assertEqual(status, 0, said)
            self.assertIn("Enrolled: the " if first else "The ", said)
            self.assertIn("certificate in use ends in 23 h", said)
            self.assertNotIn(token, said)
            self.assertEqual([one.identity for one in self.events], [AGENT])
        modes = {one.name: one.stat().st_mode & 0o777 for one in (self.place / "state").iterdir()}
        self.assertEqual((modes["key.pem"], modes["enrolment.json"]), (0o600, 0o600))
        shown = [end.serial for end in self.ends]
        self.assertEqual(len(set(shown)), 1)

    async def test_twistd_runs_the_same(self) -> None:
        """The plugin, with the token in the environment."""
        listen, admin, token = free_port(), free_port(), self.token()
        options = self.command(listen, admin)
        process = self.start(*TWISTD, *options, **{TOKEN_VARIABLE: token})
        await self.becomes(admin, "/readyz", 200)
        self.assertEqual((await self.status(admin, "/healthz"))[0], 200)
        self.assertEqual(await self.said_back(listen, b"hello"), b"hello")
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        self.assertNotIn(token.encode(), arguments)
        process.send_signal(signal.SIGTERM)
        status, said = await self.ended(process)
        self.assertEqual(status, -signal.SIGTERM, said)  # twistd's way: it ends by the signal
        self.assertNotIn(token, said)
        started = self.start(*TWISTD, "--gateway=x:1", "--listen=0.0.0.0:1")
        status, said = await self.ended(started)
        self.assertEqual(status, 1)
        self.assertIn("--listen-anywhere", said)

    async def test_a_gateway_that_is_down_is_waited_for(self) -> None:
        """It listens, tells clients what is wrong, and enrols when the service is back."""
        listen, admin = free_port(), free_port()
        text = self.token()
        missing = encode_moved(text, free_port())
        command = self.command(listen, admin, f"--token-file={self.token_file(missing)}")
        process = self.start("slapenir.cli", "sidecar", *command)
        await self.becomes(admin, "/healthz", 200)
        self.assertEqual((await self.status(admin, "/readyz"))[0], 503)
        answer = await self.said_back(listen, b"GET / HTTP/1.1\r\n\r\n" + bytes(600))
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
        self.assertIn(b'"not_enrolled"', answer)
        self.token_file(text)
        await self.becomes(admin, "/readyz", 200)
        self.assertEqual(await self.said_back(listen, b"hello"), b"hello")
        process.send_signal(signal.SIGTERM)
        status, said = await self.ended(process)
        self.assertEqual(status, 0, said)
        self.assertIn("Not enrolled: ", said)

    async def test_it_renews_while_a_connection_is_open(self) -> None:
        """Certificates of six seconds: an open connection lives on, the next shows a new one."""
        self.lifetime = 6.0
        listen, admin = free_port(), free_port()
        command = self.command(listen, admin, f"--token-file={self.token_file(self.token())}")
        process = self.start("slapenir.cli", "sidecar", *command)
        await self.becomes(admin, "/readyz", 200)
        with socket.create_connection((HOST, listen), timeout=20) as plain:
            plain.sendall(b"one")
            self.assertEqual(await deferToThread(plain.recv, 10), b"one")
            await self.until(lambda: len(self.events) >= 3, 30)
            plain.sendall(b"two")
            self.assertEqual(await deferToThread(plain.recv, 10), b"two")
            self.assertEqual(await self.said_back(listen, b"three"), b"three")
        self.assertEqual([one.how for one in self.events[:3]], ["token", "renewal", "renewal"])
        self.assertNotEqual(self.ends[0].serial, self.ends[-1].serial)
        process.send_signal(signal.SIGTERM)
        status, said = await self.ended(process)
        self.assertEqual(status, 0, said)
        self.assertIn("Renewed: the new certificate ends in 0 h 0 min", said)

    async def test_what_keeps_it_from_starting(self) -> None:
        """Status 1 and a sentence with a remedy; 2 for a command line that makes no sense."""
        good = self.token_file(self.token())
        busy = REACTOR.listenTCP(0, _Nothing(), interface=HOST)
        self.addCleanup(busy.stopListening)
        open_state = self.place / "open"
        open_state.mkdir()
        open_state.chmod(0o755)
        for expected, words, options in (
            (1, "no token; give one by --token-file or SLAPENIR_ENROLMENT_TOKEN", ()),
            (1, "cannot be opened", ("--token-file=/no/such/file",)),
            (1, "no enrolment token", (f"--token-file={self.other('x' * 40)}",)),
            (1, "chmod 700", (f"--token-file={good}", f"--state={open_state}")),
            (
                1,
                "cannot listen on",
                (f"--token-file={good}", f"--listen={HOST}:{busy.getHost().port}"),
            ),
            (1, "is missing", ("--certificate=/no/c", "--key=/no/k", "--ca=/no/ca")),
            (2, "--listen-anywhere", ("--listen=0.0.0.0:8080",)),
            (2, "No such option", ("--token=x",)),
        ):
            state = f"--state={self.place / 'other'}"
            listen = f"--listen={HOST}:{free_port()}"
            gateway = f"--gateway={HOST}:1"
            status, said = await self.slapenir("sidecar", gateway, listen, state, *options)
            self.assertEqual(status, expected, said)
            self.assertIn(words, said.replace("\n", " "))
        self.assertEqual(self.events, [])

    def other(self, text: str) -> str:
        """Write something that is no token."""
        path = self.place / "garbage"
        path.touch(mode=0o600)
        path.write_text(text + "!?&%")
        return str(path)


class EnrolProcessTests(ProcessTestCase):
    def shake(self, out: Path) -> bytes:
        """Speak to the gateway with the files, as a client of any kind would.  Blocks."""
        context = ssl.create_default_context(cafile=out / "roots.pem")
        context.load_cert_chain(out / "chain.pem", out / "key.pem")
        with socket.create_connection((HOST, self.gateway_port), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname=HOST) as secured:
                secured.sendall(b"hello")
                return secured.recv(10)

    async def test_files_for_a_client_of_its_own(self) -> None:
        """Enrol, use, renew, use; a key is never overwritten without being asked."""
        out, given = self.place / "out", {TOKEN_VARIABLE: self.token()}
        status, said = await self.slapenir("enrol", f"--out={out}", **given)
        self.assertEqual(status, 0, said)
        self.assertIn("valid until", said)
        self.assertEqual(await deferToThread(self.shake, out), b"hello")
        first = Held.load(str(out))
        self.assertEqual((out / "key.pem").stat().st_mode & 0o777, 0o600)
        again = {TOKEN_VARIABLE: self.token()}
        status, said = await self.slapenir("enrol", f"--out={out}", **again)
        self.assertEqual(status, 1)
        self.assertIn("--renew", said)
        status, said = await self.slapenir("enrol", f"--out={out}", "--renew")
        self.assertEqual(status, 0, said)
        second = Held.load(str(out))
        self.assertNotEqual(first.leaf.serial_number, second.leaf.serial_number)
        self.assertEqual(await deferToThread(self.shake, out), b"hello")
        self.assertEqual([one.how for one in self.events], ["token", "renewal"])

    async def test_what_goes_wrong(self) -> None:
        """Status 1 and a sentence: no token, one that was used, nothing to renew."""
        token = self.token()
        out = self.place / "out"
        file = f"--token-file={self.token_file(token)}"
        for expected, words, options in (
            (1, "no certificate and no token", ()),
            (1, "holds no certificate", ("--renew",)),
            (0, "wrote key.pem", (file,)),
            (1, "unknown, used or expired", (file, f"--out={self.place / 'second'}")),
            (2, "No such option", ("--token=x",)),
        ):
            status, said = await self.slapenir("enrol", f"--out={out}", *options)
            self.assertEqual(status, expected, said)
            self.assertIn(words, said)
            self.assertNotIn(token, said)
        status, said = await self.slapenir("enrol")
        self.assertEqual(status, 2)


def encode_moved(text: str, port: int) -> str:
    """Return a token for another port."""
    found = decode_token(text)
    return encode_token(f"https://{HOST}:{port}", found.root, found.secret)


class _Nothing:
    """A factory that is never asked."""

    noisy = False

    def doStart(self) -> None:
        """Nothing."""

    doStop = doStart
