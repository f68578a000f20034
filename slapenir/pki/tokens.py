"""Enrolment tokens: one string that gives one agent one certificate, once.

It says where the enrolment service is, by which root it is to be trusted, and a secret.  The CA
keeps a file named by the secret's digest, which is gone once it was used.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs

from slapenir.errors import PkiError, TokenError
from slapenir.pki.files import flush_directory, read_guarded, write_new

PREFIX = "slapenir1."
_SECRET_BYTES = 32
_MAX = 4096
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SECRET = re.compile(r"[A-Za-z0-9_-]{40,64}", re.ASCII)
_UNKNOWN = "the token is unknown or was used already"


@attrs.frozen(slots=True)
class EnrolmentToken:
    """What is in a token: the service's URL, the SHA-256 of the root in hex, and the secret."""

    url: str
    root: str
    secret: str = attrs.field(repr=False)


def encode_token(url: str, root_sha256: str, secret: str) -> str:
    """Return the string that an agent is given."""
    document = json.dumps({"url": url, "root": root_sha256, "secret": secret})
    return PREFIX + base64.urlsafe_b64encode(document.encode("ascii")).rstrip(b"=").decode("ascii")


def decode_token(text: str) -> EnrolmentToken:
    """Return what is in a token; raises PkiError, which never quotes it."""
    text = text.strip()
    if not text.startswith(PREFIX) or len(text) > _MAX:
        raise PkiError("this is no enrolment token; make one with: slapenir ca token")
    try:
        data = text.removeprefix(PREFIX).encode("ascii")
        raw = base64.b64decode(data + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
        found = json.loads(raw)
        token = EnrolmentToken(found["url"], found["root"], found["secret"])
        good = (
            set(found) == {"url", "root", "secret"}
            and urlsplit(token.url).scheme == "https"
            and _DIGEST.fullmatch(token.root) is not None
            and _SECRET.fullmatch(token.secret) is not None
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
        good = False
    if not good:
        raise PkiError("the enrolment token is damaged; make a new one with: slapenir ca token")
    return token


class TokenFiles:
    """The tokens that were given out and not used yet, one file each."""

    def __init__(self, directory: str, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

    def make(self, identity: str, lifetime: float) -> str:
        """Return the secret of a new token for an identity; sweeps those that have expired."""
        self._sweep()
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        document = {"identity": identity, "expires": self._clock() + lifetime}
        write_new(self._path(secret), json.dumps(document).encode("ascii"), 0o600)
        return secret

    def redeem(self, secret: str) -> str:
        """Return the identity of a token and use it up; raises TokenError.

        Of any number who redeem one at the same time exactly one succeeds: whoever removes the
        file.
        """
        if _SECRET.fullmatch(secret) is None:
            raise TokenError(_UNKNOWN)
        path = self._path(secret)
        try:
            document = json.loads(read_guarded(path, private=True))
            identity, expires = str(document["identity"]), float(document["expires"])
            os.unlink(path)
            flush_directory(self._directory)
        except FileNotFoundError:
            raise TokenError(_UNKNOWN) from None
        except OSError as error:
            raise TokenError(f"the token cannot be used up: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise TokenError("the token's file is damaged; make a new token") from None
        if self._clock() >= expires:
            raise TokenError("the token has expired")
        return identity

    def withdraw(self, identity: str) -> int:
        """Remove the tokens of an identity that were not used; return how many."""
        return self._remove(lambda document: str(document["identity"]) == identity)

    def _path(self, secret: str) -> str:
        return os.path.join(self._directory, hashlib.sha256(secret.encode("utf-8")).hexdigest())

    def _sweep(self) -> None:
        now = self._clock()
        self._remove(lambda document: float(document["expires"]) <= now)

    def _remove(self, chosen: Callable[[dict[str, Any]], bool]) -> int:
        count = 0
        try:
            names = os.listdir(self._directory)
        except OSError as error:
            raise PkiError(f"{self._directory} cannot be read: {error.strerror}") from None
        for name in names:
            path = os.path.join(self._directory, name)
            with contextlib.suppress(OSError, PkiError, ValueError, KeyError, TypeError):
                if chosen(json.loads(read_guarded(path, private=True))):
                    os.unlink(path)
                    count += 1
        if count:
            flush_directory(self._directory)
        return count
