"""
What hooks are told of an invocation: `Invocation` when it begins, `Outcome` at its end.

Made only for a hook that takes an argument.
"""

from __future__ import annotations

import os

from .. import disclosure
from . import clock
from .current import state


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
        remaining: Seconds that are left when it is asked; None: without limit.
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
        found = disclosure.attribute(self.context, name)
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
        remaining: Seconds that are left when it is asked, to an `after_response`
            hook until the next invocation must not wait longer; None: without limit.
    """

    __slots__ = ("_until", "duration", "error")

    def __init__(self) -> None:
        super().__init__()
        now = state()
        self.duration = clock.run_time() - now.begun_at
        self.error = now.error
        self._until: float | None = None  # run time, for work after the response

    def work_until(self, at: float) -> None:
        """Take the run time *at* for the end of the invocation, which has its answer."""
        self._until = at

    @property
    def remaining(self) -> float | None:
        """The seconds that are left now, also after the answer; None without limit."""
        until = self._until
        return clock.remaining() if until is None else until - clock.run_time()


def _trace_id() -> str | None:
    for part in os.environ.get("_X_AMZN_TRACE_ID", "").split(";"):
        name, _, value = part.partition("=")
        if name.strip() == "Root" and value:
            return value
    return None
