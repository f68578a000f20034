"""Every path that a configuration names is known, whatever key names it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import attrs
from twisted.trial.unittest import SynchronousTestCase

from slapenir.config import settings as schema
from slapenir.config.files import files_of, is_marked, socket_path
from slapenir.config.load import parse
from tests.config.base import BASE

FILE = "/etc/slapenir/slapenir.toml"
# Text that names no file.  Whoever adds an attribute says which it is: here, or by a mark.
NO_FILES = frozenset(
    """
    Gateway.ca ListenerTls.client_auth Listener.identity Listener.mode Listener.name Listener.url
    Listener.identify Listener.proxy_protocol Resolver.servers Resolver.hosts
    Resolver.allow_private Inject.header Inject.scheme Inject.when Inject.basic Inject.query
    CredentialSettings.id CredentialSettings.hosts CredentialSettings.placeholder
    CredentialSettings.variable CredentialSettings.identities CredentialSettings.groups
    RuleSettings.id RuleSettings.hosts RuleSettings.identities RuleSettings.groups
    RuleSettings.methods RuleSettings.paths RuleSettings.credentials Match.spiffe Match.dns
    Match.cn Match.source Match.token IdentitySettings.name IdentitySettings.groups Pki.provider
    Pki.lifetime Pki.names Pki.domains Pki.url Pki.crl_lifetime Pki.directory
    Pki.root_fingerprint Pki.contact Pki.challenge Pki.provisioner Dns.endpoint Dns.synthetic
    Dns.identity
""".split()
)


def texts() -> Iterator[tuple[str, attrs.Attribute[Any]]]:
    """Yield every attribute of the schema that may hold text, as Class.name."""
    for kind in vars(schema).values():
        if isinstance(kind, type) and attrs.has(kind) and kind.__module__ == schema.__name__:
            hints = get_type_hints(kind)
            for attribute in attrs.fields(kind):
                if _holds_text(hints[attribute.name]):
                    yield f"{kind.__name__}.{attribute.name}", attribute


def _holds_text(kind: Any) -> bool:
    return kind is str or any(_holds_text(one) for one in get_args(kind))


class SchemaTests(SynchronousTestCase):
    def test_every_text_is_marked_or_names_no_file(self) -> None:
        unmarked = {name for name, attribute in texts() if not is_marked(attribute)}
        self.assertEqual(unmarked, NO_FILES)

    def test_every_mark_is_found(self) -> None:
        """A path that is put into any marked attribute comes out, secret or open."""
        for name, attribute in texts():
            if not is_marked(attribute):
                continue
            path = f"/somewhere/{name}"
            for text in (path, f"unix:{path}:mode=666", f"file:{path}"):
                kind = getattr(schema, name.partition(".")[0])
                blank = {one.name: "" for one in attrs.fields(kind) if one.default is attrs.NOTHING}
                files = files_of(kind(**{**blank, attribute.name: text}))
                if path in files.secret + files.open:
                    break
            else:
                self.fail(name)


class FilesTests(SynchronousTestCase):
    def test_sockets(self) -> None:
        for endpoint, path in (
            ("unix:/run/a.sock", "/run/a.sock"),
            ("unix:/run/a.sock:mode=666", "/run/a.sock"),
            ("unix:mode=666:address=/run/a.sock", "/run/a.sock"),
            (r"unix:/run/a\:b.sock:mode=666", "/run/a:b.sock"),
            ("tcp:8080:interface=127.0.0.1", ""),
            ("systemd:domain=INET:index=0", ""),
            ("", ""),
        ):
            self.assertEqual(socket_path(endpoint), path, endpoint)

    def test_a_configuration(self) -> None:
        """Keys, endpoints and secrets; of text that names no file nothing, and no URL."""
        files = files_of(
            schema.Settings(
                gateway=schema.Gateway(state_dir="/s", audit="/a", admin="unix:/admin.sock"),
                listeners=(
                    schema.Listener(
                        endpoint="unix:/listen.sock",
                        url="/no",
                        tls=schema.ListenerTls(certificate="/c", key="/k", crl="https://crl/x"),
                    ),
                ),
                credentials=tuple(
                    schema.CredentialSettings(id="/no", source=one, hosts=("/no",))
                    for one in ("file:/secret", "env:NAME")
                ),
                pki=schema.Pki(provisioner_key="/p", root_file="/r"),
                sandboxes=schema.Sandboxes(endpoint="unix:/join.sock"),
                file=FILE,
            )
        )
        secret = "/s /a /admin.sock /listen.sock /k /secret /p /join.sock".split()
        self.assertEqual(set(files.secret), {*secret, FILE})
        self.assertEqual(set(files.open), {"/c", "/r", schema.Origin().ca_file})

    def test_what_is_read_is_absolute(self) -> None:
        """The base configuration has its file, state and audit."""
        files = files_of(parse(BASE.encode(), FILE))
        self.assertIn(FILE, files.secret)
        self.assertIn("/etc/slapenir/slapenir-ca.pem", files.open)
