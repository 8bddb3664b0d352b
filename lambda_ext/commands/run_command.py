"""
`lambda-ext run`: run a handler on this machine as Lambda would, and report.

Everything that it needs beyond argparse is in the extra ``local`` and is
imported when it is known that a run is wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import arguments as types
from .arguments import BAD, GOOD, INSTALL, INTERRUPTED, UsageError

if TYPE_CHECKING:
    from ..local.run import Plan

# Variables that the run sets itself, and what to use instead.
OWN_VARIABLES = {
    "_HANDLER": "the argument MODULE.HANDLER",
    "AWS_LAMBDA_MAX_CONCURRENCY": "nothing: one process has one invocation at a time",
    "AWS_LAMBDA_RUNTIME_API": "nothing: it is the address of the emulator",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "--memory",
    "AWS_LAMBDA_FUNCTION_NAME": "--function-name",
    "AWS_REGION": "--region",
    "LAMBDA_TASK_ROOT": "--task-root",
}
SNAPSTART = "AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"
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
# Signals that end the run, as a terminal or a CI job sends them.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

DESCRIPTION = """\
Run a handler on this machine as Lambda would, with AWS's own runtime client:
INIT, invocations with the process frozen in between, SIGTERM, exit.  Prints
what went on: each invocation and what it returned, the calls made to AWS, the
metrics written and what CloudWatch would refuse of them, and how the process
ended.  The first run takes some seconds longer: Python compiles moto.

Secrets Manager, Parameter Store, AppConfig's data plane and other services are
played on 127.0.0.1, filled from --seed.  AWS itself is never contacted, and
your credentials are kept from the function, unless you say --aws.
"""

EXAMPLES = """\
examples:
  lambda-ext run app.handler
  lambda-ext run app.handler --event order.json --repeat 5 --seed seed.json
  lambda-ext run src/orders/app.handler --event orders.jsonl --env STAGE=test
  lambda-ext run app.handler --event event.json --json > result.json

a seed file:
  {"secrets":    {"prod/db": {"user": "me", "password": "..."}},
   "parameters": {"/page-size": "20",
                  "/token": {"value": "...", "type": "SecureString"}},
   "flags":      {"app/env/profile": {"new-checkout": {"enabled": true}}},
   "configurations": {"app/env/other": {"any": "JSON"}}}

exit status:
  0  good     1  not good: see VERDICT     2  it could not be started
  130, 143, 129  interrupted by SIGINT, SIGTERM, SIGHUP; what was seen is printed
