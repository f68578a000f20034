"""The audit log on a real file system: whole lines, refusals, rotation, failure, recovery."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from twisted.trial import unittest

from slapenir import events
from slapenir.errors import AuditError
from slapenir.names import Stage
from slapenir.observe.audit import REFUSALS_PER_SECOND, AuditLog
from tests.observe.samples import WHO, FakeClock, decided


@contextlib.contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size``: the next write is short, then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


class AuditCase(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(mode=0o700, parents=True)
        self.clock = FakeClock()
        self.audit = AuditLog(str(self.directory), self.clock)
        self.addCleanup(self.audit.close)
        self.path = Path(self.audit.path)

    def read(self, path: Path | None = None) -> list[dict[str, Any]]:
        """Return the records; fails when a line is not a whole record."""
        data = (path or self.path).read_bytes()
        self.assertTrue(not data or data.endswith(b"\n"))
        return [json.loads(line) for line in data.splitlines()]


class AuditLogTests(AuditCase):
    def test_a_record_is_on_disk_when_record_returns(self) -> None:
        """Each record is one line with time, sequence, event and fields; the file is 0600."""
        self.audit.record(decided())
        self.audit.record(events.Reloaded())
        first, second = self.read()
        self.assertEqual(first["time"], "2023-11-14T22:13:20.000Z")
        self.assertEqual((first["sequence"], first["event"]), (1, "Decided"))
        self.assertEqual((second["sequence"], second["event"]), (2, "Reloaded"))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_records_are_added_to_an_existing_file(self) -> None:
        """A restart goes on in the same file."""
        self.audit.record(decided())
        self.audit.close()
        again = AuditLog(str(self.directory), self.clock)
        self.addCleanup(again.close)
        again.record(decided())
        self.assertEqual(len(self.read()), 2)

    def test_a_child_process_does_not_inherit_the_file(self) -> None:
        """The descriptor is closed on exec."""
        self.audit.open()
        fd = self.audit._file._fd
        self.assertFalse(os.get_inheritable(fd))

    def test_a_flood_of_refused_connections_is_bounded_t197(self) -> None:
        """T197: ten records a second; the next second's says how many were left out."""
        for _ in range(10_000):
            self.audit.record(events.ConnectionRefused(WHO, "connections"))
        self.assertEqual(len(self.read()), REFUSALS_PER_SECOND)
        self.clock.now += 1
        self.audit.record(events.ConnectionRefused(WHO, "connections"))
        self.assertEqual(self.read()[-1]["left_out"], 10_000 - REFUSALS_PER_SECOND)

    def test_a_flood_of_strangers_is_bounded_t197(self) -> None:
        """T197: so are clients that are nobody, and never a decision about an identity."""
        nobody = attrs.evolve(decided(), stage=Stage.IDENTIFY, who=attrs.evolve(WHO, identity=""))
        for _ in range(1000):
            self.audit.record(nobody)
        self.assertEqual(len(self.read()), REFUSALS_PER_SECOND)
        for event in (decided(), attrs.evolve(nobody, who=WHO)):
            for _ in range(2 * REFUSALS_PER_SECOND):
                self.audit.record(event)
        records = self.read()
        self.assertEqual(len(records), 5 * REFUSALS_PER_SECOND)
        self.assertNotIn("left_out", records[0])
        self.clock.now += 1
        self.audit.record(nobody)
        self.assertEqual(self.read()[-1]["left_out"], 1000 - REFUSALS_PER_SECOND)


