"""
The command `lambda-ext`.  It runs a handler here as Lambda would:

    lambda-ext run app.handler --event order.json --seed seed.json

Exit status: 0 the run was good, 1 it was not, 2 it could not be started (bad
arguments, a malformed file, a missing package), 130 interrupted.

Everything that the command needs beyond argparse is in the extra ``local``
and is imported when it is known that a run is wanted.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__

if TYPE_CHECKING:
    from .local.run import Plan

__all__ = ("main",)

GOOD, BAD, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
INSTALL = 'python -m pip install "lambda-ext[local]"'

# Variables that the run sets itself, and what to use instead.
OWN_VARIABLES = {
    "_HANDLER": "the argument MODULE.HANDLER",
    "AWS_LAMBDA_RUNTIME_API": "nothing: it is the address of the emulator",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "--memory",
    "AWS_LAMBDA_FUNCTION_NAME": "--function-name",
    "AWS_REGION": "--region",
    "LAMBDA_TASK_ROOT": "--task-root",
}
# Variables with which the function would leave the machine.
ONLY_WITH_AWS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)

RUN = """\
Run a handler on this machine as Lambda would, with AWS's own runtime client:
INIT, invocations with the process frozen in between, SIGTERM, exit.  Prints
what went on: each invocation, the calls made to AWS, the metrics written and
what CloudWatch would refuse of them, and how the process ended.

Secrets Manager, Parameter Store and other services are played by moto on
127.0.0.1, filled from --seed.  AWS itself is never contacted, and your
credentials are kept from the function, unless you say --aws.
"""

EXAMPLES = """\
examples:
  lambda-ext run app.handler
  lambda-ext run app.handler --event order.json --repeat 5 --seed seed.json
  lambda-ext run src/orders/app.handler --task-root . --env STAGE=test --logs

a seed file:
  {"secrets":    {"prod/db": {"user": "me", "password": "..."}},
   "parameters": {"/page-size": "20",
                  "/token": {"value": "...", "type": "SecureString"}}}

exit status:
  0  good     1  not good: see VERDICT     2  it could not be started
"""


class UsageError(Exception):
    """What was asked for cannot be done; the message says what to change."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command with *argv* (None: this process's) and return its status.

    Blocks until the run is over.  Writes the report to the standard output,
    progress and errors to the standard error.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except UsageError as exc:
        print(f"lambda-ext run: {exc}", file=sys.stderr)  # noqa: T201  a command talks
        return UNUSABLE
    except KeyboardInterrupt:
        print("\nlambda-ext run: interrupted", file=sys.stderr)  # noqa: T201  likewise
        return INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    """Do `lambda-ext run`; the imports are slow, and in the extra ``local``."""
    if sys.platform != "linux":
        msg = (
            f"this is {sys.platform}, and Lambda is Linux: the run stops, thaws and"
            " ends processes as Linux does; use a container or a virtual machine"
        )
        raise UsageError(msg)
    try:
        from .local.aws_server import SeedError
        from .local.inputs import InputError
        from .local.outcomes import EmulatorError
        from .local.report import Report, consoles, progress
        from .local.run import run
        from .local.steps import StepError
        from .local.verdict import judge
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("lambda_ext"):
            raise
        msg = f"the package {exc.name!r} is not installed; say: {INSTALL}"
        raise UsageError(msg) from exc

    out, err = consoles(plain=arguments.plain)
    try:
        plan = _plan(arguments)
        with progress(err) as step:
            result = run(plan, step)
    except (InputError, SeedError, EmulatorError) as exc:
        raise UsageError(str(exc)) from exc
    except StepError as exc:
        print(f"lambda-ext run: {exc}", file=sys.stderr)  # noqa: T201  a command talks
        return BAD
    verdict = judge(result, allow_errors=arguments.allow_errors)
    try:
        Report(out).all(result, verdict, logs=arguments.logs)
    except OSError as exc:
        msg = f"the report cannot be written: {exc.strerror}"
        raise UsageError(msg) from exc
    return GOOD if verdict.good else BAD


def _plan(arguments: argparse.Namespace) -> Plan:
    """Read the files that *arguments* name, and check what they say together."""
    from .local.aws_server import Seed
    from .local.inputs import read_event, read_seed
    from .local.run import Plan

    if arguments.aws and arguments.seed:
        msg = "--seed is for the AWS on this machine; leave it out with --aws"
        raise UsageError(msg)
    if arguments.event.count("-") > 1:
        msg = "--event -: the standard input can be read only once"
        raise UsageError(msg)
    if not os.path.isdir(arguments.task_root):
        msg = f"--task-root: there is no folder {arguments.task_root}"
        raise UsageError(msg)
    events = [read_event(path) for path in arguments.event] or [{}]
    return Plan(
        handler=arguments.handler,
        events=events * arguments.repeat,
        task_root=arguments.task_root,
        seed=read_seed(arguments.seed) if arguments.seed else Seed(),
        environment=_environment(arguments.env, aws=arguments.aws),
        function_name=arguments.function_name or _function_name(arguments.handler),
        timeout_s=arguments.timeout,
        memory_mb=arguments.memory,
        region=arguments.region or _region(aws=arguments.aws),
        python=arguments.python,
        freeze=arguments.freeze,
        wait_for=arguments.wait_for,
        real_aws=arguments.aws,
        allow_shown=arguments.allow_shown,
    )


