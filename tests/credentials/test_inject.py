"""Injection: what is sent, what is scanned, what is recorded."""

from __future__ import annotations

import base64
from urllib.parse import quote_from_bytes

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from slapenir.credentials.inject import HeaderList, Held, Injection, Injector
from slapenir.credentials.model import (
    BasicSurface,
    BodySurface,
    Credential,
    HeaderSurface,
    QuerySurface,
)
from slapenir.events import CredentialUse
from slapenir.secret import Secret
from tests.credentials.made import BEARER, held, real, token

API_KEY = HeaderSurface(b"x-api-key")
PASSWORD = BasicSurface("password")
USERNAME = BasicSurface("username")
QUERY = QuerySurface(b"key")


def basic(username: bytes, password: bytes, scheme: bytes = b"Basic") -> bytes:
    """Return a Basic value."""
    return scheme + b" " + base64.b64encode(username + b":" + password)


class InjectCase(SynchronousTestCase):
    """Injecting, with the checks that hold every time."""

    def inject(self, *items: Held, headers: HeaderList, target: bytes = b"/v1") -> Injection:
        before = list(headers)
        result = Injector(items).inject(target, headers)
        self.assertEqual(headers, before)
        for item in items:
            self.assertNotIn(real(item), result.view)
            self.assertNotIn(real(item).decode("latin-1"), repr(result))
        return result

    def sent(self, result: Injection, name: bytes) -> list[bytes]:
        return [value for found, value in result.headers if found.lower() == name]


