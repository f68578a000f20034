"""Globs, and the readings of a path."""

from __future__ import annotations

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.policy.paths import climbs, compile_globs, readings


class GlobTests(SynchronousTestCase):
    """compile_globs."""

    def matches(self, glob: str, *paths: str) -> list[str]:
        pattern = compile_globs([glob], ignore_case=False)
        return [path for path in paths if pattern.fullmatch(path)]

    def test_star_is_any_run(self) -> None:
        """A star crosses slashes and may be nothing; all else is literal."""
        self.assertEqual(
            self.matches(
                "/v1/*", "/v1/", "/v1/a", "/v1/a/b", "/v1/a\nb", "/v1", "/v2/", "/V1/", "x/v1/"
            ),
            ["/v1/", "/v1/a", "/v1/a/b", "/v1/a\nb"],
        )
        self.assertEqual(
            self.matches("/a.b[c]+?", "/a.b[c]+?", "/axb[c]+?", "/a.bc"), ["/a.b[c]+?"]
        )
        self.assertEqual(
            self.matches("/*/x/*", "/a/x/", "/a/b/x/c", "/x/", "//x/"),
            ["/a/x/", "/a/b/x/c", "//x/"],
        )
        self.assertEqual(self.matches("*", "", "*", "/"), ["", "*", "/"])
        self.assertEqual(self.matches("/a", "/a", "/a/", "/a\n", "/ab"), ["/a"])
        self.assertEqual(self.matches("/a|/b", "/a", "/b", "/a|/b"), ["/a|/b"])
        self.assertEqual(
            self.matches("/*a*ab", "/aab", "/ab", "/xaab", "/abab"), ["/aab", "/xaab", "/abab"]
        )

    def test_several_globs(self) -> None:
        """Any of them."""
        pattern = compile_globs(["/a", "/b/*"], ignore_case=False)
        self.assertTrue(pattern.fullmatch("/a"))
        self.assertTrue(pattern.fullmatch("/b/c"))
        self.assertIsNone(pattern.fullmatch("/a/b"))

    @settings(max_examples=300, deadline=None)
    @given(st.text(alphabet="ab/*", max_size=8), st.text(alphabet="ab/", max_size=10))
    def test_equals_the_plain_translation(self, glob: str, path: str) -> None:
        """The linear pattern accepts what the obvious one accepts."""
        plain = ".*".join(re.escape(part) for part in glob.split("*"))
        self.assertEqual(
            compile_globs([glob], False).fullmatch(path) is None,
            re.fullmatch(plain, path, re.DOTALL) is None,
        )

    def test_T078_no_path_is_slow(self) -> None:
        """T078: a glob of many stars takes no quadratic time on 64 KiB of near misses."""
        pattern = compile_globs(["/*a*a*a*a*a*a*ab*c"], ignore_case=True)
        started = time.process_time()
        self.assertIsNone(pattern.fullmatch("/" + "a" * 65536))
        readings("/" + "%2e%2e%2f;" * 6000 + "//" * 3000)
        self.assertLess(time.process_time() - started, 1.0)


class ReadingTests(SynchronousTestCase):
    """readings and climbs."""

    def test_T078_plain_paths_have_one_reading(self) -> None:
        """T078: the negative control."""
        for path in ("/", "/v1/chat/completions", "/a.b/c~d-e_f", "*", "/a..b/c."):
            self.assertEqual(readings(path), (path,))
            self.assertFalse(climbs(path))

    def test_T078_each_disguise_is_read(self) -> None:
        """T078: dot segments, escapes, slashes, backslashes and parameters."""
        for path in (
            "/a/../admin/x",
            "/a/%2e%2e/admin/x",
            "/a/%2E./admin/x",
            "/a/..%2fadmin/x",
            "/a%2f..%2fadmin/x",
            "//admin/x",
            "/./admin/x",
            "/admin//x",
            "/admin\\x",
            "\\admin\\x",
            "/admin;v=1/x",
            "/admin;/x;y",
            "/%61dmin/x",
            "/%2561dmin/x",
            "/admin%2fx",
            "/admin%5cx",
            "/a/..;/admin/x",
            "/a/..\\admin/x",
            "/%u0061dmin/x",
            "/../../admin/x",
        ):
            self.assertIn("/admin/x", readings(path), path)

    def test_T078_what_climbs(self) -> None:
        """T078: only a path with a dot segment in it, however written."""
        for path in ("/..", "/a/..", "/a/.", "/./a", "/a/%2e%2e/b", "/a%2f..%2fb", "/a/..;x/b"):
            self.assertTrue(climbs(path), path)
        for path in ("/a/%252e%252e/b", "/a\\..\\b", "/a/.%2e", "/a/%u002e%u002e/b", "/a%5c.."):
            self.assertTrue(climbs(path), path)
        for path in (
            "/.well-known/x",
            "/a/...",
            "/a/..b",
            "/group%2Fproject",
            "/a;b=c",
            "//a",
            "/a%20b",
        ):
            self.assertFalse(climbs(path), path)

    @settings(max_examples=300, deadline=None)
    @given(st.text(alphabet="/.%2eEfF5cC;ab\\u0", max_size=24))
    def test_total(self, path: str) -> None:
        """The path as sent comes first; no other reading has a dot segment or an empty one."""
        first, *others = readings("/" + path)
        self.assertEqual(first, "/" + path)
        for other in others:
            segments = other.split("/")
            self.assertNotIn("..", segments)
            self.assertNotIn(".", segments)
            self.assertNotIn("//", other)
