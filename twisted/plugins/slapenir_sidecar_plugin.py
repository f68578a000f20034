"""Tell twistd about the ``slapenir-sidecar`` command."""

from twisted.application.service import ServiceMaker

slapenir_sidecar = ServiceMaker(
    "SLAPENIR sidecar",
    "slapenir.sidecar.tap",
    "Plain loopback in a sandbox, mutual TLS to a SLAPENIR gateway.",
    "slapenir-sidecar",
)
