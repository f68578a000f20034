"""The TLS of a listener, against OpenSSL's own client: whom it lets in, and whom it does not."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from slapenir.edge.contracts import EdgeLimits
from slapenir.edge.doorway import ClientAuth, Doorway, Material, Passport, Untrusted
from slapenir.edge.nested import Nested
from slapenir.edge.tls import Tls, TlsError
from slapenir.edge.tlscontext import ServerContexts
from slapenir.errors import PkiError
from slapenir.names import Reason
from slapenir.pki.revocation import Revocations
from tests.support.agents import CLIENT, SERVER, AgentCA, AgentCertificate, spiffe
from tests.support.tls import TestCA

HOST = "gateway.internal"
TOO_LONG = "excessive message size"  # OpenSSL's bound of 100 KB on a chain
OWN = AgentCA("Server CA").issue(dns=[HOST], usage=(SERVER,))
CA = AgentCA()
GOOD = CA.agent("1")


def material(
    anchors: Sequence[x509.Certificate] = (CA.certificate,),
    auth: ClientAuth = ClientAuth.REQUIRED,
) -> Material:
    return Material(OWN.chain, OWN.key, auth, tuple(anchors))


def client(shown: AgentCertificate | None = GOOD, newest: int | None = None) -> SSL.Connection:
    """Return a client that shows a certificate, whatever it is."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    if newest is not None:
        context.set_max_proto_version(newest)
    if shown is not None:
        context.use_certificate(shown.certificate)
        context.use_privatekey(shown.key)
        for issuer in shown.issuers:
            context.add_extra_chain_cert(issuer)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    return connection


def shake(one: Tls, two: Tls) -> None:
    """Let a client and a server shake hands.  Raises TlsError of either."""
    to_two = one.start()
    while to_two:
        _, to_one = two.feed(to_two)
        _, to_two = one.feed(to_one) if to_one else (b"", b"")
    if not two.up:
        raise AssertionError("the handshake did not end")


class DoorwayCase(SynchronousTestCase):
    def enter(
        self, doorway: Doorway, shown: AgentCertificate | None = GOOD, newest: int | None = None
    ) -> Passport | None:
        """Return what the doorway makes of a client.  Raises TlsError or Untrusted."""
        server = Tls(doorway.connection())
        shake(Tls(client(shown, newest)), server)
        return doorway.passport(server.connection)

    def reason(self, doorway: Doorway, shown: AgentCertificate | None) -> str:
        """Return who a client is, or why it is nobody, with TLS 1.3 and 1.2 alike."""
        found = []
        for newest in (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION):
            try:
                passport = self.enter(doorway, shown, newest)
                found.append("|".join(passport.names.spiffe) if passport else "nobody")
            except TlsError as error:
                found.append(error.reason)
            except Untrusted as error:
                found.append(f"{error.reason.value}: {error.detail}".rstrip(": "))
        self.assertEqual(found[0], found[1])
        return found[0]


