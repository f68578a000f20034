"""The forms of a secret: each is found among other bytes and overwritten in its alphabet."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.names import Form
from slapenir.scan.engine import Engine
from slapenir.scan.forms import SHORTEST, patterns_of, replacements_of
from slapenir.scan.rewrite import Redactions, rewrite_whole
from tests.scan.samples import made_up, redactions_of

SECRET = made_up(43, seed=2, prefix=b"sk-x-")
STANDS_IN = made_up(43, seed=3, prefix=b"sk-x-")
AWKWARD = b'a/b"c\\d+e=f<g>&h%i' + made_up(10, seed=4)
printable = st.binary(min_size=8, max_size=40).map(lambda b: bytes(0x21 + c % 94 for c in b))


class FoundTests(SynchronousTestCase):
    """Each spelling is overwritten at the same length and nothing of it stays."""

    def forms_found(self, secret: bytes, text: bytes) -> set[Form]:
        redactions = redactions_of([secret], [None])
        output, hits = rewrite_whole(redactions, text)
        self.assertEqual(len(output), len(text))
        self.assertEqual(redactions.engine.scan(output), [])
        return {form for _, form in hits}

    def test_basic_composites(self) -> None:
        """T124, T234: Basic credentials with the secret as password, for any user's length."""
        for size in range(6):
            coded = base64.b64encode(b"u" * size + b":" + SECRET)
            with self.subTest(size=size):
                self.assertEqual(self.forms_found(SECRET, b"Basic " + coded), {Form.BASE64})

    def test_basic_decodes_to_no_secret(self) -> None:
        """T234: what is left of a Basic composite has at most the edge bytes of the secret."""
        redactions = redactions_of([SECRET], [None])
        for size in range(6):
            output, _ = rewrite_whole(redactions, base64.b64encode(b"u" * size + b":" + SECRET))
            plain = base64.b64decode(output)
            self.assertNotIn(SECRET[1:-1], plain)
            self.assertIn(b"X" * (len(SECRET) - 2), plain)

    def test_base64_of_text_around_it(self) -> None:
        """T123: at every alignment, padded or not, both alphabets, inside longer base64."""
        secret = made_up(40, seed=5, alphabet=b"?>~" + SECRET)
        for before in range(7):
            for after in range(4):
                text = b"p" * before + secret + b"s" * after
                for coded in (base64.b64encode(text), base64.urlsafe_b64encode(text)):
                    self.assertTrue(self.forms_found(secret, coded))
                    self.assertTrue(self.forms_found(secret, coded.rstrip(b"=")))

    def test_base64_in_json_with_escaped_slash(self) -> None:
        """T124: ``\\/`` for the slash of base64."""
        secret = b"???>>>" * 5
        coded = base64.b64encode(secret)
        self.assertIn(b"/", coded)
        self.assertEqual(self.forms_found(secret, coded.replace(b"/", b"\\/")), {Form.BASE64})

    def test_hex(self) -> None:
        """T125: lower, upper and mixed case, and with escapes or separators."""
        plain = SECRET.hex()
        mixed = "".join(c.upper() if i % 3 else c for i, c in enumerate(plain))
        pairs = [plain[i : i + 2] for i in range(0, len(plain), 2)]
        spellings = [plain, plain.upper(), mixed, "".join("\\x" + p for p in pairs)]
        spellings += [s.join(pairs) for s in (":", " ")]
        spellings += [s.join("0x" + p for p in pairs) for s in (",", ", ")]
        for spelling in spellings:
            self.assertEqual(self.forms_found(SECRET, spelling.encode()), {Form.HEX})

    def test_percent(self) -> None:
        """T126: the minimum, every byte, both cases, and every byte twice."""
        minimal = quote(AWKWARD, safe="").encode()
        lower = re.sub(rb"%..", lambda m: m.group().lower(), minimal)
        every = b"".join(b"%%%02X" % c for c in AWKWARD)
        twice = every.replace(b"%", b"%25")
        for text in (minimal, lower, every, every.lower(), twice, b"?key=" + minimal + b"&x=1"):
            self.assertEqual(self.forms_found(AWKWARD, text), {Form.PERCENT})

    def test_percent_as_encoders_do(self) -> None:
        """T126: Python's quote, JavaScript's two, a query, a form; AWS keys hold / and +."""
        secret = made_up(30, 17) + b"a/b+c=d ~*'(e)@f:g#h"
        for safe in ("", "/", "!'()*", "!$&'()*+,;=:@/?", "!$&'()*+,;=:@/?#"):
            text = quote(secret, safe=safe).encode()
            self.assertEqual(self.forms_found(secret, text), {Form.PERCENT}, safe)
            lower = re.sub(rb"%..", lambda m: m.group().lower(), text)
            self.assertEqual(self.forms_found(secret, lower), {Form.PERCENT}, safe)
        form = quote_plus(secret, safe="*").replace("~", "%7E").encode()
        self.assertEqual(self.forms_found(secret, form), {Form.PERCENT})

    def test_json_as_encoders_do(self) -> None:
        """T127: Gson escapes =, .NET + and ', PHP /, and most what is not ASCII."""
        text = (made_up(30, 18) + b"a/b+c=d<e>f&g'h`i\"==").decode()
        for secret in (text, text + "\u00e9\U0001f511"):
            for marks, spelling, slash in (
                ("", "\\u%04x", "/"),
                ("", "\\u%04x", "\\/"),
                ("<>&", "\\u%04x", "/"),
                ("<>&='", "\\u%04x", "/"),
                ("<>&'+`", "\\u%04X", "/"),
            ):
                for ascii_only in (False, True):
                    plain = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
                    if spelling[-1] == "X":
                        plain = re.sub(r"\\u.{4}", lambda m: "\\u" + m.group()[2:].upper(), plain)
                        plain = plain.replace('\\"', "\\u0022")
                    plain = plain.replace("/", slash)
                    for mark in marks:
                        plain = plain.replace(mark, spelling % ord(mark))
                    found = self.forms_found(secret.encode(), plain.encode())
                    self.assertEqual(found, {Form.JSON}, plain)

    def test_json(self) -> None:
        """T127: ``\\uXXXX`` for all, in either case, also in a nested string, and the minimum."""
        every = b"".join(b"\\u%04x" % c for c in AWKWARD)
        upper = b"".join(b"\\u%04X" % c for c in AWKWARD)
        minimal = json.dumps(AWKWARD.decode()).encode()[1:-1]
        go = minimal.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
        for text in (every, upper, minimal, minimal.replace(b"/", b"\\/"), go):
            self.assertEqual(self.forms_found(AWKWARD, text), {Form.JSON}, text)
        self.assertEqual(
            self.forms_found(AWKWARD, json.dumps(every.decode()).encode()), {Form.JSON}
        )

    def test_wide(self) -> None:
        """T131: UTF-16 and UTF-32, either order, with or without a byte order mark."""
        for coding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
            text = b"\0{" + ("t=" + SECRET.decode() + ";").encode(coding)
            self.assertEqual(self.forms_found(SECRET, text), {Form.UTF16})

    def test_beside_bytes_that_are_not_text(self) -> None:
        """T139: a byte that is not UTF-8 beside the secret changes nothing."""
        for text in (b"\xff" + SECRET, SECRET + b"\xff", b"\xc3" + SECRET + b"\x80"):
            self.assertEqual(self.forms_found(SECRET, text), {Form.RAW})

    def test_not_utf8(self) -> None:
        """T148: a value that is not text has all forms; as text it is taken for Latin-1."""
        secret = b"\xff\xfe" + SECRET
        self.assertEqual(self.forms_found(secret, secret), {Form.RAW})
        self.assertEqual(
            self.forms_found(secret, secret.decode("latin-1").encode("utf-16-le")), {Form.UTF16}
        )

    def test_nothing_else_is_touched(self) -> None:
        """T144: text that comes within a byte of each form stays as it is."""
        redactions = redactions_of([SECRET], [STANDS_IN])
        for pattern in redactions.engine.patterns:
            for near in (pattern.data[:-1], pattern.data[1:], pattern.data[:-1] + b"!"):
                self.assertEqual(rewrite_whole(redactions, near), (near, {}))

    def test_out_of_scope(self) -> None:
        """T123, T124, T128, T130, T132: what the page says is not found is not found."""
        engine = Engine(patterns_of(SECRET, 0))
        coded = base64.b64encode(base64.b64encode(SECRET))
        wrapped = base64.encodebytes(b"x" * 40 + SECRET)
        html = b"".join(b"&#%d;" % c for c in SECRET)
        dashes = b"-".join(SECRET[i : i + 1] for i in range(len(SECRET)))
        texts = [coded, wrapped, html, dashes, base64.b32encode(SECRET), SECRET[::-1]]
        for text in [*texts, SECRET.swapcase()]:
            self.assertEqual(engine.scan(text), [])


