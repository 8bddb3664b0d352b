"""
The command `lambda-ext`: which commands there are, and how they end.

    lambda-ext init
    lambda-ext run app.handler --event event.json --seed seed.json

Exit status: 0 good, 1 not good, 2 it could not be started (bad arguments, a
malformed file, a missing package), 128 + N interrupted by signal N.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from . import __version__
from .commands import init_command, run_command
from .commands.arguments import INTERRUPTED, UNUSABLE, Parser, UsageError

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command with *argv* (None: this process's) and return its status.

    Blocks until the command is done.  Writes its report to the standard output,
    progress and errors to the standard error.
    """
    parser = Parser(
        prog="lambda-ext",
        description="Secrets, parameters and metrics inside AWS Lambda.",
    )
    parser.add_argument(
        "--version", action="version", version=f"lambda-ext {__version__}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="name")
    init_command.add_to(commands)
    run_command.add_to(commands)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except UsageError as exc:
        message, status = str(exc), UNUSABLE
    except KeyboardInterrupt:
        message, status = "interrupted", INTERRUPTED + 2
    with contextlib.suppress(OSError):  # the terminal is gone
        print(f"lambda-ext {arguments.name}: {message}", file=sys.stderr)  # noqa: T201  a command talks
    return status