class HeaderTests(InjectCase):
    """Header surfaces."""

    def test_the_usual_request(self) -> None:
        """The placeholder becomes the secret in its place; only it is blanked in the view."""
        item = held(BEARER)
        headers = [
            (b"Host", b"a.org"),
            (b"Authorization", b"Bearer " + item.placeholder),
            (b"Accept", b"*/*"),
        ]
        result = self.inject(item, headers=headers)
        self.assertEqual(
            result.headers,
            [(b"Host", b"a.org"), (b"Authorization", b"Bearer " + real(item)), (b"Accept", b"*/*")],
        )
        self.assertEqual(result.target, b"/v1")
        self.assertEqual(result.uses, (CredentialUse("key", "header:authorization"),))
        self.assertEqual(result.body, ())
        self.assertNotIn(item.placeholder, result.view)
        for part in (b"/v1", b"Host", b"a.org", b"Authorization", b"Bearer", b"*/*"):
            self.assertIn(part, result.view)

    def test_bare_header(self) -> None:
        """Without a scheme the value is the secret alone."""
        item = held(API_KEY)
        result = self.inject(item, headers=[(b"X-Api-Key", item.placeholder)])
        self.assertEqual(result.headers, [(b"X-Api-Key", real(item))])

    def test_scheme_case(self) -> None:
        """Any case of the scheme, and no scheme, are replaced by the surface's."""
        item = held(BEARER)
        for value in (b"bearer ", b"BEARER  ", b"Token ", b""):
            result = self.inject(item, headers=[(b"authorization", value + item.placeholder)])
            self.assertEqual(result.headers, [(b"authorization", b"Bearer " + real(item))])
            self.assertNotIn(item.placeholder, result.view)

    def test_T179_exactly_one_and_ours(self) -> None:
        """T179: the client's own values, doubled and in other case, leave as one: ours."""
        item, own = held(BEARER), token()
        headers = [
            (b"A", b"1"),
            (b"AUTHORIZATION", b"Bearer " + own),
            (b"B", b"2"),
            (b"authorization", b"Bearer " + item.placeholder),
            (b"Authorization", b""),
            (b"C", b"3"),
        ]
        result = self.inject(item, headers=headers)
        self.assertEqual(
            result.headers,
            [(b"A", b"1"), (b"AUTHORIZATION", b"Bearer " + real(item)), (b"B", b"2"), (b"C", b"3")],
        )
        self.assertEqual(len(result.uses), 1)
        self.assertIn(own, result.view)
        self.assertNotIn(item.placeholder, result.view)

    def test_T180_the_clients_own_key_is_replaced_and_seen(self) -> None:
        """T180: an own key never leaves in a credential's header; the scan sees it."""
        item, own = held(BEARER), token()
        for value in (own, b"Bearer " + own, b"Digest nonce=" + own, b""):
            result = self.inject(item, headers=[(b"Authorization", value)])
            self.assertEqual(result.headers, [(b"Authorization", b"Bearer " + real(item))])
            self.assertIn(value, result.view)

    def test_T165_T166_other_places_stay(self) -> None:
        """T165, T166: placeholders in other fields and in the target stay, and are seen."""
        item = held(BEARER)
        for name in (
            b"User-Agent",
            b"Referer",
            b"X-Foo",
            b"Cookie",
            b"Sec-WebSocket-Key",
            b"Authorizatio",
        ):
            headers = [(name, b"a " + item.placeholder)]
            result = self.inject(item, headers=headers, target=b"/x")
            self.assertEqual(result.headers, headers)
            self.assertEqual(result.uses, ())
            self.assertIn(item.placeholder, result.view)
            headers.append((b"Authorization", b"Bearer " + item.placeholder))
            result = self.inject(item, headers=headers)
            self.assertEqual(result.headers[0], headers[0])
            self.assertEqual(result.view.count(item.placeholder), 1)
        target = b"/v1/" + item.placeholder + b"?key=" + item.placeholder
        result = self.inject(item, headers=[], target=target)
        self.assertEqual((result.target, result.uses), (target, ()))
        self.assertEqual(result.view.count(item.placeholder), 2)

    def test_T163_anothers_placeholder_is_seen(self) -> None:
        """T163: a placeholder that is not of this rule is replaced by ours and stays in view."""
        item, other = held(BEARER), held(BEARER, name="other")
        result = self.inject(item, headers=[(b"Authorization", b"Bearer " + other.placeholder)])
        self.assertEqual(result.headers, [(b"Authorization", b"Bearer " + real(item))])
        self.assertIn(other.placeholder, result.view)
        result = self.inject(headers=[(b"Authorization", b"Bearer " + other.placeholder)])
        self.assertEqual(result.headers, [(b"Authorization", b"Bearer " + other.placeholder)])
        self.assertIn(other.placeholder, result.view)

    def test_several_credentials_share_a_header(self) -> None:
        """The one whose placeholder is there, else the first; a second one there is seen."""
        one, two = (
            held(BEARER, name="one"),
            held(HeaderSurface(b"authorization", b"token"), name="two"),
        )
        for value, item, scheme in (
            (b"Bearer " + one.placeholder, one, b"Bearer "),
            (b"Bearer " + two.placeholder, two, b"token "),
            (b"token " + two.placeholder, two, b"token "),
            (b"Bearer " + token(), one, b"Bearer "),
        ):
            result = self.inject(one, two, headers=[(b"Authorization", value)])
            self.assertEqual(self.sent(result, b"authorization"), [scheme + real(item)])
            self.assertEqual([use.credential for use in result.uses], [item.credential.id])
        value = b"Bearer " + two.placeholder + b" " + one.placeholder
        result = self.inject(one, two, headers=[(b"Authorization", value)])
        self.assertEqual(self.sent(result, b"authorization"), [b"Bearer " + real(one)])
        self.assertIn(two.placeholder, result.view)
        self.assertNotIn(one.placeholder, result.view)

    def test_T172_over_two_headers(self) -> None:
        """T172: halves of a placeholder in two fields are no placeholder."""
        item = held(API_KEY)
        half, rest = item.placeholder[:16], item.placeholder[16:]
        headers = [(b"X-A", half), (b"X-B", rest)]
        self.assertEqual(self.inject(item, headers=headers).headers, headers)

    def test_T173_disguised_placeholders_are_not_blanked(self) -> None:
        """T173: another case, an escape or base64 of it stays in the view."""
        item = held(BEARER, placeholder=b"AbCd" + token(28))
        for text in (
            item.placeholder.swapcase(),
            b"%41" + item.placeholder[1:],
            base64.b64encode(item.placeholder),
            item.placeholder + b"x",
            b"-" + item.placeholder,
        ):
            result = self.inject(item, headers=[(b"Authorization", b"Bearer " + text)])
            self.assertIn(text, result.view)

    def test_T175_a_longer_placeholder_wins(self) -> None:
        """T175: where one placeholder begins another each gives its own secret."""
        short = held(BEARER, name="gh", placeholder=b"SLAP_GH")
        long = held(BEARER, name="admin", placeholder=b"SLAP_GH.ADMIN")
        for items in ((short, long), (long, short)):
            for item in items:
                value = b"bearer " + item.placeholder
                result = self.inject(*items, headers=[(b"Authorization", value)])
                self.assertEqual(self.sent(result, b"authorization"), [b"Bearer " + real(item)])
                self.assertNotIn(b"SLAP", result.view)

    def test_when(self) -> None:
        """``present`` adds nothing; ``always`` adds one field and replaces what is there."""
        item = held(HeaderSurface(b"x-api-key", None, "present"))
        self.assertEqual(self.inject(item, headers=[(b"A", b"1")]).headers, [(b"A", b"1")])
        always = held(HeaderSurface(b"x-api-key", None, "always"))
        result = self.inject(always, headers=[(b"A", b"1")])
        self.assertEqual(result.headers, [(b"A", b"1"), (b"X-Api-Key", real(always))])
        self.assertEqual(result.uses, (CredentialUse("key", "header:x-api-key"),))
        result = self.inject(always, headers=[(b"X-API-KEY", token()), (b"A", b"1")])
        self.assertEqual(result.headers, [(b"X-API-KEY", real(always)), (b"A", b"1")])
        both = self.inject(item, always, headers=[])
        self.assertEqual(both.headers, [(b"X-Api-Key", real(always))])


