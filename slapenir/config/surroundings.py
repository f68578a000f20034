"""What the process was given besides its arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping


def surroundings() -> Mapping[str, str]:
    """Return a copy of the environment."""
    return dict(os.environ)
