"""Clean text in which nothing may be found: source, JSON, hashes, identifiers, lock files."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sysconfig
import uuid
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.scan.packs import detected, pack_engine
from tests.scan.test_foreign import cut_in

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("*.py", "*.rst", "*.toml", "*.cfg", "*.txt")
NOT_OURS = {".venv", "build", "_trial_temp", ".git", "node_modules"}


def own_sources() -> Iterator[Path]:
    """Yield the text files of this repository."""
    for pattern in SOURCES:
        for path in ROOT.rglob(pattern):
            if not any(p in NOT_OURS or p.startswith("_trial") for p in path.parts):
                yield path


def library_sources() -> Iterator[Path]:
    """Yield the modules of the standard library; its tests hold keys that are made for them."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not {"site-packages", "test", "tests", "idle_test"} & set(path.parts):
            yield path


def cargo_lock(source: random.Random) -> str:
    """Return a made-up lock file of Cargo."""
    return "".join(
        f'[[package]]\nname = "crate-{n}"\nversion = "1.{n}.0"\n'
        'source = "registry+https://github.com/rust-lang/crates.io-index"\n'
        f'checksum = "{source.randbytes(32).hex()}"\ndependencies = [\n "crate-{n + 1}",\n]\n\n'
        for n in range(500)
    )


def package_lock(source: random.Random) -> str:
    """Return a made-up lock file of npm."""
    packages = {
        f"node_modules/package-{n}": {
            "version": f"2.0.{n}",
            "resolved": f"https://registry.npmjs.org/package-{n}/-/package-{n}-2.0.{n}.tgz",
            "integrity": "sha512-" + base64.b64encode(source.randbytes(64)).decode(),
        }
        for n in range(500)
    }
    return json.dumps({"lockfileVersion": 3, "packages": packages}, indent=2)


def go_sum(source: random.Random) -> str:
    """Return a made-up go.sum and the hashes of a requirements file."""
    return "".join(
        f"example.test/m{n} v1.0.{n} h1:{base64.b64encode(source.randbytes(32)).decode()}\n"
        f"thing{n}==1.{n} --hash=sha256:{source.randbytes(32).hex()}\n"
        for n in range(500)
    )


def api_answer(source: random.Random) -> str:
    """Return JSON as services answer it, with identifiers, times, cursors and signatures."""
    rows = [
        {
            "id": str(uuid.UUID(bytes=source.randbytes(16))),
            "node_id": base64.b64encode(b"04:Repo" + source.randbytes(9)).decode(),
            "sha": source.randbytes(20).hex(),
            "etag": f'W/"{source.randbytes(16).hex()}"',
            "cursor": base64.urlsafe_b64encode(source.randbytes(48)).decode(),
            "created": 1_700_000_000 + n,
            "url": f"https://api.example.test/v1/things/{n}?page_token={source.randbytes(12).hex()}",
            "image": "data:image/png;base64," + base64.b64encode(source.randbytes(90)).decode(),
            "key_id": "AKIA" + "".join(source.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16)),
        }
        for n in range(500)
    ]
    return json.dumps({"items": rows})


class CleanTests(SynchronousTestCase):
    """Nothing is found."""

    def clean(self, data: bytes, what: object) -> None:
        found = [(m.kind, data[m.start : m.end]) for m in pack_engine().scan(data)]
        self.assertEqual(found, [], what)

    def test_own_sources(self) -> None:
        paths = list(own_sources())
        self.assertGreater(len(paths), 200)
        for path in paths:
            self.clean(path.read_bytes(), path)

    def test_the_standard_library(self) -> None:
        paths = list(library_sources())
        self.assertGreater(len(paths), 400)
        for path in paths:
            self.clean(path.read_bytes(), path)

    def test_random_bytes_in_text(self) -> None:
        source = random.Random(21)
        data = source.randbytes(1_500_000)
        self.clean(data, "bytes")
        self.clean(data.hex().encode(), "hex")
        self.clean(base64.b64encode(data), "base64")
        self.clean(base64.urlsafe_b64encode(data), "base64url")
        self.clean(base64.b32encode(data), "base32")
        self.clean(base64.encodebytes(data), "base64 in lines")
        self.clean(base64.a85encode(data), "base85")

    def test_identifiers(self) -> None:
        source = random.Random(22)
        for name, lines in (
            ("uuid", (str(uuid.UUID(bytes=source.randbytes(16))) for _ in range(20_000))),
            ("sha1", (hashlib.sha1(source.randbytes(9)).hexdigest() for _ in range(20_000))),  # noqa: S324
            ("sha256", (hashlib.sha256(source.randbytes(9)).hexdigest() for _ in range(20_000))),
            ("short", (base64.b64encode(source.randbytes(30)).decode() for _ in range(20_000))),
            (
                "url",
                (base64.urlsafe_b64encode(source.randbytes(30)).decode() for _ in range(20_000)),
            ),
        ):
            self.clean("\n".join(lines).encode(), name)

    def test_files(self) -> None:
        for make in (package_lock, cargo_lock, go_sum, api_answer):
            text = make(random.Random(23)).encode()
            self.clean(text, make.__name__)
            for size in (1000, 4096):
                self.assertEqual(detected(pack_engine(), cut_in(text, size)), (text, None))

    def test_what_documentation_shows(self) -> None:
        """Stand-ins for tokens, as pages and examples have them."""
        for text in (
            "export GITHUB_TOKEN=ghp_" + "x" * 36,
            "export OPENAI_API_KEY=sk-...",
            "sk-ant-api03-YOUR_KEY_HERE",
            "postgres://user:password@localhost:5432/db",
            "postgres://user:${DB_PASSWORD}@host/db and mysql://root:secret@127.0.0.1/x",
            "redis://:<password>@cache and amqp://guest:guest@localhost:5672/",
            "-----BEGIN {} KEY-----\n...\n-----END".format("PRIVATE"),
            'if b"-----BEGIN {} KEY-----" in data:'.format("RSA PRIVATE"),
            "-----BEGIN CERTIFICATE-----\nMIIB" + "A" * 60,
            "hooks.slack.com/services/T00000000/B00000000/" + "X" * 24,
            "AWS_SECRET_ACCESS_KEY=" + "X" * 40,
            "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY",
            "pk_live_ and pk_test_ keys; phc_ keys; sb_publishable_ keys",
        ):
            self.clean(text.encode(), text)
