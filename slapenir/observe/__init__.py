"""Sinks: what becomes of events.  The audit log comes first; no other sink can stop anything."""
