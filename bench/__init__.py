"""Benchmarks: CPU per unit of work of the gateway beside other intercepting proxies."""