class BasicTests(InjectCase):
    """Basic surfaces and the decoded view."""

    def test_T171_password(self) -> None:
        """T171: the value is decoded, swapped in that part only, and encoded again."""
        item = held(PASSWORD)
        for scheme in (b"Basic", b"basic", b"BASIC"):
            value = basic(b"x", item.placeholder, scheme)
            result = self.inject(item, headers=[(b"Authorization", value)])
            self.assertEqual(result.headers, [(b"Authorization", basic(b"x", real(item)))])
            self.assertEqual(result.uses, (CredentialUse("key", "basic:password"),))
            self.assertNotIn(item.placeholder, result.view)
            self.assertNotIn(value.partition(b" ")[2], result.view)
            self.assertIn(b"x:", result.view)

    def test_T171_username_and_both(self) -> None:
        """T171: the user name alone, and each part by a credential of its own."""
        name, word = held(USERNAME, name="name"), held(PASSWORD, name="word")
        result = self.inject(name, headers=[(b"Authorization", basic(name.placeholder, b"p:q"))])
        self.assertEqual(self.sent(result, b"authorization"), [basic(real(name), b"p:q")])
        value = basic(name.placeholder, word.placeholder)
        result = self.inject(name, word, headers=[(b"Authorization", value)])
        self.assertEqual(self.sent(result, b"authorization"), [basic(real(name), real(word))])
        self.assertEqual(len(result.uses), 2)
        self.assertNotIn(name.placeholder, result.view)
        self.assertNotIn(word.placeholder, result.view)

    def test_T171_the_wrong_part(self) -> None:
        """T171: a placeholder in the other part stays in view, and is not given the secret."""
        item = held(PASSWORD)
        result = self.inject(item, headers=[(b"Authorization", basic(item.placeholder, b"pw"))])
        self.assertEqual(self.sent(result, b"authorization"), [basic(item.placeholder, real(item))])
        self.assertIn(item.placeholder + b":pw", result.view)
        value = basic(item.placeholder, item.placeholder)
        result = self.inject(item, headers=[(b"Authorization", value)])
        self.assertEqual(result.view.count(item.placeholder), 1)

    def test_part_of_a_password(self) -> None:
        """A token inside the part is swapped and the rest stays."""
        item = held(PASSWORD)
        value = basic(b"me", b"oauth:" + item.placeholder)
        result = self.inject(item, headers=[(b"Authorization", value)])
        self.assertEqual(
            self.sent(result, b"authorization"), [basic(b"me", b"oauth:" + real(item))]
        )

    def test_T179_own_password(self) -> None:
        """T179: an own password is replaced and seen, decoded; a second value is dropped."""
        item, own = held(PASSWORD), token()
        headers = [(b"Authorization", basic(b"me", own)), (b"authorization", basic(b"other", own))]
        result = self.inject(item, headers=headers)
        self.assertEqual(result.headers, [(b"Authorization", basic(b"me", real(item)))])
        self.assertIn(b"me:" + own, result.view)
        self.assertIn(b"other:" + own, result.view)

    def test_malformed_values_stay(self) -> None:
        """What is no Basic value is neither swapped nor blanked."""
        item = held(PASSWORD)
        for value in (
            b"Basic %%%" + item.placeholder,
            b"Basic " + item.placeholder + b"=",
            b"Basic " + base64.b64encode(b"x:" + item.placeholder) + b"=",  # a stray pad
            b"Basic",
            b"Bearer " + item.placeholder,
            b"Basic " + base64.b64encode(item.placeholder),
        ):
            result = self.inject(item, headers=[(b"Authorization", value)])
            self.assertEqual((result.headers, result.uses), ([(b"Authorization", value)], ()))
            self.assertIn(value, result.view)

    def test_T162_decoded_without_a_surface(self) -> None:
        """T162: a placeholder in a Basic value is seen where no credential has that surface."""
        item = held(BEARER)
        value = basic(b"x", item.placeholder)
        for items in ((), (held(API_KEY, name="other"),)):
            result = self.inject(*items, headers=[(b"Authorization", value)])
            self.assertEqual(result.headers, [(b"Authorization", value)])
            self.assertIn(b"x:" + item.placeholder, result.view)
        result = self.inject(item, headers=[(b"Authorization", value)])
        self.assertEqual(result.headers, [(b"Authorization", b"Bearer " + real(item))])
        self.assertIn(b"x:" + item.placeholder, result.view)

    def test_basic_and_bearer(self) -> None:
        """A credential with both surfaces answers in the way it was asked."""
        item = held(BEARER, PASSWORD)
        result = self.inject(item, headers=[(b"Authorization", basic(b"git", item.placeholder))])
        self.assertEqual(self.sent(result, b"authorization"), [basic(b"git", real(item))])
        result = self.inject(item, headers=[(b"Authorization", b"Bearer " + item.placeholder)])
        self.assertEqual(self.sent(result, b"authorization"), [b"Bearer " + real(item)])
        result = self.inject(item, headers=[(b"Authorization", basic(b"git", token()))])
        self.assertEqual(self.sent(result, b"authorization"), [basic(b"git", real(item))])
        mixed = [
            (b"Authorization", b"Bearer " + item.placeholder),
            (b"Authorization", basic(b"x", item.placeholder)),
        ]
        result = self.inject(item, headers=mixed)
        self.assertEqual(result.headers, [(b"Authorization", b"Bearer " + real(item))])
        self.assertIn(b"x:" + item.placeholder, result.view)


