"""``slapenir doctor``: all is well where it is, and it says what is not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from slapenir.cli.rehearsal import rehearsal
from slapenir.sandbox import probe
from tests.support.gateway import ROOT
from tests.support.netns import Namespace, need_namespaces

SECONDS = 180


class DoctorTests(SynchronousTestCase):
    def doctor(self, *arguments: str, **env: str) -> tuple[int, list[dict[str, Any]], str]:
        """Run it; return its status, what it found and what it said besides."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "slapenir.cli", "doctor", "--json", *arguments],
            capture_output=True,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "HOME": str(directory),
                **env,
            },
            timeout=SECONDS,
        )
        lines = done.stdout.splitlines()
        return done.returncode, [json.loads(line) for line in lines], done.stderr

    def config(self) -> str:
        """Return a first configuration."""
        directory = Path(self.mktemp()).resolve()
        words = [sys.executable, "-m", "slapenir.cli", "init", str(directory)]
        subprocess.run(words, check=True, capture_output=True, env={"PYTHONPATH": str(ROOT)})
        return str(directory / "slapenir.toml")

    def test_all_is_well(self) -> None:
        """T228, T237: every client that is there is served, and nothing gets around."""
        need_namespaces("nft", "bwrap")
        status, found, said = self.doctor("--config", self.config(), HTTPS_PROXY="http://x:1")
        wrong = [one for one in found if one["result"] not in ("ok", "skipped")]
        self.assertEqual((status, wrong), (0, []), said)
        for name, (program, _) in probe.CLIENTS.items():
            (one,) = (one for one in found if (one["group"], one["name"]) == ("client", name))
            self.assertEqual(one["result"], "ok" if shutil.which(program) else "skipped", one)
        around = [one for one in found if one["group"] == "way around"]
        self.assertGreater(len(around), 20)

    def test_something_is_missing(self) -> None:
        """Without nft nothing else is tried; what to do is said, and the status is 2."""
        tools = Path(self.mktemp()).resolve()
        tools.mkdir()
        for name in ("bwrap", "ip", "certutil"):
            found_at = shutil.which(name)
            if found_at:
                (tools / name).symlink_to(found_at)
        status, found, _ = self.doctor("--config", self.config(), PATH=str(tools))
        self.assertEqual(status, 2)
        (nft,) = (one for one in found if one["name"] == "nftables")
        self.assertEqual((nft["result"], nft["remedy"]), ("missing", "install nftables"))
        self.assertIn("skipped", {one["result"] for one in found if one["group"] == "client"})

    def test_no_configuration(self) -> None:
        status, found, _ = self.doctor("--config", "/no/such.toml")
        (one,) = (one for one in found if one["name"] == "configuration")
        self.assertEqual((status, one["result"]), (2, "missing"))

    def test_a_hole_outside_of_any_sandbox(self) -> None:
        """The same attempts with nothing around them reach the server: holes, and it saw them."""
        with rehearsal() as made:
            found = {one["name"]: one for one in probe.ways({"outside": made.outside})}
            for name in ("TCP to an address", "UDP"):
                self.assertEqual(found[name]["result"], "hole", found[name])
            self.assertGreaterEqual(len(made.contacts), 2)
            hidden = probe.ways({"hidden": [made.config]})
            self.assertEqual(list(hidden)[-1]["result"], "hole")

    def test_inside_with_a_hole(self) -> None:
        """--inside in a namespace that reaches a server: 1, and which way it was."""
        need_namespaces()
        space = Namespace()
        self.addCleanup(space.remove)
        space.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        with space.inside():
            server = socket.create_server(("192.0.2.1", 8443))
        self.addCleanup(server.close)
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        with space.inside():
            status, found, _ = self.doctor("--inside")
        holes = {one["name"] for one in found if one["result"] == "hole"}
        self.assertEqual(status, 1)
        self.assertIn("TCP to an address", holes)
        self.assertNotIn("UDP", holes)

    def test_the_page_lists_the_clients(self) -> None:
        """docs/clients.rst has each client that doctor asks with."""
        page = (ROOT / "docs" / "clients.rst").read_text("utf-8")
        missing = [name for name in probe.CLIENTS if f"``{name}``" not in page]
        self.assertEqual(missing, [])


def answer(server: socket.socket) -> None:
    """Answer whoever comes."""
    while True:
        try:
            conn, _ = server.accept()
        except OSError:
            return
        with conn:
            conn.sendall(b"reached")
