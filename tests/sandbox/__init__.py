"""Tests of what sandboxes are given."""
