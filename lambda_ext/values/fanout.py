"""
Several calls at a time, each within the time that is left.

Threads
    Up to `WORKERS` for one caller, the caller's own among them.  They are
    daemons and end with their work: nothing is parked between two loads.
    A `Worker` is one thread that parks between two wakes.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal` (0.7 ms)
import _thread
import contextlib
import functools
import os
import threading
from collections import deque

from .. import disclosure
from ..exceptions import LambdaExtError
from ..lifecycle import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .keys import Key

    Answer = Any  # of `cache`, which is above this

WORKERS = 4  # calls at a time, of one caller
RESERVE_S = 0.1  # of the invocation, for doing something about a failure


def each(
    keys: Iterable[Key], ask: Callable[[Key], Answer | LambdaExtError]
) -> dict[Key, Answer | LambdaExtError]:
    """
    Ask for *keys* one by one, up to `WORKERS` at a time; for sources.

    A `LambdaExtError` that *ask* raises is the outcome of its key; anything else
    that it raises is raised when all have been asked for.
    """
    queue = deque(keys)
    found: dict[Key, Answer | LambdaExtError] = {}
    failures: list[Exception] = []

    def work() -> None:
        while True:
            try:
                key = queue.popleft()
            except IndexError:
                return
            try:
                found[key] = ask(key)
            except LambdaExtError as exc:
                found[key] = exc
            except Exception as exc:  # a bug of the source: no thread dies of it
                failures.append(exc)

    threads = []
    for _ in range(min(len(queue), WORKERS) - 1):
        thread = start("lambda_ext-load", work)
        if thread is None:
            break
        threads.append(thread)
    work()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return found


def instant(left_s: float | None) -> float | None:
    """Return when *left_s* seconds will be over; None for never."""
    return None if left_s is None else clock.monotonic() + left_s


def until(ends_at: float | None) -> float | None:
    """Return the seconds from now to *ends_at*; None without limit."""
    return None if ends_at is None else ends_at - clock.monotonic()


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
    if threading.current_thread() is not threading.main_thread():
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
        started.extend(map(_thread.start_new_thread, (body,), ((),)))
    except RuntimeError:
        return False
    return True


def start(name: str, body: Callable[[], object]) -> threading.Thread | None:
    """Run *body* on a daemon thread; None if there can be none any more."""
    thread = threading.Thread(target=body, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class Worker:
    """A thread that runs *body* whenever woken, begun by the first wake."""

    __slots__ = ("_body", "_gate", "_started")

    def __init__(self, body: Callable[[], object]) -> None:
        self._body = body
        self.forked()

    def wake(self) -> None:
        """Have the body run soon; nobody waits.  Callers exclude each other."""
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
        self._gate = _thread.allocate_lock()  # at which the thread parks
        self._started: list[int] = []

    def _run(self, gate: _thread.LockType) -> None:
        while True:
            gate.acquire()
            if self._gate is not gate:
                return
            try:
                self._body()
            except Exception as exc:  # a listener's, or a bug: the worker lives on
                disclosure.warn("worker_failed", error=disclosure.kind(exc))
