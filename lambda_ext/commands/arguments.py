"""What the commands share: exit statuses, the parser, types of arguments."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

GOOD, BAD, UNUSABLE = 0, 1, 2
INTERRUPTED = 128  # and the number of the signal
INSTALL = 'python -m pip install "lambda-ext[local]"'


class UsageError(Exception):
    """What was asked for cannot be done; the message says what to change."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, then where help is; without the usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # Here, because only the command's own parser knows what it has.
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = self._option_string_actions
            near = difflib.get_close_matches(unknown[0], options, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(UNUSABLE, f"{self.prog}: {message}; see {self.prog} --help\n")


def handler(value: str) -> str:
    """
    Return MODULE.HANDLER for *value*, as Lambda's own setting has it.

    ``./app.handler``, ``app:handler`` and ``src/app.py:handler`` are understood.
    """
    path = value.strip()
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    module, colon, function = path.partition(":")
    if not colon:
        module, _, function = path.rpartition(".")
    elif module.endswith(".py"):
        module = module[:-3]
    hint = _hint(path)
    if path.startswith(("/", "../")):
        folder, _, name = path.rpartition("/")
        advice = f"name the folder apart: {_hint(name)} --task-root {folder}"
    elif function == "py" or not module.strip("./") or not function.isidentifier():
        advice = f"did you mean {hint}?"
    elif module.endswith(".py"):
        return f"{module[:-3]}.{function}"
    else:
        return f"{module}.{function}"
    msg = f"{value!r} is not MODULE.HANDLER; {advice}"
    raise argparse.ArgumentTypeError(msg)


def _hint(path: str) -> str:
    """Return what may have been meant by *path*."""
    words = re.sub(r"\(.*|\.py$|\.py(?=[:.])", "", path.strip())
    module, colon, function = words.replace("::", ":").partition(":")
    if not colon:
        module, _, function = words.rpartition(".")
        if not module:
            module, function = words, ""
    name = function if function.isidentifier() else "handler"
    return f"{module.strip('./') or 'app'}.{name}"


def variable(value: str) -> tuple[str, str]:
    """Return name and content of NAME=VALUE."""
    name, equals, content = value.partition("=")
    if not equals or not name.isidentifier():
        # Without the text after "=": it may be a secret.
        msg = f"{name!r}: write NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return name, content


def timeout(value: str) -> float:
    """Return seconds, as long as a function may run."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 900:
        msg = f"{value!r} is not a number of seconds above 0, up to 900"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return what parses a whole number from *low* to *high*."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            msg = f"{value!r} is not a whole number from {low} to {high}"
            raise argparse.ArgumentTypeError(msg)
        return number

    return parse


def region(value: str) -> str:
    """Return the name of a region."""
    if not re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-[0-9]+", value):
        msg = f"{value!r} is not the name of a region, such as eu-central-1"
        raise argparse.ArgumentTypeError(msg)
    return value


def text(value: str) -> str:
    """Return text that is not blank."""
    if not value.strip():
        msg = "it is blank"
        raise argparse.ArgumentTypeError(msg)
    return value
