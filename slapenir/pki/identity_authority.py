"""The embedded CA of the agents' certificates: a root that can be kept offline, and issuing CAs.

Its files are in STATE/pki.  The root signs issuing CAs, which are constrained to the configured
names, and its key is needed for nothing else.  Every change is made under a lock and takes effect
with one replaced file.  It has nothing to do with the CA that intercepts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from slapenir.errors import NotInForceError, PkiError
from slapenir.pki.authority import LEAF_USAGE, check_authority
from slapenir.pki.ca_book import (
    BOOK,
    Book,
    Entry,
    Revoked,
    Term,
    append_entry,
    locked,
    read_entries,
    write_book,
)
from slapenir.pki.ca_certificates import begin_leaf, cross_signed, root_certificate
from slapenir.pki.ca_files import CRL, CRL_SECONDS, REASONS, TOKENS, CaFiles
from slapenir.pki.constraints import name_constraints, outside
from slapenir.pki.files import check_private_directory, read_guarded, replace, write_new
from slapenir.pki.held import Wanted, new_key, to_pem
from slapenir.pki.key_files import key_pem
from slapenir.pki.revocation import MAX_BYTES, issuer_of, split_lists

BACKDATE = 300.0
_RESTORE = "restore it from a backup"
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@attrs.frozen(slots=True)
class Issued:
    """A signed certificate with its issuers; ``serial`` is in hex, ``not_after`` Unix seconds."""

    chain: tuple[x509.Certificate, ...]
    serial: str
    not_after: float


class IdentityAuthority(CaFiles):
    """The CA in one directory.  What the files say is read anew for each question.

    May be used from several threads and processes at a time.  Everything raises PkiError with what
    is wrong and what to do.
    """

    # Making and reading it.

    @classmethod
    def create(
        cls,
        directory: str,
        *,
        domains: Sequence[str],
        addresses: Sequence[str] = (),
        root_directory: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> IdentityAuthority:
        """Make a root, an issuing CA for ``domains`` and ``addresses``, and an empty list.

        The root's key is written to ``root_directory``, by default beside the rest.  Nothing is
        overwritten: a directory that holds a CA is an error.
        """
        made = cls(directory, clock)
        constraints = name_constraints(domains, addresses)
        try:
            for path in (directory, os.path.join(directory, TOKENS)):
                os.makedirs(path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise PkiError(f"{directory} cannot be made: {error.strerror}") from None
        with locked(directory):
            if os.path.lexists(made._path(BOOK)):
                raise PkiError(f"{directory} holds an identity CA already; it is not overwritten")
            number = made._last_number(0, root_directory) + 1
            root_name, issuing = f"root-{number}", f"issuing-{number + 1}"
            root_key = new_key()
            root = root_certificate(root_key, number, clock())
            key_file = os.path.join(root_directory or directory, f"{root_name}.key")
            write_new(key_file, key_pem(root_key), 0o600)
            replace(made._path(f"{root_name}.pem"), to_pem((root,)), 0o644)
            made._new_issuing(issuing, root_key, root, constraints)
            book = Book((Term(root_name),), (Term(issuing),), made=number + 1)
            made._write_list(book, CRL_SECONDS)
            write_book(directory, attrs.evolve(book, lists=1))
        return made

    @classmethod
    def load(cls, directory: str, clock: Callable[[], float] = time.time) -> IdentityAuthority:
        """Return the CA of a directory, checked to be able to sign (T115); makes nothing."""
        check_private_directory(directory)
        found = cls(directory, clock)
        book = found._book()
        certificate, key = found._signer(book)
        root = found._certificate(book.roots[0].name)
        path, root_path = (
            found._path(f"{one.name}.pem") for one in (book.issuing[0], book.roots[0])
        )
        check_authority(certificate, path, _RESTORE)
        check_authority(root, root_path, _RESTORE)
        if certificate.public_key() != key.public_key():
            raise PkiError(f"{found._path(book.issuing[0].name)}.key is another CA's; restore it")
        try:
            certificate.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            raise PkiError(f"{path} is not signed by {root_path}; {_RESTORE}") from None
        for one, where, option in ((root, root_path, " --root"), (certificate, path, "")):
            if clock() >= one.not_valid_after_utc.timestamp():
                raise PkiError(f"{where} has expired; run: slapenir ca rotate FILE{option}")
            if clock() < one.not_valid_before_utc.timestamp():
                raise PkiError(f"{where} is not valid yet; check the clock")
        return found

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """What clients are to trust: the root, and older ones while a rotation overlaps."""
        return self._in_force(self._book().roots)

    @property
    def root_key_file(self) -> str:
        """The name of the file of the root's key, wherever that is kept."""
        return f"{self._book().roots[0].name}.key"

    @property
    def issuers(self) -> tuple[x509.Certificate, ...]:
        """The issuing CAs whose certificates are good now: what a listener goes by."""
        return self._in_force(self._book().issuing)

    @property
    def stamps(self) -> tuple[str, str]:
        """The files that change whenever the CA or its list does."""
        return self._path(BOOK), self._path(CRL)

    def crl(self) -> bytes:
        """Return the lists of revoked certificates in PEM, one for each issuing CA in force.

        Others that are in the file are left out: an overlap has ended, or a change was cut short.
        """
        try:
            data = read_guarded(self._path(CRL), private=False, limit=MAX_BYTES)
        except FileNotFoundError:
            raise PkiError(f"{self._path(CRL)} is missing; run: slapenir ca crl FILE") from None
        known = {one.subject for one in self.issuers}
        return b"".join(one for one in split_lists(data) if issuer_of(one) in known)

    def entries(self) -> list[tuple[Entry, Revoked | None]]:
        """Return every certificate that was issued, with its revocation if there is one."""
        revoked = {one.serial: one for one in self._book().revoked}
        return [(one, revoked.get(one.serial)) for one in read_entries(self._directory)]

    # Signing.

    def issue(
        self,
        wanted: Wanted,
        public_key: PublicKey,
        *,
        identity: str,
        replaced: x509.Certificate | None = None,
    ) -> Issued:
        """Sign a certificate with the names of ``wanted`` for a key; it is logged first.

        With ``replaced`` only when that one is in force at this moment; raises NotInForceError.

        It begins five minutes ago and never outlives its issuer.  A server's may be used for both
        sides, another one for clients only.
        """
        with locked(self._directory):
            book = self._book()
            if replaced is not None:
                self._check_in_force(book, replaced)
            return self._sign(book, wanted, public_key, identity)

    def enrol(
        self, secret: str, public_key: PublicKey, wanted_of: Callable[[str], Wanted]
    ) -> tuple[str, Issued]:
        """Use a token up and sign for its identity, with the names that ``wanted_of`` gives it.

        Both under one lock: what is revoked meanwhile waits, and then finds the certificate.
        Raises TokenError for a token that is no good.
        """
        with locked(self._directory):
            identity = self.tokens.redeem(secret)
            return identity, self._sign(self._book(), wanted_of(identity), public_key, identity)

    def _sign(self, book: Book, wanted: Wanted, public_key: PublicKey, identity: str) -> Issued:
        issuer, key = self._signer(book)
        constraints = issuer.extensions.get_extension_for_class(x509.NameConstraints).value
        name = outside(constraints, wanted)
        if name:
            raise PkiError(
                f"the issuing CA is not for {name}; add its domain to pki.domains and run: "
                "slapenir ca rotate FILE"
            )
        if not (wanted.common_name or wanted.spiffe or wanted.dns or wanted.addresses):
            raise PkiError("a certificate without a name is nobody's")
        now = self._clock()
        start = max(now - BACKDATE, issuer.not_valid_before_utc.timestamp())
        end = min(now + wanted.lifetime, issuer.not_valid_after_utc.timestamp())
        if end <= now:
            raise PkiError("the issuing CA has expired; run: slapenir ca rotate FILE")
        try:
            builder = begin_leaf(wanted, public_key, issuer, start, end)
        except ValueError as error:
            raise PkiError(f"a certificate cannot say this: {error}") from None
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if wanted.server:
            usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(LEAF_USAGE, critical=True)
        leaf = builder.sign(key, hashes.SHA256())
        serial = f"{leaf.serial_number:x}"
        entry = Entry(serial, identity, book.issuing[0].name, float(int(end)))
        append_entry(self._directory, entry, now)
        return Issued((leaf, issuer, *self._crossing(book)), serial, float(int(end)))

    def make_token(self, identity: str, lifetime: float) -> str:
        """Return the secret of a new enrolment token."""
        return self.tokens.make(identity, lifetime)

    # Revoking.

    def revoke(
        self,
        serial: str | None = None,
        identity: str | None = None,
        certificate: x509.Certificate | None = None,
        reason: str = "unspecified",
        lifetime: float = CRL_SECONDS,
    ) -> list[str]:
        """Revoke one certificate, or all of an identity; return the serials that are new.

        The list is signed at once.  With all of an identity go its tokens that were not used.
        """
        if reason not in REASONS:
            raise PkiError(f"{reason} is not a reason; write one of {', '.join(REASONS)}")
        if certificate is not None:
            serial = f"{certificate.serial_number:x}"
        with locked(self._directory):
            book, now = self._book(), self._clock()
            known = read_entries(self._directory)
            if certificate is not None:
                known += self._unlogged(book, certificate)
            if serial is not None:
                plain = serial.lower().replace(":", "").removeprefix("0x").lstrip("0")
                chosen = [one for one in known if one.serial == plain]
            else:
                chosen = [one for one in known if one.identity == identity and one.not_after > now]
            withdrawn = self.tokens.withdraw(identity) if identity and serial is None else 0
            if not chosen and not withdrawn:
                what = f"the serial {serial}" if serial is not None else f"the identity {identity}"
                raise PkiError(f"no certificate in force was issued with {what}")
            before = {one.serial for one in book.revoked}
            new = [
                Revoked(one.serial, one.issuer, now, reason, one.identity)
                for one in chosen
                if one.serial not in before
            ]
            book = attrs.evolve(book, revoked=(*book.revoked, *new))
            # No issuing CA is new, so the book may be first: what it says is never taken back.
            write_book(self._directory, book)
            self._change(book, lifetime)
            return [one.serial for one in new]

    def _check_in_force(self, book: Book, certificate: x509.Certificate) -> None:
        """Raise NotInForceError for what was revoked or is of an issuing CA that is over.

        Others learn of that from the list, later; a thief must not renew in between.
        """
        now = self._clock()
        good = {one.name for one in book.issuing if one.in_force(now)}
        entries = [one for one in self._unlogged(book, certificate) if one.issuer in good]
        revoked = {(one.serial, one.issuer) for one in book.revoked}
        if not entries or (entries[0].serial, entries[0].issuer) in revoked:
            raise NotInForceError("the certificate is not in force")

    def _unlogged(self, book: Book, certificate: x509.Certificate) -> list[Entry]:
        """Return the entry of a certificate that is ours: a log from a backup may lack it."""
        for term in book.issuing:
            try:
                certificate.verify_directly_issued_by(self._certificate(term.name))
            except (ValueError, TypeError, InvalidSignature):
                continue
            end = certificate.not_valid_after_utc.timestamp()
            return [Entry(f"{certificate.serial_number:x}", "", term.name, end)]
        return []

    def refresh_crl(self, lifetime: float = CRL_SECONDS) -> None:
        """Sign the list anew, so that it does not end."""
        with locked(self._directory):
            self._change(self._book(), lifetime)

    # Rotating.

    def rotate_issuing(
        self,
        overlap: float,
        distrust: bool = False,
        domains: Sequence[str] = (),
        addresses: Sequence[str] = (),
        root_directory: str | None = None,
        lifetime: float = CRL_SECONDS,
    ) -> None:
        """Make a new issuing CA, by the root's key, which has to be at hand.

        What the old one signed stays good for ``overlap`` seconds; with ``distrust`` not at all.
        """
        with locked(self._directory):
            book = self._book()
            key, root = self._root(book, root_directory)
            until = self._clock() + (0.0 if distrust else overlap)
            made = self._last_number(book.made, root_directory) + 1
            name = f"issuing-{made}"
            self._new_issuing(name, key, root, self._constraints(book, domains, addresses))
            self._change(
                attrs.evolve(book, issuing=(Term(name), *_ending(book.issuing, until)), made=made),
                lifetime,
            )

    def rotate_root(
        self,
        overlap: float,
        domains: Sequence[str] = (),
        addresses: Sequence[str] = (),
        root_directory: str | None = None,
        lifetime: float = CRL_SECONDS,
    ) -> None:
        """Make a new root and a new issuing CA; the old root signs the new one, too.

        Who knows only the old root goes on trusting the gateway, for ``overlap`` seconds; with 0
        nothing of the old root is good any more.
        """
        with locked(self._directory):
            book, now = self._book(), self._clock()
            if overlap > 0 and any(one.in_force(now) for one in book.roots[1:]):
                raise PkiError(
                    "the last rotation of the root still overlaps, and clients that know only the "
                    "root before it would be cut off; run first: slapenir ca rotate FILE --finish"
                )
            old_key, old_root = self._root(book, root_directory)
            made = self._last_number(book.made, root_directory)
            root_name, cross, issuing = (
                f"root-{made + 1}",
                f"cross-{made + 1}",
                f"issuing-{made + 2}",
            )
            key = new_key()
            root = root_certificate(key, made + 1, now)
            key_file = os.path.join(root_directory or self._directory, f"{root_name}.key")
            write_new(key_file, key_pem(key), 0o600)
            replace(self._path(f"{root_name}.pem"), to_pem((root,)), 0o644)
            if overlap > 0 and now < old_root.not_valid_after_utc.timestamp():
                crossed = cross_signed(root, old_root, old_key, now)
                replace(self._path(f"{cross}.pem"), to_pem((crossed,)), 0o644)
            else:
                cross = ""
            self._new_issuing(issuing, key, root, self._constraints(book, domains, addresses))
            until = now + overlap
            self._change(
                attrs.evolve(
                    book,
                    roots=(Term(root_name), *_ending(book.roots, until)),
                    issuing=(Term(issuing), *_ending(book.issuing, until)),
                    cross=cross,
                    made=made + 2,
                ),
                lifetime,
            )

    def finish_rotation(self, lifetime: float = CRL_SECONDS) -> None:
        """End every overlap now: only the newest root and issuing CA are good."""
        with locked(self._directory):
            book = self._book()
            self._change(
                attrs.evolve(book, roots=book.roots[:1], issuing=book.issuing[:1], cross=""),
                lifetime,
            )


def _ending(terms: Sequence[Term], until: float) -> tuple[Term, ...]:
    """Return terms that end at ``until`` at the latest."""
    return tuple(
        one if one.until is not None and one.until < until else Term(one.name, until)
        for one in terms
    )
