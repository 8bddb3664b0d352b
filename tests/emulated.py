"""What tests of the emulator share: a function, an extension, gates, /proc."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import pytest
from helpers import ROOT

from lambda_ext.local.emulator import Emulator

LOCAL = os.path.join(ROOT, "tests", "local")
FUNCTION = os.path.join(LOCAL, "function")
EXTENSIONS = os.path.join(LOCAL, "extensions")
OUTER = {"PYTHON": sys.executable, "OUTER": os.path.join(LOCAL, "outer.py")}

process = pytest.mark.process


def emulate(*, env=None, **options):
    """Return an emulator around tests/local/function, or what *options* say."""
    variables = {**OUTER, **(env or {})}
    return Emulator("app.handler", options.pop("task_root", FUNCTION),
                    env=variables, **options)  # fmt: skip


class Gate:
    """Where a process of the environment waits until the test lets it go on."""

    def __init__(self, folder, name="gate"):
        self.path = os.path.join(folder, name)
        os.mkfifo(self.path)

    def open(self):
        """Wait until a process waits, and let it go on."""
        with open(self.path, "w"):
            pass


def states(pid):
    """Return the states of all threads of a process, as in ``ps``: T is stopped."""
    found = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                found.add(file.read().rpartition(")")[2].split()[0])
    return found


def children(pid):
    """Return the ids of a process's children."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found += [int(child) for child in file.read().split()]
    return found


def texts(emulator, source=None):
    """Return what was written, all of it or from one source."""
    return [line.text for line in emulator.lines if source in (None, line.source)]


def paths(emulator):
    """Return the last part of each call's path, in order."""
    return [call.path.rpartition("/")[2] for call in emulator.calls]


def documents(emulator):
    """Return the EMF documents that the process wrote, in order."""
    return [
        json.loads(line.text)
        for line in emulator.lines
        if line.text.startswith('{"_aws"')
    ]
