"""The configuration file: its shape, its checks, and swapping it while running."""
