"""`lambda-ext init`: write a function, an event, a seed and a test to begin with."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any

from .arguments import GOOD, UsageError

FILES = {  # ten lines each: a beginning, not a framework
    "app.py": '''\
import lambda_ext

db = lambda_ext.Secret("prod/orders/db", transform="json")


@lambda_ext.handler
def handler(event: dict[str, str], context: object) -> dict[str, str]:
    """Count the order, and say who would store it."""
    lambda_ext.metrics.count("orders.placed", shop=event["shop"])
    return {"connected_as": db.value["username"]}
''',
    "event.json": """\
{
  "order": "A-1001",
  "shop": "web",
  "customer": "kim",
  "item": "tea",
  "pieces": "2",
  "price": "4.50",
  "currency": "EUR",
  "country": "DE"
}
""",
    "seed.json": """\
{
  "secrets": {
    "prod/orders/db": {"username": "kim", "password": "not-a-real-password"}
  },
  "parameters": {
    "/orders/currency": "EUR",
    "/orders/page-size": "20",
    "/orders/token": {"value": "not-a-real-token", "type": "SecureString"}
  }
}
""",
    "test_app.py": """\
from app import handler

from lambda_ext.testing import FakeSource, MemorySink


def test_order_is_counted() -> None:
    secrets = {"prod/orders/db": '{"username": "kim"}'}
    with FakeSource(secrets), MemorySink() as sink:
        assert handler({"shop": "web"}, None) == {"connected_as": "kim"}
        assert sink.total("orders.placed", shop="web") == 1
""",
}

DESCRIPTION = """\
Write app.py (a handler), event.json, seed.json and test_app.py, of ten lines
each, and say how to run and to test them.  Nothing is overwritten.
"""


def add_to(commands: Any) -> None:
    """Add the command, with its arguments."""
    parser = commands.add_parser(
        "init",
        help="write a handler, an event, a seed and a test to begin with",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=command)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        default=".",
        help="where to write them; is made if it is not there (default: here)",
    )


def command(arguments: argparse.Namespace) -> int:
    """Write the files, print the next two commands, and return the exit status."""
    folder: str = arguments.folder
    paths = {name: os.path.join(folder, name) for name in FILES}
    there = [path for path in paths.values() if os.path.lexists(path)]
    if there:
        msg = (
            f"{', '.join(there)}: already there, and nothing is overwritten; name"
            " another FOLDER"
        )
        raise UsageError(msg)
    written: list[str] = []
    try:
        os.makedirs(folder, exist_ok=True)
        for name, text in FILES.items():
            with open(paths[name], "x", encoding="utf-8") as file:
                written.append(paths[name])
                file.write(text)
    except OSError as exc:
        for path in written:
            os.unlink(path)
        msg = f"{exc.filename or folder}: {exc.strerror}; nothing was written"
        raise UsageError(msg) from exc
    _say(folder, paths)
    return GOOD


def _say(folder: str, paths: dict[str, str]) -> None:
    """Print what was written, and the next two commands."""
    here = os.path.normpath(folder) == "."
    names = {name: shlex.quote(name if here else path) for name, path in paths.items()}
    root = "" if here else f" --task-root {shlex.quote(folder)}"
    tests = "" if here else " " + shlex.quote(folder)
    print(  # noqa: T201  a command talks
        f"wrote {', '.join(names.values())}\n"
        "\n"
        f"lambda-ext run app.handler{root}"
        f" --event {names['event.json']} --seed {names['seed.json']}\n"
        f"python -m pytest{tests}"
    )
