"""
Work after the response: what is done when the caller has its answer.

    handler ─▶ RESPONSE ─▶ answer posted ─▶ AFTER ─▶ the next invocation
                                            hooks ─▶ deferred calls ─▶ flush

When
    The runtime client posts an answer and then asks for the next invocation, in
    one thread; the work is done between the two (see `runtime_client`).  Lambda
    neither freezes the environment there nor sends another invocation.
    Where the runtime client is another one: by the INVOKE event of the Extensions
    API, if it was asked for before the registration; the work begins when the
    handler has ended, and may do so while the answer is on its way.
    Else, and outside Lambda: before the answer.

Guarantees
    The work of one invocation runs in order on one thread.  At its deadline less a
    margin the environment goes on without it: the call that runs is left behind,
    counted and logged; it stands still in the freeze and goes on beside the next
    invocation.  The calls queued behind it wait for the next response.
    What waits is bounded, by `MOST` calls and by `MOST_LEFT` threads left behind.
    At SIGTERM and exit what waits is done within the budget; what is not done then
    is counted and logged.

Threads
    `defer` may be called from any of them, and, once this module has been loaded by
    a first call or an `after_response` hook, from signal handlers.  What is
    queued is one ``append``, what is taken one ``popleft``: each is called once.

Forks
    A child has none of its parent's work.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from collections import deque

from .. import config, disclosure
from ..exceptions import ConfigurationError
from . import (
    clock,
    current,
    event_loop,
    extension,
    invocations,
    phases,
    process,
    real_threads,
    runtime_client,
    shutdown,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from .invocations import Outcome

MOST = 1000  # calls that wait
MOST_LEFT = 4  # threads left behind
MARGIN_S = 0.1  # least time between the end of the wait and the deadline
FLUSH_S = 0.02  # of the margin, to flush what work that was left behind has recorded
KEPT_BACK = 0.2  # part of a share at the end, for counting and logging within it
RELEASE_S = 0.05  # of the margin, for a coroutine to leave the loop
UNKNOWN_S = 1.0  # for the work, where nothing says when Lambda ends the invocation
FOR_EVER_S = 900.0  # no invocation is longer
BEFORE_ANSWER = phases.EARLY + 5  # after on_response hooks, before the flush

WAIT, EVENT, INLINE = "wait", "event", "inline"  # how the end of an answer is known

_lock = process.Lock()  # between taking a call and leaving its thread behind
_mode = ""  # of the three above; "" until something is to be done
_warned = False
_ended = False  # this process ends: nothing will be done any more
_refused = False  # and that was told
_waiting: deque[Call] = deque()
_outcome: Outcome | None = None  # of the invocation that has just ended
_ends_at: float | None = None  # its deadline, in run time
_rounds: list[Round] = []  # those under way, or left behind
_answered = real_threads.Event()  # the handler has ended, for EVENT
_answered_id: object = None  # of its invocation
_local = threading.local()
counters = dict.fromkeys(("queued", "done", "failed", "left_behind", "dropped"), 0)


class Call:
    """A function to be called later, in the context of now."""

    __slots__ = ("args", "context", "function", "kwargs")

    def __init__(
        self,
        function: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.context = contextvars.copy_context()

    def __call__(self) -> None:
        self.context.run(self._run)

    def _run(self) -> None:
        result: Any = self.function(*self.args, **self.kwargs)
        if hasattr(type(result), "__await__"):
            await_(result)


class _NotDone(Exception):
    """What is awaited goes on as a task of the loop."""


class Round:
    """The work that follows one response."""

    __slots__ = (
        "at", "ends_at", "hooks", "is_call", "is_left", "outcome", "over", "stay"
    )  # fmt: skip

    def __init__(self, outcome: Outcome | None, ends_at: float) -> None:
        self.outcome = outcome
        self.ends_at = ends_at
        self.hooks = [] if outcome is None else _hooks()
        self.at: Callable[..., object] = Round.work  # what runs now
        self.is_call = False  # that was deferred, no hook
        self.is_left = False
        self.stay = event_loop.Stay()
        self.over = real_threads.Event()

    def work(self) -> None:
        """Call the hooks and what was deferred, one after the other."""
        _local.round = self
        real_threads.disown()  # it may go on, and write, beside a later flush
        try:
            self._do()
        finally:
            _local.round = None
            # Nothing of the invocation is kept.
            self.outcome, self.hooks, self.at = None, [], Round.work
            self.over.set()

    def _do(self) -> None:
        while (hook := self._take_hook()) is not None:
            self._call(hook, hook)
        self.is_call = True
        while (call := self._take()) is not None:
            self._call(call, call.function)

    def _take_hook(self) -> Callable[..., object] | None:
        """Take the next hook, unless the thread has been left behind."""
        with _lock:
            return self.hooks.pop(0) if self.hooks else None

    def _take(self) -> Call | None:
        """Take the next call, unless the thread has been left behind."""
        with _lock:
            return _waiting.popleft() if _waiting and not self.is_left else None

    def _call(
        self, call: Callable[[], object], function: Callable[..., object]
    ) -> None:
        """Call *call*, which is for *function*, and count how that went."""
        self.at = function
        try:
            call()
        except _NotDone:
            pass  # `late` counts it
        except BaseException as exc:  # SystemExit, too: it is the thread's alone
            if process.by_signal_handler(exc):  # where no thread was to be had
                raise
            phases.failed(phases.AFTER, function)
            if self.is_call:
                counters["failed"] += 1
        else:
            if self.is_call:
                counters["done"] += 1

    def late(self) -> Callable[[Any], None]:
        """Return what counts what runs now when it is done, as a task of the loop."""
        function, is_call = self.at, self.is_call

        def count(task: Any) -> None:
            try:
                task.result()
            except BaseException as exc:
                if process.by_signal_handler(exc):
                    raise
                phases.failed(phases.AFTER, function)
                if is_call:
                    counters["failed"] += 1
            else:
                if is_call:
                    counters["done"] += 1

        return count

    def leave(self) -> list[Callable[..., object]]:
        """
        Go on without this work, which takes no call any more.

        Return what hangs, and the hooks that will not be called.
        """
        with _lock:
            if self.is_left or self.over.is_set():
                return []
            self.is_left = True
            skipped, self.hooks = self.hooks, []
            counters["left_behind"] += 1
            phases.abandoned[phases.AFTER] += 1 + len(skipped)
            return [self.at, *skipped]


def _report(functions: list[Callable[..., object]]) -> None:
    for function in functions:
        name = phases.name_of(function)
        disclosure.warn("listener_abandoned", phase=phases.AFTER, listener=name)


def await_(awaitable: Awaitable[Any]) -> None:
    """
    Run *awaitable* on the loop until it is done, or its round is left behind.

    Then it stays on the loop as a task, which goes on in a later invocation.
    """
    work: Round = _local.round
    if not work.stay.run(awaitable, work.late()):
        raise _NotDone


def outcome() -> Outcome | None:
    """Return the outcome of the invocation after which this thread works."""
    round_: Round | None = getattr(_local, "round", None)
    return None if round_ is None else round_.outcome


def add(call: Call) -> bool:
    """Queue *call*; say whether there was room."""
    global _refused
    follow()
    if _ended:
        counters["dropped"] += 1
        if not _refused:
            _refused = True
            disclosure.warn(
                "deferred_dropped",
                function=phases.name_of(call.function),
                reason="this process is ending",
            )
        return False
    if len(_waiting) >= MOST:
        counters["dropped"] += 1
        if counters["dropped"] == 1:
            disclosure.warn(
                "deferred_dropped",
                function=phases.name_of(call.function),
                reason=f"{MOST} calls are waiting",
            )
        return False
    counters["queued"] += 1
    _waiting.append(call)
    return True


def waiting() -> int:
    """Return how many calls wait for a response."""
    return len(_waiting)


def follow() -> None:
    """Register the functions that do the work after each response, once."""
    global _mode
    if _mode:
        return
    if not config.in_lambda() or phases.is_child_of_multiprocessing():
        mode = INLINE
    elif runtime_client.before_wait(_at_wait, last=True):
        mode = WAIT
    elif extension.on_event is not None:
        mode = EVENT
    else:
        mode = INLINE
    priority = BEFORE_ANSWER if mode == INLINE else phases.LAST
    phases.listen_once(phases.RESPONSE, _at_response, priority=priority)
    phases.listen_once(phases.SHUTDOWN, _at_shutdown, priority=phases.USER)
    shutdown.follow_exit()
    shutdown.at_last(_at_last)
    _mode = mode


def ask() -> None:
    """
    Subscribe to INVOKE events, if nothing else tells of an answer; before registration.

    Source: Lambda Extensions API, "Register",
    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
    """
    if (
        config.in_lambda()
        and not extension.one_of_many()  # whose internal extensions get no events
        and not phases.is_child_of_multiprocessing()
        and extension.status().state == "none"
        and not runtime_client.is_known()
    ):
        extension.on_event = _at_event


def _hooks() -> list[Callable[..., object]]:
    return [
        listener
        for priority, listener in phases.listeners(phases.AFTER)
        if priority < phases.LAST
    ]


def _at_response() -> None:
    """Note how the invocation went; do the work now, if there is no later."""
    global _outcome, _ends_at, _answered_id, _warned
    left_s = clock.remaining()
    _ends_at = None if left_s is None else clock.run_time() + left_s
    if _outcome is not None:  # its invocation had no time left for work
        _skip()
    found = invocations.Outcome() if _hooks() else None
    if _mode == WAIT:
        _outcome = found
    elif _mode == EVENT and _has_events():
        _outcome = found
        _answered_id = disclosure.attribute(current.state().context, "aws_request_id")
        _answered.set()
    # Not by way of `_outcome`: other threads may be in invocations of their own.
    elif found is not None or _waiting:
        if config.in_lambda() and not _warned:
            _warned = True
            disclosure.warn(
                "deferred_before_response",
                reason="this runtime client does not tell when the answer was posted; "
                + (
                    "set LAMBDA_EXT_AFTER_RESPONSE=1"
                    if _mode == INLINE
                    else f"no events: {extension.status().reason}"
                ),
            )
        current.state().timing = None  # the answer is not late if work is left behind
        _work(FOR_EVER_S if left_s is None else left_s, found)


def _has_events() -> bool:
    """Say whether Lambda sends the events that were asked for."""
    return extension.on_event is not None and extension.status().state == "registered"


def _at_wait() -> None:
    """Do the work between the answer and the wait for the next invocation."""
    if _outcome is None and not _waiting:
        return
    ends_at = runtime_client.ends_at()
    if _ends_at is not None:
        left_s = _ends_at - clock.run_time()
    elif ends_at is not None:
        left_s = ends_at - clock.wall()
    else:
        left_s = UNKNOWN_S
    _work(left_s, _last_outcome())


def _at_event(event: dict[str, Any]) -> None:
    """Do the work when the handler has ended; Lambda waits for this to return."""
    if event.get("eventType") != "INVOKE":
        return
    ends_at = float(event.get("deadlineMs") or 0) / 1000
    margin_s = _margin()
    if _is_decorated() and not _is_answered(
        event.get("requestId"), clock.run_time() + ends_at - clock.wall() - margin_s
    ):
        return  # what waits does so until there is an answer
    if _outcome is not None or _waiting:
        _work(ends_at - clock.wall(), _last_outcome())


def _is_answered(request_id: object, until: float) -> bool:
    """Wait until a handler has ended; say whether it has by the run time *until*."""
    while _answered.wait(max(until - clock.run_time(), 0.0)):
        _answered.clear()
        # It may have ended after the event of an earlier invocation.
        if not isinstance(_answered_id, str) or request_id in (None, _answered_id):
            return True
    return False


def _is_decorated() -> bool:
    """Say whether the function that Lambda calls is a decorated one."""
    module, _, name = os.environ.get("_HANDLER", "").rpartition(".")
    found: Any = sys.modules.get(module.replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part, None)
    return hasattr(found, "undecorated")


def _margin() -> float:
    try:
        margin_s: float = config.get("timeout_margin") or 0.0
    except ConfigurationError:
        margin_s = 0.0
    return max(margin_s, MARGIN_S)


def _last_outcome() -> Outcome | None:
    """Return the outcome of the invocation that has ended, once."""
    global _outcome
    found, _outcome = _outcome, None
    return found


def _work(left_s: float, found: Outcome | None) -> None:
    """Do the work after *found*, for as long as *left_s* less a margin allows."""
    global _outcome
    # Of a short invocation half is for the work.
    budget_s = left_s - min(_margin(), left_s / 2)
    with _lock:
        _forget_over()
    left = [each for each in _rounds.copy() if each.is_left]
    if len(left) >= MOST_LEFT or budget_s <= 0:
        # What is queued waits for the next response, or for the end.
        if found is not None:
            _skip()
        return
    if found is not None and left_s < FOR_EVER_S:
        found.work_until(clock.run_time() + left_s)
    work = Round(found, clock.run_time() + budget_s)
    with _lock:
        if shutdown.has_begun() and _active():
            # The thread of the end does this work when it has done that.
            _outcome = found
            return
        _rounds.append(work)
    phases.calls[phases.AFTER] += 1
    if not phases.run_within(budget_s, work.work, phases.AFTER):
        _leave(work)
    flush = _flushing()
    if flush:
        flush_s = max(work.ends_at - clock.run_time(), FLUSH_S)
        phases.run_within(flush_s, lambda: _flush(flush), phases.AFTER)
    phases.ended[phases.AFTER] += 1


def _forget_over() -> None:
    _rounds[:] = [each for each in _rounds if not each.over.is_set()]


def _leave(work: Round) -> None:
    """Go on without *work*, and say so."""
    left = work.leave()
    if not left:
        return
    if work.stay.release() and not work.over.wait(RELEASE_S):
        work.stay.abandon()
    phases.run_within(phases.REPORT_S, lambda: _report(left), phases.AFTER)


def _skip() -> None:
    """Count, and tell, the hooks for which an invocation has left no time."""
    skipped = _hooks()
    phases.abandoned[phases.AFTER] += len(skipped)
    _report(skipped)


def _flushing() -> list[Callable[..., object]]:
    """Return what flushes what the work has recorded."""
    return [
        listener
        for priority, listener in phases.listeners(phases.AFTER)
        if priority >= phases.LAST
    ]


def _flush(listeners: list[Callable[..., object]]) -> None:
    for listener in listeners:
        phases.call_one(phases.AFTER, listener)


def _at_shutdown() -> None:
    """Do what waits, within the share of the time that there is."""
    share_s = phases.share_s() or shutdown.BUDGET_S
    ends_at = clock.run_time() + share_s * (1 - KEPT_BACK)
    behind = [each for each in _rounds.copy() if each.is_left]
    _go_on(ends_at)
    for each in behind:
        each.over.wait(max(ends_at - clock.run_time(), 0.0))


def _go_on(ends_at: float) -> list[Round]:
    """Wait for the work that runs, then do what waits; return what still runs."""
    global _outcome
    for each in _active():
        each.over.wait(max(ends_at - clock.run_time(), 0.0))
    last = None
    with _lock:
        if (_waiting or _outcome is not None) and not _active():
            last = Round(_outcome, ends_at)
            _outcome = None
            _rounds.append(last)
    if last is not None:
        try:
            real_threads.start("lambda_ext_after_response", last.work)
        except (
            RuntimeError,
            MemoryError,
        ) as exc:  # none to be had, or Python is ending
            if process.by_signal_handler(exc):
                raise
            last.work()
        last.over.wait(max(ends_at - clock.run_time(), 0.0))
    return _active()


def _active() -> list[Round]:
    """Return the work under way that was not left behind."""
    return [each for each in _rounds.copy() if not (each.is_left or each.over.is_set())]


def _at_last(ends_at: float) -> None:
    """Use the time that other listeners have left; tell what is not done then."""
    rounds = _go_on(ends_at - FLUSH_S)
    left = [function for each in rounds for function in each.leave()]
    _count_lost()
    _report(left)


def _count_lost() -> None:
    """Count, and tell, what waits at the end."""
    global _ended
    with _lock:
        _ended = shutdown.has_begun()
        lost = len(_waiting)
        _waiting.clear()
    if lost:
        counters["dropped"] += lost
        disclosure.warn("deferred_lost", number=lost)


@process.at_fork
def _forked() -> None:
    """Drop the parent's work, in a forked child."""
    global _outcome, _ends_at, _answered, _answered_id, _ended, _refused
    _ended = _refused = False
    _waiting.clear()
    _rounds.clear()
    _outcome = _ends_at = _answered_id = None
    _answered = real_threads.Event()
    counters.update(dict.fromkeys(counters, 0))
    if _mode == WAIT:
        runtime_client.before_wait(_at_wait, last=True)


@process.at_reset
def reset() -> None:
    """Forget all work, as if this were just imported."""
    global _mode, _warned
    _mode = ""
    _warned = False
    _forked()
