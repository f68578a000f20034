"""sslyze, a scanner of TLS servers, at a listener that wants certificates and inside a CONNECT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.scene import API, shared_scene
from tests.integration.test_identities import GATEWAY_NAME, Bed
from tests.support.connect_forwarder import ConnectForwarder
from tests.support.gateway import ROOT

SSLYZE = "sslyze==6.3.1"
SCANS = ("sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "reneg", "resum", "early_data",
         "compression", "heartbleed", "fallback")  # fmt: skip
SECONDS = 240


def sslyze() -> Path:
    """Return the scanner, in an environment of its own: it pins other versions of what we use."""
    place = ROOT / "build" / "sslyze"
    program = place / "bin" / "sslyze"
    if not program.exists():
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", SSLYZE]
        for command in ([sys.executable, "-m", "venv", str(place)], pip):
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            if done.returncode != 0:
                raise SkipTest(f"sslyze cannot be installed: {done.stderr.strip()[-200:]}")
    return program


class TestSslyze(SynchronousTestCase):
    """TLS 1.2 and 1.3 only, forward secrecy, no renegotiation, no early data, no resumption."""

    def scan(self, *arguments: str) -> dict[str, Any]:
        """Return what the scanner found, by scan."""
        result = Path(self.mktemp()).resolve()
        flags = [f"--{name}" for name in SCANS]
        done = subprocess.run(
            [str(sslyze()), "--json_out", str(result), *flags, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(result.parent)},
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        (found,) = json.loads(result.read_text("utf-8"))["server_scan_results"]
        self.assertEqual(found["connectivity_status"], "COMPLETED", found)
        scans = {key: one for key, one in found["scan_result"].items() if one["result"]}
        for key, one in scans.items():
            self.assertEqual(one["status"], "COMPLETED", key)
        return {key: one["result"] for key, one in scans.items()}

    def assert_sound(self, found: dict[str, Any]) -> None:
        """What T102, T107, T108 and T109 ask for, as an outsider sees it."""
        for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
            self.assertFalse(found[f"{version}_cipher_suites"]["is_tls_version_supported"], version)
        for version in ("tls_1_2", "tls_1_3"):
            suites = found[f"{version}_cipher_suites"]["accepted_cipher_suites"]
            names = [one["cipher_suite"]["openssl_name"] for one in suites]
            self.assertTrue(names, version)
            for name in names:
                self.assertTrue(name.startswith(("ECDHE-", "TLS_")), name)
                self.assertTrue("GCM" in name or "CHACHA20" in name or "CCM" in name, name)
        renegotiation = found["session_renegotiation"]
        self.assertFalse(renegotiation["is_vulnerable_to_client_renegotiation_dos"])
        self.assertEqual(renegotiation["client_renegotiations_success_count"], 0)
        self.assertFalse(found["tls_1_3_early_data"]["supports_early_data"])
        resumption = found["session_resumption"]
        for way in ("session_id", "tls_ticket"):
            self.assertEqual(resumption[f"{way}_successful_resumptions_count"], 0)
            self.assertEqual(resumption[f"{way}_resumption_result"], "NOT_SUPPORTED")
        self.assertFalse(found["tls_compression"]["supports_compression"])
        self.assertFalse(found["heartbleed"]["is_vulnerable_to_heartbleed"])
        self.assertTrue(found["tls_fallback_scsv"]["supports_fallback_scsv"])

    def test_the_listener_t107_t108_t109(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True, mode=0o700)
        bed = Bed(directory)
        self.addCleanup(bed.origin.close)
        self.addCleanup(bed.gateway.stop)
        bed.gateway.start()
        certificate, key = bed.files["1"]
        server = f"{GATEWAY_NAME}:{bed.tls_port}"
        self.assert_sound(self.scan("--cert", str(certificate), "--key", str(key), server))
        known = [one for one in bed.gateway.records() if one["event"] == "ClientIdentified"]
        self.assertEqual({one["identity"] for one in known}, {"agent-1"})

    def test_inside_a_connect_t107_t108_t109(self) -> None:
        """By way of a forwarder, for the scanner's own CONNECT has no Host field and gets a 400."""
        scene = shared_scene()
        authority = f"{API}:{scene.origins[API].port}"
        forwarder = ConnectForwarder(scene.gateway.port, authority)
        self.addCleanup(forwarder.close)
        self.assert_sound(self.scan("--sni", API, f"127.0.0.1:{forwarder.port}"))
