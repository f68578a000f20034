"""``slapenir init``: a directory with all that a first run needs."""

from __future__ import annotations

import os
import re
from importlib import resources

import click

from slapenir.cli.authority import DAYS, make_authority
from slapenir.cli.output import say
from slapenir.config.load import load
from slapenir.config.state import make_directory
from slapenir.errors import ConfigError
from slapenir.pki.files import write_new

CONFIG_FILE = "slapenir.toml"
EXAMPLE_VARIABLE = "OPENAI_API_KEY"
_PLACES = (("state_dir", "state"), ("audit", "audit"))


def template() -> str:
    """Return the reference configuration that is installed with the package."""
    return resources.files("slapenir.config").joinpath("template.toml").read_text("utf-8")


def first_configuration(text: str, with_example: bool) -> str:
    """Return the template with everything inside its own directory.

    Without the example's secret its credential is commented out, for a source that is not there
    is refused.
    """
    for key, place in _PLACES:
        text, count = re.subn(rf'(?m)^{key} = ".*"$', f'{key} = "{place}"', text)
        if count != 1:
            raise AssertionError(f"the template has {count} lines for {key}")
    if with_example:
        return text
    parts = text.split("\n\n")
    for index, part in enumerate(parts):
        lines = part.split("\n")
        if "[[credential]]" in lines:
            parts[index] = "\n".join(f"# {line}" for line in lines)
        else:
            parts[index] = re.sub(r"(?m)^(credentials = .*)$", r"# \1", part)
    return "\n\n".join(parts)


@click.command()
@click.argument("directory", type=click.Path())
def init(directory: str) -> None:
    """Make DIRECTORY with a configuration, a CA, keys and an audit directory.

    An existing configuration is never overwritten.
    """
    base = os.path.abspath(directory)
    file = os.path.join(base, CONFIG_FILE)
    if os.path.lexists(file):
        raise ConfigError(
            "exists already and is never overwritten", "$", "choose another directory", file
        )
    make_directory(base, "$", 0o755)  # agents read the CA bundle in it
    with_example = bool(os.environ.get(EXAMPLE_VARIABLE))
    data = first_configuration(template(), with_example)
    write_new(file, data.encode("utf-8"), 0o600)
    settings = load(file)
    make_directory(settings.gateway.audit, "$.gateway.audit")
    authority = make_authority(settings, None, DAYS)
    say(f"made {authority.subject} in {settings.gateway.state_dir}")
    if with_example:
        say(f"its example credential is {EXAMPLE_VARIABLE} of the gateway's environment")
    else:
        say(f"its example credential is commented out, for {EXAMPLE_VARIABLE} is not set")
    say(f"wrote {file}; now run: slapenir check {file}")