class PatternTests(SynchronousTestCase):
    """What ``patterns_of`` promises."""

    @settings(deadline=None, max_examples=80)
    @given(printable, printable)
    def test_fill_has_the_length(self, value: bytes, other: bytes) -> None:
        placeholder = (other * len(value))[: len(value)]
        for chosen in (None, placeholder, other):
            patterns = patterns_of(value, 7, chosen)
            self.assertEqual({p.owner for p in patterns}, {7})
            self.assertEqual(len({p.data for p in patterns}), len(patterns))
            for pattern in patterns:
                self.assertEqual(len(pattern.fill), len(pattern.data))
                self.assertGreaterEqual(len(pattern.data), SHORTEST)

    @settings(deadline=None, max_examples=80)
    @given(printable, printable)
    def test_replacements_are_in_the_order_of_patterns(self, value: bytes, other: bytes) -> None:
        """The order depends on the value alone, so one engine serves every placeholder."""
        data = [p.data for p in patterns_of(value, 0)]
        self.assertEqual(data, [p.data for p in patterns_of(value, 3, other)])
        self.assertEqual([len(r) for r in replacements_of(value, other)], [len(d) for d in data])

    def test_replacement_is_the_same_form_of_the_placeholder(self) -> None:
        patterns = {p.data: p.fill for p in patterns_of(SECRET, 0, STANDS_IN)}
        self.assertEqual(patterns[SECRET], STANDS_IN)
        self.assertEqual(patterns[SECRET.hex().encode()], STANDS_IN.hex().encode())
        wide = SECRET.decode().encode("utf-16-le")
        self.assertEqual(patterns[wide].decode("utf-16-le").encode(), STANDS_IN)
        coded = base64.b64encode(SECRET)[: len(SECRET) * 8 // 6]
        self.assertEqual(patterns[coded], base64.b64encode(STANDS_IN)[: len(coded)])

    def test_fill_without_placeholder_stays_in_the_alphabet(self) -> None:
        alphabets = {
            Form.BASE64: rb"[A-Za-z0-9+/=\\]+",
            Form.BASE64URL: rb"[A-Za-z0-9_-]+",
            Form.HEX: rb"[0-9a-fA-Fx\\:, ]+",
            Form.PERCENT: rb"([A-Za-z0-9._~-]|%[0-9a-fA-F]{2})+",
        }
        for pattern in patterns_of(AWKWARD, 0):
            if pattern.form in alphabets:
                self.assertRegex(pattern.fill, b"^" + alphabets[pattern.form] + b"$")

    def test_short_values_are_refused(self) -> None:
        """T148: seven bytes are too few; eight are enough."""
        for value in (b"", b"a", made_up(7)):
            self.assertRaises(ValueError, patterns_of, value, 0)
        self.assertTrue(patterns_of(made_up(8), 0))

    def test_long_value(self) -> None:
        """T148: an 8 KiB one-line value is found in each of its forms, and only when whole."""
        secret = made_up(8192, seed=9)
        patterns = patterns_of(secret, 0)
        engine = Engine(patterns)
        redactions = Redactions(engine, [p.fill for p in patterns])
        for pattern in patterns:
            text = b"<" + pattern.data + b">"
            self.assertEqual([m.start for m in engine.scan(text)], [1])
            self.assertNotIn(pattern.data, rewrite_whole(redactions, text)[0])
            altered = b"<!" + pattern.data[1:] + b">"
            self.assertEqual(engine.scan(altered), [])

    def test_repr_shows_no_value(self) -> None:
        """T157: neither a pattern nor a list of them prints the secret."""
        text = repr(patterns_of(SECRET, 0))
        self.assertNotIn(SECRET.decode(), text)
        self.assertNotIn(SECRET.hex(), text)
        self.assertIn("raw", text)
