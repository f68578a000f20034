"""Scripts that are no modules of a package, loaded so that a test can call what is in them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent


def load_script(path: str) -> ModuleType:
    """Return a script of the project as a module; ``path`` is relative to its root."""
    place = ROOT / path
    spec = importlib.util.spec_from_file_location(f"slapenir_{place.stem}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