class QueryTests(InjectCase):
    """Query surfaces."""

    def query(self, item: Held, query: bytes) -> tuple[bytes, bytes]:
        result = self.inject(item, headers=[], target=b"/p/key=1?" + query)
        path, _, rest = result.target.partition(b"?")
        self.assertEqual(path, b"/p/key=1")
        return rest, result.view

    def test_T170_only_with_a_surface(self) -> None:
        """T170: without a query surface nothing in the query is replaced."""
        item = held(BEARER)
        query = b"key=" + item.placeholder
        self.assertEqual(self.query(item, query)[0], query)
        self.assertEqual(
            self.query(held(QUERY), b"k=" + item.placeholder)[0], b"k=" + item.placeholder
        )

    def test_the_rest_is_byte_identical(self) -> None:
        """Only the value of that parameter changes."""
        item = held(QUERY)
        before, after = b"a=1&&b=%2f&KEY=2&xkey=3&a=1&c", b"key2=x;key=y&=&%zz&+"
        query, view = self.query(item, before + b"&key=" + item.placeholder + b"&" + after)
        self.assertEqual(query, before + b"&key=" + real(item) + b"&" + after)
        self.assertNotIn(item.placeholder, view)
        self.assertIn(before, view)

    def test_T179_exactly_one_parameter(self) -> None:
        """T179: doubled, in escapes, empty and without a value: one leaves, with ours."""
        item, own = held(QUERY), token()
        query, view = self.query(
            item, b"a=1&k%65y=" + own + b"&b=2&key=" + item.placeholder + b"&key&c=3"
        )
        self.assertEqual(query, b"a=1&k%65y=" + real(item) + b"&b=2&c=3")
        self.assertIn(own, view)
        self.assertNotIn(item.placeholder, view)
        self.assertEqual(self.query(item, b"key=")[0], b"key=" + real(item))
        self.assertEqual(self.query(item, b"key")[0], b"key=" + real(item))

    def test_T177_the_secret_is_encoded(self) -> None:
        """T177: what would end or add a parameter is percent-encoded."""
        item = held(QUERY, secret=b"a&b=c#d/e?f%g h+" + token(8))
        query, _ = self.query(item, b"x=1&key=" + item.placeholder)
        self.assertEqual(query, b"x=1&key=" + quote_from_bytes(real(item), safe="").encode())
        self.assertNotIn(b"#", query)

    def test_an_encoded_placeholder(self) -> None:
        """A client encodes the signs of a placeholder; an unrelated encoded value is seen."""
        item = held(QUERY, placeholder=b"pl/ace+" + token(8) + b"==")
        encoded = quote_from_bytes(item.placeholder, safe="").encode()
        query, view = self.query(item, b"key=" + encoded)
        self.assertEqual(query, b"key=" + real(item))
        self.assertNotIn(encoded, view)
        query, view = self.query(item, b"key=x%20" + encoded)
        self.assertEqual(query, b"key=" + real(item))
        self.assertIn(encoded, view)

    def test_several_credentials(self) -> None:
        """The one whose placeholder is there, else the first."""
        one, two = held(QUERY, name="one"), held(QUERY, name="two")
        for value, item in ((one.placeholder, one), (two.placeholder, two), (token(), one)):
            result = self.inject(one, two, headers=[], target=b"/?key=" + value)
            self.assertEqual(result.target, b"/?key=" + real(item))
            self.assertEqual(result.uses, (CredentialUse(item.credential.id, "query:key"),))


