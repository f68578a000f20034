"""An enrolment service on loopback with a CA of the test's own, and a client that is only bytes."""

from __future__ import annotations

import datetime
import json
import secrets
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from slapenir.edge.doorway import ClientAuth, Doorway, Material
from slapenir.errors import AuditError, ConfigError, NotInForceError, TokenError
from slapenir.events import CertificateIssued, Event
from slapenir.issuance.enrol_service import EnrolmentService
from tests.support.tls import CLIENT_AUTH, Identity, TestCA

REACTOR: Any = reactor
HOST = "localhost"


@attrs.frozen
class Issued:
    """What the fake CA signed."""

    chain: tuple[x509.Certificate, ...]
    serial: str
    not_after: float


class FakeAuthority:
    """Tokens and signatures of a test: the contract of the embedded CA, in memory."""

    def __init__(self, ca: TestCA) -> None:
        self.ca = ca
        self.tokens: dict[str, tuple[str, float]] = {}
        self.revoked: set[int] = set()
        self.over: set[int] = set()
        self.broken: Exception | None = None
        self.removed: set[str] = set()
        self.roots = (ca.certificate,)
        self._lock = threading.Lock()

    def token(self, identity: str = "agent-1", lifetime: float = 60.0) -> str:
        """Make a token; return its secret."""
        secret = secrets.token_urlsafe(32)
        self.tokens[secret] = (identity, time.time() + lifetime)
        return secret

    def redeem(self, secret: str) -> str:
        """Consume a token."""
        with self._lock:
            found = self.tokens.pop(secret, None)
        if found is None:
            raise TokenError("the token is unknown or was used")
        if time.time() >= found[1]:
            raise TokenError("the token has expired")
        return found[0]

    def enrol(self, secret: str, public_key: Any) -> tuple[str, Issued]:
        """Consume a token and sign for its identity."""
        identity = self.redeem(secret)
        return identity, self.issue(identity, public_key)

    def issue(
        self, identity: str, public_key: Any, replaced: x509.Certificate | None = None
    ) -> Issued:
        """Sign for a key; ``replaced`` may be in ``over``."""
        if replaced is not None and replaced.serial_number in self.over:
            raise NotInForceError("it is over")
        if self.broken is not None:
            raise self.broken
        if identity in self.removed:
            raise ConfigError(f"nobody is called {identity!r}", "$.identity")
        now = time.time()
        names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names)
            .issuer_name(self.ca.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_utc(now - 60))
            .not_valid_after(_utc(now + 3600))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), False)
            .add_extension(x509.ExtendedKeyUsage([CLIENT_AUTH]), False)
            .sign(self.ca.key, hashes.SHA256())
        )
        return Issued((certificate,), f"{certificate.serial_number:x}", now + 3600)

    def identify(self, connection: SSL.Connection) -> str | None:
        """Return whose certificate a client showed."""
        shown: Any = connection.get_peer_certificate(as_cryptography=True)
        if shown.serial_number in self.revoked:
            return None
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found: str = names.get_values_for_type(x509.DNSName)[0]
        return None if found in self.removed else found


def _utc(seconds: float) -> Any:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def csr(key: Any = None, algorithm: Any = None) -> str:
    """Return a certificate request in PEM that claims to be somebody else."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(names)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("agent-2")]), False)
        .sign(key, algorithm if algorithm is not None else hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


class EnrolmentTestCase(TestCase):
    """A running service; ``self.events`` is what it published."""

    timeout = 60

    def setUp(self) -> None:
        self.place = Path(self.mktemp())
        self.place.mkdir()
        self.ca = TestCA("Identity root")
        self.authority = FakeAuthority(self.ca)
        self.events: list[Event] = []
        self.refuse: tuple[type, ...] = ()
        self.server = self.ca.issue(HOST, "127.0.0.1")
        self.service = self.make_service()
        chain = (self.server.certificate, *self.server.chain)
        self.doorway = Doorway(
            Material(chain, self.server.key, ClientAuth.OPTIONAL, (self.ca.certificate,))
        )
        self.port = self.listen(self.service, self.doorway)

    def make_service(self) -> EnrolmentService:
        """Make a service of the fake authority."""
        authority = self.authority
        return EnrolmentService(
            REACTOR,
            renew=authority.issue,
            enrol=authority.enrol,
            identify=authority.identify,
            roots=lambda: authority.roots,
            crl=lambda: b"-----BEGIN X509 CRL-----\n",
            publish=self.publish,
        )

    def listen(self, service: EnrolmentService, doorway: Doorway) -> int:
        """Listen; return the port."""
        port = REACTOR.listenTCP(0, service.factory(doorway.connection), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def publish(self, event: Event) -> None:
        """Keep an event, or fail like a full disk."""
        if isinstance(event, self.refuse):
            raise AuditError("the disk is full")
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def issued(self) -> list[CertificateIssued]:
        """What was issued."""
        return self.of(CertificateIssued)

    def raw(self, data: bytes, identity: Identity | None = None, port: int = 0) -> bytes:
        """Send bytes over TLS and return what comes until the end.  Blocks: for a thread."""
        with secured(self.ca, identity, port or self.port, self.place) as connection:
            connection.sendall(data)
            return received(connection)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        identity: Identity | None = None,
        port: int = 0,
    ) -> tuple[int, Any]:
        """Send a request; return status and body, decoded where it is JSON."""
        data = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        request = b"%b %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        request %= (method.encode(), path.encode(), len(data), data)
        answer = await deferToThread(self.raw, request, identity, port)
        head, _, text = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        return status, json.loads(text) if text and b"json" in head else text

    async def until(self, condition: Any, seconds: float = 10.0) -> None:
        """Wait for a condition; fail when it takes too long."""
        end = REACTOR.seconds() + seconds
        while not condition():
            if REACTOR.seconds() > end:
                self.fail("it took too long")
            await deferLater(REACTOR, 0.005)


def secured(ca: TestCA, identity: Identity | None, port: int, place: Path) -> ssl.SSLSocket:
    """Return a verified TLS connection, with a client certificate where one is given."""
    context = ssl.create_default_context(
        cadata=ca.certificate.public_bytes(serialization.Encoding.PEM).decode()
    )
    if identity is not None:
        pem = identity.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain = (identity.certificate, *identity.chain)
        pem += b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
        file = place / secrets.token_hex(8)
        file.write_bytes(pem)
        context.load_cert_chain(file)
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    return context.wrap_socket(plain, server_hostname=HOST)


def received(connection: ssl.SSLSocket) -> bytes:
    """Return everything until the end, however it comes."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except OSError:
        return data
    return data
