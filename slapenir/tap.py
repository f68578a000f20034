"""The ``twistd slapenir`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.python import usage

from slapenir.errors import ConfigErrors, SlapenirError

if TYPE_CHECKING:
    from slapenir.service import GatewayService


class Options(usage.Options):
    """What ``twistd slapenir`` takes on its command line.  No secret is ever one of these."""

    synopsis = "[options]"
    longdesc = "Run the SLAPENIR egress firewall with the configuration in FILE."
    optParameters = [
        ["config", "c", None, "The configuration FILE (TOML); see etc/slapenir.toml."],
        ["only-sandboxes", None, "", "Listen at this UNIX socket only, for slapenir run."],
    ]

    def postOptions(self) -> None:
        """Refuse to go on without a configuration; raises UsageError."""
        if not self["config"]:
            raise usage.UsageError("--config FILE is needed")


class Started(Service):
    """The gateway under twistd: what keeps it from starting is told in words, and exits 1."""

    def __init__(self, gateway: GatewayService) -> None:
        self._gateway = gateway

    def startService(self) -> None:
        """Start the gateway; raises SystemExit with what is wrong, where, and a remedy."""
        super().startService()  # type: ignore[no-untyped-call]
        try:
            self._gateway.startService()
        except SlapenirError as error:
            raise SystemExit(told(error)) from None
        if self._gateway.failed:
            raise SystemExit(f"error: the gateway cannot listen: {self._gateway.failed}")

    def stopService(self) -> Deferred[None]:
        """Drain the gateway; fires when it has ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self._gateway.stopService()


def told(error: SlapenirError) -> str:
    """Return a failure as lines for a person, one for each problem."""
    errors = error.errors if isinstance(error, ConfigErrors) else [error]
    return "\n".join(f"error: {one}" for one in errors)


def makeService(options: Options) -> IService:
    """Return the gateway as a service; twistd calls this after it has chosen the reactor."""
    from twisted.internet import reactor

    from slapenir.service import GatewayService

    gateway = GatewayService(options["config"], reactor, only_sandboxes=options["only-sandboxes"])
    service: IService = Started(gateway)
    return service
