"""The trust kit of a sandbox: the system's CAs and the gateway's, in every shape clients want.

It is made for the sandbox, in a directory of its own.  Nothing is written anywhere else.
"""

from __future__ import annotations

import os
import re
import shutil
import stat

import attrs
from cryptography import x509

from slapenir.errors import PkiError
from slapenir.pki.files import read_guarded
from slapenir.sandbox.certificates import (
    check_authorities,
    hashed,
    java_truststore,
    read_certificates,
    to_pem,
)
from slapenir.sandbox.nss import FILES as NSS_FILES
from slapenir.sandbox.nss import make_database
from slapenir.sandbox.variables import ca_variables

BUNDLE, OURS, JAVA, WGETRC = "bundle.pem", "ours.pem", "java.p12", "wgetrc"
HASHED, NSS = "certs", "nssdb"
_NAMES = frozenset((BUNDLE, OURS, JAVA, WGETRC, HASHED, NSS))
_NEW = ".new"  # what a write that was cut off leaves behind
MAX_BUNDLE_BYTES = 8 << 20

# It protects nothing (see java_truststore), but some programs refuse a truststore without one.
# This one is what every JDK's own truststore has.
JAVA_PASSWORD = "changeit"  # noqa: S105

# Where systems keep what programs trust that read no variable: Debian, Fedora, SUSE, Alpine, Arch.
SYSTEM_PLACES = {
    "/etc/ssl/certs/ca-certificates.crt": BUNDLE,
    "/etc/pki/tls/certs/ca-bundle.crt": BUNDLE,
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": BUNDLE,
    "/etc/ssl/ca-bundle.pem": BUNDLE,
    "/etc/ssl/cert.pem": BUNDLE,
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem": BUNDLE,
    "/etc/ssl/certs/java/cacerts": JAVA,
    "/etc/pki/java/cacerts": JAVA,
}
_PLAIN_PATH = re.compile(r"/[\w./+-]*", re.ASCII)


@attrs.frozen
class Kit:
    """The files in ``directory``; ``notes`` say what is not in them and why."""

    directory: str
    notes: tuple[str, ...] = ()

    def environment(self, inside: str) -> dict[str, str]:
        """Return what to set in a sandbox that sees the directory as ``inside``.

        wget is told by a file that names the path, so that is written by this.  Raises PkiError
        for a path that is not absolute, or that some of the programs would not read as one word.
        """
        inside = _path_inside(inside)
        bundle = f"{inside}/{BUNDLE}"
        java = {
            "trustStore": f"{inside}/{JAVA}",
            "trustStoreType": "PKCS12",
            "trustStorePassword": JAVA_PASSWORD,
        }
        try:
            _put(os.path.join(self.directory, WGETRC), f"ca_certificate = {bundle}\n".encode())
        except OSError as error:
            raise _unusable(self.directory, error) from None
        return {
            **ca_variables(bundle, f"{inside}/{OURS}"),
            "SSL_CERT_DIR": f"{inside}/{HASHED}",
            "WGETRC": f"{inside}/{WGETRC}",
            "JAVA_TOOL_OPTIONS": " ".join(f"-Djavax.net.ssl.{k}={v}" for k, v in java.items()),
        }

    def overlays(self, inside: str) -> list[tuple[str, str]]:
        """Return (file of the kit, file of the system to cover with it), for programs without ears.

        Only files that are there, by their real names, each once; never one below ``inside``.
        """
        hidden = _path_inside(inside) + "/"
        found: dict[str, str] = {}
        for place, name in SYSTEM_PLACES.items():
            real = os.path.realpath(place)
            if os.path.isfile(real) and not real.startswith(hidden):
                found.setdefault(real, os.path.join(self.directory, name))
        return [(ours, real) for real, ours in found.items()]

    def home_files(self) -> dict[str, str]:
        """Return what to copy into the sandbox's home: path below it, file of the kit.

        They are copied, not bound: the agent's own user has to be able to write to them.
        """
        database = os.path.join(self.directory, NSS)
        if not os.path.isdir(database):
            return {}
        return {f".pki/nssdb/{name}": os.path.join(database, name) for name in NSS_FILES}


