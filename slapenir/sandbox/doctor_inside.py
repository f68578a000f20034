"""The doctor's part that runs inside a sandbox: take a task from a file, write what came of it.

This file runs inside sandboxes, so it needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from slapenir.sandbox.doctor_clients import ask_all
from slapenir.sandbox.doctor_probes import try_all


def main(workspace: str) -> None:
    """Do what ``task.json`` in a directory says; the outcome is ``found.json`` beside it."""
    with open(os.path.join(workspace, "task.json"), encoding="utf-8") as file:
        task = json.load(file)
    found = carry_out({**task, "workspace": workspace}, os.environ)
    with open(os.path.join(workspace, "found.json"), "w", encoding="utf-8") as file:
        json.dump(found, file)


def carry_out(task: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the checks of every way out, and what each client did."""
    variable = task.get("variable", "")
    known = {"ours": environ.get("NODE_EXTRA_CA_CERTS", ""), "key": environ.get(variable, "")}
    whole = {**known, **task}
    return {
        "checks": [tuple(one) for one in try_all(whole)],
        "clients": ask_all(whole) if whole.get("key") else [],
        "environment": dict(environ),
        "address": _address(task.get("name", "")),
    }


def _address(name: str) -> str:
    try:
        return socket.gethostbyname(name) if name else ""
    except OSError as error:
        return str(error)
