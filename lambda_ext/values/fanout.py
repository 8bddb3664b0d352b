"""
Several calls at a time, each within the time that is left.

Threads
    Up to `WORKERS` for one caller, the caller's own among them.  They are
    daemons and end with their work: nothing is parked between two loads.
    A `Worker` is one thread that parks between two wakes.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from .. import disclosure
from ..exceptions import LambdaExtError
from ..lifecycle import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .cache import Answer
    from .keys import Key

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


def start(name: str, body: Callable[[], object]) -> threading.Thread | None:
    """Run *body* on a daemon thread; None if there can be none any more."""
    thread = threading.Thread(target=body, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class Worker:
    """A daemon thread that runs *body* whenever woken, begun by the first."""

    __slots__ = ("_body", "_name", "_woken")

    def __init__(self, name: str, body: Callable[[], object]) -> None:
        self._name = name
        self._body = body
        self._woken: threading.Event | None = None  # of the thread that lives

    def wake(self) -> None:
        """Have the body run soon; nobody waits.  Callers exclude each other."""
        woken = self._woken
        if woken is None:
            woken = threading.Event()
            if start(self._name, lambda: self._run(woken)) is None:
                return  # no threads any more: the interpreter is ending
            self._woken = woken
        woken.set()

    def close(self) -> None:
        """Let the thread end."""
        woken, self._woken = self._woken, None
        if woken is not None:
            woken.set()

    def forked(self) -> None:
        """Forget the thread, which a forked child does not have."""
        self._woken = None

    def _run(self, woken: threading.Event) -> None:
        while True:
            woken.wait()
            woken.clear()
            if self._woken is not woken:
                return
            try:
                self._body()
            except Exception as exc:  # a listener's, or a bug: the worker lives on
                disclosure.warn("worker_failed", error=disclosure.kind(exc))
