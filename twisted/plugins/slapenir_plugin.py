"""Tell twistd about the ``slapenir`` command."""

from twisted.application.service import ServiceMaker

slapenir = ServiceMaker(
    "SLAPENIR",
    "slapenir.tap",
    "An egress firewall between an AI agent's sandbox and the world.",
    "slapenir",
)
