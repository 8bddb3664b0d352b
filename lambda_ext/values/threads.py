"""
The threads that make calls, and how long a caller waits for them.

Threads
    Up to `WORKERS` for one caller, besides the caller's own.  They end with
    their work, or with the process: nothing is parked between two loads.
    A `Worker` is one thread that waits between two wakes.

Time
    A duration (``timeout_s``) comes from options and goes to sources; in
    between there are instants of run time (``ends_at``); None is no limit.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal` (0.7 ms)
import contextlib
import functools
import os

from .. import disclosure
from ..lifecycle import clock, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


WORKERS = 4  # calls at a time, of one caller
RESERVE_S = 0.1  # of the invocation, for doing something about a failure


def after(timeout_s: float | None) -> float | None:
    """Return the run time at which *timeout_s* seconds will be over; None for never."""
    return None if timeout_s is None else clock.run_time() + timeout_s


def left(timeout_s: float | None) -> float | None:
    """Return the seconds that a caller may wait; None without limit."""
    remaining_s = clock.remaining()
    if remaining_s is None:
        return timeout_s
    remaining_s -= RESERVE_S
    return remaining_s if timeout_s is None else min(timeout_s, remaining_s)


def random() -> float:
    """Return a number from 0 to 1, for jitter."""
    # Not `random`: it costs 3 ms to import, and all that are restored from one
    # snapshot would draw the same numbers.
    return int.from_bytes(os.urandom(4), "big") / 2**32


def ends_at(timeout_s: float | None) -> float | None:
    """Return the run time until which a caller may wait; None without limit."""
    left_s = left(timeout_s)
    return None if left_s is None else clock.run_time() + left_s


def remaining(ends_at: float | None) -> float | None:
    """Return the seconds until *ends_at*, a run time; None without limit."""
    return None if ends_at is None else ends_at - clock.run_time()


def may_be_interrupted() -> bool:
    """
    Say whether a signal handler of the user's may raise in this thread.

    That is in the main thread only, where a handler written in Python is
    installed that is neither ours nor asyncio's.  Python's own for Ctrl-C
    does not count: KeyboardInterrupt passes through libraries as it is.
    """
    if not real_threads.in_main_thread():
        return False
    for number in range(1, _signal.NSIG):
        try:
            handler = _signal.getsignal(number)
        except ValueError:  # the C library keeps this number for itself
            continue
        if callable(handler) and handler is not _signal.default_int_handler:
            module = getattr(handler, "__module__", None) or ""
            if module.partition(".")[0] not in ("lambda_ext", "asyncio"):
                return True
    return False


def spawn(body: Callable[[], object], started: list[int]) -> bool:
    """
    Run *body* on a thread that ends with the process; add its ident to *started*.

    False if there can be no thread any more.  Starting and noting it is one
    call into C: a signal handler that raises leaves both done, or neither.
    `threading.Thread` waits for an Event, and may hang after such a handler.
    """
    try:
        start = real_threads.start_new_thread
        started.extend(map(start, (real_threads.run_bare,), ((body,),)))
    except RuntimeError:
        return False
    return True


class Worker:
    """A thread that runs *body* whenever woken, begun by the first wake."""

    __slots__ = ("_body", "_gate", "_started")

    def __init__(self, body: Callable[[], object]) -> None:
        self._body = body
        self.forked()

    def wake(self) -> None:
        """Have the body run soon, without waiting for it.  Callers exclude each other."""
        if self._started:
            with contextlib.suppress(RuntimeError):  # it has been woken already
                self._gate.release()
        else:  # the gate is open: it runs the body at once
            spawn(functools.partial(self._run, self._gate), self._started)

    def close(self) -> None:
        """Let the thread end."""
        gate = self._gate
        self.forked()
        with contextlib.suppress(RuntimeError):
            gate.release()

    def forked(self) -> None:
        """Forget the thread, which a forked child does not have."""
        self._gate = real_threads.allocate_lock()  # for which the thread waits
        self._started: list[int] = []

    def _run(self, gate: real_threads.LockType) -> None:
        while True:
            gate.acquire()
            if self._gate is not gate:
                return
            try:
                self._body()
            except Exception as exc:  # a listener's, or a bug: the worker lives on
                disclosure.warn("worker_failed", error=disclosure.kind(exc))
