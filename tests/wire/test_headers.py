"""Questions over header lists."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from slapenir.wire.headers import (
    allowed_trailers,
    connection_named,
    first,
    tokens,
    values,
    without,
)

HEADERS = [
    (b"Set-Cookie", b"a"),
    (b"Connection", b"Keep-Alive, X-Hop ,,"),
    (b"set-cookie", b"b, c"),
    (b"CONNECTION", b"authorization"),
]


class HeaderTests(SynchronousTestCase):
    """Names match without case; order and casing stay."""

    def test_values_and_first(self) -> None:
        self.assertEqual(values(HEADERS, b"set-cookie"), [b"a", b"b, c"])
        self.assertEqual(values(HEADERS, b"x"), [])
        self.assertEqual(first(HEADERS, b"set-cookie"), b"a")
        self.assertIsNone(first(HEADERS, b"cookie"))

    def test_without(self) -> None:
        kept = without(HEADERS, frozenset([b"connection", b"x"]))
        self.assertEqual(kept, [HEADERS[0], HEADERS[2]])
        self.assertEqual(len(HEADERS), 4)

    def test_t082_connection_named(self) -> None:
        """T082: what Connection names is told, not acted upon."""
        self.assertEqual(
            tokens(HEADERS, b"connection"), [b"keep-alive", b"x-hop", b"authorization"]
        )
        self.assertEqual(
            connection_named(HEADERS), frozenset([b"keep-alive", b"x-hop", b"authorization"])
        )
        self.assertEqual(connection_named([]), frozenset())

    def test_t063_allowed_trailers(self) -> None:
        """T063: control fields go, others stay."""
        trailers = [(b"Content_Length", b"1"), (b"HOST", b"a"), (b"Grpc-Status", b"0")]
        self.assertEqual(allowed_trailers(trailers), [(b"Grpc-Status", b"0")])