class CertificateTests(DoorwayCase):
    """T104: a certificate that is wrong in any one way makes nobody."""

    def test_t104_good_ones(self) -> None:
        """The controls: an EC and an RSA key, with and without an issuing CA."""
        doorway = Doorway(material())
        self.assertEqual(self.reason(doorway, GOOD), spiffe("1"))
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.assertEqual(self.reason(doorway, CA.agent("1", key=key)), spiffe("1"))
        self.assertEqual(self.reason(doorway, CA.agent("1", usage=(SERVER, CLIENT))), spiffe("1"))
        issuing = AgentCA("Issuing", CA, 0)
        self.assertEqual(self.reason(doorway, issuing.agent("1")), spiffe("1"))
        only = Doorway(material([issuing.certificate]))
        self.assertEqual(self.reason(only, issuing.agent("1")), spiffe("1"))
        # An issuing CA as the anchor means that one only, not what its root signed besides.
        self.assertIn("unable to", self.reason(only, GOOD))

    def test_t104_wrong_ones(self) -> None:
        doorway = Doorway(material())
        other, twin = AgentCA("Other CA"), AgentCA()
        no_ca = AgentCA("Not a CA", CA, ca=False)
        bounded = AgentCA("Bounded", CA, 0)
        beyond = AgentCA("Beyond", bounded)
        far = beyond.agent("1")
        deep = CA
        issuers: tuple[x509.Certificate, ...] = ()
        for number in range(8):
            deep = AgentCA(f"Level {number}", deep)
            issuers = (deep.certificate, *issuers)
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
        for wrong, phrase in (
            (None, "peer did not return a certificate"),
            (CA.agent("1", starts=-3, ends=-1), "certificate has expired"),
            (CA.agent("1", starts=1, ends=3), "certificate is not yet valid"),
            (other.agent("1"), "unable to get local issuer certificate"),
            (twin.agent("1"), "unable to get local issuer certificate|signature failure"),
            (CA.agent("1", usage=(SERVER,)), "unsuitable certificate purpose"),
            (CA.agent("1", usage=None), "certificate_refused: it does not say"),
            (CA.agent("1", ca=True), "certificate_refused: it is a CA"),
            (AgentCertificate(CA.certificate, CA.key), "unsuitable certificate purpose"),
            (no_ca.agent("1"), "invalid CA certificate"),
            (
                AgentCertificate(
                    far.certificate, far.key, (beyond.certificate, bounded.certificate)
                ),
                "path length constraint exceeded",
            ),
            (CA.agent("1", key=weak), "certificate key too weak|ee key too small"),
        ):
            self.assertRegex(self.reason(doorway, wrong), phrase)
        leaf = deep.agent("1")
        chain = AgentCertificate(leaf.certificate, leaf.key, issuers)
        self.assertRegex(self.reason(doorway, chain), "too long|unable to")

    def test_t104_a_chain_of_100(self) -> None:
        """A hundred certificates are not followed."""
        leaf = CA.agent("1")
        chain = AgentCertificate(leaf.certificate, leaf.key, (CA.certificate,) * 100)
        self.assertIn(
            self.reason(Doorway(material()), chain), (spiffe("1"), "excessive message size")
        )

    def test_t104_a_large_certificate(self) -> None:
        """64 KiB of names: it is read or refused, and it is nobody else."""
        names = [x509.DNSName(f"n{number}.{'x' * 50}.internal") for number in range(1000)]
        large = CA.issue(
            [],
            extra=x509.SubjectAlternativeName(
                [*names, x509.UniformResourceIdentifier(spiffe("1"))]
            ),
        )
        self.assertGreater(len(large.certificate.public_bytes(Encoding.DER)), 64 << 10)
        self.assertIn(
            self.reason(Doorway(material()), large), (spiffe("1"), "excessive message size")
        )

    def test_t104_anothers_key(self) -> None:
        """Somebody else's certificate without its key: a bad CertificateVerify."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate(GOOD.certificate)
        with self.assertRaises(SSL.Error):
            context.use_privatekey(CA.agent("2").key)

    def test_optional_and_none(self) -> None:
        optional = Doorway(material(auth=ClientAuth.OPTIONAL))
        self.assertEqual(self.reason(optional, None), "nobody")
        self.assertEqual(self.reason(optional, GOOD), spiffe("1"))
        self.assertIn("unable to get", self.reason(optional, AgentCA("Other").agent("1")))
        self.assertEqual(self.reason(Doorway(material((), ClientAuth.NONE)), GOOD), "nobody")

    def test_material_that_does_not_fit(self) -> None:
        """T115: a key of another certificate; nothing changes where a doorway is in use."""
        with self.assertRaises(PkiError):
            Doorway(Material(OWN.chain, GOOD.key))
        doorway = Doorway(material())
        with self.assertRaises(PkiError):
            doorway.replace(Material(OWN.chain, GOOD.key))
        self.assertEqual(self.reason(doorway, GOOD), spiffe("1"))


class RevocationTests(DoorwayCase):
    """T105: lists of revoked certificates."""

    def doorway(self, data: bytes | None, required: bool = True) -> Doorway:
        found = Doorway(material(), required)
        found.revise(None if data is None else Revocations.parse(data, [CA.certificate]))
        return found

    def test_t105(self) -> None:
        other = CA.agent("2")
        for data, who, reason in (
            (CA.crl(), GOOD, spiffe("1")),
            (CA.crl(other), GOOD, spiffe("1")),
            (CA.crl(GOOD, other), GOOD, "certificate_revoked"),
            (CA.crl(starts=-3, ends=-1), GOOD, "revocation_unknown"),
            (CA.crl(GOOD, starts=-3, ends=-1), GOOD, "certificate_revoked"),
            (CA.crl(starts=1, ends=3), GOOD, "revocation_unknown"),
            (None, GOOD, "revocation_unknown"),
        ):
            self.assertEqual(self.reason(self.doorway(data), who), reason)

    def test_t105_where_it_is_not_required(self) -> None:
        """No list is no hindrance then; one that names the certificate still is."""
        for data, reason in (
            (None, spiffe("1")),
            (CA.crl(starts=-3, ends=-1), spiffe("1")),
            (CA.crl(GOOD), "certificate_revoked"),
            (CA.crl(GOOD, starts=-3, ends=-1), "certificate_revoked"),
        ):
            self.assertEqual(self.reason(self.doorway(data, required=False), GOOD), reason)

    def test_t105_an_issuer_that_was_revoked(self) -> None:
        """The root's list names the issuing CA: nothing that one signed is good, old or new."""
        root = AgentCA("Root")
        issuing = AgentCA("Issuing", root)
        anchors = [root.certificate, issuing.certificate]
        shown = issuing.agent("1")
        for lists, reason in (
            (issuing.crl(), spiffe("1")),
            (issuing.crl() + root.crl(), spiffe("1")),
            (issuing.crl() + root.crl(AgentCertificate(issuing.certificate, issuing.key)),
             "certificate_revoked"),
            (root.crl(), "revocation_unknown"),
        ):  # fmt: skip
            doorway = Doorway(material(anchors), True)
            doorway.revise(Revocations.parse(lists, anchors))
            self.assertEqual(self.reason(doorway, shown), reason)

    def test_t105_an_issuer_two_above_that_was_revoked(self) -> None:
        """Every CA is an anchor, so OpenSSL ends at the lowest; the root revoked the middle one."""
        root = AgentCA("Root")
        middle = AgentCA("Middle", root)
        lowest = AgentCA("Lowest", middle)
        anchors = [root.certificate, middle.certificate, lowest.certificate]
        shown = lowest.agent("1")
        lists = lowest.crl() + middle.crl()
        for more, reason in (
            (root.crl(), spiffe("1")),
            (root.crl(AgentCertificate(middle.certificate, middle.key)), "certificate_revoked"),
        ):
            doorway = Doorway(material(anchors), True)
            doorway.revise(Revocations.parse(lists + more, anchors))
            self.assertEqual(self.reason(doorway, shown), reason)

    def test_t105_the_chain_ends_with_its_first_certificate(self) -> None:
        """An issuer that ends before the certificate cuts what is open."""
        now = [time.time()]
        root = AgentCA("Root")
        doorway = Doorway(material([root.certificate]), False, lambda: now[0])
        passport = self.enter(doorway, root.agent("1", ends=1000))
        assert passport is not None
        now[0] = root.certificate.not_valid_after_utc.timestamp() - 1
        self.assertIsNone(doorway.objection(passport))
        now[0] += 1
        self.assertIs(doorway.objection(passport), Reason.CERTIFICATE_EXPIRED)

    def test_a_live_connection(self) -> None:
        """objection says from when on a certificate is no good any more."""
        now = [time.time()]
        doorway = Doorway(material(), True, lambda: now[0])
        doorway.revise(Revocations.parse(CA.crl(), [CA.certificate]))
        passport = self.enter(doorway)
        assert passport is not None
        self.assertIsNone(doorway.objection(passport))
        doorway.revise(Revocations.parse(CA.crl(GOOD), [CA.certificate]))
        self.assertIs(doorway.objection(passport), Reason.CERTIFICATE_REVOKED)
        doorway.revise(None)
        self.assertIs(doorway.objection(passport), Reason.REVOCATION_UNKNOWN)
        now[0] = passport.not_after
        self.assertIs(doorway.objection(passport), Reason.CERTIFICATE_EXPIRED)
        now[0] -= 60
        doorway.replace(material([AgentCA("New").certificate]))
        self.assertIs(doorway.objection(passport), Reason.CERTIFICATE_REFUSED)


