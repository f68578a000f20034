"""What is shipped: the wheel, the twistd plugin, the unit, the Makefile."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from twisted.trial import unittest

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "systemd" / "slapenir.service"
MAX_EXPOSURE = 20  # tenths: 2.0 of 10 in systemd-analyze's scale


def run(command: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command without the caller's Python settings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def needs(command: str, package: str) -> None:
    """Skip the test when ``command`` is missing."""
    if shutil.which(command) is None:
        raise unittest.SkipTest(f"{command} is missing: install the package {package}")


class WheelTests(unittest.SynchronousTestCase):
    """A regular install from a built wheel."""

    wheel: Path | None = None

    def build(self) -> Path:
        """Build the wheel once from a copy of the tracked files, without a network."""
        if WheelTests.wheel is None:
            place = Path(self.mktemp()).absolute()
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "dropin.cache")
            for name in ("slapenir", "twisted"):
                shutil.copytree(ROOT / name, place / "source" / name, ignore=ignored)
            for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.rst"):
                shutil.copy(ROOT / name, place / "source")
            pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index"]
            built = run([*pip, "--no-build-isolation", "-w", str(place), str(place / "source")])
            self.assertEqual(built.returncode, 0, built.stderr)
            (WheelTests.wheel,) = place.glob("*.whl")
        return WheelTests.wheel

    def test_contents(self) -> None:
        """Every module and data file is in it, the plugin too, and nothing of Twisted's."""
        with zipfile.ZipFile(self.build()) as archive:
            names = {n for n in archive.namelist() if ".dist-info/" not in n}
            (entry,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
            self.assertIn("slapenir = slapenir.cli:main", archive.read(entry).decode())
        here = {
            str(path.relative_to(ROOT))
            for path in (ROOT / "slapenir").rglob("*")
            if path.suffix in (".py", ".toml", ".typed")
        }
        plugins = {f"twisted/plugins/slapenir_{name}.py" for name in ("plugin", "sidecar_plugin")}
        self.assertEqual(names, here | plugins)

    def test_a_regular_install_has_the_plugin_and_the_command(self) -> None:
        """In an environment that only has the wheel, twistd lists and describes slapenir."""
        place = Path(self.mktemp()).absolute()
        made = run([sys.executable, "-m", "venv", "--without-pip", str(place)])
        self.assertEqual(made.returncode, 0, made.stderr)
        site = Path(
            sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
        )
        pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install"]
        done = run([*pip, "-q", "--no-deps", "--no-index", str(self.build())])
        self.assertEqual(done.returncode, 0, done.stderr)
        # The dependencies of the environment that runs the tests; .pth files there are not read.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        python = str(place / "bin" / "python")
        twistd = [python, "-c", "from twisted.scripts.twistd import run; run()"]
        listed = run([*twistd, "--help"], cwd=place)
        self.assertRegex(listed.stdout, r"\n +slapenir +An egress firewall")
        described = run([*twistd, "slapenir", "--help"], cwd=place)
        self.assertIn("--config=", described.stdout)
        refused = run([*twistd, "-n", "--pidfile=", "slapenir"], cwd=place)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("--config FILE is needed", refused.stdout + refused.stderr)
        where = run([python, "-c", "import slapenir; print(slapenir.__file__)"], cwd=place)
        self.assertTrue(where.stdout.startswith(str(site)), where.stdout + where.stderr)
        version = run([str(place / "bin" / "slapenir"), "--version"], cwd=place)
        self.assertEqual(version.returncode, 0, version.stderr)


class MetadataTests(unittest.SynchronousTestCase):
    """setup.cfg and constraints.txt belong together."""

    def test_every_requirement_has_an_exact_version(self) -> None:
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        wanted = config["options"]["install_requires"]
        wanted += (
            config["options.extras_require"]["test"] + config["options.extras_require"]["docs"]
        )
        pattern = re.compile(r"^([A-Za-z0-9._-]+)", re.MULTILINE)
        required = {normal(name) for name in pattern.findall(wanted)} - {"setuptools"}
        pinned = {
            normal(line.partition("==")[0])
            for line in (ROOT / "constraints.txt").read_text().splitlines()
            if "==" in line
        }
        self.assertEqual(required - pinned, set())

    def test_the_plugin_directory_is_no_package(self) -> None:
        """An __init__.py there would hide Twisted's own plugins."""
        for directory in ("twisted", "twisted/plugins"):
            self.assertFalse((ROOT / directory / "__init__.py").exists())


def normal(name: str) -> str:
    """Return a distribution's name in its normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


class UnitTests(unittest.SynchronousTestCase):
    """The systemd unit, checked by systemd's own tools."""

    def setUp(self) -> None:
        needs("systemd-analyze", "systemd")

    def verify(self, text: str) -> str:
        """Return what systemd-analyze has to say about a unit; it exits 0 even for errors."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        unit = place / "slapenir.service"
        unit.write_text(text.replace("/opt/slapenir/bin/twistd", shutil.which("true") or ""))
        return run(["systemd-analyze", "verify", "--man=no", str(unit)]).stderr

    def test_verify_has_nothing_to_say(self) -> None:
        """No unknown key, no bad value; a misspelt key is complained about."""
        text = UNIT.read_text()
        self.assertEqual(self.verify(text), "")
        self.assertIn("Unknown key", self.verify(text.replace("ProtectHome=", "ProtectHouse=")))

    def test_exposure(self) -> None:
        """systemd-analyze security rates it below MAX_EXPOSURE; without its sandbox it does not."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        bare = place / "slapenir.service"
        bare.write_text("[Service]\nExecStart=/bin/true\n")
        command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}"]
        rated = run([*command, "--no-pager", str(UNIT)])
        if "offline" in rated.stderr:
            raise unittest.SkipTest("systemd-analyze has no --offline: systemd 250 or newer needed")
        self.assertEqual(rated.returncode, 0, rated.stdout[-200:] + rated.stderr)
        self.assertNotEqual(run([*command, "--no-pager", str(bare)]).returncode, 0)

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


