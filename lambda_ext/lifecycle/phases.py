"""
Who is called in which phase of an execution environment's life.

    INIT ─▶ INVOKE ─▶ RESPONSE ─▶ (freeze / thaw) ─▶ ... ─▶ SHUTDOWN
    with AFTER (the answer was posted), TIMEOUT, SNAPSHOT and RESTORE (SnapStart)
    on the side

The lifecycle knows listeners, not metrics or caches: those register here.
A listener that raises is logged and counted; the others are called all the same.

Two ways to call a phase
    Without a budget, in the caller's thread, one listener after the other.
    With a budget, each on a thread of its own: one that hangs, raises or exits
    costs its share of the time, and nothing else.

Forks
    A child begins with counters at zero.

Threads
    No lock: registering is one ``append``, so that a signal handler may do it
    at any place (the first metric registers); a call works on a copy.
"""

from __future__ import annotations

import functools
import os
import sys
import threading

from .. import disclosure
from . import clock, process, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Listener = Callable[..., object]
    Entry = tuple[int, Listener]

INIT = "init"
INVOKE = "invoke"
RESPONSE = "response"
AFTER = "after_response"
SHUTDOWN = "shutdown"
SNAPSHOT = "snapshot"
RESTORE = "restore"
TIMEOUT = "timeout"
PHASES = (INIT, INVOKE, RESPONSE, AFTER, SHUTDOWN, SNAPSHOT, RESTORE, TIMEOUT)

ESSENTIAL = 0  # priority: what must happen in the first moments of a shutdown
EARLY = 25  # priority: callbacks of the user that record what others flush
USER = 50  # priority: callbacks of the user, unless they say otherwise
NETWORK = 90  # priority: what waits for a network, hence comes late
PREVIOUS = 95  # priority: the SIGTERM handler that was there before ours
LAST = 1 << 62  # priority: the last flush, after any callback, perhaps repeated

CHILD = "multiprocessing started this process"  # why it does not join Lambda's life

ESSENTIAL_S = 0.15  # of a budget, for listeners of priority ESSENTIAL
REPORT_S = 0.02  # for logging which listeners were abandoned

_listeners: dict[str, list[Entry]] = {phase: [] for phase in PHASES}
_local = threading.local()
hooks: list[Listener] = []  # the listeners that are functions of the user's
_silenced = 0  # how many listeners were taken away
# By phase: how many listeners there were, and `_silenced`, when they were sorted last,
# and the sorted listeners.
_orders: dict[str, tuple[int, int, tuple[Entry, ...]]] = dict.fromkeys(
    PHASES, (0, 0, ())
)
calls = dict.fromkeys(PHASES, 0)  # how often each phase began
ended = dict.fromkeys(PHASES, 0)  # how often it ended
failures = dict.fromkeys(PHASES, 0)  # how many listeners raised in it
abandoned = dict.fromkeys(PHASES, 0)  # how many took longer than their share of it


def listen(phase: str, listener: Listener, *, priority: int = USER) -> None:
    """Call *listener* in each *phase*, low priority first, then in order."""
    _listeners[phase].append((priority, listener))


def listen_once(phase: str, listener: Listener, *, priority: int = USER) -> None:
    """
    Do as `listen`, unless that was done before.

    A module that registers several listeners calls this for each of them, and only
    then notes that it has: a signal handler may raise in between, and the next attempt
    repeats all calls.
    """
    entries, entry = _listeners[phase], (priority, listener)
    # One step: no signal handler and no other thread comes in between.
    if entry not in entries:
        entries.append(entry)


def under_way(phase: str) -> bool:
    """Say whether *phase* has begun, and not ended, in some thread."""
    return calls[phase] > ended[phase]


def entries(phase: str) -> list[Entry]:
    """Return the (priority, listener) pairs of *phase*; always the same list."""
    return _listeners[phase]


def silence(phase: str, listener: Listener) -> None:
    """Stop calling *listener* in *phase*; nothing happens if it was not."""
    global _silenced
    entries = _listeners[phase]
    for entry in entries.copy():
        if entry[1] == listener:
            try:
                entries.remove(entry)
            except ValueError:  # another thread has done so
                continue
            _silenced += 1


