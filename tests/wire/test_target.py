"""Request targets and paths."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import RemoteProtocolError
from slapenir.names import Authority, Scheme
from slapenir.wire.target import (
    AbsoluteTarget,
    checked_path,
    host_authority,
    parse_absolute,
    parse_connect,
    parse_origin,
)


class TargetTests(SynchronousTestCase):
    """The three forms that a client may send."""

    def refuse(self, parse: Callable[[bytes], object], target: bytes) -> None:
        """Assert that the target is a client's mistake."""
        error = self.assertRaises(RemoteProtocolError, parse, target)
        self.assertEqual(error.status, 400)

    def test_absolute(self) -> None:
        a = Authority("a.example", 80)
        for target, scheme, authority, path in (
            (b"http://a.example/x?y=z", Scheme.HTTP, a, b"/x?y=z"),
            (b"http://A.Example.", Scheme.HTTP, a, b"/"),
            (b"HTTP://a.example?q=/", Scheme.HTTP, a, b"/?q=/"),
            (b"https://a.example", Scheme.HTTPS, Authority("a.example", 443), b"/"),
            (b"http://[::1]:8080/", Scheme.HTTP, Authority("::1", 8080), b"/"),
            (b"http://a.example//b;c@d", Scheme.HTTP, a, b"//b;c@d"),
        ):
            self.assertEqual(parse_absolute(target), AbsoluteTarget(scheme, authority, path))

    def test_t025_userinfo(self) -> None:
        """T025: userinfo is refused."""
        for target in (b"http://allowed.example@evil.example/", b"http://a:b@allowed.example/",
                       b"http://@allowed.example/"):  # fmt: skip
            self.refuse(parse_absolute, target)
        self.refuse(parse_connect, b"u@a.example:443")

    def test_t026_tricks(self) -> None:
        """T026: fragments, backslashes, missing hosts; a query never becomes the host."""
        for target in (b"http://evil.example#@allowed.example/", b"http:///evil", b"http:evil",
                       b"http://evil.example\\@allowed.example/", b"//evil.example/", b"http://",
                       b"http:/evil.example/", b"http://a.example/#x", b"http://a.example/\\x",
                       b"http://:80/", b"a.example/", b"/http://a.example"):  # fmt: skip
            self.refuse(parse_absolute, target)
        parsed = parse_absolute(b"http://evil.example?allowed.example")
        self.assertEqual(parsed.authority.host, "evil.example")

    def test_t030_schemes(self) -> None:
        """T030: only http and https."""
        for scheme in (b"ftp", b"file", b"gopher", b"ws", b"wss", b"javascript", b"httpx", b"",
                       b"xhttp", b" http"):  # fmt: skip
            self.refuse(parse_absolute, scheme + b"://a.example/")
        parse_absolute(b"https://a.example/")

    def test_t018_t024_authorities(self) -> None:
        """T018 T019 T020 T022 T023 T024: hosts that are no hosts, in both forms."""
        for host in (b"a..example", b"[evil.example]", b"[[evil.example]]", b"[127.0.0.1]",
                     b"allowed.\xe2\x84\xaaom", b"ex%61mple.com", b"allowed%2ecom", b"a\x00b",
                     b"a%00b", b"a b", b"a\tb", b"a\x0bb", b"a\x7fb", b"a\x85b", b"a\r\nb",
                     b"*.a.example", b"", b"0x7f.1", b"2130706433", b"127.1", b"xn--"):  # fmt: skip
            self.refuse(parse_absolute, b"http://" + host + b"/")
            self.refuse(parse_connect, host + b":443")
        self.assertEqual(parse_connect(b"Allowed.Example.:443"), Authority("allowed.example", 443))

    def test_t028_ports(self) -> None:
        """T028: ports are plain numbers from 1 to 65535."""
        for port in (b"0", b"65536", b"99999", b"-1", b"+443", b"4_43", "\u0664".encode(), b" 443",
                     b"443 ", b"", b"443:22", b"https", b"007"):  # fmt: skip
            self.refuse(parse_connect, b"a.example:" + port)
            self.refuse(parse_absolute, b"http://a.example:" + port + b"/")
        self.refuse(parse_connect, b"a.example")
        self.assertEqual(parse_connect(b"a.example:65535").port, 65535)

    def test_connect_is_only_an_authority(self) -> None:
        for target in (b"http://a.example:443", b"a.example:443/", b"/a.example:443", b"*"):
            self.refuse(parse_connect, target)

    def test_origin(self) -> None:
        for good in (b"/", b"/a?b=c/../d", b"//a;b", b"/%zz"):
            self.assertEqual(parse_origin(good), good)
        for bad in (b"", b"*", b"a", b"http://a.example/", b"/a#b", b"/a b", b"/\xe9", b"/a\n"):
            self.refuse(parse_origin, bad)

    def test_host_authority_remembers_only_good_ones(self) -> None:
        self.assertIs(host_authority(b"h.example", 80), host_authority(b"h.example", 80))
        for _ in range(2):
            self.refuse(lambda value: host_authority(value, 80), b"a/b")


class PathTests(SynchronousTestCase):
    """T078: what policy sees is what is forwarded."""

    def test_t078_good_paths(self) -> None:
        for target, path in (
            (b"/", "/"),
            (b"/v1/x?a=../b%2f%zz\\", "/v1/x"),
            (b"//a//b/", "//a//b/"),
            (b"/a;x/b;y=..", "/a;x/b;y=.."),
            (b"/.hidden/..a/a../...", "/.hidden/..a/a../..."),
            (b"/%41%20%e9%25", "/%41%20%e9%25"),
            (b"/%2ehidden", "/%2ehidden"),
        ):
            self.assertEqual(checked_path(target), path)

    def test_t078_refused_paths(self) -> None:
        """T078: dot segments in any mixture, encoded slashes, backslashes, broken escapes."""
        bad = [
            b"/..", b"/a/../b", b"/./", b"/.", b"/a/.", b"/%2e%2e", b"/a/.%2e/b", b"/%2E./b",
            b"/a/%2e", b"/a/..?x", b"/a/%2e%2e?x", b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a\\b",
            b"/..\\", b"/%00", b"/a%0d%0ab", b"/%7f", b"/%1f", b"/%", b"/%4", b"/%zz", b"/%u0041",
            b"/a%", b"/..;x", b"/%2e%2e;x/",
        ]  # fmt: skip
        for target in bad:
            error = self.assertRaises(RemoteProtocolError, checked_path, target)
            self.assertEqual(error.status, 400, target)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=40))
    def test_only_protocol_errors(self, data: bytes) -> None:
        for parse in (parse_absolute, parse_connect, parse_origin, checked_path):
            for target in (data, b"/" + data, b"http://a/" + data, b"http://" + data):
                try:
                    parse(target)
                except RemoteProtocolError as error:
                    self.assertEqual(error.status, 400)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from([b".", b"%2e", b"%2E", b"/", b"a", b"%61", b";"]), max_size=8))
    def test_no_dot_segment_survives(self, parts: list[bytes]) -> None:
        """T078: whatever passes holds no dot segment once it is decoded."""
        target = b"/" + b"".join(parts)
        decoded = target.lower().replace(b"%2e", b".").split(b"/")
        dotted = any(s.partition(b";")[0] in (b".", b"..") for s in decoded)
        try:
            checked_path(target)
        except RemoteProtocolError:
            self.assertTrue(dotted)
        else:
            self.assertFalse(dotted)
