"""The ``twistd slapenir`` command."""

from __future__ import annotations

from twisted.application.service import IService
from twisted.python import usage


class Options(usage.Options):
    """What ``twistd slapenir`` takes on its command line.  No secret is ever one of these."""

    synopsis = "[options]"
    longdesc = "Run the SLAPENIR egress firewall with the configuration in FILE."
    optParameters = [
        ["config", "c", None, "The configuration FILE (TOML); see etc/slapenir.toml."],
    ]

    def postOptions(self) -> None:
        """Refuse to go on without a configuration; raises UsageError."""
        if not self["config"]:
            raise usage.UsageError("--config FILE is needed")


def makeService(options: Options) -> IService:
    """Return the gateway as a service; twistd calls this after it has chosen the reactor."""
    from twisted.internet import reactor

    from slapenir.service import GatewayService

    service: IService = GatewayService(options["config"], reactor)
    return service