def listeners(phase: str) -> tuple[Entry, ...]:
    """Return the (priority, listener) pairs of *phase*, in calling order."""
    entries = _listeners[phase]
    known = _orders[phase]
    if known[0] == len(entries) and known[1] == _silenced:
        return known[2]
    # Counted before they are sorted: what is registered meanwhile makes it stale.
    counts = len(entries), _silenced
    order = tuple(sorted(entries, key=_priority))
    _orders[phase] = (*counts, order)
    return order


def _priority(entry: Entry) -> int:
    return entry[0]


def call(phase: str) -> None:
    """
    Call each listener of *phase* in this thread; what one raises is logged.

    A BaseException of this library's listeners, or what a signal handler of the
    user's has raised meanwhile, is raised again once every listener was called.
    """
    waiting: tuple[Entry, ...] | None = None
    raised: BaseException | None = None
    begun = -1
    listening = _listeners[phase]  # always the same list
    calls[phase] += 1
    # CPython 3.10 runs signal handlers at a jump forwards, too: none is before `try`.
    try:
        while True:  # not `while listening`, see `process`
            if not listening:
                break
            try:
                if waiting is None:
                    known = _orders[phase]
                    if known[0] == len(listening) and known[1] == _silenced:
                        waiting = known[2]
                    else:
                        waiting = listeners(phase)
                for _, listener in waiting if begun < 0 else waiting[begun + 1 :]:
                    begun += 1
                    listener()
            except BaseException as exc:
                listener = (waiting or ((0, call),))[begun][1]
                if (
                    isinstance(exc, Exception) or is_hook(listener)
                ) and not process.by_signal_handler(exc):
                    failed(phase, listener)
                else:
                    raised = raised or exc
                # A signal handler may also raise between two listeners: the one
                # that was not begun is called next.
            else:
                break
    finally:
        ended[phase] += 1
    if raised is not None:
        raise raised


def call_within(
    budget_s: float,
    phase: str,
    *,
    more: tuple[Entry, ...] = (),
    claimed: dict[int, object] | None = None,
) -> None:
    """
    Call each listener of *phase* on a thread of its own, within *budget_s* seconds.

    Those of priority ESSENTIAL share the first `ESSENTIAL_S` seconds, the rest
    what is left.  A share is the time left, divided by the number of listeners that
    are not called yet: time that one does not use is left to the next.  A listener
    that takes longer than its share is abandoned, counted and logged; its thread goes
    on.

    Args:
        more: Further (priority, listener) pairs.
        claimed: By id, the pairs that were called before, and are not called again.
    """
    calls[phase] += 1
    begun_at = clock.run_time()
    claimed = {} if claimed is None else claimed
    seen: list[int] = []
    hung: list[Listener] = []
    while True:
        # Looked up anew: the first metric may be recorded by a listener.
        waiting = [
            entry
            for entry in sorted([*listeners(phase), *more], key=_priority)
            if id(entry) not in claimed and id(entry) not in seen
        ]
        if not waiting:
            break
        spent_s = clock.run_time() - begun_at
        end_s = budget_s
        if waiting[0][0] <= ESSENTIAL and spent_s < ESSENTIAL_S:
            end_s = min(ESSENTIAL_S, budget_s)
            waiting = [entry for entry in waiting if entry[0] <= ESSENTIAL]
        entry = waiting[0]
        share_s = (end_s - spent_s) / len(waiting)
        if not run_within(share_s, _claiming(entry, claimed), phase, entry[1]):
            hung.append(entry[1])
        seen.append(id(entry))
    if hung:
        run_within(REPORT_S, lambda: _report(phase, hung), phase)
    abandoned[phase] += len(hung)
    ended[phase] += 1


def _claiming(entry: Entry, claimed: dict[int, object]) -> Callable[[], None]:
    """Return what calls the listener of *entry*, unless another has claimed it."""

    def call() -> None:
        # Where a signal handler interrupts `call_within` and it is called again, two
        # threads may be here for one listener: `setdefault` lets one of them go on.
        token = object()
        try:
            mine = claimed.setdefault(id(entry), token) is token
        except BaseException:  # a signal handler's, without threads
            if claimed.get(id(entry)) is token:
                del claimed[id(entry)]
            raise
        if mine:
            entry[1]()

    return call


