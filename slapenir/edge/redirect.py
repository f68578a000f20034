"""Where a connection was going before the kernel brought it here.

With REDIRECT (or DNAT) connection tracking remembers it: ``SO_ORIGINAL_DST`` (Linux,
``netfilter_ipv4.h`` and ``ip6_tables.h``).  With TPROXY nothing is rewritten: it is the address of
our own end.  A connection that was not redirected looks like the latter, with the listener's own
address.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Container

import attrs

from slapenir.edge.resolver import is_local
from slapenir.names import Authority
from slapenir.policy.model import Destination

_ORIGINAL = 80
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_MAPPED = "::ffff:"
# What the kernel says when it knows of no redirection.
_UNKNOWN = (errno.ENOENT, errno.ENOPROTOOPT, errno.EOPNOTSUPP)


def original_destination(connection: socket.socket) -> Authority:
    """Return the address and port that the client dialled; raises OSError when it is gone.

    A listener of both families has IPv4 clients under ``::ffff:``; what was rewritten for them is
    asked for as IPv4.
    """
    peer = connection.getpeername()[0]
    try:
        if ":" in peer and not peer.startswith(_MAPPED):
            data = connection.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL, 28)
            port = int.from_bytes(data[2:4], "big")
            return Authority(socket.inet_ntop(socket.AF_INET6, data[8:24]), port)
        data = connection.getsockopt(socket.IPPROTO_IP, _ORIGINAL, 16)
        port, address = struct.unpack_from("!2xH4s", data)
        return Authority(socket.inet_ntop(socket.AF_INET, address), port)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    return own_end(connection)


def own_end(connection: socket.socket) -> Authority:
    """Return our end of a connection."""
    host, port = connection.getsockname()[:2]
    return Authority(host.removeprefix(_MAPPED) if "." in host else host, port)


@attrs.frozen(slots=True, eq=False)
class Redirections:
    """What is needed to say where a connection was going.

    ``own_ports`` are the ports that the gateway listens on.  ``name_of(identity, address)`` is
    the name that the gateway's DNS gave an address out for.
    """

    own_ports: Container[int]
    name_of: Callable[[str, str], str | None]

    def destination(
        self, connection: socket.socket, identity: str, adopted: bool
    ) -> Destination | None:
        """Return where it was going; None when the connection is gone already.

        A listener that was ``adopted`` may stand in another network namespace, where our ports and
        addresses mean nothing: there only its own end can be dialled without a redirection.
        """
        try:
            found = original_destination(connection)
            if adopted:
                own = found == own_end(connection)
            else:
                own = found.port in self.own_ports and is_local(found.host)
        except OSError:
            return None
        return Destination(found, self.name_of(identity, found.host) or "", own)


def accept_foreign_addresses(listener: socket.socket) -> bool:
    """Let a listening socket take what TPROXY brings; return whether that was permitted.

    It takes CAP_NET_ADMIN (ip(7), IP_TRANSPARENT).  Without it REDIRECT still works.
    """
    options = [(socket.IPPROTO_IP, _IP_TRANSPARENT)]
    if listener.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, _IPV6_TRANSPARENT))
    try:
        for level, option in options:
            listener.setsockopt(level, option, 1)
    except OSError:
        return False
    return True
