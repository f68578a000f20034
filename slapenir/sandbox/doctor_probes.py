"""What the doctor tries so as to get around the gateway, each with what would show that it did.

This file runs inside sandboxes, so it needs nothing but the standard library.  A task says what
there is to try: a server outside (its addresses and the token that it says), a name that the
gateway allows, sockets, files and directories of the host.  What it does not say is not tried.
``quick`` says that the sandbox is one of ours, which refuses at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from slapenir.sandbox import doctor_dial as dial
from slapenir.sandbox.doctor_check import FAILED, HOLE, HOLES, OK, SKIPPED, Finding
from slapenir.sandbox.doctor_dial import Outcome, reason

Task = Mapping[str, Any]
Attempt = Callable[[], Outcome]
Attempts = Iterator[tuple[str, Attempt]]

_PUBLIC = {4: "8.8.8.8", 6: "2001:4860:4860::8888"}
_REAL_NAME, _REAL_ADDRESSES = "dns.google", (b"\x08\x08\x08\x08", b"\x08\x08\x04\x04")
FORBIDDEN = "forbidden.doctor.test"
_NEW_USER = 0x10000000
_HOST_CID = 2  # vsock(7)
_NOT_A_QUIC_VERSION = 0x1A2A3A4A  # every server answers with those that it has (RFC 9000, 6)


def _hosts(task: Task, version: int) -> list[str]:
    return [one for one in task.get("hosts", ()) if (":" in one) is (version == 6)]


def _came(answer: bytes, task: Task) -> Outcome:
    """Judge an answer by the token that only the server outside says."""
    if task.get("token") and task["token"].encode() in answer:
        return Outcome(True, "the server outside answered")
    return Outcome(False, "no answer from outside" if not answer else "not its answer")


def _not_the_gateway(answer: bytes, task: Task) -> Outcome:
    if _came(answer, task).through:
        return Outcome(True, "the server outside answered")
    if dial.status_of(answer) and not dial.is_ours(answer):
        return Outcome(True, f"a server answered with status {dial.status_of(answer)}")
    return Outcome(False, "the gateway's refusal" if answer else "closed")


def _direct_tcp(task: Task, version: int) -> Attempts:
    for host in _hosts(task, version):
        yield host, partial(_greeted, task, host, b"slapenir doctor\n")
    address = _PUBLIC[version]
    asked = dial.get("/", f"[{address}]" if version == 6 else address)
    yield address, lambda: _not_the_gateway(dial.tcp(address, 80, asked), task)


def _greeted(task: Task, host: str, said: bytes) -> Outcome:
    """Say something to the server outside over TCP."""
    return _not_the_gateway(dial.tcp(host, task["tcp"], said), task)


def _direct_udp(task: Task, version: int) -> Attempts:
    for host in _hosts(task, version):
        yield host, partial(_datagram, host, task["udp"], b"slapenir doctor")
    # Time (RFC 5905): a server that is asked answers.
    yield _PUBLIC[version], partial(_datagram, _PUBLIC[version], 123, b"\x23" + bytes(47))


def _datagram(address: str, port: int, said: bytes) -> Outcome:
    return _any_answer(dial.udp(address, port, said))


def _any_answer(answer: bytes) -> Outcome:
    return Outcome(bool(answer), "somebody answered" if answer else "closed")


def _dns(task: Task, over_tcp: bool) -> Attempts:
    for address in (*task.get("hosts", ()), *task.get("resolvers", ()), *_PUBLIC.values()):
        yield address, partial(_ask, address, over_tcp)


def _ask(address: str, over_tcp: bool) -> Outcome:
    """Ask for a name whose real addresses are known, so that nobody can take it for ours."""
    asked = dial.question(_REAL_NAME)
    answer = dial.dns_tcp(address, asked) if over_tcp else dial.udp(address, 53, asked)
    code, records = dial.answered(answer)
    if code == 0 and any(one in answer for one in _REAL_ADDRESSES):
        return Outcome(True, f"the real address of {_REAL_NAME}")
    if code == dial.NAME_ERROR:
        return Outcome(False, "there is no such name")
    return Outcome(False, f"DNS code {code}, {records} records")


def _dot(task: Task) -> Attempts:
    for address in (*task.get("hosts", ()), *_PUBLIC.values()):
        yield address, partial(_tls, task, address, 853, _REAL_NAME, b"")


def _doh(task: Task) -> Attempts:
    said = dial.get("/dns-query?dns=AAABAAABAAAAAAAAA2RucwZnb29nbGUAAAEAAQ", _REAL_NAME)
    for address in _PUBLIC.values():
        yield address, partial(_tls, task, address, 443, _REAL_NAME, said)


def _tls(task: Task, address: str, port: int, name: str, said: bytes) -> Outcome:
    """Dial TLS: only the gateway may answer, with a certificate of its CA."""
    answer = dial.tls(address, port, name, task["ours"], said)
    if _came(answer, task).through:
        return Outcome(True, "the server outside answered")
    return Outcome(False, "the gateway's refusal" if dial.is_ours(answer) else "the gateway's TLS")


def _forged_sni(task: Task) -> Attempts:
    if not task.get("name"):
        return
    name, port = task["name"], task["port"]
    said = dial.get("/allowed", f"{name}:{port}")
    for host in task.get("hosts", ()):
        # The name is allowed, the address is not its own: whoever believes the address is led out.
        yield host, partial(_tls, task, host, port, name, said)
    yield FORBIDDEN, lambda: _refused(task, FORBIDDEN, f"{FORBIDDEN}:{port}", "/forged/sni")


def _forged_host(task: Task) -> Attempts:
    if not task.get("name"):
        return
    name, port = task["name"], task["port"]
    for host in task.get("hosts", ()):
        yield host, partial(_greeted, task, host, dial.get("/", f"{name}:{task['tcp']}"))
    yield FORBIDDEN, lambda: _refused(task, name, f"{FORBIDDEN}:{port}", "/forged/host")


def _refused(task: Task, server_name: str, host: str, path: str) -> Outcome:
    """Ask the allowed name's address under another name."""
    address = socket.gethostbyname(task["name"])
    answer = dial.tls(address, task["port"], server_name, task["ours"], dial.get(path, host))
    if dial.status_of(answer) and not dial.is_ours(answer):
        return Outcome(True, f"a server answered with status {dial.status_of(answer)}")
    return Outcome(False, "the gateway's refusal" if answer else "closed")


