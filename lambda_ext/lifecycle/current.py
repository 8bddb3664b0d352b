"""
The invocation under way in this thread, and the objects that describe it to hooks.

`lambda_ext.handler` keeps the `State` up to date; the two classes are made only for
a hook that takes an argument.
"""

from __future__ import annotations

import os
import threading
import weakref

from . import clock, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # When it began (run time), seconds that it had, the lead of house time then.
    Timing = tuple[float, float, float]


# Initialised ahead of any request: no invocation waits for it.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
AHEAD = frozenset(("provisioned-concurrency", "lambda-managed-instances"))
SUSPENDS = "aws_durable_execution_sdk_python.exceptions"


class State:
    """What is known of one thread's invocation."""

    __slots__ = (
        "__weakref__", "begun_at", "context", "error", "inside", "is_cold_start",
        "timing",
    )  # fmt: skip

    def __init__(self) -> None:
        self.inside = False  # an invocation inside an invocation is none
        self.context: Any = None
        self.is_cold_start = False
        self.begun_at = 0.0  # run time
        self.error: type[BaseException] | None = None
        # None: no deadline, or TIMEOUT was called; another object each time.
        self.timing: Timing | None = None


local = threading.local()
_states: dict[int, weakref.ref[State]] = {}  # of all threads, by id


def state() -> State:
    """Return the state of this thread."""
    try:
        found: State = local.state
    except AttributeError:
        found = State()
        number = id(found)

        def forget(_: object) -> None:
            _states.pop(number, None)

        _states[number] = weakref.ref(found, forget)
        local.state = found
    return found


def states() -> list[State]:
    """Return the states of all threads that have run an invocation."""
    found = [reference() for reference in [*_states.values()]]
    return [each for each in found if each is not None]


def is_cold_start() -> bool:
    """Say whether this invocation waited for its environment to be made or restored."""
    return (
        state().is_cold_start
        and os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") not in AHEAD
    )


class Invocation:
    """
    One invocation, as the `on_invoke` hooks see it when it begins.

    Attributes:
        context: Lambda's context object, None where the handler has none.
        request_id: Of AWS; None without a context of Lambda's, as in a test.
        function_arn: The invoked function, with its version or alias; or None.
        tenant_id: Of a function with tenant isolation; else None.
        trace_id: X-Ray's, such as "1-5759e988-bd862e3fe1be46a994272793"; or None.
        is_cold_start: Whether it is the first in this execution environment.
        deadline: When Lambda ends it, in seconds since the epoch; None: never.
    """

    __slots__ = ("context", "deadline", "is_cold_start", "trace_id")

    def __init__(self) -> None:
        now = state()
        self.context = now.context
        self.is_cold_start = now.is_cold_start
        self.trace_id = _trace_id()
        remaining_s = clock.remaining()
        self.deadline = None if remaining_s is None else clock.wall() + remaining_s

    @property
    def request_id(self) -> str | None:
        """AWS's id of this invocation."""
        return self._text("aws_request_id")

    @property
    def function_arn(self) -> str | None:
        """The ARN by which the function was invoked."""
        return self._text("invoked_function_arn")

    @property
    def tenant_id(self) -> str | None:
        """The tenant for which it was invoked."""
        return self._text("tenant_id")

    @property
    def remaining(self) -> float | None:
        """The seconds that are left now; None without limit."""
        return clock.remaining()

    def _text(self, name: str) -> str | None:
        found = getattr(self.context, name, None)
        return found if isinstance(found, str) else None  # not a test double's

    def __repr__(self) -> str:
        """Show which one it is."""
        return f"<{type(self).__name__} {self.request_id}>"


class Outcome(Invocation):
    """
    One invocation, as the `on_response` hooks see it when the handler is done.

    Has everything that an `Invocation` has, and:

    Attributes:
        duration: Seconds that the handler took.
        error: The class of the exception that it raised; None if it returned,
            or if AWS's SDK suspended a durable execution.
    """

    __slots__ = ("duration", "error")

    def __init__(self) -> None:
        super().__init__()
        now = state()
        self.duration = clock.run_time() - now.begun_at
        self.error = now.error


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


def _trace_id() -> str | None:
    for part in os.environ.get("_X_AMZN_TRACE_ID", "").split(";"):
        name, _, value = part.partition("=")
        if name.strip() == "Root" and value:
            return value
    return None


@process.at_fork
def _forked() -> None:
    """Be inside no invocation: the one under way is the parent's."""
    global local
    local = threading.local()
    _states.clear()


process.at_reset(_forked)
