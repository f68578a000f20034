"""The ``twistd slapenir-sidecar`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.python import usage

from slapenir.config.surroundings import surroundings
from slapenir.errors import SlapenirError
from slapenir.sidecar.options import LISTEN_ANYWHERE, PARAMETERS, SAN, BadUsage, read_options

if TYPE_CHECKING:
    from slapenir.sidecar.options import Options as Read
    from slapenir.sidecar.service import SidecarService


class Options(usage.Options):
    """What ``twistd slapenir-sidecar`` takes.  No secret is ever one of these."""

    synopsis = "[options]"
    longdesc = "Offer a gateway's TLS listener as plain loopback, with a certificate of its own."
    optParameters = [[name, None, None, text] for name, text in PARAMETERS.items()]

    def __init__(self) -> None:
        self._sans: list[str] = []
        self._anywhere = False
        self.read: Read
        super().__init__()  # type: ignore[no-untyped-call]

    def opt_san(self, value: str) -> None:  # noqa: D102 - below: its help
        self._sans.append(value)

    opt_san.__doc__ = SAN

    def opt_listen_anywhere(self) -> None:  # noqa: D102 - below: its help
        self._anywhere = True

    opt_listen_anywhere.__doc__ = LISTEN_ANYWHERE

    def postOptions(self) -> None:
        """Look at everything at once; raises UsageError."""
        values = {name: self[name] for name in PARAMETERS}
        try:
            self.read = read_options(values, tuple(self._sans), self._anywhere, surroundings())
        except BadUsage as error:
            raise usage.UsageError(str(error)) from None


class Started(Service):
    """The sidecar under twistd: what keeps it from starting is told in words, and exits 1."""

    def __init__(self, sidecar: SidecarService) -> None:
        self._sidecar = sidecar

    def startService(self) -> None:
        """Start the sidecar; raises SystemExit with what is wrong and a remedy."""
        super().startService()  # type: ignore[no-untyped-call]
        try:
            self._sidecar.startService()
        except SlapenirError as error:
            raise SystemExit(f"error: {error}") from None

    def stopService(self) -> Deferred[None]:
        """End the sidecar."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self._sidecar.stopService()


def makeService(options: Options) -> IService:
    """Return the sidecar as a service; twistd calls this after it has chosen the reactor."""
    from twisted.internet import reactor

    from slapenir.sidecar.service import SidecarService

    service: IService = Started(SidecarService(options.read, reactor, surroundings()))
    return service
