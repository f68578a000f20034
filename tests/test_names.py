"""Hosts, ports and authorities are made canonical once, or refused."""

# ruff: noqa: RUF001

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import AuthorityError
from slapenir.names import (
    Authority,
    Scheme,
    canonical_host,
    host_matches,
    parse_authority,
    parse_host_pattern,
    parse_port,
)


class HostTests(SynchronousTestCase):
    """canonical_host."""

    def refused(self, *hosts: str | bytes) -> None:
        for host in hosts:
            raw = host if isinstance(host, bytes) else host.encode("utf-8")
            with self.assertRaises(AuthorityError, msg=repr(host)):
                canonical_host(raw)

    def same(self, pairs: dict[str, str]) -> None:
        for raw, canonical in pairs.items():
            self.assertEqual(canonical_host(raw.encode("utf-8")), canonical, raw)

    def test_T001_one_number_is_no_host(self) -> None:
        """T001: a decimal address is refused; the dotted quad and a numeric label pass."""
        self.refused("2130706433", "2130706433.", "0", "4294967296", "1")
        self.same(
            {"127.0.0.1": "127.0.0.1", "8.8.8.8": "8.8.8.8", "1.example.org": "1.example.org"}
        )

    def test_T002_hexadecimal_is_no_host(self) -> None:
        """T002: hexadecimal forms are refused; a name that only begins like one passes."""
        self.refused(
            "0x7f000001", "0X7F000001", "0x7f.0.0.1", "0x7f.1", "127.0.0.0x1", "0x", "a.0x"
        )
        self.same({"0x7f.example.org": "0x7f.example.org", "0xg": "0xg"})

    def test_T003_octal_and_padding_are_no_host(self) -> None:
        """T003: leading zeros are refused, so there is one spelling; a zero alone passes."""
        self.refused("0177.0.0.1", "017700000001", "127.000.000.001", "127.0.0.01", "00.0.0.0")
        self.same({"10.0.0.0": "10.0.0.0"})

    def test_T004_short_forms_are_no_host(self) -> None:
        """T004: one to three parts, five parts and parts over 255 are refused."""
        self.refused("127.1", "10.1", "127.0.1", "0", "1.2.3.4.5", "256.1.1.1", "1.2.3.999")
        self.refused("example.1", "a.b.08")

    def test_T005_non_ascii_digits_are_no_host(self) -> None:
        """T005: circled and full-width digits and ideographic stops are refused."""
        self.refused("①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1", "٣.1.1.1")

    def test_T006_mapped_addresses_have_one_form(self) -> None:
        """T006: each spelling of an IPv4-mapped address is the same host."""
        forms = {canonical_host(raw) for raw in (b"[::ffff:127.0.0.1]", b"[::ffff:7f00:1]")}
        forms.add(canonical_host(b"[0:0:0:0:0:FFFF:7F00:1]"))
        self.assertEqual(len(forms), 1)

    def test_T010_zones_are_refused(self) -> None:
        """T010: an IPv6 zone is refused, encoded or not; the address without it passes."""
        self.refused("[::1%25eth0]", "[fe80::1%eth0]", "[fe80::1%]", "fe80::1%eth0")
        self.same({"[fe80::1]": "fe80::1"})

    def test_T018_a_trailing_dot_changes_nothing(self) -> None:
        """T018: one trailing dot goes, two are refused."""
        self.same({"allowed.com.": "allowed.com", "evil.com.": "evil.com", "8.8.8.8.": "8.8.8.8"})
        self.refused("a..", ".", "..", "[::1].", "127.1.", "")

    def test_T019_brackets_hold_an_ipv6_address(self) -> None:
        """T019: a name or IPv4 address in brackets is refused, and half a pair of them."""
        self.refused("[evil.com]", "[[evil.com]]", "[127.0.0.1]", "[]", "[::1", "::1]", "::1")
        self.refused("[::1]]", "[[::1]]", "[::1/64]", "[ ::1]", "[::1 ]", "[1:2:3]", "[:::1]")
        self.same({"[2001:DB8:0:0:0:0:0:1]": "2001:db8::1"})

    def test_T020_only_ascii_is_folded(self) -> None:
        """T020: ASCII case is folded; U+212A and U+017F do not become k and s."""
        self.same({"ALLOWED.com": "allowed.com"})
        self.refused("\u212aallowed.com", "\u017fite.com", "allowed.com\u212a")

    def test_T021_punycode_is_checked(self) -> None:
        """T021: a valid A-label passes, what is not one is refused, and so are U-labels."""
        self.same({"xn--e1aybc.example": "xn--e1aybc.example", "XN--FA-HIA.de": "xn--fa-hia.de"})
        self.same({"xn--bcher-kva.example": "xn--bcher-kva.example"})
        joiner = "xn--" + "a\u200db".encode("punycode").decode("ascii")
        decomposed = "xn--" + "e\u0301".encode("punycode").decode("ascii")
        upper = "xn--" + "Ä".encode("punycode").decode("ascii")
        private = "xn--" + "\ue000".encode("punycode").decode("ascii")
        self.refused("xn--", "xn--a", "xn--a.example", "xn---", "xn--abc-", "xn--0", "xn--99999999")
        self.refused(joiner, decomposed, upper, private, "тест.example", "faß.de")

    def test_T022_nothing_is_decoded(self) -> None:
        """T022: U+3002 and percent escapes are refused, not read as dots and letters."""
        self.refused("example。com", "ex%61mple.com", "allowed%2ecom", "%61.com")

    def test_T023_nul_is_refused(self) -> None:
        """T023: a NUL does not end a host, and nothing after it is looked at."""
        self.refused(b"evil.com\x00.allowed.com", b"evil.com%00.allowed.com", b"\x00")

    def test_T024_whitespace_and_controls_are_refused(self) -> None:
        """T024: each control byte and space, anywhere in the host, is refused."""
        for byte in [*range(0x21), 0x7F, 0x85, 0xA0, 0xFF]:
            bad = bytes([byte])
            for raw in (
                bad + b"a.com",
                b"a" + bad + b"b.com",
                b"a.com" + bad,
                b"[::1" + bad + b"]",
            ):
                with self.assertRaises(AuthorityError, msg=repr(raw)):
                    canonical_host(raw)

    def test_T026_other_parts_of_a_url_are_refused(self) -> None:
        """T026: a slash, hash, question mark or backslash is no part of a host."""
        self.refused(
            "evil.com/", "evil.com#", "evil.com?a", "evil.com\\", "http://evil.com", "//e.com"
        )

    def test_T040_labels_and_length(self) -> None:
        """T040: 64-byte labels and 254-byte names are refused, 63 and 253 pass."""
        longest = ".".join(["a" * 63] * 3) + "." + "b" * 61
        self.assertEqual(len(longest), 253)
        self.same({longest: longest, "a" * 63 + ".com": "a" * 63 + ".com"})
        self.same(
            {"_dmarc.x.com": "_dmarc.x.com", "a--b.com": "a--b.com", "localhost": "localhost"}
        )
        self.refused(
            "a" * 64 + ".com", longest + "b", "a..b", ".a", "-a.com", "a-.com", "*", "*.a.com"
        )
        self.refused("a" * 100_000, "a." * 50_000)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=40))
    def test_total_and_idempotent(self, raw: bytes) -> None:
        """Any bytes give AuthorityError or a host that is its own canonical form."""
        try:
            host = canonical_host(raw)
        except AuthorityError:
            return
        again = f"[{host}]" if ":" in host else host
        self.assertEqual(canonical_host(again.encode("ascii")), host)
        self.assertEqual(host, host.lower())

    @settings(max_examples=150, deadline=None)
    @given(st.text(alphabet=string.ascii_letters + string.digits + ".-_xn", max_size=30))
    def test_text_like_names_are_idempotent(self, text: str) -> None:
        """The same, for text that is nearly a name."""
        try:
            host = canonical_host(text.encode("ascii"))
        except AuthorityError:
            return
        self.assertEqual(canonical_host(host.encode("ascii")), host)

    def test_errors_never_quote_the_host(self) -> None:
        """A reason is a fixed phrase: a secret used as host name is not in it."""
        raw = b"s3cr3t-\x00.evil.com"
        error = self.assertRaises(AuthorityError, canonical_host, raw)
        self.assertNotIn("s3cr3t", str(error))
        self.assertEqual(error.status, 400)


