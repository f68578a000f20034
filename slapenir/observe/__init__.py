"""Sinks for events: audit, access log, metrics, diagnostics."""