"""


def add_to(commands: Any) -> None:
    """Add the command, with its arguments."""
    parser = commands.add_parser(
        "run",
        help="run a handler here as Lambda would, and report",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=command)
    _what_to_run(parser)
    _how_to_run(parser)
    _what_to_print(parser)


def _what_to_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "handler",
        metavar="MODULE.HANDLER",
        type=types.handler,
        help="as in Lambda's own setting: app.handler, src/app.handler",
    )
    add(
        "--event",
        metavar="FILE",
        action="append",
        default=[],
        help='a JSON file with an event, a .jsonl file with one in each line, "-"'
        " for the standard input; can be given several times (default: one empty"
        " event)",
    )
    add(
        "--repeat",
        metavar="N",
        type=types.integer(1, 10_000),
        default=1,
        help="send all events N times (default: 1)",
    )
    add("--seed", metavar="FILE", help="a JSON file of what AWS holds, see below")
    add(
        "--env",
        metavar="NAME=VALUE",
        type=types.variable,
        action="append",
        default=[],
        help="a variable of the function; can be given several times",
    )
    add(
        "--task-root",
        metavar="DIR",
        default=".",
        help="the folder with the function's code (default: this one)",
    )


def _how_to_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--timeout",
        metavar="SECONDS",
        type=types.timeout,
        default=3.0,
        help="the function's time-out, up to 900 (default: 3)",
    )
    add(
        "--memory",
        metavar="MB",
        type=types.integer(128, 10_240),
        default=128,
        help="what the function is told about its memory; nothing limits it"
        " (default: 128)",
    )
    add(
        "--region",
        type=types.region,
        help="AWS region of function and seed (default: us-east-1; with --aws this"
        " shell's)",
    )
    add(
        "--function-name",
        metavar="NAME",
        type=types.text,
        help="(default: the module's name)",
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
        type=types.text,
        help="send SIGTERM only when the function has written a line with TEXT"
        " after its last response",
    )
    add(
        "--aws",
        action="store_true",
        help="call AWS itself, with the credentials, profile and endpoints of this"
        " shell; calls are not recorded then",
    )


def _what_to_print(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
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
    add(
        "--responses",
        action="store_true",
        help="show all of what the handler returned, not one line of it",
    )
    add("--logs", action="store_true", help="show all that the function wrote")
    add(
        "--json",
        action="store_true",
        help="print one JSON document for programs, with every event of the run",
    )
    add(
        "--plain",
        action="store_true",
        help="text without colour, as where the output is not a terminal",
    )


def command(arguments: argparse.Namespace) -> int:
    """Run the handler, print the report, and return the exit status."""
    if sys.platform != "linux":
        msg = (
            f"this is {sys.platform}, and Lambda is Linux: the run stops, thaws and"
            " ends processes as Linux does; use a container or a virtual machine"
        )
        raise UsageError(msg)
    try:
        from ..local.inputs import InputError
        from ..local.json_report import document
        from ..local.outcomes import EmulatorError
        from ..local.report import Report, consoles, progress
        from ..local.run import run
        from ..local.seeds import SeedError
        from ..local.steps import StepError
        from ..local.verdict import judge
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("lambda_ext"):
            raise
        msg = f"the package {exc.name!r} is not installed; say: {INSTALL}"
        raise UsageError(msg) from exc

    out, err = consoles(plain=arguments.plain)
    try:
        plan = make_plan(arguments)
        with _interruptions(), progress(err) as step:
            result = run(plan, step)
    except (InputError, SeedError, EmulatorError) as exc:
        raise UsageError(str(exc)) from exc
    except StepError as exc:
        print(f"lambda-ext run: {exc}", file=sys.stderr)  # noqa: T201  a command talks
        return BAD
    verdict = judge(result, allow_errors=arguments.allow_errors)
    try:
        if arguments.json:
            print(document(result, verdict), flush=True)  # noqa: T201  likewise
        else:
            report = Report(out)
            report.all(
                result, verdict, logs=arguments.logs, responses=arguments.responses
            )
            sys.stdout.flush()
    except BrokenPipeError:  # its reader has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as exc:
        msg = f"the report cannot be written: {exc.strerror}"
        raise UsageError(msg) from exc
    if result.interrupted is not None:
        return INTERRUPTED + signal.Signals[result.interrupted]
    return GOOD if verdict.good else BAD


@contextlib.contextmanager
def _interruptions() -> Iterator[None]:
    """
    Let the first of `SIGNALS` raise KeyboardInterrupt with its name; ignore more.

    What was ignored when the command was started (nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {
        number: signal.getsignal(number)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }

    def interrupt(number: int, frame: object) -> None:
        for other in former:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in former:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Read the files that *arguments* name, and check what they say together."""
    from ..local.inputs import read_events, read_seed
    from ..local.run import Plan
    from ..local.seeds import Seed

    if arguments.aws and arguments.seed:
        msg = "--seed is for the AWS on this machine; leave it out with --aws"
        raise UsageError(msg)
    if arguments.event.count("-") > 1:
        msg = "--event -: the standard input can be read only once"
        raise UsageError(msg)
    if not os.path.isdir(arguments.task_root):
        msg = f"--task-root: there is no folder {arguments.task_root}"
        raise UsageError(msg)
    events = [event for path in arguments.event for event in read_events(path)]
    return Plan(
        handler=arguments.handler,
        events=(events if arguments.event else [{}]) * arguments.repeat,
        task_root=arguments.task_root,
        seed=read_seed(arguments.seed) if arguments.seed else Seed(),
        environment=_environment(arguments.env, aws=arguments.aws),
        function_name=arguments.function_name or function_name(arguments.handler),
        timeout_s=arguments.timeout,
        memory_mb=arguments.memory,
        region=arguments.region or default_region(aws=arguments.aws),
        python=arguments.python,
        freeze=arguments.freeze,
        wait_for=arguments.wait_for,
        real_aws=arguments.aws,
        allow_shown=arguments.allow_shown,
    )


def _environment(pairs: Sequence[tuple[str, str]], *, aws: bool) -> dict[str, str]:
    """Return the variables of --env, none of which may undo what the run does."""
    for name, value in pairs:
        if name in OWN_VARIABLES:
            msg = f"--env {name}: the run sets it; use {OWN_VARIABLES[name]}"
            raise UsageError(msg)
        if (name, value) == SNAPSTART:
            msg = (
                f"--env {name}: the run takes no snapshot; use"
                " lambda_ext.testing.simulate_restore() in a test"
            )
            raise UsageError(msg)
        if not aws and name.startswith(ONLY_WITH_AWS):
            msg = (
                f"--env {name}: it would lead to AWS itself; say --aws if you want that"
            )
            raise UsageError(msg)
    return dict(pairs)


def default_region(*, aws: bool) -> str:
    """Return the region without --region: this shell's, if AWS itself is meant."""
    names = ("AWS_REGION", "AWS_DEFAULT_REGION") if aws else ()
    return next(filter(None, map(os.environ.get, names)), "us-east-1")


def function_name(handler: str) -> str:
    """Name the function after its module: src/orders/app.handler is "app"."""
    return handler.rpartition(".")[0].replace("/", ".").rpartition(".")[2]
