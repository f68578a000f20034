"""What can be told from inside a sandbox that somebody else made: trust, and what is answered."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping

from slapenir.errors import PkiError
from slapenir.sandbox.doctor_check import FAILED, OK, TRUST, Finding
from slapenir.sandbox.doctor_probes import try_all
from slapenir.sandbox.variables import ADDING, CA_VARIABLES

# Without these common clients do not trust the gateway; the others are for single tools.
_NEEDED = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
_OUR_CAS = 8  # a few while they are rotated
_SOCKETS = (
    "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock",
    "/run/podman/podman.sock", "/run/crio/crio.sock", "/run/dbus/system_bus_socket",
    "/run/slapenir/sandboxes.sock",
)  # fmt: skip
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_SERVER = re.compile(r"(?m)^nameserver\s+([0-9a-fA-F.:]+)\s*$")


def inside_findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look from here, whatever the wiring: no server outside is known to ask for."""
    yield from _trust(environ)
    set_ = [name for name in _PROXIES if environ.get(name)]
    detail = (
        f"set: {', '.join(set_)}" if set_ else "not set: the network has to lead to the gateway"
    )
    yield Finding(TRUST, "proxy variables", OK, detail)
    ours = [path for name in ADDING if _is_ours(path := environ.get(name, ""))]
    task = {
        "ours": ours[0] if ours else "",
        "resolvers": _resolvers(),
        "sockets": [path for path in _SOCKETS if os.path.exists(path)],
        "files": ["/etc/slapenir", "/var/lib/slapenir"],
    }
    yield from try_all(task)


def _trust(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in CA_VARIABLES:
        path = environ.get(name, "")
        remedy = "make the kit: slapenir trust, and set what it prints"
        if not path:
            if name in _NEEDED:
                yield Finding(TRUST, name, FAILED, "it is not set", remedy)
            continue
        yield _bundle(name, path, remedy)


def _bundle(name: str, path: str, remedy: str) -> Finding:
    """Read what a variable names as its client would."""
    from slapenir.sandbox.certificates import read_certificates

    try:
        with open(path, "rb") as file:
            found, _ = read_certificates(file.read(), path)
    except (OSError, PkiError) as error:
        return Finding(TRUST, name, FAILED, str(error), remedy)
    return Finding(TRUST, name, OK, f"{path}: {len(found)} certificates")


def _is_ours(path: str) -> bool:
    """Whether a file holds our CAs only: by all the world's, servers cannot be told apart."""
    from slapenir.sandbox.certificates import read_certificates

    with contextlib.suppress(OSError, PkiError), open(path, "rb") as file:
        return len(read_certificates(file.read(), path)[0]) <= _OUR_CAS
    return False


def _resolvers() -> list[str]:
    """Return the servers that this sandbox asks for names."""
    with contextlib.suppress(OSError), open("/etc/resolv.conf", encoding="utf-8") as file:
        return _SERVER.findall(file.read())
    return []
