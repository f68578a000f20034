"""Who is it: exact, one and only one."""

from __future__ import annotations

import ipaddress
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from slapenir.evidence import CertificateNames, Evidence
from slapenir.names import Reason
from slapenir.policy.identities import IdentityTable, Marks

ONE = "spiffe://example.org/agent/1"
TWO = "spiffe://example.org/agent/2"
TABLE = IdentityTable(
    [
        Marks(
            "agent-1",
            spiffe=frozenset({ONE}),
            dns=frozenset({"agent-1.internal"}),
            common=frozenset({"agent-1"}),
            sources=(ipaddress.ip_network("10.99.0.2/32"),),
            uids=frozenset({1001}),
            tokens=frozenset({"sha256:" + "1" * 64}),
        ),
        Marks(
            "agent-2",
            spiffe=frozenset({TWO}),
            dns=frozenset({"agent-2.internal"}),
            common=frozenset({"agent-2"}),
            sources=(ipaddress.ip_network("10.99.1.0/24"), ipaddress.ip_network("fd00::/64")),
            uids=frozenset({0}),
            tokens=frozenset({"sha256:" + "2" * 64}),
        ),
        Marks("nobody"),
    ]
)


class IdentityCase(SynchronousTestCase):
    def who(self, **evidence: object) -> str:
        """Return the identity, or the reason why there is none."""
        found = TABLE.identify(Evidence(**evidence))  # type: ignore[arg-type]
        self.assertEqual(bool(found.name), found.reason is Reason.RULE)
        return found.name or found.reason.value

    def certificate(self, *spiffe: str, dns: tuple[str, ...] = (), cn: tuple[str, ...] = ()) -> str:
        return self.who(certificate=CertificateNames(spiffe, dns, cn))


class CertificateTests(IdentityCase):
    """SPIFFE, else DNS, else the common name."""

    def test_each_kind(self) -> None:
        self.assertEqual(self.certificate(ONE), "agent-1")
        self.assertEqual(self.certificate(dns=("agent-2.internal",)), "agent-2")
        self.assertEqual(self.certificate(cn=("agent-1",)), "agent-1")

    def test_else_means_that_it_is_not_there(self) -> None:
        """T111: a SPIFFE name that is nobody's is not made up for by other names."""
        self.assertEqual(
            self.certificate("spiffe://example.org/x", dns=("agent-1.internal",), cn=("agent-1",)),
            "identity_unknown",
        )
        self.assertEqual(self.certificate(dns=("x.internal",), cn=("agent-1",)), "identity_unknown")
        self.assertEqual(
            self.certificate(ONE, dns=("agent-2.internal",), cn=("agent-2",)), "agent-1"
        )
        self.assertEqual(self.certificate(dns=("agent-1.internal",), cn=("agent-2",)), "agent-1")

    def test_more_than_one_name(self) -> None:
        """T111: two URI names or two CNs are nobody's; DNS names must all be one identity's."""
        self.assertEqual(self.certificate(ONE, TWO), "identity_unknown")
        self.assertEqual(self.certificate(ONE, ONE), "identity_unknown")
        self.assertEqual(self.certificate(cn=("agent-1", "agent-2")), "identity_unknown")
        self.assertEqual(self.certificate(cn=("agent-1", "agent-1")), "identity_unknown")
        self.assertEqual(self.certificate(dns=("agent-1.internal", "x.internal")), "agent-1")
        self.assertEqual(
            self.certificate(dns=("agent-1.internal", "agent-2.internal")), "identity_ambiguous"
        )

    def test_exact_t111(self) -> None:
        """T111: nothing is trimmed, folded, cut at a NUL or split at a comma."""
        for name in (
            "agent-1 ",
            " agent-1",
            "Agent-1",
            "agent-1\0",
            "agent-1\n",
            "agent-1,CN=agent-2",
            "agent-2\0agent-1",
            "agent\u20101",
            "\uff41gent-1",
            "agent-1" * 2000,
            "",
        ):
            self.assertEqual(self.certificate(cn=(name,)), "identity_unknown", repr(name[:20]))
        for name in (ONE + "/", ONE.upper(), "spiffe://EXAMPLE.org/agent/1", ONE + "%00", "*"):
            self.assertEqual(self.certificate(name), "identity_unknown", name)
        for name in ("*.internal", "agent-1.internal.", "AGENT-1.internal", "x.agent-1.internal"):
            self.assertEqual(self.certificate(dns=(name,)), "identity_unknown", name)
        self.assertEqual(self.certificate(), "identity_unknown")


class OtherWaysTests(IdentityCase):
    """Addresses, users, tokens, and all of them together."""

    def test_sources(self) -> None:
        for source, who in (
            ("10.99.0.2", "agent-1"),
            ("10.99.0.3", "identity_unknown"),
            ("10.99.1.0", "agent-2"),
            ("10.99.1.255", "agent-2"),
            ("10.99.2.0", "identity_unknown"),
            ("::ffff:10.99.0.2", "agent-1"),
            ("fd00::1", "agent-2"),
            ("fd00::1%eth0", "agent-2"),
            ("fd00:0:0:1::1", "identity_unknown"),
            ("010.99.0.2", "identity_unknown"),
            ("x", "identity_unknown"),
        ):
            self.assertEqual(self.who(source=source), who, source)

    def test_users_and_tokens(self) -> None:
        self.assertEqual(self.who(unix_uid=1001), "agent-1")
        self.assertEqual(self.who(unix_uid=0), "agent-2")
        self.assertEqual(self.who(unix_uid=1002), "identity_unknown")
        self.assertEqual(self.who(token="sha256:" + "1" * 64), "agent-1")
        self.assertEqual(self.who(token="sha256:" + "3" * 64), "identity_unknown")
        self.assertEqual(self.who(), "identity_unknown")

    def test_what_is_there_must_agree(self) -> None:
        """None or more than one is a refusal, in every combination of parts."""
        parts = {
            "certificate": (CertificateNames((ONE,)), CertificateNames((TWO,))),
            "source": ("10.99.0.2", "10.99.1.1"),
            "unix_uid": (1001, 0),
            "token": ("sha256:" + "1" * 64, "sha256:" + "2" * 64),
        }
        for choice in product((None, 0, 1), repeat=len(parts)):
            evidence = {
                key: values[number]  # type: ignore[index]
                for (key, values), number in zip(parts.items(), choice, strict=True)
                if number is not None
            }
            meant = {number for number in choice if number is not None}
            expected = "identity_ambiguous" if len(meant) == 2 else "identity_unknown"
            if len(meant) == 1:
                expected = f"agent-{meant.pop() + 1}"
            self.assertEqual(self.who(**evidence), expected, choice)

    def test_what_was_shown_and_is_nobodys(self) -> None:
        """A stranger's certificate or a wrong token is not made up for by the address."""
        stranger = CertificateNames(("spiffe://example.org/x",))
        self.assertEqual(self.who(certificate=stranger, source="10.99.0.2"), "identity_unknown")
        self.assertEqual(
            self.who(token="sha256:" + "3" * 64, source="10.99.0.2"), "identity_unknown"
        )
        self.assertEqual(
            self.who(certificate=CertificateNames((ONE,)), source="192.0.2.1"), "agent-1"
        )
