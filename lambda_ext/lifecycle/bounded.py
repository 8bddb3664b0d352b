"""
Hooks of an invocation that have a budget: an invocation waits for them no longer.

Such a hook is called on a thread of its own, in a copy of the handler's context
variables.  One that is not done in time is left behind: counted, logged, and not
called again before it has returned.  A coroutine returns in time: the rest of it is
a task of the loop, beside which the next call may run.
"""

from __future__ import annotations

import contextvars

from .. import disclosure
from . import clock, event_loop, phases, process, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RELEASE_S = 0.05  # for a coroutine to leave the loop


class Bounded:
    """A hook that has *budget_s* seconds, or what its invocation has left of them."""

    __slots__ = ("_argument", "_budget_s", "_over", "_phase", "wrapped")

    def __init__(
        self,
        function: Callable[..., object],
        argument: Callable[[], object] | None,
        phase: str,
        budget_s: float,
    ) -> None:
        self.wrapped = function  # what a log line names
        self._argument = argument
        self._phase = phase
        self._budget_s = budget_s
        self._over = real_threads.Event()  # no call is under way
        self._over.set()

    def __call__(self) -> None:
        left_s = clock.remaining()
        budget_s = self._budget_s if left_s is None else min(self._budget_s, left_s / 2)
        if budget_s <= 0 or not self._over.is_set():
            phases.abandoned[self._phase] += 1
            return
        # Of this thread's invocation.
        given = () if self._argument is None else (self._argument(),)
        context = contextvars.copy_context()
        over = self._over = real_threads.Event()
        stay = event_loop.Stay()

        def body() -> None:
            try:
                context.run(self._run, given, stay)
            finally:
                over.set()

        if phases.run_within(budget_s, body, self._phase, self):
            return
        if stay.release() and not over.wait(RELEASE_S):
            stay.abandon()
        phases.abandoned[self._phase] += 1
        disclosure.warn(
            "listener_abandoned", phase=self._phase, listener=phases.name_of(self)
        )

    def _run(self, given: tuple[Any, ...], stay: event_loop.Stay) -> None:
        result: Any = self.wrapped(*given)
        if hasattr(type(result), "__await__"):
            stay.run(result, self._late)

    def _late(self, task: Any) -> None:
        """Tell of a coroutine that fails as a task, in a later invocation."""
        if task.cancelled() or task.exception() is None:
            return
        try:
            task.result()
        except BaseException as exc:
            if process.by_signal_handler(exc):
                raise
            phases.failed(self._phase, self)