class ConstructionTests(InjectCase):
    """What an Injector refuses, and the body."""

    def test_T177_secrets_with_line_ends(self) -> None:
        """T177: CR, LF and NUL are refused again here, with the id and without the secret."""
        for bad in (b"\r", b"\n", b"\0", b"\r\nX-Evil: 1"):
            value = token()
            for surface in (BEARER, PASSWORD, QUERY, BodySurface()):
                item = held(surface, name="mine", secret=value + bad)
                error = self.assertRaises(ValueError, Injector, [item])
                self.assertIn("mine", str(error))
                self.assertNotIn(value.decode("ascii"), str(error))

    def test_T231_refused_surfaces(self) -> None:
        """T231: a surface that would be an oracle makes no Injector."""
        for name in (b"sec-websocket-key", b"content-md5", b"digest", b"host"):
            self.assertRaises(ValueError, Injector, [held(HeaderSurface(name))])

    def test_other_refusals(self) -> None:
        """A colon in a user name and an empty placeholder."""
        self.assertRaises(ValueError, Injector, [held(USERNAME, secret=b"a:" + token())])
        Injector([held(PASSWORD, secret=b"a:" + token())])
        made = Credential("key", Secret(token()), ("a.org",), (BEARER,))
        self.assertRaises(ValueError, Injector, [Held(made, b"")])

    def test_T168_body_only_where_asked(self) -> None:
        """T168: pairs for the body come from body surfaces alone."""
        plain, stored = held(BEARER, name="one"), held(BodySurface(), BEARER, name="two")
        result = self.inject(plain, stored, headers=[])
        self.assertEqual(result.body, ((stored.placeholder, real(stored)),))
        self.assertEqual(result.uses, ())

    def test_nothing_held(self) -> None:
        """An empty Injector changes nothing and still makes the view."""
        headers = [(b"Host", b"a.org"), (b"X", b"y")]
        result = self.inject(headers=headers, target=b"/?key=1")
        self.assertEqual((result.target, result.headers, result.uses), (b"/?key=1", headers, ()))
        for part in (b"/?key=1", b"Host", b"a.org", b"X", b"y"):
            self.assertIn(part, result.view)

    def test_T226_no_secret_in_any_repr(self) -> None:
        """T226: the Injector and its parts show none."""
        item = held(BEARER, PASSWORD, QUERY, BodySurface())
        injector = Injector([item])
        text = repr(injector) + repr(item) + repr(injector._headers) + repr(injector._basic)
        self.assertNotIn(real(item).decode("ascii"), text)


