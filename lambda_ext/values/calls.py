"""
How loads are carried out: which share a call, which thread makes it, what errors mean.

    Batch ─▶ Call ─▶ Load        what one reader, INIT or the worker began

A source divides what is wanted into calls (`Source.plan`).  Calls that carry
what the reader waits for come first; its own thread makes one of them.  The
rest goes to a few helper threads, which end with their work.

Guarantees
    A reader waits for no call but those that carry its own keys.  If such a
    call is still queued behind others, the reader makes it itself.
    A load has a thread that will settle it.  If it has lost that thread, because a
    signal handler has raised there, the readers that wait for it notice
    (`Batch.is_alive`), and each begins a load of its own.
    No error made here, and no line logged, holds a value.

Threads
    Up to `WORKERS` for one caller, besides the caller's own.  They end with
    their work, or with the process: nothing is parked between two loads.
    A `Worker` is one thread that waits between two wakes.
    Queues are deques, whose methods are atomic.  `Batch.held` is locked, by
    ``with``, while the thread that began the batch is responsible for it.
    The loader's lock guards everything about a load but its `waiters`.

Time
    A duration (``timeout_s``) comes from options and goes to sources; in
    between there are instants of run time (``ends_at``); None is no limit.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal` (0.7 ms)
import contextlib
import functools
import logging
import os
from collections import deque

from .. import disclosure
from ..exceptions import LambdaExtError, SourceError, SourceTimeoutError
from ..lifecycle import clock, real_threads
from ..lifecycle.process import by_signal_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from ..typing import Source
    from .cache import Load
    from .keys import Key

    E = TypeVar("E", bound=LambdaExtError)

WORKERS = 4  # calls at a time, of one caller
RESERVE_S = 0.1  # of the invocation, left to the handler for a load that failed


class Call:
    """Loads that one call of their source answers."""

    __slots__ = ("loads", "source", "wanted")

    def __init__(self, source: Source, loads: list[Load]) -> None:
        self.source = source
        self.loads = loads
        self.wanted = not all(load.background for load in loads)
        for load in loads:
            load.call = self

    def __repr__(self) -> str:
        return f"<Call for {len(self.loads)} key(s)>"


class Batch:
    """The loads that were begun together, and the threads that see to them."""

    __slots__ = (
        "alone",
        "ended",
        "ends_at",
        "error",
        "held",
        "loads",
        "others",
        "started",
        "wanted",
    )

    def __init__(self, ends_at: float | None = None) -> None:
        self.ends_at = ends_at  # run time until which a wanted call may last
        self.held = real_threads.allocate_lock()
        self.loads: list[Load] = []
        self.wanted: deque[Call] = deque()  # calls that a reader waits for
        self.others: deque[Call] = deque()
        self.alone = False  # without helper threads
        self.started: list[int] = []  # helper threads
        self.ended: list[int] = []
        self.error: BaseException | None = None  # that ended a helper thread

    def __repr__(self) -> str:
        return f"<Batch of {len(self.loads)} load(s)>"

    def is_alive(self) -> bool:
        """Say whether a thread will see to what is not settled yet."""
        return self.held.locked() or len(self.ended) < len(self.started)

    def calls(self) -> int:
        """Return how many calls are queued."""
        return len(self.wanted) + len(self.others)

    def add(self, source: Source, loads: list[Load]) -> None:
        """Queue one call for *loads*."""
        call = Call(source, loads)
        (self.wanted if call.wanted else self.others).append(call)

    def claim(self, *, any_call: bool) -> Call | None:
        """Take the next call from the queue, one that is wanted or *any_call*."""
        for queue in (self.wanted, self.others) if any_call else (self.wanted,):
            try:
                return queue.popleft()
            except IndexError:
                continue
        return None

    def is_queued(self, load: Load) -> bool:
        """Say whether no thread has taken the call that carries *load*."""
        return load.call in self.wanted or load.call in self.others

    def claim_for(self, load: Load) -> Call | None:
        """Take the call that carries *load*, unless a thread has taken it."""
        for queue in (self.wanted, self.others):
            call: Call | None = load.call
            try:
                # Asked first: CPython 3.10 forgets what a signal handler raises
                # while `remove` says, with a repr, that there is none.
                if call is not None and call in queue:
                    queue.remove(call)
                    return call
            except ValueError:
                continue
        return None

    def start(self, work: Callable[[], object], most: int) -> bool:
        """
        Have up to *most* more helper threads *work*; say whether any is alive.

        `WORKERS` at most are alive.
        """

        def body() -> None:
            try:
                work()
            except BaseException as exc:
                self.error = exc  # for the reader that began the batch
            finally:
                self.ended.append(real_threads.get_ident())

        room = WORKERS - (len(self.started) - len(self.ended))
        for _ in range(0 if self.alone else min(most, room)):
            if not spawn(body, self.started):
                break
        return len(self.ended) < len(self.started)


def by_scope(loads: Iterable[Load]) -> Iterable[list[Load]]:
    """Divide *loads* by where they ask, in each what is wanted first."""
    groups: dict[object, list[Load]] = {}
    for load in sorted(loads, key=_is_background):
        groups.setdefault(load.key.scope, []).append(load)
    return groups.values()


def _is_background(load: Load) -> bool:
    return load.background


# Threads ---------------------------------------------------------------------


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
            module = disclosure.words(handler, "__module__")
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
    except RuntimeError as exc:
        if by_signal_handler(exc):
            raise
        return False
    return True


class Worker:
    """A thread that runs *body* whenever woken, begun by the first wake."""

    __slots__ = ("_body", "_gate", "_started")

    def __init__(self, body: Callable[[], object]) -> None:
        self._body = body
        self.forked()

    def wake(self) -> None:
        """Make the thread run the body soon; does not wait.  One caller at a time."""
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
            except BaseException as exc:  # a listener's, or a bug: the worker lives on
                disclosure.warn("worker_failed", error=disclosure.kind(exc))


# Errors ----------------------------------------------------------------------


def copied(error: E, *, chained: bool = True) -> E:
    """
    Return an exception of the caller's own, *chained* to *error*.

    Not chained, it keeps nothing alive: no traceback, hence no caller's variables.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    if chained:
        copy.__cause__ = error
    return copy