def _quic(task: Task) -> Attempts:
    first = b"\xc3" + _NOT_A_QUIC_VERSION.to_bytes(4, "big") + b"\x08" + os.urandom(8) + b"\x00"
    for address in (*task.get("hosts", ()), *_PUBLIC.values()):
        yield address, partial(_datagram, address, 443, first.ljust(1200, b"\0"))


def _ping(task: Task) -> Attempts:
    for address in (*task.get("hosts", ()), *_PUBLIC.values()):
        yield address, partial(_echo, address)


def _echo(address: str) -> Outcome:
    six = ":" in address
    family, protocol = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as conn:
        conn.settimeout(dial.SECONDS)
        conn.connect((address, 0))
        conn.send(dial.echo_request(6 if six else 4))
        return _any_answer(conn.recv(2048))


def _raw(task: Task) -> Attempts:
    yield "IPv4", partial(_made, socket.AF_INET, socket.SOCK_RAW, 255)
    yield "ICMP", partial(_made, socket.AF_INET, socket.SOCK_RAW, 1)
    yield "IPv6", partial(_made, socket.AF_INET6, socket.SOCK_RAW, 255)
    yield "packets", partial(_made, socket.AF_PACKET, socket.SOCK_RAW, 0x0300)


def _made(family: int, kind: int, protocol: int) -> Outcome:
    with socket.socket(family, kind, protocol):
        return Outcome(True, "such a socket can be made")


def _vsock(task: Task) -> Attempts:
    yield "the host", _to_hypervisor


def _to_hypervisor() -> Outcome:
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as conn:
        conn.settimeout(dial.SECONDS)
        try:
            conn.connect((_HOST_CID, 1))
        except ConnectionResetError:
            return Outcome(True, "the hypervisor answers")
    return Outcome(True, "the hypervisor accepts")


def _metadata(task: Task) -> Attempts:
    asked = dial.get("/latest/meta-data/", "169.254.169.254")
    yield "169.254.169.254", lambda: _not_the_gateway(dial.tcp("169.254.169.254", 80, asked), task)
    six = dial.get("/latest/meta-data/", "[fd00:ec2::254]")
    yield "fd00:ec2::254", lambda: _not_the_gateway(dial.tcp("fd00:ec2::254", 80, six), task)


def _loopback(task: Task) -> Attempts:
    for address in task.get("loopback", ()):
        yield address, partial(_greeted, task, address, b"slapenir doctor\n")


def _unix(task: Task) -> Attempts:
    for path in task.get("sockets", ()):
        yield path, partial(_connected, path)


def _connected(path: str) -> Outcome:
    dial.unix(path)
    return Outcome(True, "it accepts")


def _write(task: Task) -> Attempts:
    for directory in task.get("directories", ()):
        yield directory, partial(_leave_marker, os.path.join(directory, task["marker"]))


def _leave_marker(path: str) -> Outcome:
    """Write a file; whether the host has it is looked at from the host."""
    with open(path, "x", encoding="ascii") as file:
        file.write("slapenir doctor\n")
    return Outcome(False, "written, and not to the host")


def _read(task: Task) -> Attempts:
    for path in task.get("files", ()):
        yield path, partial(_holds, path)


