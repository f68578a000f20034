"""Programs run as agents: each prints every byte it was given, for the test to search."""
