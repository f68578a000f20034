"""etc/containers: the Debian image is built from a root file system of this machine, and run; the
rest is read for what must and must not be in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.case import need
from tests.integration.test_managed import ManagedBed
from tests.support.gateway import ROOT
from tests.support.netns import Namespace, join, need_namespaces
from tests.support.ports import free_port
from tests.support.traces import traces

PLACE = ROOT / "etc" / "containers"
BUILD_SECONDS = 500
RUN_SECONDS = 60
GATEWAY = "10.99.1.1"
_SECRET = re.compile(r"(sk-[A-Za-z0-9]{8}|ghp_|BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{8})")


class FileTests(SynchronousTestCase):
    """What holds of every file, built here or not."""

    def texts(self, *names: str) -> dict[str, str]:
        paths = [PLACE / name for name in names] or [p for p in PLACE.rglob("*") if p.is_file()]
        return {path.name: path.read_text("utf-8") for path in paths if "wheels" not in path.parts}

    def test_no_secret_and_nothing_privileged(self) -> None:
        for name, text in self.texts().items():
            self.assertIsNone(_SECRET.search(text), name)
            for word in ("privileged: true", "--privileged", "seccomp=unconfined", "hostPID: true",
                         "hostNetwork: true", "docker.sock", "SYS_ADMIN"):  # fmt: skip
                self.assertNotIn(word, text, name)

    def test_scripts(self) -> None:
        """Each script is one that its shell can read."""
        for path in (*PLACE.glob("services/*/*"), PLACE / "start", PLACE / "healthy"):
            self.assertTrue(path.stat().st_mode & 0o100, path)
            subprocess.run(["sh", "-n", str(path)], check=True)
        subprocess.run(["bash", "-n", str(PLACE / "try.sh")], check=True)

    def test_images(self) -> None:
        """Two users, a health check, and no build argument that could hold a secret."""
        for name, text in self.texts("debian.Containerfile", "wolfi.Containerfile").items():
            for word in ("useradd -u 1000 ", "useradd -u 1001 ", "HEALTHCHECK", "--no-index"):
                self.assertIn(word, text, name)
            self.assertEqual(re.findall(r"^ARG (\w+)", text, re.MULTILINE), ["BASE"])

    def test_compose(self) -> None:
        """The agents' network is internal; nobody keeps more capabilities than it takes."""
        text = self.texts("compose.yaml")["compose.yaml"]
        self.assertIn("  agents:\n    internal: true\n", text)
        agent = text.split("  agent:\n")[1].split("\nnetworks:")[0]
        self.assertIn("networks: [agents]", agent)
        self.assertEqual(text.count("cap_drop: [ALL]"), 2)
        self.assertEqual(text.count("no-new-privileges:true"), 2)
        self.assertEqual(text.count("read_only: true"), 2)

    def test_kubernetes(self) -> None:
        """Only the init container may change the network; the agent sees no credential."""
        text = self.texts("kubernetes.yaml")["kubernetes.yaml"]
        self.assertEqual(text.count("NET_ADMIN"), 1)
        self.assertEqual(text.count("runAsNonRoot: true"), 3)
        self.assertEqual(text.count("allowPrivilegeEscalation: false"), 4)
        agent = text.split("  containers:\n")[1].split("  volumes:\n")[0]
        for word in ("credentials", "state", "/etc/slapenir"):
            self.assertNotIn(word, agent)
        self.assertIn("slapenir rules nft --for pod --gateway-uid 1001", text)


class ImageTests(SynchronousTestCase):
    """The image, built and run."""

    def test_agent_and_sidecar(self) -> None:
        """The sidecar enrols, the agent's request goes through it, the origin sees the key and the
        agent never; it cannot read the sidecar's key and has no other way out."""
        need_namespaces()
        for tool in ("debootstrap", "buildah", "podman", "runc"):
            need(tool)
        work = ROOT / "build" / "containers"
        built = subprocess.run(
            [str(PLACE / "try.sh"), str(work)],
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
        self.assertEqual(built.returncode, 0, built.stderr[-2000:])
        outside, inside = Namespace(), Namespace()
        self.addCleanup(outside.remove)
        self.addCleanup(inside.remove)
        join(inside, outside)
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(mode=0o700)
        with outside.inside():
            bed = self.bed(directory)
            self.addCleanup(bed.origin.close)
            self.addCleanup(bed.gateway.stop)
            bed.gateway.start()
        output = self.run_container(work, inside.name, directory, bed)
        self.assertIn(b"HTTP/1.1 200", output)
        self.assertEqual(traces(output, bed.secret), [])
        seen = {one.header(b"authorization") for one in bed.origin.requests}
        self.assertEqual(seen, {b"Bearer " + bed.secret.encode()})
        for word in (b"uid=1000(agent)", b"key: denied", b"direct: denied"):
            self.assertIn(word, output)

    def bed(self, directory: Path) -> ManagedBed:
        """Return a gateway that listens where the container finds it."""
        port = free_port()
        pki = (
            f'provider = "embedded"\nnames = ["{GATEWAY}"]\nlifetime = "24h"\n'
            f'enrol = "tcp:{port}:interface={GATEWAY}"\nurl = "https://{GATEWAY}:{port}"\n'
        )
        bed = ManagedBed(directory, pki=pki)
        bed.gateway.extra = bed.gateway.extra.replace("interface=127.0.0.1", f"interface={GATEWAY}")
        return bed

    def run_container(self, work: Path, space: str, directory: Path, bed: ManagedBed) -> bytes:
        """Run the image to the end of its agent; return what it printed."""
        token = directory / "token"
        token.write_text(bed.token("agent-1"), "ascii")
        environment = directory / "agent-environment"
        environment.write_text(f"export API_KEY='{bed.placeholder('agent-1')}'\n", "ascii")
        script = (
            'curl -sS -i -m 20 --cacert /run/ca.pem -H "Authorization: Bearer $API_KEY"'
            f" {bed.url}; id; cat /run/sidecar/state/* 2>/dev/null || echo key: denied;"
            f" curl -sS -m 3 --noproxy '*' http://{GATEWAY}:{bed.origin.port}/ ||"
            " echo direct: denied"
        )
        store = ["--root", str(work / "store"), "--runroot", str(work / "run")]
        mounts: list[Any] = [
            (token, "/run/secrets/sidecar_token"),
            (environment, "/run/agent-environment"),
            (bed.gateway.ca_file, "/run/ca.pem"),
        ]
        words = ["podman", *store, "--storage-driver", "vfs", "--cgroup-manager=cgroupfs"]
        words += ["--runtime", need("runc"), "run", "--rm", f"--network=ns:/run/netns/{space}"]
        words += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--read-only"]
        words += ["--cap-drop", "ALL", "--cap-add", "SETUID,SETGID,CHOWN,KILL"]
        words += ["--security-opt", "no-new-privileges", "--tmpfs", "/run:exec,mode=755"]
        words += ["--tmpfs", "/home/agent:mode=777", "-e", f"GATEWAY={GATEWAY}:{bed.tls_port}"]
        words += ["-e", f"AGENT_COMMAND={script}"]
        for path, place in mounts:
            words += ["-v", f"{path}:{place}:ro"]
        name = f"--name={space}"
        try:
            done = subprocess.run(
                [*words, name, "slapenir-agent"], capture_output=True, timeout=RUN_SECONDS
            )
        finally:
            subprocess.run([*words[: words.index("run")], "rm", "-f", space], capture_output=True)
        return done.stdout + done.stderr