def make_kit(directory: str, ca_pem: bytes, system_bundle: str) -> Kit:
    """Make a kit, or make it anew, in a directory that is there and holds nothing else.

    ``ca_pem`` is what the gateway signs with, one certificate or more; ``system_bundle`` the file
    of the CAs to trust beside.  Files get the mode 0644 and directories 0755, for the agent runs as
    another user; no secret is in them.  Raises PkiError.
    """
    ours, unfit = read_certificates(ca_pem, "the gateway's CA")
    if unfit:
        raise PkiError("the gateway's CA holds a certificate that cannot be read")
    check_authorities(ours, "the gateway's CA")
    system, unfit = read_certificates(_read_bundle(system_bundle), system_bundle)
    together = list(dict.fromkeys([*ours, *system]))
    notes = [f"{unfit} certificates of {system_bundle} cannot be read: left out"] if unfit else []
    _check_directory(directory)
    try:
        _put(os.path.join(directory, BUNDLE), to_pem(together))
        _put(os.path.join(directory, OURS), to_pem(ours))
        _put(os.path.join(directory, JAVA), java_truststore(together))
        # All of them: a program that reads only a directory, as Go does with every file in it,
        # is to trust what the others do.
        _put_directory(os.path.join(directory, HASHED), hashed(together))
        notes += filter(None, [_put_database(os.path.join(directory, NSS), ours)])
        os.chmod(directory, 0o755)  # noqa: S103 - nothing in it is secret
    except OSError as error:
        raise _unusable(directory, error) from None
    return Kit(directory, tuple(notes))


def _read_bundle(path: str) -> bytes:
    try:
        return read_guarded(os.path.realpath(path), private=False, limit=MAX_BUNDLE_BYTES)
    except FileNotFoundError:
        raise PkiError(f"{path} does not exist; install ca-certificates") from None


def _unusable(directory: str, error: OSError) -> PkiError:
    return PkiError(f"{error.filename or directory}: {error.strerror}")


def _check_directory(path: str) -> None:
    """Refuse what is not a directory of ours, or one in which something else is."""
    try:
        status = os.lstat(path)
        others = sorted({name.removesuffix(_NEW) for name in os.listdir(path)} - _NAMES)
    except OSError as error:
        raise _unusable(path, error) from None
    if not stat.S_ISDIR(status.st_mode):
        raise PkiError(f"{path} is a link; name the directory itself")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PkiError(f"{path} has to be owned by this user and writable by nobody else")
    if others:
        raise PkiError(f"{path} holds {others[0]!r}; a kit needs a directory of its own")


def _put(path: str, data: bytes) -> None:
    """Write a file, mode 0644, in one step; nobody who reads it meanwhile sees a half."""
    temporary = path + _NEW
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o644), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(data)
    os.replace(temporary, path)


def _put_directory(path: str, files: dict[str, bytes]) -> None:
    """Make a directory hold exactly these files."""
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o755)  # noqa: S103
    for name, data in files.items():
        _put(os.path.join(path, name), data)
    for name in set(os.listdir(path)) - set(files):
        os.unlink(os.path.join(path, name))


def _put_database(path: str, ours: list[x509.Certificate]) -> str:
    """Make the database anew; return why there is none, or nothing."""
    shutil.rmtree(path, ignore_errors=True)
    note = make_database(path, ours)
    if not note:
        os.chmod(path, 0o755)  # noqa: S103
        for name in NSS_FILES:
            os.chmod(os.path.join(path, name), 0o644)
    return note


def _path_inside(path: str) -> str:
    """Return an absolute path of plain characters, without a slash at its end."""
    if not _PLAIN_PATH.fullmatch(path) or ".." in path.split("/"):
        raise PkiError(f"{path!r} is not a plain absolute path; JAVA_TOOL_OPTIONS needs one word")
    return os.path.normpath(path)
