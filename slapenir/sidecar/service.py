"""The sidecar as one service: enrol, renew, listen, and end."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from slapenir import __version__
from slapenir.admin import admin_factory
from slapenir.errors import PkiError, SlapenirError
from slapenir.events import CertificateLoaded, CertificateRenewed, GatewayReady, GatewayStopping
from slapenir.issuance.renewer import Renewer
from slapenir.pki.held import Held
from slapenir.sidecar.enrolment import check_beginning, make_provider
from slapenir.sidecar.forwarder import Forwarder
from slapenir.sidecar.handmade import Handmade
from slapenir.sidecar.options import ByHand, Options
from slapenir.sidecar.state import claim_state, token_reader
from slapenir.sidecar.telemetry import Telemetry
from slapenir.sidecar.towards import Towards
from slapenir.sidecar.trouble import Trouble

LABEL = "client"
STOP_SECONDS = 5.0


class CannotStart(SlapenirError):
    """The sidecar cannot begin, why, and what to do."""


class SidecarService(Service):
    """Run the sidecar that ``options`` describe on ``reactor``.

    ``startService`` raises SlapenirError before anything listens.  A gateway or a CA that cannot
    be reached is no such failure: it is tried again, and clients are told meanwhile.
    """

    name = "slapenir-sidecar"

    def __init__(
        self,
        options: Options,
        reactor: Any,
        environ: Mapping[str, str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._reactor = reactor
        self._now = now
        self._environ = environ
        self._towards: Towards | None = None
        self._admin: IListeningPort | None = None
        self._lock = -1
        self._renewer: Renewer | None = None
        self._handmade: Handmade | None = None
        self.telemetry = Telemetry(
            reactor.seconds, now, lambda: len(self.forwarder), environ.get("NOTIFY_SOCKET", "")
        )
        self.forwarder = Forwarder(
            reactor, options.gateway, options.name, self.towards, self.telemetry.trouble
        )

    @property
    def admin_port(self) -> int:
        """The TCP port of the admin endpoint; 0 when there is none."""
        return 0 if self._admin is None else int(getattr(self._admin.getHost(), "port", 0))

    def ready(self) -> bool:
        """Whether a client that connects now is brought to the gateway, as far as we know."""
        return bool(self.forwarder.port) and isinstance(self.towards(), Towards)

    def towards(self) -> Towards | Trouble:
        """Return the certificate to use now, or why there is none."""
        found = self._towards
        if found is None:
            return Trouble.NOT_ENROLLED
        return Trouble.EXPIRED if self._now() >= found.not_after else found

    def startService(self) -> None:
        """Look at the files, listen, then enrol or renew."""
        from slapenir.service import forbid_core_dumps

        forbid_core_dumps()
        super().startService()  # type: ignore[no-untyped-call]
        way = self._options.way
        try:
            if isinstance(way, ByHand):
                self._handmade = Handmade(
                    self._reactor, way, self._by_hand, self.telemetry.unusable
                )
                self._handmade.start()
            else:
                self._renewer = self._make_renewer()
            self._listen()
        except SlapenirError:
            self._release()
            raise
        if self._renewer is not None:
            self._renewer.start()
        host, _ = self._options.listen
        self.telemetry.listening(host, self.forwarder.port, str(self._options.gateway))
        self.telemetry.publish(GatewayReady(__version__, ("sidecar",)))

    def stopService(self) -> Deferred[None]:
        """Listen no more, give open connections a few seconds, then cut them."""
        super().stopService()  # type: ignore[no-untyped-call]
        self.telemetry.publish(GatewayStopping(STOP_SECONDS))
        closing: list[Deferred[Any]] = [self.forwarder.stop(STOP_SECONDS)]
        if self._admin is not None:
            closing.append(maybeDeferred(self._admin.stopListening))
        closing.append(self._release())
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)

    def _make_renewer(self) -> Renewer:
        state = self._options.state
        self._lock = claim_state(state)
        read_token = token_reader(self._options.token_file, self._environ)
        self.telemetry.enrolling = check_beginning(self._options, read_token)
        provider = make_provider(self._reactor, self._options, read_token)
        renewer = Renewer(
            self._reactor,
            self._now,
            provider,
            state,
            LABEL,
            self.telemetry.publish,
            random.SystemRandom().random,
        )
        renewer.subscribe(self._renewed)
        return renewer

    def _listen(self) -> None:
        host, port = self._options.listen
        try:
            self.forwarder.listen(host, port)
            if self._options.admin is not None:
                host, port = self._options.admin
                factory = admin_factory(self.telemetry.registry, self.ready, self._reactor)
                self._admin = self._reactor.listenTCP(port, factory, 50, host)
        except CannotListenError as error:
            why = getattr(error.socketError, "strerror", "") or "it cannot be had"
            raise CannotStart(f"cannot listen on {host}:{port}: {why}") from None

    def _renewed(self, held: Held) -> None:
        """Use another certificate for what connects from now on."""
        try:
            self._towards = Towards(held.chain, held.key, held.roots, held.not_after)
        except PkiError as error:
            self.telemetry.unusable(str(error))

    def _by_hand(self, found: Towards) -> None:
        first, self._towards = self._towards is None, found
        kind = CertificateLoaded if first else CertificateRenewed
        self.telemetry.publish(kind(LABEL, found.not_after))

    def _release(self) -> Deferred[None]:
        """End what renews, and let go of the state directory."""
        if self._handmade is not None:
            self._handmade.stop()
        stopping = maybeDeferred(self._renewer.stop if self._renewer else lambda: None)

        def unlock(_: object) -> None:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

        return stopping.addCallback(unlock)
