"""A certificate database of NSS, which is what Chromium reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from slapenir.errors import SandboxError
from slapenir.sandbox import tools

# Not pkcs11.txt: it names the directory it was made in, and NSS makes it where it is missing.
FILES = ("cert9.db", "key4.db")


def make_database(directory: str, certificates: Sequence[x509.Certificate]) -> str:
    """Make a database in a new directory in which the certificates are CAs of servers.

    Returns why there is none, or nothing.  Raises OSError.
    """
    try:
        tool = tools.find("certutil")
    except SandboxError as error:
        return f"Chromium will not trust the gateway: {error.error}"
    if tool is None:
        return "Chromium will not trust the gateway: certutil is missing (Debian: libnss3-tools)"
    os.mkdir(directory, 0o755)
    database = ["-d", f"sql:{os.path.abspath(directory)}"]
    steps = [(["-N", "--empty-password"], b"")]
    for number, one in enumerate(certificates):
        add = ["-A", "-t", "C,,", "-n", f"SLAPENIR {number}"]
        steps.append((add, one.public_bytes(Encoding.DER)))
    try:
        for arguments, data in steps:
            tool.run(*arguments, *database, data=data)
    except SandboxError:
        shutil.rmtree(directory)
        return "Chromium will not trust the gateway: certutil could not make its database"
    for name in os.listdir(directory):
        if name not in FILES:
            os.unlink(os.path.join(directory, name))
    return ""
