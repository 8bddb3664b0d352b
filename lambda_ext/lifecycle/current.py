"""
The invocation under way in this thread, as `lambda_ext.handler` notes it: `State`.

What hooks are told of it is in `invocations`.
"""

from __future__ import annotations

import os
import threading

from . import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from typing import Any

    # When it began (run time), seconds that it had, the lead of house time then.
    Timing = tuple[float, float, float]


# Initialised ahead of any request: no invocation waits for it.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
AHEAD = frozenset(("provisioned-concurrency", "lambda-managed-instances"))
SUSPENDS = "aws_durable_execution_sdk_python.exceptions"


class State:
    """What is known of one thread's invocation."""

    def __init__(self) -> None:
        self.inside = False  # a handler that another one calls is no new invocation
        self.context: Any = None
        self.is_cold_start = False
        self.begun_at = 0.0  # run time
        self.error: type[BaseException] | None = None
        # None: no deadline, or TIMEOUT was called; another object each time.
        self.timing: Timing | None = None


local = threading.local()
_states: set[weakref.ref[State]] = set()  # of all threads


def state() -> State:
    """Return the state of this thread."""
    try:
        found: State = local.state
    except AttributeError:
        found = State()
        process.remember(_states, found)
        local.state = found
    return found


def states() -> list[State]:
    """Return the states of all threads that have run an invocation."""
    return process.living(_states)


def is_cold_start() -> bool:
    """Say whether this invocation waited for its environment to be made or restored."""
    return (
        state().is_cold_start
        and os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") not in AHEAD
    )


def error_of(raised: BaseException) -> type[BaseException] | None:
    """
    Return the class of *raised* as the outcome of an invocation.

    None where AWS's SDK suspends a durable execution by it, which is no error.
    """
    kind = type(raised)
    for each in kind.__mro__:
        if each.__name__ == "SuspendExecution" and each.__module__ == SUSPENDS:
            return None
    return kind


@process.at_fork
def _forked() -> None:
    """Forget the invocation under way, in a forked child: it is the parent's."""
    global local
    local = threading.local()
    _states.clear()


process.at_reset(_forked)
