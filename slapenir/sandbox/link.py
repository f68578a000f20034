"""The sandbox's side of joining a gateway, and the gateway that a sandbox starts for itself."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from slapenir.errors import SandboxError
from slapenir.sandbox.kernel import die_with_parent
from slapenir.sandbox.scratch import RUN, Scratch, held
from slapenir.sandbox.tools import ISOLATED, for_python

_SECONDS = 20.0
_PAUSE = 0.1
_PATIENCE = 2.0  # seconds after which a person is told what is waited for
_MAX_ANSWER = 8 << 20
_NOT_FOR_GATEWAYS = frozenset(("NOTIFY_SOCKET", "TMPDIR", "TEMP", "TMP"))
_SOCKET, _CONFIG, _LOG = "join.sock", "config", "log"  # in the directory of a gateway of our own
_IN_USE = "in use by another process"


@attrs.frozen
class Joined:
    """What the gateway told a sandbox: whose it is, its placeholders, and the CA to trust."""

    identity: str
    environment: dict[str, str]
    ca: bytes


class Link:
    """One connection to a gateway; ``fileno`` becomes readable when the gateway goes away."""

    def __init__(self, path: str, seconds: float = _SECONDS) -> None:
        self.path = path
        self._conn = socket.socket(socket.AF_UNIX)
        self._conn.settimeout(seconds)
        try:
            self._conn.connect(path)
        except OSError as error:
            self._conn.close()
            raise SandboxError(f"no gateway answers at {path}: {error.strerror}") from None

    def join(self, identity: str, sockets: Mapping[str, int]) -> Joined:
        """Hand the sockets over; raises SandboxError with what the gateway says."""
        message = {"version": 1, "identity": identity, "sockets": list(sockets)}
        handed = array.array("i", sockets.values())
        try:
            self._conn.sendmsg(
                [json.dumps(message).encode() + b"\n"],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)],
            )
            told = self._read()
        except (OSError, ValueError) as error:
            raise SandboxError(f"the gateway at {self.path} did not answer: {error}") from None
        if told.get("ok") is not True:
            raise SandboxError(str(told.get("error", "refused")), str(told.get("remedy", "")))
        self._conn.setblocking(False)
        environment = {str(k): str(v) for k, v in told.get("environment", {}).items()}
        return Joined(str(told["identity"]), environment, str(told["ca"]).encode())

    def _read(self) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\n"):
            more = self._conn.recv(65536)
            if not more or len(data) > _MAX_ANSWER:
                raise ValueError("the connection ended")
            data += more
        told = json.loads(data)
        if type(told) is not dict:
            raise ValueError("not an answer")
        return told

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        return self._conn.fileno()

    def report(self, refused: Mapping[str, int]) -> None:
        """Tell what the packet filter refused; a gateway that is gone is found out elsewhere."""
        with contextlib.suppress(OSError):
            self._conn.sendall(json.dumps({"refused": dict(refused)}).encode() + b"\n")

    def ended(self) -> bool:
        """Whether the gateway has closed, asked when the connection is readable."""
        try:
            return self._conn.recv(65536) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """End the sandbox for the gateway."""
        self._conn.close()


@attrs.define
class OwnGateway:
    """A gateway process of the sandbox's own, in a private directory that ends with it."""

    path: str
    process: subprocess.Popen[bytes]
    directory: Scratch
    log: str

    @classmethod
    def start(
        cls, config: str, environ: Mapping[str, str], say: Callable[[str], None], place: str
    ) -> OwnGateway:
        """Start it and wait until it accepts; raises SandboxError with the end of its log.

        The working directory is the root, for twistd looks for modules where it stands, and a
        workspace is the agent's.  Its own directory is made in ``place``.
        """
        directory = Scratch(place, RUN)
        path, log = os.path.join(directory.name, _SOCKET), os.path.join(directory.name, _LOG)
        with open(os.path.join(directory.name, _CONFIG), "wb") as file:
            file.write(os.fsencode(os.path.realpath(config)))
        run = "from twisted.scripts.twistd import run; run()"
        words = [sys.executable, *ISOLATED, "-c", run, "-n", "--pidfile=", "slapenir"]
        words += ["--config", config, "--only-sandboxes", path]
        with open(log, "wb") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={k: v for k, v in for_python(environ).items() if k not in _NOT_FOR_GATEWAYS},
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the command
                preexec_fn=die_with_parent,
            )
        made = cls(path, process, directory, log)
        try:
            made._wait(say)
        except BaseException:
            made.stop()
            raise
        return made

    def _wait(self, say: Callable[[str], None]) -> None:
        began, told = time.monotonic(), False
        while not _accepts(self.path):  # the socket is there a moment before it listens
            waited = time.monotonic() - began
            if self.process.poll() is not None or waited > _SECONDS:
                raise SandboxError(f"the gateway did not start: {self._last_words()}")
            if waited > _PATIENCE and not told:
                say("waiting for the gateway to start")
                told = True
            time.sleep(0.01)

    def _last_words(self) -> str:
        """Return what its log ends with, the lines about errors where there are such."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read().splitlines() if line.strip()]
        wrong = [line for line in lines if "error" in line.lower()]
        text = "; ".join((wrong or lines)[-3:])
        if _IN_USE in text:
            text += "; another gateway runs with this configuration: give it [sandboxes] endpoint"
        return text

    def stop(self) -> None:
        """End it and remove its directory."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.directory.cleanup()


