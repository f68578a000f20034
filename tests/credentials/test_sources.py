"""Reading and checking secrets."""

from __future__ import annotations

import os
import secrets

from twisted.trial.unittest import SynchronousTestCase

from slapenir.credentials.sources import MAX_FILE, check_secret, read_source
from slapenir.secret import Secret
from tests.credentials.made import token


class CheckTests(SynchronousTestCase):
    """check_secret."""

    def refused(self, value: bytes, words: str) -> None:
        error = self.assertRaises(ValueError, check_secret, Secret(value))
        self.assertIn(words, str(error))
        if len(value.strip()) > 7:
            self.assertNotIn(value.decode("latin-1"), str(error))

    def test_T177_control_bytes(self) -> None:
        """T177: CR, LF, NUL and each other control byte, wherever it stands."""
        value = secrets.token_hex(16).encode("ascii")
        for byte in [*range(0x20), 0x7F]:
            for place in (0, 8, len(value)):
                self.refused(value[:place] + bytes([byte]) + value[place:], "control bytes")
        check_secret(Secret(value))
        check_secret(Secret(value + b" \x80\xff~"))

    def test_lengths(self) -> None:
        """8 to 8192 bytes."""
        pattern = b"abcdefgh" * 1025
        for size in (0, 1, 7):
            self.refused(pattern[:size], "shorter than 8")
        self.refused(pattern[:8193], "longer than 8192")
        check_secret(Secret(pattern[:8]))
        check_secret(Secret(pattern[:8192]))

    def test_poor_secrets(self) -> None:
        """Spaces only, and fewer than 4 different bytes."""
        self.refused(b" " * 20, "nothing but spaces")
        self.refused(b"aaaaaaaaaaaa", "fewer than 4")
        self.refused(b"abcabcabcabc", "fewer than 4")
        check_secret(Secret(b"abcdabcdabcd"))


class SourceTests(SynchronousTestCase):
    """read_source."""

    def setUp(self) -> None:
        self.value = secrets.token_hex(16).encode("ascii")
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory, 0o700)

    def write(self, value: bytes, mode: int = 0o600, name: str = "key") -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(value)
        os.chmod(path, mode)
        return path

    def refused(
        self,
        source: str,
        words: str,
        environ: dict[str, str] | None = None,
        under: str | None = None,
    ) -> None:
        error = self.assertRaises(ValueError, read_source, source, environ or {}, under)
        self.assertIn(words, str(error))
        self.assertNotIn(self.value.decode("ascii"), str(error))
        self.assertIsNone(error.__cause__)

    def test_environment(self) -> None:
        """A variable that is set; one newline at its end goes."""
        for end in ("", "\n", "\r\n"):
            environ = {"KEY": self.value.decode("ascii") + end}
            self.assertEqual(read_source("env:KEY", environ, None).reveal(), self.value)
        self.refused("env:KEY", "not set")
        self.refused("env:KEY", "empty", {"KEY": ""})
        self.refused("env:", "not the name")
        self.refused("env:A B", "not the name", {"A B": "x"})

    def test_T225_a_source_that_is_gone_or_changed(self) -> None:
        """T225: each read is a new one; a source that went away is an error, never an old value."""
        source = f"file:{self.write(token())}"
        read_source(source, {}, None)
        path = self.write(self.value)
        self.assertEqual(read_source(source, {}, None).reveal(), self.value)
        os.truncate(path, 0)
        self.refused(source, "is empty")
        os.remove(path)
        self.refused(source, "cannot be opened")

    def test_T177_a_second_newline_is_refused(self) -> None:
        """T177: only one newline is taken off; what is left is checked."""
        text = self.value.decode("ascii")
        self.refused("env:KEY", "control bytes", {"KEY": text + "\n\n"})
        self.refused("env:KEY", "control bytes", {"KEY": text + "\nX: y"})
        self.refused("env:KEY", "shorter than 8", {"KEY": "\n"})

    def test_files(self) -> None:
        """A file that only we can use, up to its size bound."""
        self.assertEqual(
            read_source(f"file:{self.write(self.value)}", {}, None).reveal(), self.value
        )
        path = self.write(self.value + b"\n", 0o400)
        self.assertEqual(read_source(f"file:{path}", {}, None).reveal(), self.value)
        self.refused(f"file:{path}x", "cannot be opened")
        self.refused("file:key", "not an absolute path")
        self.refused("file:", "not an absolute path")
        self.refused("file:/a\0b", "not an absolute path")
        self.refused(f"file:{self.write(b'', name='none')}", "is empty")
        large = self.write((self.value * (MAX_FILE // 32 + 1))[: MAX_FILE + 1], name="large")
        self.refused(f"file:{large}", f"longer than {MAX_FILE}")

    def test_T226_files_that_others_can_use(self) -> None:
        """T226: group and others may neither read nor write it."""
        for mode in (0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666):
            self.refused(f"file:{self.write(self.value, mode)}", "chmod 600")

    def test_T226_files_of_another_user(self) -> None:
        """T226: a file of somebody else is not our secret."""
        if os.geteuid() != 0:
            self.skipTest("needs root to give a file away")
        path = self.write(self.value)
        os.chown(path, 65534, 65534)
        self.refused(f"file:{path}", "belongs to neither")

    def test_what_is_no_regular_file(self) -> None:
        """Links, directories, devices and pipes; none of them blocks."""
        path = self.write(self.value)
        link = os.path.join(self.directory, "link")
        os.symlink(path, link)
        self.refused(f"file:{link}", "symbolic link")
        self.refused(f"file:{self.directory}", "not a regular file")
        pipe = os.path.join(self.directory, "pipe")
        os.mkfifo(pipe, 0o600)
        self.refused(f"file:{pipe}", "not a regular file")
        self.refused("file:/dev/null", "not a regular file")

    def test_systemd(self) -> None:
        """A credential by name; its ACL shows as a group bit, which is fine there."""
        self.write(self.value, 0o440)
        found = read_source("systemd:key", {}, self.directory)
        self.assertEqual(found.reveal(), self.value)
        self.refused("systemd:key", "not given credentials")
        self.refused("systemd:other", "cannot be opened", under=self.directory)
        for name in ("", "..", ".", "a/b", "../key", "key\n"):
            self.refused(f"systemd:{name}", "not a credential name", under=self.directory)
        self.write(self.value, 0o444)
        self.refused("systemd:key", "chmod 600", under=self.directory)

    def test_unknown_kinds(self) -> None:
        """Nothing else is a source, and what stands there is not repeated: it may be the key."""
        for source in ("", "KEY", "vault:key", "ENV:KEY", self.value.decode("ascii")):
            self.refused(source, "env:NAME, file:/PATH or systemd:NAME")
