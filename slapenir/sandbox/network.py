"""A sandbox's network namespace: made in a child process, then held by its descriptors.

As root it is a network namespace; otherwise a user namespace first, in which the user may make
one.  Sockets that are made inside it stay its own, so they are what goes to the gateway.
"""

from __future__ import annotations

import array
import os
import signal
import socket

import attrs

from slapenir.errors import SandboxError
from slapenir.sandbox import tools
from slapenir.sandbox.filter import ADDRESSES, ruleset
from slapenir.sandbox.kernel import NEW_NET, NEW_USER, enter, stay_dumpable, unshare
from slapenir.sandbox.tools import Tool

_KINDS = (
    ("tcp", socket.AF_INET, socket.SOCK_STREAM, "port"),
    ("dns-udp", socket.AF_INET, socket.SOCK_DGRAM, "dns"),
    ("dns-tcp", socket.AF_INET, socket.SOCK_STREAM, "dns"),
    ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, "port"),
    ("dns-udp6", socket.AF_INET6, socket.SOCK_DGRAM, "dns"),
    ("dns-tcp6", socket.AF_INET6, socket.SOCK_STREAM, "dns"),
)
# Not 53: what is rewritten to what it was counts as not redirected.
PORT, DNS_PORT = 8444, 8053
_BACKLOG = 1024


@attrs.define
class Network:
    """A namespace and its sockets, by kind.  ``user`` is -1 where there is no user namespace."""

    net: int
    user: int
    sockets: dict[str, int]

    def join(self) -> None:
        """Enter it with this process, which is a child that is about to run something else.

        In a user namespace the process becomes its root, which is the sandbox's user outside.
        """
        if self.user < 0:
            enter(self.net, NEW_NET)
            return
        if os.geteuid() == 0:
            os.setgroups([])
        enter(self.user, NEW_USER)
        enter(self.net, NEW_NET)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)

    def run(self, name: str, *arguments: str) -> str:
        """Run a tool of the host in it and return what it printed; raises SandboxError."""
        return tools.need(name).run(*arguments, enter=self.join).decode("utf-8", "replace")

    def close(self) -> None:
        """Let go of it; the kernel removes it with its last process."""
        for descriptor in (self.net, self.user, *self.sockets.values()):
            if descriptor >= 0:
                os.close(descriptor)


def make_network(rootless: bool, uid: int, gid: int) -> Network:
    """Make a namespace with its filter and sockets; raises SandboxError with a remedy.

    With ``rootless`` it is one of the user ``uid``, whoever asks.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _in_child(theirs, (uid, gid) if rootless else None)
    theirs.close()
    with ours:
        try:
            data, descriptors, _, _ = socket.recv_fds(ours, 65536, 16)
            for descriptor in descriptors:
                # Python's recv_fds cannot ask for that.  None may reach the command: whoever has
                # one of the sockets could accept on it.
                os.set_inheritable(descriptor, False)
        finally:
            os.waitpid(child, 0)
    text = data.decode("utf-8", "replace")
    if not descriptors:
        error, _, remedy = text.partition("\n")
        raise SandboxError(error or "the network namespace could not be made", remedy)
    kinds = text.split()
    net, *rest = descriptors
    user = rest.pop(0) if rootless else -1
    return Network(net, user, dict(zip(kinds, rest, strict=True)))


def _in_child(answer: socket.socket, user: tuple[int, int] | None) -> None:
    """Make the namespace and send what stands for it, or what went wrong; never returns."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        # Before root's files are somebody else's, as they are in a user namespace.
        ip, nft = tools.need("ip"), tools.need("nft")
        _leave(user)
        _configure(ip, nft)
        made = _open_sockets()
        descriptors = [os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)]
        if user is not None:
            descriptors.append(os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        descriptors += [one.fileno() for one in made.values()]
        message = " ".join(made).encode()
        answer.sendmsg(
            [message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        )
    except SandboxError as error:
        answer.send(f"{error.error}\n{error.remedy}".encode())
    except BaseException as error:
        answer.send(f"the network namespace could not be made: {error}\n".encode())
    finally:
        os._exit(0)


def _leave(user: tuple[int, int] | None) -> None:
    if user is None:
        unshare(NEW_NET)
        return
    uid, gid = user
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            stay_dumpable()  # else the files of this process in /proc are root's
        unshare(NEW_USER | NEW_NET)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    except OSError as error:
        raise SandboxError(
            f"user namespaces are not permitted here ({error.strerror})",
            "allow them: sysctl -w user.max_user_namespaces=10000 "
            "kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0",
        ) from None


def _write(path: str, text: str) -> None:
    """Write without a codec: this user may not be able to read Python's own files."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _configure(ip: Tool, nft: Tool) -> None:
    """Bring loopback up, make every address routable through it, and load the filter."""
    four, six = ADDRESSES
    batch = ["link set lo up", f"addr add {four} dev lo", "route add default dev lo"]
    _run(ip, ["-batch", "-"], "\n".join(batch))
    if os.path.exists("/proc/sys/net/ipv6"):
        batch = [f"addr add {six} dev lo nodad", "route add default dev lo"]
        _run(ip, ["-6", "-batch", "-"], "\n".join(batch))
    _run(nft, ["-f", "-"], ruleset(PORT, DNS_PORT))


def _run(tool: Tool, arguments: list[str], text: str) -> None:
    try:
        tool.run(*arguments, data=text.encode())
    except SandboxError as error:
        raise SandboxError(error.error, "slapenir doctor says what the kernel lacks") from None


def _open_sockets() -> dict[str, socket.socket]:
    ports = {"port": PORT, "dns": DNS_PORT}
    made = {}
    for kind, family, type_, which in _KINDS:
        six = family == socket.AF_INET6
        if six and not os.path.exists("/proc/sys/net/ipv6"):
            continue
        one = socket.socket(family, type_)
        if six:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(("::1" if six else "127.0.0.1", ports[which]))
        if type_ == socket.SOCK_STREAM:
            one.listen(_BACKLOG)
        made[kind] = one
    return made