class PlaceTests(AuditCase):
    """T239: the file and its directory cannot be somebody else's."""

    def refused(self, text: str) -> None:
        """Check that opening and recording are refused with ``text``."""
        with self.assertRaises(AuditError) as caught:
            self.audit.open()
        self.assertIn(text, str(caught.exception))
        with self.assertRaises(AuditError):
            self.audit.record(decided())

    def test_a_symbolic_link_t239(self) -> None:
        """A link in place of the file is not followed; removed, the log works."""
        target = self.directory / "target"
        target.touch(0o600)
        self.path.symlink_to(target)
        self.refused("symbolic links")
        self.assertEqual(target.read_bytes(), b"")
        self.path.unlink()
        self.audit.record(decided())
        self.assertEqual(len(self.read()), 1)

    def test_a_directory_that_others_can_write_t239(self) -> None:
        """Mode 0770 is refused; 0750 is fine."""
        self.directory.chmod(0o770)
        self.refused("can be written by group or others")
        self.directory.chmod(0o750)
        self.audit.record(decided())

    def test_a_file_that_others_can_write_t239(self) -> None:
        """Mode 0620 is refused; 0640, for a log shipper, is fine."""
        self.path.touch()
        self.path.chmod(0o620)
        self.refused("can be written by group or others")
        self.path.chmod(0o640)
        self.audit.record(decided())

    def test_somebody_elses_file_t239(self) -> None:
        """A file of another user is refused."""
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root to give a file to another user")
        self.path.touch(0o600)
        os.chown(self.path, 65534, 65534)
        os.chown(self.directory, 65534, 65534)
        self.refused("is owned by another user")

    def test_a_pipe_is_refused_at_once_t205(self) -> None:
        """T205: a sink that could block is refused, with and without a reader, not waited for."""
        os.mkfifo(self.path, 0o600)
        self.refused("")
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.refused("is not a regular file")

    def test_a_missing_directory(self) -> None:
        """The error names the path; once the directory exists records are written."""
        shutil.rmtree(self.directory)
        self.refused("No such file or directory")
        self.directory.mkdir(mode=0o700)
        self.audit.record(decided())
        self.assertEqual(len(self.read()), 1)

    def test_a_second_gateway_is_refused_t227(self) -> None:
        """T227: while one process has the log open no other may; after it ends, it may."""
        self.audit.record(decided())
        second = AuditLog(str(self.directory), self.clock)
        with self.assertRaises(AuditError) as caught:
            second.open()
        self.assertIn("in use by another process", str(caught.exception))
        self.audit.close()
        second.open()
        second.close()


class RotationTests(AuditCase):
    """T214: the file is rotated, deleted or made unwritable under the running gateway."""

    def test_rotated_by_rename_t214(self) -> None:
        """Within a second the new name is used; no record is lost."""
        self.audit.record(decided())
        old = self.path.rename(self.directory / "audit.1")
        self.audit.record(decided())
        self.clock.now += 1
        self.audit.record(decided())
        self.assertEqual([r["sequence"] for r in self.read(old)], [1, 2])
        self.assertEqual([r["sequence"] for r in self.read()], [3])

    def test_deleted_t214(self) -> None:
        """A deleted file is made anew, also when the clock was set back (T216)."""
        self.audit.record(decided())
        self.path.unlink()
        self.clock.now -= 3600
        self.audit.record(decided())
        self.assertEqual([r["sequence"] for r in self.read()], [2])

    def test_reopen_is_immediate_t214(self) -> None:
        """After reopen (SIGHUP) the very next record goes to the new file."""
        self.audit.record(decided())
        self.path.rename(self.directory / "audit.1")
        self.audit.reopen()
        self.audit.record(decided())
        self.assertEqual([r["sequence"] for r in self.read()], [2])

    def test_emptied_in_place_t214(self) -> None:
        """A file truncated by copytruncate goes on without a hole."""
        self.audit.record(decided())
        os.truncate(self.path, 0)
        self.audit.record(decided())
        self.assertEqual([r["sequence"] for r in self.read()], [2])

    def test_an_input_output_error_t214(self) -> None:
        """EIO is an AuditError; the next record is written when the disk is back."""
        self.audit.record(decided())

        def broken(fd: int, data: bytes) -> int:
            raise OSError(5, "Input/output error")

        patch = self.patch(os, "write", broken)
        with self.assertRaises(AuditError) as caught:
            self.audit.record(decided())
        self.assertIn("Input/output error", str(caught.exception))
        patch.restore()
        self.audit.record(decided())
        self.assertEqual([r["sequence"] for r in self.read()], [1, 3])


