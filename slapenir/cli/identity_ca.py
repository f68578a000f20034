"""``slapenir ca`` for agents' certificates: tokens, issuing, revoking, rotating, backup."""

from __future__ import annotations

import contextlib
import os
import sys
import tarfile
import time
from collections.abc import Callable

import attrs
import click

from slapenir.cli.authority import FILE, ca
from slapenir.cli.identity_setup import pki_directory
from slapenir.cli.output import console, say
from slapenir.config.bundles import load_interception
from slapenir.config.durations import duration
from slapenir.config.identities import (
    ca_addresses,
    ca_domains,
    pki_of,
    wanted_for,
    wanted_server,
)
from slapenir.config.load import load
from slapenir.config.settings import Settings
from slapenir.config.state import check_state_dir, make_directory, write_ca_bundle
from slapenir.errors import ConfigError, PkiError
from slapenir.pki.ca_book import locked
from slapenir.pki.ca_files import REASONS
from slapenir.pki.files import replace, write_new
from slapenir.pki.held import CHAIN, KEY, Held, from_pem, new_key, read_chain
from slapenir.pki.identity_authority import IdentityAuthority
from slapenir.pki.interception import activate, finish, identity_directory, is_due, prepare
from slapenir.pki.issue_files import read_request, sha256_hex, write_issued
from slapenir.pki.tokens import encode_token

_SHORTEST_TOKEN, _LONGEST_TOKEN = 60.0, 7 * 86400.0


