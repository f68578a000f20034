"""A Python package index for tests: one wheel made by hand, behind Basic authentication, over TLS.

Like the LLM origin it gives away the credential it saw: in a header, and in the page as the reason
why the release was yanked, which pip prints.
"""

from __future__ import annotations

import base64
import hashlib
import io
import ssl
import zipfile
from collections.abc import Iterable

from tests.support.git_origin import basic_password
from tests.support.origin import Origin, Request, Step, ok

NAME = "tinywheel"
VERSION = "1.0"
WHEEL = f"{NAME}-{VERSION}-py3-none-any.whl"


def make_wheel() -> bytes:
    """Return a wheel with one module, ``tinywheel``, whose ``ANSWER`` is 42."""
    info = f"{NAME}-{VERSION}.dist-info"
    files = {
        f"{NAME}.py": "ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return buffer.getvalue()


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("ascii")).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def index_origin(tls: ssl.SSLContext, password: str) -> Origin:
    """Return a listening origin that serves the index and the wheel to ``password``."""
    wheel = make_wheel()
    digest = hashlib.sha256(wheel).hexdigest()

    def respond(request: Request) -> Iterable[Step]:
        sent = request.header(b"authorization") or b"none"
        echo = b"X-Echo-Authorization: " + sent
        if basic_password(request) != password:
            ask = b'WWW-Authenticate: Basic realm="index"'
            return [ok(b"who are you?", ask, echo, status=b"401 Unauthorized")]
        if request.target == f"/simple/{NAME}/".encode():
            reason = f"you sent {password}"
            link = f'<a href="/files/{WHEEL}#sha256={digest}" data-yanked="{reason}">{WHEEL}</a>'
            page = f"<!DOCTYPE html><html><body>{link}</body></html>"
            return [ok(page.encode("ascii"), b"Content-Type: text/html", echo)]
        if request.target == f"/files/{WHEEL}".encode():
            return [ok(wheel, b"Content-Type: application/octet-stream", echo)]
        return [ok(b"no such thing", echo, status=b"404 Not Found")]

    return Origin(respond, tls)