def _environment(pairs: Sequence[tuple[str, str]], *, aws: bool) -> dict[str, str]:
    """Return the variables of --env, none of which may undo what the run does."""
    for name, _ in pairs:
        if name in OWN_VARIABLES:
            msg = f"--env {name}: the run sets it; use {OWN_VARIABLES[name]}"
            raise UsageError(msg)
        if not aws and name.startswith(ONLY_WITH_AWS):
            msg = (
                f"--env {name}: it would lead to AWS itself; say --aws if you want that"
            )
            raise UsageError(msg)
    return dict(pairs)


def _region(*, aws: bool) -> str:
    names = ("AWS_REGION", "AWS_DEFAULT_REGION") if aws else ()
    return next(filter(None, map(os.environ.get, names)), "us-east-1")


def _function_name(handler: str) -> str:
    """Name the function after its module: src/orders/app.handler is "app"."""
    return handler.rpartition(".")[0].replace("/", ".").rpartition(".")[2]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lambda-ext",
        description="Secrets, parameters and metrics inside AWS Lambda.",
    )
    parser.add_argument(
        "--version", action="version", version=f"lambda-ext {__version__}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run a handler here as Lambda would, and report",
        description=RUN,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = run.add_argument
    add(
        "handler",
        metavar="MODULE.HANDLER",
        type=_handler,
        help="as in Lambda's own setting: app.handler, src/app.handler",
    )
    add(
        "--event",
        metavar="FILE",
        action="append",
        default=[],
        help='a JSON file with an event, "-" for the standard input; can be given'
        " several times, for one invocation each (default: one empty event)",
    )
    add(
        "--repeat",
        metavar="N",
        type=_integer(1, 10_000),
        default=1,
        help="send all events N times (default: 1)",
    )
    add("--seed", metavar="FILE", help="a JSON file of secrets and parameters")
    add(
        "--env",
        metavar="NAME=VALUE",
        type=_variable,
        action="append",
        default=[],
        help="a variable of the function; can be given several times",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=_timeout,
        default=3.0,
        help="the function's time-out, up to 900 (default: 3)",
    )
    add(
        "--memory",
        metavar="MB",
        type=_integer(128, 10_240),
        default=128,
        help="what the function is told about its memory; nothing limits it"
        " (default: 128)",
    )
    add(
        "--region",
        type=_region_name,
        help="AWS region of function and seed (default: us-east-1; with --aws this"
        " shell's)",
    )
    add(
        "--function-name",
        metavar="NAME",
        type=_text,
        help="(default: the module's name)",
    )
    add(
        "--task-root",
        metavar="DIR",
        default=".",
        help="the folder with the function's code (default: this one)",
    )
    add(
        "--python",
        metavar="PATH",
        default=sys.executable,
        help="another Python to run the function with; needs awslambdaric",
    )
    add(
        "--no-freeze",
        dest="freeze",
        action="store_false",
        help="let the process go on between invocations",
    )
    add(
        "--wait-for",
        metavar="TEXT",
        type=_text,
        help="send SIGTERM only when the function has written a line with TEXT"
        " after its last response",
    )
    add(
        "--aws",
        action="store_true",
        help="call AWS itself, with the credentials, profile and endpoints of this"
        " shell; calls are not recorded then",
    )
    add(
        "--allow-errors",
        action="store_true",
        help="a handler that raises does not spoil the verdict",
    )
    add(
        "--allow-shown",
        metavar="NAME",
        action="append",
        default=[],
        help="a secret or parameter of the seed whose value may stand in logs and"
        " answers; can be given several times",
    )
    add("--logs", action="store_true", help="show all that the function wrote")
    add(
        "--plain",
        action="store_true",
        help="text without colour, as where the output is not a terminal",
    )
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong, then where help is; without the wall of usage."""

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


def _handler(value: str) -> str:
    module, _, function = value.rpartition(".")
    if value.endswith(".py") or not module.strip("./") or not function.isidentifier():
        hint = f"{value.removesuffix('.py') or 'app'}.handler"
        msg = f"{value!r} is not MODULE.HANDLER; did you mean {hint}?"
        raise argparse.ArgumentTypeError(msg)
    return value


def _variable(value: str) -> tuple[str, str]:
    name, equals, content = value.partition("=")
    if not equals or not name.isidentifier():
        # Without the text after "=": it may be a secret.
        msg = f"{name!r}: write NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return name, content


def _timeout(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 900:
        msg = f"{value!r} is not a number of seconds above 0, up to 900"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def _integer(low: int, high: int) -> Callable[[str], int]:
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


def _region_name(value: str) -> str:
    if not re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-[0-9]+", value):
        msg = f"{value!r} is not the name of a region, such as eu-central-1"
        raise argparse.ArgumentTypeError(msg)
    return value


def _text(value: str) -> str:
    if not value.strip():
        msg = "it is blank"
        raise argparse.ArgumentTypeError(msg)
    return value
