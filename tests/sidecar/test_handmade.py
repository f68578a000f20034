"""Certificates in files of somebody else, and what a sidecar tells."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from prometheus_client import generate_latest
from twisted.internet.task import Clock
from twisted.logger import Logger, textFileLogObserver
from twisted.trial import unittest

from slapenir.errors import PkiError
from slapenir.events import CertificateLoaded, CertificateRenewed, RenewalFailed
from slapenir.sidecar import handmade
from slapenir.sidecar.handmade import Handmade
from slapenir.sidecar.options import ByHand
from slapenir.sidecar.telemetry import QUIET_SECONDS, Telemetry
from slapenir.sidecar.trouble import Trouble
from tests.sidecar.rig import SidecarTestCase, echo
from tests.support.tls import CLIENT_AUTH, Identity, TestCA


class HandmadeTests(SidecarTestCase):
    def setUp(self) -> None:
        super().setUp()
        place = Path(self.mktemp()).absolute()
        place.mkdir(mode=0o700)
        self.way = ByHand(*(str(place / name) for name in ("cert.pem", "key.pem", "ca.pem")))
        self.ca.write(Path(self.way.ca))
        self.write(self.agent)
        self.said: list[str] = []

    def write(self, identity: Identity, encryption: Any = None) -> None:
        """Put a certificate and its key in place."""
        Path(self.way.certificate).write_bytes(
            identity.certificate.public_bytes(serialization.Encoding.PEM)
        )
        key = Path(self.way.key)
        key.touch(mode=0o600)
        key.write_bytes(
            identity.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                encryption or serialization.NoEncryption(),
            )
        )

    def changed(self, found: Any) -> None:
        """Use what was found."""
        self.current = found

    async def test_new_files_are_used_and_bad_ones_are_not(self) -> None:
        """A pair that was replaced is shown by the next connection; a torn one is told."""
        with patch.object(handmade, "POLL_SECONDS", 0.05):
            from tests.sidecar.rig import REACTOR

            watch = Handmade(REACTOR, self.way, self.changed, self.said.append)
            watch.start()
            self.addCleanup(watch.stop)
        forwarder = self.forwarder(self.gateway(self.doorway().connection, echo))
        serials = []
        key = rsa.generate_private_key(65537, 2048)
        for identity in (self.agent, self.ca.issue("agent-1", usage=(CLIENT_AUTH,), key=key)):
            before = self.current
            if identity is not self.agent:
                self.write(identity)
                await self.until(lambda before=before: self.current is not before)
            peer = await self.client(forwarder, b"x")
            await self.until(lambda peer=peer: peer.data == b"x")
            serials.append(identity.certificate.serial_number)
            peer.transport.loseConnection()
        self.assertEqual([end.serial for end in self.ends], serials)
        good = self.current
        Path(self.way.certificate).write_bytes(b"-----BEGIN")
        await self.until(lambda: self.said)
        self.assertIn("cert.pem is not a certificate in PEM", self.said[-1])
        self.assertIs(self.current, good)

    def test_what_cannot_be_used(self) -> None:
        """Missing, open to others, encrypted, of another certificate, without a root (T239)."""
        from tests.sidecar.rig import REACTOR

        watch = Handmade(REACTOR, self.way, self.changed, self.said.append)
        watch.read()
        os.chmod(self.way.key, 0o640)
        self.assertRaisesRegex(PkiError, "chmod 600", watch.read)
        os.chmod(self.way.key, 0o600)
        self.write(self.agent, serialization.BestAvailableEncryption(os.urandom(8).hex().encode()))
        self.assertRaisesRegex(PkiError, "without a passphrase", watch.read)
        self.write(self.agent)
        other = TestCA().issue("agent-1", usage=(CLIENT_AUTH,))
        Path(self.way.certificate).write_bytes(
            other.certificate.public_bytes(serialization.Encoding.PEM)
        )
        self.assertRaisesRegex(PkiError, "cannot be used together", watch.read)
        self.write(self.agent)
        os.unlink(self.way.ca)
        self.assertRaisesRegex(PkiError, "ca.pem is missing", watch.read)


class TelemetryTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lines = io.StringIO()
        log = Logger("sidecar", observer=textFileLogObserver(self.lines))
        self.telemetry = Telemetry(self.clock.seconds, lambda: 1000.0, lambda: 3, "", log)

    def metric(self, name: str) -> float:
        """Return the value of one series."""
        text = generate_latest(self.telemetry.registry).decode()
        (line,) = [one for one in text.splitlines() if one.startswith(name + " ")]
        return float(line.rpartition(" ")[2])

    def test_what_happens_to_the_certificate(self) -> None:
        """Loaded, renewed and failed: lines with when it ends, an expiry gauge, counts."""
        publish = self.telemetry.publish
        publish(RenewalFailed("client", "the gateway is away", 60.0, 0.0))
        publish(CertificateLoaded("client", 1000.0 + 3 * 3600))
        publish(RenewalFailed("client", "the gateway is away", 60.0, 1000.0 + 90 * 60))
        publish(CertificateRenewed("client", 1000.0 + 3 * 86400))
        lines = self.lines.getvalue()
        self.assertIn("Not enrolled: the gateway is away; next try in 60 s\n", lines)
        self.assertIn("The certificate in use ends in 3 h 0 min\n", lines)
        self.assertIn("next try in 60 s; the one in use ends in 1 h 30 min\n", lines)
        self.assertIn("Renewed: the new certificate ends in 3 d 0 h\n", lines)
        count = 'slapenir_cert_renewals_total{cert="client",outcome="%s"}'
        self.assertEqual(self.metric(count % "failed"), 2.0)
        self.assertEqual(self.metric(count % "renewed"), 1.0)
        gauge = 'slapenir_cert_expiry_timestamp_seconds{cert="client"}'
        self.assertEqual(self.metric(gauge), 1000.0 + 3 * 86400)
        self.assertEqual(self.metric("slapenir_sidecar_connections"), 3.0)

    def test_the_same_trouble_is_logged_once_a_minute(self) -> None:
        """A gateway that is away fills no log; each is counted; another trouble is said at once."""
        for _ in range(100):
            self.telemetry.trouble(Trouble.UNREACHABLE, "ConnectionRefusedError")
        self.telemetry.trouble(Trouble.REFUSED, "")
        self.assertEqual(self.lines.getvalue().count("\n"), 2)
        self.clock.advance(QUIET_SECONDS)
        self.telemetry.trouble(Trouble.UNREACHABLE, "ConnectionRefusedError")
        self.assertIn("so were 99 others", self.lines.getvalue())
        counted = 'slapenir_sidecar_refused_total{reason="gateway_unreachable"}'
        self.assertEqual(self.metric(counted), 101.0)