def run_within(
    share_s: float,
    function: Callable[[], object],
    phase: str,
    listener: Listener | None = None,
) -> bool:
    """
    Run *function* on a thread of its own; say if it was done after *share_s* seconds.

    What it raises is logged as a failure of *listener* in *phase*, SystemExit too.
    Where no thread is to be had, it runs in the caller's, for as long as it takes.
    """
    done = real_threads.Event()
    raised: list[BaseException] = []

    def body() -> None:
        former = getattr(_local, "share_s", 0.0)
        _local.share_s = max(share_s, 0.0)
        try:
            function()
        except BaseException as exc:
            if process.by_signal_handler(exc):
                raised.append(exc)
            else:
                failed(phase, listener or function)
        finally:
            _local.share_s = former  # where this is the caller's own thread
            done.set()

    def on_thread() -> None:
        real_threads.disown()  # it may write, and go on beside a later flush
        body()

    try:
        real_threads.start(f"lambda_ext_{phase}", on_thread)
    except (RuntimeError, MemoryError) as exc:  # none to be had, or Python is ending
        if process.by_signal_handler(exc):
            raise
        body()
        if raised:
            raise raised[0] from None
    else:
        wait(done, share_s)
    return done.is_set()


def wait(done: real_threads.Event, share_s: float) -> None:
    """Wait for *done*, no longer than *share_s* seconds."""
    done.wait(share_s)


def share_s() -> float:
    """Return the seconds that `call_within` gave to the listener in this thread."""
    found: float = getattr(_local, "share_s", 0.0)
    return found


def _report(phase: str, hung: list[Listener]) -> None:
    for listener in hung:
        disclosure.warn("listener_abandoned", phase=phase, listener=name_of(listener))


def call_one(phase: str, listener: Listener, *args: Any) -> None:
    """Call *listener* alone, which comes after the call of *phase*."""
    try:
        listener(*args)
    except BaseException as exc:
        if process.by_signal_handler(exc) or not (
            isinstance(exc, Exception) or is_hook(listener)
        ):
            raise
        failed(phase, listener)


def is_hook(listener: Listener) -> bool:
    """Say whether *listener* is the user's: a BaseException of it is a failure, too."""
    return any(each is listener for each in hooks)


def failed(phase: str, listener: Listener) -> None:
    """Log and count the exception that *listener* is just raising; raise nothing."""
    failures[phase] += 1
    disclosure.failure("listener_failed", phase=phase, listener=name_of(listener))


def name_of(listener: Listener) -> str:
    """Return what to call *listener* in a log line."""
    listener = disclosure.attribute(listener, "wrapped", listener)  # of a hook
    while type(listener) is functools.partial:
        listener = listener.func
    module = disclosure.words(listener, "__module__")
    name = disclosure.words(listener, "__qualname__") or type(listener).__qualname__
    return f"{module}.{name}" if module else str(name)


@process.at_reset
def reset() -> None:
    """Forget every listener and counter, as if this were just imported."""
    for entries in _listeners.values():
        entries.clear()
    hooks.clear()
    _orders.update(dict.fromkeys(PHASES, (0, 0, ())))
    _zero()


@process.at_fork
def _zero() -> None:
    for counters in (calls, ended, failures, abandoned):
        counters.update(dict.fromkeys(PHASES, 0))


def is_worker() -> bool:
    """Say whether this process was started by `multiprocessing`."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is None:
        return False
    return (
        processes.parent_process() is not None
        # While a spawned child imports what it is to run, it has no parent yet.
        or is_importing_worker()
    )


def is_importing_worker() -> bool:
    """Say whether this process was spawned, and imports what it is to run."""
    processes = sys.modules.get("multiprocessing.process")
    return bool(
        processes is not None
        and getattr(processes.current_process(), "_inheriting", False)
    )


def is_child_of_multiprocessing() -> bool:
    """Say whether another process of `multiprocessing` has joined Lambda's life."""
    # A worker of a managed instance is one, too, and joins by itself.
    return is_worker() and not os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY")
