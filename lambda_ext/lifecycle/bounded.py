"""
Hooks of an invocation that have a budget: an invocation waits for them no longer.

Such a hook is called on a thread of its own, in a copy of the handler's context
variables.  One that is not done in time is left behind: counted, logged, and not
called again before it has returned.  A coroutine returns in time: the rest of it is
a task of the loop, beside which the next call may run.  While `MOST_LEFT` of them
have not ended, the hook is not called: they have the seconds of its budget instead.
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
GO_ON = 0.8  # of the budget, for those that were left behind
MOST_LEFT = 4  # coroutines of one hook that were left behind


class Bounded:
    """A hook that has *budget_s* seconds, or what its invocation has left of them."""

    __slots__ = ("_argument", "_budget_s", "_left", "_over", "_phase", "wrapped")

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
        self._left: list[_Left] = []  # coroutines that were left behind

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
        is_called = []

        def body() -> None:
            try:
                if self._has_room(budget_s * GO_ON, stay):
                    is_called.append(True)
                    context.run(self._run, given, stay)
            finally:
                over.set()

        if phases.run_within(budget_s, body, self._phase, self):
            phases.abandoned[self._phase] += not is_called
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
            left = _Left()
            self._left.append(left)
            is_done = True
            try:
                is_done = stay.run(result, lambda task: self._late(task, left))
            finally:
                if is_done:
                    left.end()

    def _has_room(self, seconds: float, stay: event_loop.Stay) -> bool:
        """Say whether few were left behind; if not, let them go on for *seconds*."""
        left = self._left = [each for each in self._left if not each.is_over()]
        if len(left) < MOST_LEFT:
            return True
        stay.run(left[0].go_on(seconds), _ignore)
        return left[0].is_over()

    def _late(self, task: Any, left: _Left) -> None:
        """Tell of a coroutine that fails as a task, in a later invocation."""
        left.end()
        if task.cancelled() or task.exception() is None:
            return
        try:
            task.result()
        except BaseException as exc:
            if process.by_signal_handler(exc):
                raise
            phases.failed(self._phase, self)


class _Left:
    """A coroutine of a hook, which may have been left behind on the loop."""

    __slots__ = ("_ended", "_loop", "_tell")

    def __init__(self) -> None:
        self._loop = event_loop.made()
        self._ended = False
        self._tell: Callable[[], object] | None = None

    def is_over(self) -> bool:
        """Say whether it has ended, or its loop was left to another thread."""
        return self._ended or self._loop is not event_loop.current()

    def end(self) -> None:
        """Note that it has ended, on its loop."""
        self._ended = True
        if self._tell is not None:
            self._tell()

    async def go_on(self, seconds: float) -> None:
        """Return when it has ended, or after so many *seconds*."""
        import asyncio  # noqa: PLC0415  is loaded by now

        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def tell() -> None:
            if not over.done():
                over.set_result(None)

        self._tell = tell
        timer = loop.call_later(seconds, tell)
        try:
            if not self._ended:
                await over
        finally:
            timer.cancel()
            self._tell = None


def _ignore(_: object) -> None:
    """Do nothing with what was waited for."""