class SessionTests(DoorwayCase):
    """T106, T107, T109: nothing is resumed, so every connection shows its certificate."""

    def resumed(self, first: SSL.Connection, second: SSL.Connection, newest: int) -> bool:
        """Whether a session of one server connection stands in for a certificate at another.

        The client shows its certificate to the first only: a second one that lets it in has
        resumed.
        """
        one = client(None, newest)
        one.use_certificate(GOOD.certificate)
        one.use_privatekey(GOOD.key)
        peer, server = Tls(one), Tls(first)
        shake(peer, server)
        peer.feed(server.send(b"tickets would be here by now"))
        session = one.get_session()
        assert session is not None
        again = SSL.Connection(one.get_context(), None)
        again.set_connect_state()
        again.set_session(session)
        try:
            shake(Tls(again), Tls(second))
        except TlsError as error:
            self.assertEqual(error.reason, "peer did not return a certificate")
            return False
        return True

    def test_t106_t107(self) -> None:
        doorway, elsewhere = Doorway(material()), Doorway(material())
        inner = ServerContexts(TestCA().mint, EdgeLimits())  # type: ignore[arg-type]
        ordinary = SSL.Context(SSL.TLS_METHOD)
        ordinary.use_certificate(OWN.certificate)
        ordinary.use_privatekey(OWN.key)
        ordinary.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        ordinary.set_session_id(b"control")

        def control() -> SSL.Connection:
            connection = SSL.Connection(ordinary, None)
            connection.set_accept_state()
            return connection

        for newest in (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION):
            self.assertTrue(self.resumed(control(), control(), newest))
            for first in (
                doorway.connection(),
                elsewhere.connection(),
                inner.connection(HOST, ""),
                control(),
            ):
                self.assertFalse(self.resumed(first, doorway.connection(), newest))

    def test_t106_revoked_in_between(self) -> None:
        """The session of a certificate that has been revoked opens nothing."""
        doorway = Doorway(material(), True)
        doorway.revise(Revocations.parse(CA.crl(), [CA.certificate]))
        one = client()
        server = Tls(doorway.connection())
        shake(Tls(one), server)
        self.assertIsNotNone(doorway.passport(server.connection))
        session = one.get_session()
        assert session is not None
        doorway.revise(Revocations.parse(CA.crl(GOOD), [CA.certificate]))
        again = SSL.Connection(one.get_context(), None)
        again.set_session(session)
        again.set_connect_state()
        server = Tls(doorway.connection())
        shake(Tls(again), server)
        with self.assertRaises(Untrusted) as caught:
            doorway.passport(server.connection)
        self.assertIs(caught.exception.reason, Reason.CERTIFICATE_REVOKED)

    def test_t100_alpn(self) -> None:
        for offered, chosen in (([b"h2", b"http/1.1"], b"http/1.1"), ([], b""), ([b"h2"], None)):
            peer = client()
            if offered:
                peer.set_alpn_protos(offered)
            try:
                shake(Tls(peer), Tls(Doorway(material()).connection()))
                self.assertEqual(peer.get_alpn_proto_negotiated(), chosen)
            except TlsError as error:
                self.assertIsNone(chosen)
                self.assertIn("application protocol", error.reason)