def _accepts(path: str) -> bool:
    """Whether somebody listens at a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


class Keeper:
    """Where the gateway of a sandbox is: one that runs, or one of its own, started when need be."""

    def __init__(
        self,
        path: str,
        config: str,
        environ: Mapping[str, str],
        say: Callable[[str], None],
        place: str,
    ) -> None:
        self._path = path
        self._config = config
        self._environ = environ
        self._say = say
        self._place = place
        self._own: OwnGateway | None = None
        self._borrowed = False

    def first(self) -> Link:
        """Return a link to a gateway that runs, else to one that is started."""
        if self._path and os.path.exists(self._path):
            try:
                return Link(self._path)
            except SandboxError:
                if not self._config:
                    raise
        if not self._config:
            raise SandboxError(f"no gateway answers at {self._path}", "start it, or use --config")
        return self._start()

    def again(self, seconds: float) -> Link:
        """Return a link after the gateway went away; one of our own that died is started anew."""
        own = self._own
        if own is None:
            return self._start() if self._borrowed else Link(self._path, seconds)
        if own.process.poll() is not None:
            own.stop()
            self._own = None
            return self._start()
        return Link(own.path, seconds)

    def stop(self) -> None:
        """End the gateway of our own, if there is one."""
        if self._own is not None:
            self._own.stop()

    def _start(self) -> Link:
        """Start one of our own, or join one that another runner of ours started with the same
        configuration: there cannot be two at a time, for they share its state.
        """
        self._borrowed = True
        until = time.monotonic() + _SECONDS
        while True:
            for path in others_gateways(self._place, self._config):
                with contextlib.suppress(SandboxError):
                    return Link(path)
            try:
                self._own = OwnGateway.start(self._config, self._environ, self._say, self._place)
            except SandboxError as error:
                others = others_gateways(self._place, self._config)
                if _IN_USE not in error.error or not others or time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)  # the other one does not listen yet
            else:
                self._borrowed = False
                return Link(self._own.path)


def others_gateways(place: str, config: str) -> list[str]:
    """Return where gateways listen that other runners of this user have for a configuration."""
    found = []
    for directory in held(place, RUN):
        with contextlib.suppress(OSError), open(os.path.join(directory, _CONFIG), "rb") as file:
            if file.read() == os.fsencode(os.path.realpath(config)):
                found.append(os.path.join(directory, _SOCKET))
    return found
