"""The sidecar's systemd unit, checked by systemd's own tools."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from twisted.trial import unittest

from tests.test_packaging import MAX_EXPOSURE, ROOT, needs, run

UNIT = ROOT / "systemd" / "slapenir-sidecar.service"
GATEWAY = ROOT / "systemd" / "slapenir.service"


class SidecarUnitTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        needs("systemd-analyze", "systemd")

    def verify(self, text: str) -> str:
        """Return what systemd-analyze has to say about a unit; it exits 0 even for errors."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        unit = place / "slapenir-sidecar.service"
        unit.write_text(text.replace("/opt/slapenir/bin/twistd", shutil.which("true") or ""))
        return run(["systemd-analyze", "verify", "--man=no", str(unit)]).stderr

    def test_verify_has_nothing_to_say(self) -> None:
        """No unknown key, no bad value; a misspelt key is complained about."""
        text = UNIT.read_text()
        self.assertEqual(self.verify(text), "")
        self.assertIn("Unknown key", self.verify(text.replace("ProtectHome=", "ProtectHouse=")))

    def test_exposure_is_no_more_than_the_gateways(self) -> None:
        """systemd-analyze security rates it as well as the gateway's unit."""
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
        rated = run([*command, f"--threshold={MAX_EXPOSURE}", str(UNIT)])
        if "offline" in rated.stderr:
            raise unittest.SkipTest("systemd-analyze has no --offline: systemd 250 or newer needed")
        self.assertEqual(rated.returncode, 0, rated.stdout[-200:] + rated.stderr)
        ours, theirs = (
            float(re.findall(r": ([0-9.]+) ", run([*command, str(unit)]).stdout)[-1])
            for unit in (UNIT, GATEWAY)
        )
        self.assertLessEqual(ours, theirs)

    def test_what_the_unit_promises_t226_t237(self) -> None:
        """T226: no core dump.  T237: the environment cannot name code or trusted CAs."""
        text = UNIT.read_text()
        for line in ("LimitCORE=0", "DynamicUser=yes", "NoNewPrivileges=yes", "Type=notify"):
            self.assertIn(f"\n{line}\n", text)
        unset = re.search(r"^UnsetEnvironment=(.*)$", text, re.MULTILINE)
        assert unset is not None
        for name in ("PYTHONPATH", "PYTHONHOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF"):
            self.assertIn(name, unset[1].split())
        self.assertNotRegex(text, r"(?m)^Environment=.*(KEY|TOKEN|SECRET)")
