"""The server outside that nothing in a sandbox may reach, and what there is of the host to try.

It says a token that nobody else knows, and keeps what arrives.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import ssl
import threading
from collections.abc import Callable

from slapenir.sandbox.doctor_dial import tcp, udp

_SOCKETS = 256  # of the host's that are tried
_WELL_KNOWN = ((socket.SOCK_DGRAM, 53), (socket.SOCK_DGRAM, 443), (socket.SOCK_STREAM, 53),
               (socket.SOCK_STREAM, 853))  # fmt: skip
_PLACES = (
    "/", "/etc", "/usr", "/usr/local/bin", "/opt", "/var", "/var/tmp", "/srv", "/root",  # noqa: S108
    "/home", "/boot", "/run", "/tmp",  # noqa: S108
)  # fmt: skip
_DNS = b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
_RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x08\x08\x08\x08"


class Canary:
    """Listeners on addresses of the host; ``arrived`` says what came to them.

    ``tls_port`` is the port of the allowed name: on ``hosts`` it is the canary's, too.
    """

    def __init__(self, hosts: list[str], tls_port: int, pair: str, abstract: bool = True) -> None:
        self.hosts = hosts
        self.loopback: list[str] = []
        self.token = secrets.token_hex(16)
        self.abstract = f"@slapenir-doctor-{secrets.token_hex(8)}"
        self.arrived: list[str] = []
        self.tcp_port = self.udp_port = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair)
        self._open: list[socket.socket] = []
        for host in ("127.0.0.1", "::1"):
            if self._listen(host, socket.SOCK_STREAM, self.tcp_port, self._greet):
                self.tcp_port = int(self._open[-1].getsockname()[1])
                self.loopback.append(host)
        for host in hosts:
            self._listen(host, socket.SOCK_STREAM, self.tcp_port, self._greet)
            self._listen(host, socket.SOCK_STREAM, tls_port, self._greet_tls)
            if self._listen(host, socket.SOCK_DGRAM, self.udp_port, self._greet):
                self.udp_port = int(self._open[-1].getsockname()[1])
            for kind, port in _WELL_KNOWN:
                self._listen(host, kind, port, self._greet_tls if port == 853 else self._greet)
        if abstract:
            one = socket.socket(socket.AF_UNIX)
            one.bind("\0" + self.abstract[1:])
            one.listen()
            self._serve(one, self._greet)

    def answers(self) -> str:
        """Dial it from here; return what is wrong with it, or nothing.  Forgets the dials."""
        token = self.token.encode()
        try:
            for host in self.hosts:
                if token not in tcp(host, self.tcp_port, b"doctor\n"):
                    return f"{host} does not answer over TCP"
                if token not in udp(host, self.udp_port, b"doctor"):
                    return f"{host} does not answer over UDP"
        except OSError as error:
            return f"the host's own addresses cannot be reached: {error}"
        finally:
            self.arrived.clear()
        return "" if self.hosts else "the host has no address but loopback"

    def close(self) -> None:
        """Stop listening."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _listen(self, host: str, kind: int, port: int, greet: Callable[..., None]) -> bool:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            one = socket.socket(family, kind)
        except OSError:
            return False
        try:
            if kind == socket.SOCK_STREAM:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
            if kind == socket.SOCK_STREAM:
                one.listen()
        except OSError:
            one.close()
            return False
        self._serve(one, greet)
        return True

    def _serve(self, one: socket.socket, greet: Callable[..., None]) -> None:
        self._open.append(one)
        if one.type == socket.SOCK_DGRAM:
            threading.Thread(target=self._datagrams, args=(one,), daemon=True).start()
        else:
            threading.Thread(target=self._accept, args=(one, greet), daemon=True).start()

    def _accept(self, listening: socket.socket, greet: Callable[..., None]) -> None:
        while True:
            try:
                conn, _ = listening.accept()
            except OSError:
                return
            name = listening.getsockname()
            self.arrived.append(f"TCP to {name[0]}:{name[1]}" if type(name) is tuple else "UNIX")
            threading.Thread(target=self._one, args=(conn, greet), daemon=True).start()

    def _one(self, conn: socket.socket, greet: Callable[..., None]) -> None:
        conn.settimeout(5)
        with contextlib.suppress(OSError), conn:
            greet(conn)

    def _greet(self, conn: socket.socket) -> None:
        said = conn.recv(65536)
        if conn.family != socket.AF_UNIX and conn.getsockname()[1] == 53:
            answer = _real_answer(said[2:])
            conn.sendall(len(answer).to_bytes(2, "big") + answer)
        else:
            conn.sendall(self.token.encode() + b"\n")

    def _greet_tls(self, conn: socket.socket) -> None:
        with self._context.wrap_socket(conn, server_side=True) as inner:
            inner.sendall(self.token.encode() + b"\n")

    def _datagrams(self, one: socket.socket) -> None:
        while True:
            try:
                said, sender = one.recvfrom(65536)
                if sender is None:  # it was shut down
                    return
                self.arrived.append(f"UDP to {one.getsockname()[0]}:{one.getsockname()[1]}")
                is_dns = one.getsockname()[1] == 53
                one.sendto(_real_answer(said) if is_dns else self.token.encode(), sender)
            except OSError:
                return


def _real_answer(question: bytes) -> bytes:
    return question[:2] + _DNS + question[12:] + _RECORD


def own_addresses() -> list[str]:
    """Return an IPv4 and an IPv6 address of the host that are not loopback, as far as it has any.

    They are where packets to the outside would come from.  Nothing is sent to find out.
    """
    found = []
    for family, far in ((socket.AF_INET, "192.0.2.77"), (socket.AF_INET6, "2001:db8::77")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            address = str(probe.getsockname()[0])
            if not address.startswith(("127.", "::1", "fe80")):
                found.append(address)
    return found


def unix_sockets() -> list[str]:
    """Return the UNIX sockets of the host that accept connections, abstract ones with an ``@``."""
    found = []
    with contextlib.suppress(OSError), open("/proc/net/unix", encoding="utf-8") as file:
        for line in file.read().splitlines()[1:]:
            words = line.split(None, 7)
            if len(words) == 8 and int(words[3], 16) & 0x10000:  # __SO_ACCEPTCON
                found.append(words[7])
    return list(dict.fromkeys(found))[:_SOCKETS]


def writable_places(workspace: str) -> list[str]:
    """Return directories of the host that an agent would like to write to."""
    places = (*_PLACES, os.path.expanduser("~"), os.path.dirname(workspace))
    return [one for one in dict.fromkeys(map(os.path.realpath, places)) if os.path.isdir(one)]
