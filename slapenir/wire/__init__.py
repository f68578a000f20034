"""Bytes to messages and back.  Nothing here knows policy, secrets or sockets."""