class PortTests(SynchronousTestCase):
    """parse_port and parse_authority."""

    def test_T028_ports(self) -> None:
        """T028: only 1 to 65535 in plain digits without a leading zero."""
        for raw in ("0", "65536", "99999", "-1", "+443", "4_43", "٤٤٣", " 443", "443 ", "", "007"):
            with self.assertRaises(AuthorityError, msg=raw):
                parse_port(raw.encode("utf-8"))
        for raw in ("443:22", "https", "443\n", "0x1bb", "4e2", "000443", "9" * 5000):
            with self.assertRaises(AuthorityError, msg=raw):
                parse_authority(b"h:" + raw.encode("utf-8"), None)
        self.assertEqual([parse_port(p) for p in (b"1", b"443", b"65535")], [1, 443, 65535])

    def test_T028_authorities(self) -> None:
        """T028: an empty port is refused, a missing one is the default or refused."""
        for raw in (b"h:", b"[::1]:", b"[::1]x", b"[::1]443", b"::1:443", b":443", b""):
            with self.assertRaises(AuthorityError, msg=repr(raw)):
                parse_authority(raw, 443)
        self.assertRaises(AuthorityError, parse_authority, b"h", None)
        self.assertRaises(AuthorityError, parse_authority, b"[::1]", None)
        self.assertEqual(parse_authority(b"H.", 80), Authority("h", 80))
        self.assertEqual(parse_authority(b"[::0:1]:8443", None), Authority("::1", 8443))

    def test_T018_authority_is_canonical(self) -> None:
        """T018: case and trailing dot make no other authority."""
        forms = (b"Allowed.COM.:443", b"allowed.com:443", b"ALLOWED.com:443")
        self.assertEqual(len({parse_authority(raw, None) for raw in forms}), 1)

    def test_T025_userinfo_is_refused(self) -> None:
        """T025: any userinfo is refused, wherever the at sign is."""
        for raw in (b"u@h:443", b"a:b@allowed.com", b"allowed.com@evil.com:443", b"@h:1", b"h@:1"):
            with self.assertRaises(AuthorityError, msg=repr(raw)):
                parse_authority(raw, 443)
        self.assertRaises(AuthorityError, parse_authority, b"[::1]:1@h:443", 443)

    def test_host_header(self) -> None:
        """The Host value has brackets for IPv6 and no default port."""
        self.assertEqual(Authority("a.org", 443).header(Scheme.HTTPS), b"a.org")
        self.assertEqual(Authority("a.org", 443).header(Scheme.HTTP), b"a.org:443")
        self.assertEqual(Authority("::1", 8080).header(Scheme.HTTP), b"[::1]:8080")
        self.assertEqual(str(Authority("::1", 80)), "[::1]:80")
        self.assertTrue(Authority("1.2.3.4", 1).is_ip)
        self.assertFalse(Authority("1.2.3.x", 1).is_ip)


