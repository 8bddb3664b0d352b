"""
Invocations of a handler that is not decorated, after `lambda_ext.start()`.

    the runtime client has an invocation ─▶ clock, INVOKE, the time-out guard
    your handler, and its answer is on its way
    the runtime client is about to wait for the next ─▶ RESPONSE

So metrics are flushed after the answer, which does not wait for them, and before
the environment is frozen.  It needs Lambda's own runtime client (`awslambdaric`);
with another one there is no such moment: metrics are flushed by SIGTERM and at
exit only, and by `metrics.flush()`.

In a program that decorates a handler none of this happens.
"""

from __future__ import annotations

from . import clock, current, phases, process, runtime_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_begin: Callable[[current.State, Received], object] | None = None


class Received:
    """What is known of an invocation before it has a context of Lambda's."""

    __slots__ = ("_deadline_ms", "aws_request_id", "invoked_function_arn", "tenant_id")

    def __init__(self, request: Any) -> None:
        self.aws_request_id = getattr(request, "invoke_id", None)
        self.invoked_function_arn = getattr(request, "invoked_function_arn", None)
        self.tenant_id = getattr(request, "tenant_id", None)
        self._deadline_ms = getattr(request, "deadline_time_in_ms", None)

    def get_remaining_time_in_millis(self) -> float | None:
        """Return the milliseconds that are left; None without a deadline."""
        if self._deadline_ms is None:
            return None
        return float(self._deadline_ms) - clock.wall() * 1000


def install(begin: Callable[[current.State, Received], object]) -> None:
    """Have *begin* called with what the runtime client receives from now on."""
    global _begin
    _begin = begin
    runtime_client.before_wait(_answered)
    runtime_client.after_wait(_received)


@process.at_reset
def reset() -> None:
    """Begin nothing, as if this were just imported."""
    global _begin
    _begin = None


def _received(request: Any) -> None:
    state = current.state()
    if _begin is not None and not state.inside:
        state.inside = True
        _begin(state, Received(request))


def _answered() -> None:
    state = current.state()
    if type(state.context) is Received:
        try:
            phases.call(phases.RESPONSE)
        finally:
            clock.deadline_at = None
            state.inside = False
            state.context = state.timing = None
