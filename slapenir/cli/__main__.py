"""``python -m slapenir.cli``."""

from slapenir.cli.command import main

main()