ITEM = held(BEARER, QUERY, PASSWORD, name="one")
OTHER = held(API_KEY, name="two")
VALUES = st.sampled_from(
    [
        b"",
        b"text",
        ITEM.placeholder,
        OTHER.placeholder,
        b"Bearer " + ITEM.placeholder,
        b"Bearer " + OTHER.placeholder,
        basic(b"u", ITEM.placeholder),
        basic(OTHER.placeholder, b"p"),
        basic(b"u", b"p"),
    ]
)
NAMES = st.sampled_from([b"Authorization", b"authorization", b"X-Api-Key", b"Accept", b"Cookie"])
TARGETS = st.sampled_from(
    [b"/", b"/?key=1", b"/?key=" + ITEM.placeholder, b"/" + ITEM.placeholder, b"/?a&key&key=2"]
)


class PropertyTests(InjectCase):
    """What holds for every head."""

    @settings(max_examples=300, deadline=None)
    @given(TARGETS, st.lists(st.tuples(NAMES, VALUES), max_size=6))
    def test_T162_secrets_only_on_their_surfaces(self, target: bytes, headers: HeaderList) -> None:
        """T162: a secret is only where its surface is, once; nothing else changes or is lost."""
        result = self.inject(ITEM, OTHER, headers=headers, target=target)
        for name, value in result.headers:
            if name.lower() != b"authorization":
                self.assertNotIn(real(ITEM), value)
            if name.lower() != b"x-api-key":
                self.assertNotIn(real(OTHER), value)
        self.assertLessEqual(len(self.sent(result, b"x-api-key")), 1)
        others = [f for f in headers if f[0] in (b"Accept", b"Cookie")]
        self.assertEqual([f for f in result.headers if f[0] in (b"Accept", b"Cookie")], others)
        self.assertNotIn(real(ITEM), result.target.partition(b"?")[0])
        kept = b" ".join([result.target, *(value for _, value in result.headers)])
        self.assertEqual(bool(result.uses), self.holds_secret(result, kept))

    def holds_secret(self, result: Injection, kept: bytes) -> bool:
        values = self.sent(result, b"authorization")
        decoded = [base64.b64decode(v[6:]) for v in values if v.startswith(b"Basic ")]
        return any(real(item) in text for item in (ITEM, OTHER) for text in (kept, *decoded))

    @settings(max_examples=300, deadline=None)
    @given(TARGETS, st.lists(st.tuples(NAMES, VALUES), max_size=6))
    def test_T174_a_placeholder_that_leaves_is_in_the_view(
        self, target: bytes, headers: HeaderList
    ) -> None:
        """T174: a placeholder that was not swapped is always seen, decoded in Authorization."""
        result = self.inject(ITEM, OTHER, headers=headers, target=target)
        for item in (ITEM, OTHER):
            texts = [result.target]
            for name, value in result.headers:
                texts.append(value)
                if name.lower() == b"authorization" and value.startswith(b"Basic "):
                    texts.append(base64.b64decode(value[6:]))
                elif value.startswith(b"Basic "):
                    self.assertIn(value, result.view)
            if any(item.placeholder in text for text in texts):
                self.assertIn(item.placeholder, result.view)
