"""
The watcher of deadlines: calls TIMEOUT shortly before Lambda ends an invocation.

    a first metric, or an on_timeout hook ─▶ watch()
    an invocation that is due before the watcher would look ─▶ _alarm()
    deadline - margin ─▶ TIMEOUT: metrics, hooks, network
    the oldest record is older than flush_every ─▶ an early flush

One daemon thread for all invocations, begun when there is something to watch
for and an invocation that has a deadline.  It sleeps until the earliest moment
that it knows of, looks again, and sleeps until the next: an invocation that
ends in time wakes nothing, and costs one comparison with `clock.horizon`.

Guarantees
    TIMEOUT is called at most once for an invocation, and only for one that is
    under way.  After a freeze the thread looks late: a deadline is dropped with the
    invocation that it belongs to, also where a thread of that invocation hangs; and
    an invocation whose deadline has passed in the freeze gets no TIMEOUT: SIGTERM
    ends it.  Invocations in several threads are watched independently.

What it cannot do
    While C code holds the GIL no other thread runs, this one neither.
"""

from __future__ import annotations

import math

from .. import config, disclosure
from ..exceptions import ConfigurationError
from . import clock, current, phases, process, real_threads, runtime_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .current import State, Timing
    from .real_threads import Thread

TIMER_S = 1.0  # for what the timer calls; then the thread goes on without it

_lock = process.Lock()  # for starting the thread
_watching = False
_margin_s = 0.0  # before the deadline; 0: nothing is watched
_until: float | None = None  # run time until which the thread sleeps; None: for ever
_soonest: float | None = None  # what the last alarm was for
_timer: tuple[Callable[[], float | None], Callable[[], object]] | None = None
_wake = real_threads.Event()
_thread: Thread | None = None
_stopping = False

imminent: State | None = None  # of the invocation for which TIMEOUT is called


def watch() -> None:
    """Watch the deadline of each invocation, of those under way, too."""
    global _watching
    if not _watching:
        clock.alarm = _alarm
        config.watch(_changed)
        _follow_runtime()
        _take_margin()
        _watching = True  # last: a signal handler may have raised before


def looks_after(at: float) -> bool:
    """Say whether the thread sleeps beyond the run time *at*, or is not running."""
    until = _until
    return _thread is None or until is None or at < until


def look(due: Callable[[], float | None], call: Callable[[], object]) -> None:
    """
    Have the thread call *call* when the run time due() has come.

    It looks then, and after that whenever something is due; None is nothing.
    """
    global _timer, _soonest
    watch()
    _timer = due, call
    at = due()
    with _lock:
        if at is not None and (_soonest is None or at < _soonest):
            _soonest = at
        _start()
        _wake.set()


def _changed() -> None:
    if _watching:
        _take_margin()


def _take_margin() -> None:
    """Take the margin from the options."""
    global _margin_s
    try:
        _margin_s = config.get("timeout_margin") or 0.0
    except ConfigurationError as exc:
        disclosure.warn("option_ignored", exc)
        _margin_s = config.OPTIONS["timeout_margin"].default
    _wake.set()  # the thread looks with the new margin
    _forget_horizon()
    _alarm()


def _follow_runtime() -> None:
    if config.in_lambda():
        runtime_client.before_wait(_none_under_way)


def _none_under_way() -> None:
    """Watch no invocation any more: the runtime client waits for the next."""
    for state in current.states():
        state.timing = None


def _forget_horizon() -> None:
    clock.horizon = math.inf if _margin_s else -math.inf


def _alarm() -> None:
    """Wake the thread, or start it, so that it looks when the earliest moment has come."""
    global _soonest
    found = _earliest()
    if found is None:
        return
    due_at = found[0]
    with _lock:
        until = _until
        if _thread is not None and _thread.is_alive():
            if until is not None and until <= due_at:
                return
        elif not _start():
            return
        _soonest = due_at
        clock.horizon = due_at + _margin_s
        _wake.set()


def _start() -> bool:
    """Start the thread unless it runs; False where no thread can be started now."""
    if _thread is None or not _thread.is_alive():
        try:
            real_threads.start("lambda_ext_deadline", _run, is_quiet=True, before=_keep)
        except (RuntimeError, MemoryError) as exc:
            if process.by_signal_handler(exc):
                raise
            return False
    return True


def _keep(thread: Thread) -> None:
    global _thread
    _thread = thread


def _earliest() -> tuple[float, State, Timing] | None:
    """Return what is due first: at what run time, and of which invocation."""
    found: tuple[float, State, Timing] | None = None
    for state in current.states():
        timing = state.timing
        if timing is not None and _margin_s:
            begun_at, remaining_s, _ = timing
            # An invocation of less than two margins has half of its time.
            due_at = begun_at + remaining_s - min(_margin_s, remaining_s / 2)
            if found is None or due_at < found[0]:
                found = due_at, state, timing
    return found


def _run() -> None:
    global _until
    while not _stopping:
        found = _earliest()
        timed_at = _timed_at()
        now = clock.run_time()
        if found is not None and found[0] <= now:
            _fire(found[1], found[2])
            continue
        if timed_at is not None and timed_at <= now and _timer is not None:
            phases.run_within(TIMER_S, _timer[1], phases.RESPONSE)
            continue
        soonest = _soonest if found is None else found[0]
        if soonest is not None and soonest <= now:
            soonest = None
        if timed_at is not None and (soonest is None or timed_at < soonest):
            soonest = timed_at
        _until = soonest
        if soonest is None:
            _forget_horizon()
        elif _margin_s:
            # No later deadline is due earlier.
            clock.horizon = soonest + _margin_s
        # Else an invocation, or something else, began after the look.
        if found == _earliest() and timed_at == _timed_at():
            _wake.wait(None if soonest is None else soonest - now)
        _wake.clear()


def _timed_at() -> float | None:
    """Return the run time at which the timer is due."""
    return None if _timer is None else _timer[0]()


def _fire(state: State, timing: Timing) -> None:
    """Call TIMEOUT for the invocation of *state*, unless that has ended."""
    mine = False
    # One step: an invocation is known by this very object.
    if state.timing is timing:
        state.timing = None
        mine = True
    if not mine:
        return
    real_threads.introduce()
    begun_at, remaining_s, lead = timing
    clock.sync()  # a freeze counts, which run time may not know of
    frozen_s = clock.lead - lead
    left_s = begun_at + remaining_s - clock.run_time() - frozen_s
    if left_s > 0 or not frozen_s:
        time_out(state, max(left_s, 0.0))


def time_out(state: State, remaining_s: float) -> None:
    """Call TIMEOUT for the invocation of *state*, which has *remaining_s* seconds."""
    global imminent
    imminent = state
    try:
        phases.call_within(remaining_s, phases.TIMEOUT)
    finally:
        imminent = None


@process.at_fork
def _forked() -> None:
    global _until, _soonest, _thread, _wake, imminent
    _until = _soonest = _thread = imminent = None
    _wake = real_threads.Event()
    if _watching:
        _forget_horizon()
        _follow_runtime()


@process.at_reset
def reset() -> None:
    """Let the thread end, as if this were just imported."""
    global _stopping, _watching, _timer
    thread = _thread
    if thread is not None:
        _stopping = True
        _wake.set()
        thread.join(5.0)
    _watching = False
    _timer = None
    clock.horizon = -math.inf
    clock.alarm = None
    _forked()
    _stopping = False