class FullDiskTests(AuditCase):
    """T213: no space: an error, no torn line, and recovery without restart."""

    def test_a_short_write_is_taken_back_t213(self) -> None:
        """Half a record is removed again; records go on when there is space."""
        self.audit.record(decided())
        size = self.path.stat().st_size
        with files_no_longer_than(size + 100):
            for _ in range(3):
                with self.assertRaises(AuditError):
                    self.audit.record(decided())
                self.assertEqual(self.path.stat().st_size, size)
        self.audit.record(decided())
        self.assertEqual([r["sequence"] for r in self.read()], [1, 5])

    def test_where_truncation_is_forbidden_a_new_line_begins_t213(self) -> None:
        """On an append-only file the torn record stays alone on its line."""
        self.audit.record(decided())

        def forbidden(fd: int, size: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        patch = self.patch(os, "ftruncate", forbidden)
        with files_no_longer_than(self.path.stat().st_size + 100):
            for _ in range(2):
                with self.assertRaises(AuditError):
                    self.audit.record(decided())
        self.audit.record(decided())
        patch.restore()
        lines = self.path.read_bytes().splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual([json.loads(lines[n])["sequence"] for n in (0, 2)], [1, 4])

    def test_a_full_file_system_t213(self) -> None:
        """A tmpfs of 64 KiB fills up, is refused, is emptied, and works again."""
        if os.geteuid() != 0 or shutil.which("mount") is None:
            raise unittest.SkipTest("needs root and mount(8) for a small tmpfs")
        place = Path(tempfile.mkdtemp(dir=self.directory))
        command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise unittest.SkipTest("mounting a tmpfs is not permitted here")
        self.addCleanup(subprocess.run, ["umount", "-l", str(place)], check=True)
        audit = AuditLog(str(place), self.clock)
        self.addCleanup(audit.close)
        written = 0
        with self.assertRaises(AuditError) as caught:
            for _ in range(1000):
                audit.record(decided())
                written += 1
        self.assertIn("audit.jsonl", str(caught.exception))
        self.assertEqual(len(self.read(Path(audit.path))), written)
        os.truncate(audit.path, 0)
        audit.record(decided())
        self.assertEqual(len(self.read(Path(audit.path))), 1)

    def test_a_line_torn_by_a_crash_is_cut_at_start_t207(self) -> None:
        """T207: what follows the last newline is a record of nothing; the rest stays."""
        self.audit.record(decided())
        self.audit.close()
        whole = self.path.read_bytes()
        for tail in (b'{"time":"2023', b"{" + b"x" * 100_000):
            self.path.write_bytes(whole + tail)
            self.audit.open()
            self.audit.record(decided())
            self.audit.close()
            first, *_, last = self.path.read_bytes().splitlines()
            self.assertEqual(json.loads(first)["sequence"], 1)
            self.assertEqual(json.loads(last)["event"], "Decided")

    def test_killed_while_writing_t207(self) -> None:
        """T207: after SIGKILL at any moment every line is a whole record and the log reopens."""
        script = textwrap.dedent(
            f"""
            from slapenir.observe.audit import AuditLog
            from tests.observe.samples import decided
            audit = AuditLog({str(self.directory)!r})
            event = decided(path="/" + "p" * 2000)
            audit.record(event)
            print("started", flush=True)
            while True:
                audit.record(event)
            """
        )
        root = Path(__file__).parents[2]
        for _ in range(3):
            child = subprocess.Popen(
                [sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE
            )
            assert child.stdout is not None
            self.assertEqual(child.stdout.readline(), b"started\n")
            child.kill()
            child.wait()
            child.stdout.close()
            self.audit.open()
            self.audit.record(events.Reloaded())
            self.audit.close()
            self.assertEqual(self.read()[-1]["event"], "Reloaded")
            os.truncate(self.path, 0)