def _holds(path: str) -> Outcome:
    if os.path.isdir(path):
        return Outcome(bool(os.listdir(path)), "it can be listed")
    with open(path, "rb") as file:
        return Outcome(bool(file.read(1)), "it can be read")


def _processes(task: Task) -> Attempts:
    if task.get("process"):
        yield "the gateway's", partial(_seen, task["process"].encode())


def _seen(text: bytes) -> Outcome:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if text in file.read():
                    return Outcome(True, f"it is process {pid}")
    return Outcome(False, "it is not there")


def _namespaces(task: Task) -> Attempts:
    if task.get("quick"):  # in a VM of its own it leads nowhere
        yield "user", _unshare


def _unshare() -> Outcome:
    child = os.fork()
    if child == 0:
        os._exit(0 if ctypes.CDLL(None).unshare(_NEW_USER) == 0 else 1)
    _, status = os.waitpid(child, 0)
    return Outcome(status == 0, "it can be made" if status == 0 else "operation not permitted")


_OUTBOUND = "let nothing leave the sandbox's network but to the gateway"
_CAPABILITIES = "drop CAP_NET_RAW, and refuse the family by seccomp"
PROBES: tuple[tuple[str, Callable[[Task], Attempts], str], ...] = (
    ("TCP to an address", lambda task: _direct_tcp(task, 4), _OUTBOUND),
    ("TCP over IPv6", lambda task: _direct_tcp(task, 6), _OUTBOUND),
    ("UDP to an address", lambda task: _direct_udp(task, 4), _OUTBOUND),
    ("UDP over IPv6", lambda task: _direct_udp(task, 6), _OUTBOUND),
    ("DNS over UDP", lambda task: _dns(task, False), "redirect port 53 to the gateway's DNS"),
    ("DNS over TCP", lambda task: _dns(task, True), "redirect port 53 to the gateway's DNS"),
    ("DNS over TLS", _dot, _OUTBOUND),
    ("DNS over HTTPS", _doh, _OUTBOUND),
    ("forged SNI", _forged_sni, _OUTBOUND),
    ("forged Host", _forged_host, _OUTBOUND),
    ("QUIC", _quic, "refuse UDP, port 443 above all"),
    ("ICMP", _ping, "refuse ICMP and ICMPv6"),
    ("raw and packet sockets", _raw, _CAPABILITIES),
    ("hypervisor sockets", _vsock, "refuse AF_VSOCK by seccomp"),
    ("cloud metadata", _metadata, "route 169.254.169.254 and fd00:ec2::254 nowhere"),
    ("loopback of the host", _loopback, "give the sandbox a network namespace of its own"),
    ("UNIX sockets of the host", _unix, "mount no directory with sockets; a namespace of its own"),
    ("writing to the host", _write, "mount the workspace only for writing"),
    ("the gateway's files", _read, "keep them out of the sandbox's mounts"),
    ("processes of the host", _processes, "give the sandbox a PID namespace and /proc of its own"),
    ("a namespace of its own", _namespaces, "refuse unshare and clone by seccomp"),
)  # fmt: skip
_WITH_TLS = (_dot, _doh, _forged_sni, _forged_host)


def try_all(task: Task) -> list[Finding]:
    """Try everything; return one check each."""
    return [_try(name, probe, remedy, task) for name, probe, remedy in PROBES]


def _try(name: str, probe: Callable[[Task], Attempts], remedy: str, task: Task) -> Finding:
    if probe in _WITH_TLS and not task.get("ours"):
        return Finding(HOLES, name, SKIPPED, "the gateway's CA is not known here")
    held: dict[str, float] = {}
    through, slow, count = [], [], 0
    for label, attempt in probe(task):
        count += 1
        began = time.monotonic()
        try:
            outcome = attempt()
        except ssl.SSLCertVerificationError:
            outcome = Outcome(True, "a server answered with a certificate that is not ours")
        except OSError as error:
            outcome = Outcome(False, reason(error))
        took = time.monotonic() - began
        if outcome.through:
            through.append(f"{label}: {outcome.detail}")
        elif took >= dial.SECONDS and task.get("quick"):
            slow.append(f"{label}: {outcome.detail} for {took:.1f} s")
        held[outcome.detail] = max(held.get(outcome.detail, 0.0), took)
    if through:
        return Finding(HOLES, name, HOLE, _some(through), remedy)
    if slow:
        return Finding(HOLES, name, FAILED, _some(slow), "refuse at once instead of dropping")
    if not count:
        return Finding(HOLES, name, SKIPPED, "there is nothing here to try it with")
    longest = 1000 * max(held.values())
    return Finding(HOLES, name, OK, f"{'; '.join(held)} ({count} tried, {longest:.0f} ms at most)")


def _some(lines: list[str]) -> str:
    more = len(lines) - 3
    return "; ".join(lines[:3]) + (f"; and {more} more" if more > 0 else "")