class NestedTests(DoorwayCase):
    """TLS in TLS: bytes, ends and failures of either layer."""

    def pair(self) -> tuple[Nested, Nested]:
        """Return a client and a server whose two handshakes are done."""
        outer_client, outer_server = Tls(client()), Tls(Doorway(material()).connection())
        shake(outer_client, outer_server)
        inner = ServerContexts(TestCA().mint, EdgeLimits())  # type: ignore[arg-type]
        one = Nested(outer_client, Tls(client(None)))
        two = Nested(outer_server, Tls(inner.connection(HOST, "")))
        to_two = one.start()
        self.assertEqual(two.start(), b"")
        while to_two:
            _, to_one = two.feed(to_two)
            _, to_two = one.feed(to_one) if to_one else (b"", b"")
        self.assertTrue(one.up and two.up)
        return one, two

    def test_bytes(self) -> None:
        one, two = self.pair()
        data = bytes(range(256)) * 400
        for size in (1, 1000, 16384, len(data)):
            record = one.send(data[:size])
            got = b"".join(two.feed(record[at : at + 777])[0] for at in range(0, len(record), 777))
            self.assertEqual(got, data[:size])
            self.assertNotIn(data[:64] if size > 64 else b"\0\1\2\3", record)
        self.assertFalse(two.busy)

    def test_close_notify_of_both(self) -> None:
        one, two = self.pair()
        two.feed(one.close())
        self.assertTrue(two.ended)

    def test_an_inner_failure_is_told_through_the_outer_layer(self) -> None:
        one, two = self.pair()
        rubbish = one._outer.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with self.assertRaises(TlsError) as caught:
            two.feed(rubbish)
        self.assertNotIn(b"\x15\x03\x03\x00\x02", caught.exception.alert)
        with self.assertRaises(TlsError):
            one.feed(caught.exception.alert)
