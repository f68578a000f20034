"""``python -m slapenir.cli``."""

import sys

if not sys.flags.safe_path:
    # Where it was started, which may be an agent's workspace: no module comes from there.
    del sys.path[0]

from slapenir.cli.command import main

main()