class Seconds(click.ParamType[float]):
    """A duration on the command line, such as 15m."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        try:
            return duration(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, context)


SECONDS = Seconds()


def opened(file: str, fit: bool = True) -> tuple[Settings, IdentityAuthority]:
    """Return a configuration and its embedded CA; raises ConfigError or PkiError.

    Without ``fit`` it may be one that cannot sign any more, to be replaced.
    """
    settings = load(file)
    pki_of(settings)
    check_state_dir(settings.gateway.state_dir)
    directory = pki_directory(settings)
    return settings, IdentityAuthority.load(directory) if fit else IdentityAuthority(directory)


@ca.command("token")
@FILE
@click.argument("identity")
@click.option("--lifetime", type=SECONDS, default="15m", show_default=True, help="How long.")
@click.option("--out", type=click.Path(), help="A new file for it (mode 0600), not the screen.")
def ca_token(file: str, identity: str, lifetime: float, out: str | None) -> None:
    """Print a token with which one agent gets the certificate of IDENTITY, once.

    The agent gives it to `slapenir sidecar` or `slapenir enrol`.  It says where the enrolment
    service is and by which root it is to be trusted.
    """
    settings, authority = opened(file)
    wanted_for(settings, identity)
    pki = pki_of(settings)
    if not pki.url or not pki.enrol:
        raise ConfigError(
            "is missing: the token has to say where agents enrol", "$.pki.url",
            'write enrol = "tcp:8445" and url = "https://HOST:8445"', settings.file,
        )  # fmt: skip
    if not _SHORTEST_TOKEN <= lifetime <= _LONGEST_TOKEN:
        raise ConfigError("a token lives from one minute to seven days", "--lifetime")
    if out is not None:
        write_new(out, b"", 0o600)
    root = authority.roots[0]
    secret = authority.make_token(identity, lifetime)
    token = encode_token(pki.url, sha256_hex(root), secret) + "\n"
    if out is None:
        sys.stdout.write(token)
    else:
        replace(out, token.encode("ascii"), 0o600)


@ca.command("issue")
@FILE
@click.argument("identity", required=False)
@click.option("--server", is_flag=True, help="A certificate of the gateway, for pki.names.")
@click.option("--out", type=click.Path(), required=True, help="The directory to write to.")
@click.option("--csr", type=click.Path(), help="Sign this request's key instead of a new one.")
@click.option("--lifetime", type=SECONDS, help="How long it is valid; by default pki.lifetime.")
def ca_issue(
    file: str,
    identity: str | None,
    server: bool,
    out: str,
    csr: str | None,
    lifetime: float | None,
) -> None:
    """Sign a certificate for IDENTITY and write key.pem, chain.pem and roots.pem to a directory.

    The names in it are those of the identity's match, whatever a request says.
    """
    settings, authority = opened(file)
    if server == (identity is not None):
        raise ConfigError("name an identity, or write --server", "IDENTITY")
    name = identity or ""
    wanted = wanted_server(settings) if server else wanted_for(settings, name)
    wanted = attrs.evolve(wanted, lifetime=lifetime or wanted.lifetime)
    make_directory(os.path.abspath(out), "--out")
    key = new_key()
    public = read_request(csr) if csr else key.public_key()
    issued = authority.issue(wanted, public, identity=name)
    written = write_issued(out, None if csr else key, issued.chain, authority.roots)
    say(f"wrote {', '.join(written)} to {out}")
    _say_issued(issued.serial, issued.not_after)


@ca.command("renew")
@FILE
@click.argument("directory", type=click.Path())
def ca_renew(file: str, directory: str) -> None:
    """Replace the certificate in DIRECTORY, as `ca issue` wrote it, by a new one with a new key."""
    settings, authority = opened(file)
    try:
        serial = f"{read_chain(os.path.join(directory, CHAIN))[0].serial_number:x}"
    except FileNotFoundError:
        raise PkiError(f"{directory} has no {CHAIN}; run: slapenir ca issue FILE") from None
    found = [(entry, gone) for entry, gone in authority.entries() if entry.serial == serial]
    if not found:
        raise PkiError(f"the certificate in {directory} is not one that this CA issued")
    (entry, gone) = found[0]
    if gone is not None:
        raise PkiError(f"the certificate in {directory} was revoked; issue a new one")
    if not os.path.lexists(os.path.join(directory, KEY)):
        raise PkiError(
            f"{directory} has no {KEY}: its certificate was issued for a request; run: slapenir ca "
            "issue FILE IDENTITY --csr REQUEST"
        )
    wanted = wanted_for(settings, entry.identity) if entry.identity else wanted_server(settings)
    key = new_key()
    issued = authority.issue(wanted, key.public_key(), identity=entry.identity)
    Held(key, issued.chain, authority.roots).save(directory)
    _say_issued(issued.serial, issued.not_after)


@ca.command("revoke")
@FILE
@click.argument("serial", required=False)
@click.option("--identity", help="Every certificate of an identity that is in force.")
@click.option("--certificate", type=click.Path(), help="The one in a file.")
@click.option("--reason", type=click.Choice(list(REASONS)), default="unspecified")
def ca_revoke(
    file: str, serial: str | None, identity: str | None, certificate: str | None, reason: str
) -> None:
    """Revoke a certificate by its SERIAL, or all of an identity.  The list is signed at once.

    A running gateway cuts its connections within ten seconds.
    """
    settings, authority = opened(file)
    if sum(one is not None for one in (serial, identity, certificate)) != 1:
        raise ConfigError("say which: SERIAL, --identity or --certificate", "SERIAL")
    shown = None
    if certificate is not None:
        try:
            with open(certificate, "rb") as source:
                shown = from_pem(source.read(1 << 20), certificate)[0]
        except OSError as error:
            raise PkiError(f"{certificate}: {error.strerror}") from None
    lifetime = duration(pki_of(settings).crl_lifetime)
    new = authority.revoke(serial, identity, shown, reason, lifetime)
    for one in new:
        console().print(one)
    say(f"revoked {len(new)}" if new else "revoked already")


@ca.command("crl")
@FILE
@click.option("--out", type=click.Path(), help="The file to write; by default standard output.")
def ca_crl(file: str, out: str | None) -> None:
    """Sign the list of revoked certificates anew and print it in PEM."""
    settings, authority = opened(file)
    authority.refresh_crl(duration(pki_of(settings).crl_lifetime))
    if out is None:
        sys.stdout.write(authority.crl().decode("ascii"))
    else:
        replace(os.path.abspath(out), authority.crl(), 0o644)
        say(f"wrote {out}")


@ca.command("list")
@FILE
@click.option("--identity", help="Those of one identity.")
@click.option("--all", "every", is_flag=True, help="Those that have ended, too.")
def ca_list(file: str, identity: str | None, every: bool) -> None:
    """Print the certificates that were issued: identity, serial, end, and when it was revoked."""
    _, authority = opened(file, fit=False)
    now = time.time()
    for entry, gone in authority.entries():
        if identity in (None, entry.identity) and (every or entry.not_after > now):
            state = f"revoked {_date(gone.when)} ({gone.reason})" if gone else "good"
            name = entry.identity or "(gateway)"
            console().print(f"{name:<24} {entry.serial:<40} {_date(entry.not_after)}  {state}")


@ca.command("rotate")
@FILE
@click.option("--root", "new_root", is_flag=True, help="A new root, too.")
@click.option("--overlap", type=SECONDS, default="7d", show_default=True, help="How long.")
@click.option("--distrust", is_flag=True, help="What the old CA signed is no good from now on.")
@click.option("--root-dir", type=click.Path(), help="Where the root's key is.")
@click.option("--interception", is_flag=True, help="The CA that intercepts, in three steps.")
@click.option("--prepare", "step", flag_value="prepare", help="Make its successor.")
@click.option("--activate", "step", flag_value="activate", help="Let the successor sign.")
@click.option("--finish", "step", flag_value="finish", help="End the overlap now.")
@click.option("--identity", help="Of one identity only, where each has an interception CA.")
def ca_rotate(
    file: str,
    new_root: bool,
    overlap: float,
    distrust: bool,
    root_dir: str | None,
    interception: bool,
    step: str | None,
    identity: str | None,
) -> None:
    """Replace the issuing CA of agents' certificates, with --root its root too.

    What the old one signed stays good for the overlap, so agents renew in their own time.  With
    --interception it is the CA that sandboxes trust, and goes in three steps.
    """
    if interception:
        _rotate_interception(load(file), step, identity)
        return
    settings, authority = opened(file, fit=False)
    domains, addresses = ca_domains(settings), ca_addresses(settings)
    lifetime = duration(pki_of(settings).crl_lifetime)
    if step == "finish":
        authority.finish_rotation(lifetime)
        say("only the newest root and issuing CA are good now")
        return
    if step is not None or identity is not None:
        raise ConfigError("is for --interception", f"--{step or 'identity'}")
    if new_root:
        authority.rotate_root(0.0 if distrust else overlap, domains, addresses, root_dir, lifetime)
        if distrust:
            say("made a new root and issuing CA; nothing of the old ones is good any more")
            say("every agent has to enrol again")
        else:
            say("made a new root and issuing CA; the old root signed the new one")
            say("agents learn the new root when they renew")
        say(f"keep the new root's key offline: {authority.root_key_file}")
    else:
        authority.rotate_issuing(overlap, distrust, domains, addresses, root_dir, lifetime)
        say("made a new issuing CA" + ("; the old one is no good any more" if distrust else ""))
    say("a running gateway takes it up within ten seconds")


def _rotate_interception(settings: Settings, step: str | None, identity: str | None) -> None:
    """Do one step for each interception CA, or that of one identity."""
    steps: dict[str, tuple[Callable[[str], object], str]] = {
        "prepare": (
            prepare,
            "sandboxes have to trust both now: give them the bundle, then run --activate",
        ),
        "activate": (
            activate,
            "send the gateway a SIGHUP: from then on the new CA signs; later run --finish",
        ),
        "finish": (finish, "the old CA is out of the bundle: give it to sandboxes again"),
    }
    if step not in steps:
        raise ConfigError("write --prepare, --activate or --finish", "--interception")
    state_dir = settings.gateway.state_dir
    check_state_dir(state_dir)
    directories = [state_dir]
    if settings.gateway.ca == "per-identity":
        names = [identity] if identity else list(settings.identities)
        directories = [identity_directory(state_dir, name) for name in names]
    elif identity:
        raise ConfigError('is for ca = "per-identity"', "--identity", "", settings.file)
    action, remark = steps[step]
    # One that has taken the step is passed over: the last attempt may have been cut short.
    directories = [one for one in directories if is_due(one, step)] or directories
    for directory in directories:
        action(directory)
    for name, trusted in load_interception(settings).trusted.items():
        write_ca_bundle(settings, trusted, name)
    say(f"{step}: {len(directories)} interception CA{'s' if len(directories) > 1 else ''}")
    say(remark)


@ca.command("backup")
@FILE
@click.argument("out", type=click.Path())
def ca_backup(file: str, out: str) -> None:
    """Write every key, certificate and record of the state directory to a new tar file, mode 0600.

    Who has it has the CAs: keep it as you keep the keys.  To restore, unpack it with tar as the
    gateway's user into an empty state directory.
    """
    settings = load(file)
    state_dir = settings.gateway.state_dir
    check_state_dir(state_dir)
    path = os.path.abspath(out)
    if path.startswith(state_dir + os.sep):
        raise ConfigError("is inside the state directory", "OUT", "write it somewhere else")
    write_new(path, b"", 0o600)
    pki = pki_directory(settings)
    # Nothing changes in the CA meanwhile, so what is kept belongs together.
    with locked(pki) if os.path.isdir(pki) else contextlib.nullcontext():
        with tarfile.open(path, "w") as archive:
            archive.add(state_dir, arcname=".", filter=_worth_keeping)
            count = len(archive.getnames())
    say(f"wrote {count} files and directories to {out}; it holds private keys")


def _worth_keeping(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what is no file, and what is of one moment only."""
    name = os.path.basename(member.name)
    passing = name.endswith(".new") or name == "lock"
    return member if (member.isfile() or member.isdir()) and not passing else None


def _say_issued(serial: str, not_after: float) -> None:
    say(f"serial {serial}, good until {_date(not_after)}")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
