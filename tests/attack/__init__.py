"""Attacks on the whole, and scanners held to naive ones."""
