# What `make docs` needs: sphinx-build -W -b html docs build/docs

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent

project = "SLAPENIR"
author = "the SLAPENIR contributors"
copyright = author
release = re.search(r'__version__ = "(.+?)"', (_ROOT / "slapenir/__init__.py").read_text())[1]
version = release

extensions: list[str] = []
exclude_patterns: list[str] = []
nitpicky = True

html_theme = "alabaster"
html_theme_options = {
    "description": "An egress firewall for AI-agent sandboxes",
    "page_width": "1060px",
    "sidebar_width": "230px",
    "show_powered_by": False,
}
html_show_copyright = False
html_show_sourcelink = False