class PatternTests(SynchronousTestCase):
    """Host patterns."""

    def test_T027_wildcards_keep_to_labels(self) -> None:
        """T027: a wildcard covers subdomains only, never a longer label or the bare name."""
        pattern = parse_host_pattern(b"*.Allowed.com.")
        for host in ("sub.allowed.com", "a.b.allowed.com", "_x.allowed.com"):
            self.assertTrue(host_matches(pattern, host), host)
        for host in (
            "allowed.com",
            "evilallowed.com",
            "suballowed.com",
            "allowed.com.evil.com",
            "sub.allowed.com.evil.com",
            "allowed.org",
            "",
        ):
            self.assertFalse(host_matches(pattern, host), host)

    def test_exact_patterns(self) -> None:
        """A host without star covers itself."""
        self.assertTrue(host_matches("allowed.com", "allowed.com"))
        self.assertFalse(host_matches("allowed.com", "a.allowed.com"))
        self.assertTrue(host_matches(parse_host_pattern(b"[::1]"), "::1"))

    def test_what_is_no_pattern(self) -> None:
        """There is no pattern for everything, for part of a label or for addresses."""
        for raw in (b"*", b"*.", b"*.*", b"a*.com", b"a.*.com", b"**.com", b"*com", b"*.1.2.3.4"):
            with self.assertRaises(AuthorityError, msg=repr(raw)):
                parse_host_pattern(raw)
        for raw in (b"*.[::1]", b"*.0.0.1", b"", b"*..com", b"*.a..b"):
            with self.assertRaises(AuthorityError, msg=repr(raw)):
                parse_host_pattern(raw)