def named(error: LambdaExtError, label: str) -> LambdaExtError:
    """Return *error*, or what it means for this one key of a batch."""
    if not isinstance(error, SourceError) or error.key == label:
        return error
    named = copied(error)
    named.key = label
    return named


def too_late(key: Key, source: Source) -> SourceTimeoutError:
    """Return the error for a load that outlasts its caller's time."""
    msg = f"{key.label!r} did not come in the time that was left"
    name = _name_of(source)
    return SourceTimeoutError(msg, key=key.label, source=name, transient=True)


def unanswered(key: Key, source: Source) -> SourceError:
    """Return the error for a source that gives no answer for *key*."""
    name = _name_of(source)
    msg = f"{name} gave no answer for {key.label!r}"
    return SourceError(msg, key=key.label, source=name)


class WithheldError(Exception):
    """Stands in a chain for an exception that may quote a value."""


def withheld(exc: BaseException) -> WithheldError:
    """Return what may be said of *exc*: its class, and where it was raised."""
    name = type(exc).__name__
    stand_in = WithheldError(f"{name}, whose message may quote the value")
    return stand_in.with_traceback(exc.__traceback__)


def source_error(
    source: Source, exc: BaseException, keys: Iterable[Key]
) -> SourceError:
    """Return the error for a source that raised what sources must not."""
    labels = [key.label for key in keys]
    asked = ", ".join(map(repr, labels[:3])) + (", ..." if labels[3:] else "")
    name = _name_of(source)
    msg = f"the source {name} raised {type(exc).__name__} when asked for {asked}"
    error = SourceError(msg, key=labels[0], source=name)
    error.__cause__ = withheld(exc)
    return error


def _name_of(source: Source) -> str:
    try:
        return str(source.name)
    except Exception as exc:  # what is broken may be broken here, too
        if by_signal_handler(exc):
            raise
        return type(source).__name__


def log_failure(event: str, key: Key, source: Source, error: LambdaExtError) -> None:
    """Log what an error did to a value; never the value."""
    disclosure.log(
        logging.INFO if event == "not_loaded" else logging.WARNING,
        event,
        key=key.label,
        source=_name_of(source),
        error=type(error).__name__,
        code=getattr(error, "code", ""),
    )
