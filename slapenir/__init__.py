"""SLAPENIR: an egress firewall that stands between an AI agent's sandbox and the world."""

__version__ = "0.1.0"
