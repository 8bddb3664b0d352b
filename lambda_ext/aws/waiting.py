"""
A time-out for calls that take none: each runs on a thread of its own.

The resolver of names and the clients of boto3 wait without a limit of ours.  A
thread whose time is up is left behind: it ends when its call does, and its result
is dropped.  `MOST` of these may live at a time; beyond that each call fails at
once, so that hours without a network cost no memory.

Threads
    ``_left`` is replaced as a whole and never changed; in a race a thread may be
    missing from it, and is then not counted.
"""

from __future__ import annotations

from ..lifecycle import clock, process, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ..lifecycle.real_threads import Thread

    T = TypeVar("T")

MOST = 64  # threads left behind; at 8 s a call, that many wait for 8 minutes

_left: tuple[Thread, ...] = ()


def within(
    left_s: float,
    function: Callable[[], T],
    name: str,
    meanwhile: Callable[[], object] | None = None,
    *,
    is_quiet: bool = False,
) -> T:
    """
    Return what *function* returns, or raise what it raises, in *left_s* seconds.

    The thread is called *name*; *is_quiet*: *function* calls no code of the user's.
    *meanwhile* is called on the caller's; the time that it takes counts.  At the end
    of the interpreter, where Python 3.12 starts no thread any more, the caller's thread
    makes the call, and waits for as long as it takes.

    Raises:
        TimeoutError: it was not done in time, or too many still wait.
    """
    global _left
    if _left:
        _left = tuple(thread for thread in _left if thread.is_alive())
        if len(_left) >= MOST:
            msg = f"{MOST} earlier calls still wait"
            raise TimeoutError(msg)
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as exc:
            failures.append(exc)

    try:
        thread = real_threads.start(name, body, is_quiet=is_quiet)
    except RuntimeError as exc:  # there can be none any more
        if process.by_signal_handler(exc):
            raise
        body()
    else:
        try:
            if meanwhile is not None:
                left_s += clock.run_time()
                meanwhile()
                left_s -= clock.run_time()
            thread.join(max(left_s, 0.0))
        finally:
            if not (results or failures):
                _left = (*_left, thread)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError
    return results[0]


@process.at_fork
@process.at_reset
def forget() -> None:
    """Count from zero: a forked child has none of these threads."""
    global _left
    _left = ()


def left_behind() -> tuple[Thread, ...]:
    """Return the threads that were left behind and still wait."""
    return tuple(thread for thread in _left if thread.is_alive())
