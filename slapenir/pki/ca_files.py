"""The files of the identity CA: which there are, and what is read from and written to them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from slapenir.errors import PkiError
from slapenir.pki.ca_book import Book, Term, read_book, write_book
from slapenir.pki.ca_certificates import issuing_certificate, signed_list
from slapenir.pki.constraints import name_constraints
from slapenir.pki.files import replace
from slapenir.pki.held import new_key, read_chain, read_key, to_pem
from slapenir.pki.key_files import key_pem
from slapenir.pki.tokens import TokenFiles

_NUMBERED = re.compile(r"(?:root|cross|issuing)-([0-9]{1,9})\.(?:pem|key)", re.ASCII)
CRL, TOKENS = "crl.pem", "tokens"
CRL_SECONDS = 7 * 86400.0
REASONS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}


class CaFiles:
    """The directory of a CA; ``clock`` is Unix time.  What is read raises PkiError."""

    def __init__(self, directory: str, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

    @property
    def tokens(self) -> TokenFiles:
        """The enrolment tokens that were given out."""
        return TokenFiles(self._path(TOKENS), self._clock)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _book(self) -> Book:
        return read_book(self._directory)

    def _certificate(self, name: str) -> x509.Certificate:
        try:
            return read_chain(self._path(f"{name}.pem"))[0]
        except FileNotFoundError:
            raise PkiError(f"{self._path(name)}.pem is missing; restore it from a backup") from None

    def _in_force(self, terms: Sequence[Term]) -> tuple[x509.Certificate, ...]:
        now = self._clock()
        return tuple(self._certificate(one.name) for one in terms if one.in_force(now))

    def _signer(self, book: Book) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        name = book.issuing[0].name
        try:
            return self._certificate(name), read_key(self._path(f"{name}.key"))
        except FileNotFoundError:
            raise PkiError(f"{self._path(name)}.key is missing; restore it from a backup") from None

    def _root(
        self, book: Book, directory: str | None
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        name = book.roots[0].name
        path = os.path.join(directory or self._directory, f"{name}.key")
        try:
            key = read_key(path)
        except FileNotFoundError:
            raise PkiError(
                f"{path} is missing: bring the root's key back for this step; if it is lost, move "
                f"{self._directory} away, run: slapenir ca init FILE, and enrol every agent again"
            ) from None
        root = self._certificate(name)
        if root.public_key() != key.public_key():
            raise PkiError(f"{path} is not the key of {name}.pem")
        return key, root

    def _last_number(self, made: int, root_directory: str | None) -> int:
        """Return the highest number that a file of the CA has, ``made`` at least.

        One that died in the middle of a rotation may have left some that the book does not know,
        and a directory for roots may hold another CA's.  None of them is ever overwritten.
        """
        names = []
        for place in (self._directory, root_directory or self._directory):
            try:
                names += os.listdir(place)
            except OSError as error:
                raise PkiError(f"{place} cannot be read: {error.strerror}") from None
        numbers = [int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))]
        return max([made, *numbers])

    def _crossing(self, book: Book) -> tuple[x509.Certificate, ...]:
        """Return the new root as the old one signed it, while somebody may know only that."""
        now = self._clock()
        if not book.cross or not any(one.in_force(now) for one in book.roots[1:]):
            return ()
        return (self._certificate(book.cross),)

    def _constraints(
        self, book: Book, domains: Sequence[str], addresses: Sequence[str]
    ) -> x509.NameConstraints:
        if domains:
            return name_constraints(domains, addresses)
        issuer = self._certificate(book.issuing[0].name)
        return issuer.extensions.get_extension_for_class(x509.NameConstraints).value

    def _new_issuing(
        self,
        name: str,
        root_key: ec.EllipticCurvePrivateKey,
        root: x509.Certificate,
        constraints: x509.NameConstraints,
    ) -> None:
        if self._clock() >= root.not_valid_after_utc.timestamp():
            raise PkiError("the root has expired; run: slapenir ca rotate FILE --root")
        key = new_key()
        number = int(name.rpartition("-")[2])
        certificate = issuing_certificate(
            key.public_key(), number, root, root_key, constraints, self._clock()
        )
        replace(self._path(f"{name}.key"), key_pem(key), 0o600)
        replace(self._path(f"{name}.pem"), to_pem((certificate,)), 0o644)

    def _change(self, book: Book, lifetime: float) -> None:
        """Write the list of a new book, then put the book in force.

        A process that dies in between leaves the old book, which passes over lists that it does
        not know.  The other way round a new issuing CA would be without a list.
        """
        book = attrs.evolve(book, lists=book.lists + 1)
        self._write_list(book, lifetime)
        write_book(self._directory, book)

    def _write_list(self, book: Book, lifetime: float) -> None:
        now = self._clock()
        lists = []
        for term in book.issuing:
            if not term.in_force(now):
                continue
            try:
                key = read_key(self._path(f"{term.name}.key"))
            except FileNotFoundError:
                continue
            revoked = [
                (int(one.serial, 16), one.when, REASONS[one.reason])
                for one in book.revoked
                if one.issuer == term.name
            ]
            issuer = self._certificate(term.name)
            lists.append(signed_list(issuer, key, revoked, book.lists, now, lifetime))
        replace(self._path(CRL), b"".join(lists), 0o644)