class MakefileTests(unittest.SynchronousTestCase):
    """The commands that README.rst names."""

    def setUp(self) -> None:
        needs("make", "make")

    def test_help_is_the_default_and_lists_every_command(self) -> None:
        shown = run(["make", "-s"])
        self.assertEqual(shown.returncode, 0, shown.stderr)
        for name in ("run", "demo", "test", "lint", "docs", "bench"):
            self.assertRegex(shown.stdout, rf"(?m)^  make {name}\s+\w")

    def test_the_rules_are_sound(self) -> None:
        """Each command can be planned by make."""
        for name in ("run", "demo", "test", "lint", "docs", "bench"):
            planned = run(["make", "-n", name])
            self.assertEqual(planned.returncode, 0, planned.stderr)

    def test_an_old_python_is_refused_with_a_remedy(self) -> None:
        """An interpreter older than 3.11 is named and nothing is made."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        old = place / "python3.9"
        old.write_text('#!/bin/sh\ncase "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac\n')
        old.chmod(0o755)
        made = run([str(ROOT / ".ci" / "environment"), str(old), str(place / "venv"), ""])
        self.assertEqual(made.returncode, 1)
        self.assertIn("Python 3.9.2; SLAPENIR needs Python 3.11", made.stderr)
        self.assertIn("make PYTHON=", made.stderr)
        self.assertFalse((place / "venv").exists())

    def test_a_missing_tool_is_named(self) -> None:
        """What is there is not mentioned; what is not there is, with the command to install it."""
        packages = str(ROOT / ".ci" / "packages")
        self.assertEqual(run([packages, "sh:dash"]).stdout, "")
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        for name in ("sh", "id"):
            (place / name).symlink_to(shutil.which(name) or "")
        path = f"PATH={place}"  # without apt-get, so that nothing is installed
        missing = run(["env", path, packages, "sh:dash", "no-such-command:no-such-package"])
        self.assertEqual(missing.returncode, 1)
        self.assertIn("sudo apt-get install no-such-package", missing.stderr)
        self.assertNotIn("dash", missing.stderr)
