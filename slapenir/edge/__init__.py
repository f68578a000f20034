"""Twisted I/O: the only place that executes commands."""
