"""
Threads of the operating system, also where gevent or eventlet replaced them.

gevent and eventlet replace the functions of `_thread` and `threading` by ones
that make greenlets: all of them share one thread, so a daemon "thread" that
blocks in C blocks the whole program.  This library's threads block in C.  So
everything here comes from a private copy of the C module `_thread`, which no
patch reaches, whether it was applied before this import or after.

Guarantees
    `start` begins a thread that runs beside the caller, or raises; it never
    runs *body* in the caller's thread.
    `Event` and `get_ident` know real threads: greenlets of one thread have
    one identity, so they count as one caller.  ``event.wait`` blocks the whole
    thread, with all its greenlets.

Signals
    What a signal handler raises leaves no waiter behind: `Event.set` releases
    all of them within one C call.
"""

from __future__ import annotations

import _imp
import _thread
import contextlib
import os
import threading
import types
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Thread(Protocol):
        """What `start` returns."""

        name: str

        def join(self, timeout: float | None = None) -> None: ...
        def is_alive(self) -> bool: ...


def _private_copy() -> Any:
    """Return a copy of `_thread` as the interpreter makes it, not in `sys.modules`."""
    module = _imp.create_builtin(_thread.__spec__)
    _imp.exec_builtin(module)
    return module


try:
    _native: Any = _private_copy()
except Exception:  # an interpreter that makes no copies: what there is, then
    _native = _thread

RLock: Any = _native.RLock
allocate_lock: Callable[[], _thread.LockType] = _native.allocate_lock
get_ident: Callable[[], int] = _native.get_ident
LockType: Any = _native.LockType
_release = LockType.release
_BUILTIN: Any = type(len)


def _refuse(*_: object) -> int:
    where = getattr(_thread.start_new_thread, "__module__", "another library")
    msg = f"{where} has replaced the threads of this process"
    raise RuntimeError(msg)


# What `_thread` has under this name; it raises where no real thread is to be had.
start_new_thread: Callable[..., int] = (
    _native.start_new_thread if type(_native.start_new_thread) is _BUILTIN else _refuse
)


ours: set[int] = set()  # this library's threads that live
quiet: set[int] = set()  # those of them that call no code of the user's
bare: dict[int, str] = {}  # names of those of them that `threading` does not know


def run_bare(body: Callable[[], object], name: str = "lambda_ext") -> None:
    """Run *body*, for `start_new_thread`, and keep this thread in `bare` meanwhile."""
    ident = get_ident()
    bare[ident] = name
    try:
        run_ours(body)
    finally:
        bare.pop(ident, None)


def run_ours(body: Callable[[], object]) -> None:
    """Run *body*, and keep this thread in `ours` meanwhile."""
    ident = get_ident()
    ours.add(ident)
    try:
        body()
    finally:
        ours.discard(ident)


def disown() -> None:
    """Count this thread as one of the user's, whose code it runs."""
    ours.discard(get_ident())


def own() -> None:
    """Count this thread as one of this library's again, after `disown`."""
    ours.add(get_ident())


def introduce() -> None:
    """
    Make this thread, if it is bare, known to `threading` by its name, for log lines.

    It takes a lock of `threading`'s, and 0.05 ms.
    """
    name = bare.get(get_ident())
    if name is not None and not patched():
        threading.current_thread().name = name


def in_main_thread() -> bool:
    """Say whether the caller is in the first thread of the process."""
    return bool(_native.get_native_id() == os.getpid())


def patched() -> bool:
    """Say whether `_thread.start_new_thread` is not the interpreter's own."""
    return type(_thread.start_new_thread) is not _BUILTIN


def start(
    name: str,
    body: Callable[[], object],
    *,
    is_quiet: bool = False,
    before: Callable[[Thread], object] | None = None,
) -> Thread:
    """
    Run *body* on a daemon thread; *is_quiet*: it calls no code of the user's.

    *before* is called with a quiet thread before that one runs: the caller has kept
    the thread by then, even if a signal handler raises afterwards.

    A quiet thread is none of `threading`'s, which would wait until it has begun:
    that takes 0.3 ms of a cold start, a thread without it 0.04.  Before it logs
    something it calls `introduce`.

    Raises:
        RuntimeError: there is no thread to be had: the limit is reached, the
            interpreter is ending, or threads are replaced beyond recovery.
    """
    if not (is_quiet or patched()):
        begun = allocate_lock()
        begun.acquire()

        def known() -> None:
            begun.release()
            body()

        thread = threading.Thread(
            target=run_ours, args=(known,), name=name, daemon=True
        )
        thread.start()
        begun.acquire()  # from now on it is known as one of ours
        return thread
    ended = Event()

    def last() -> None:
        ident = get_ident()
        if is_quiet:
            quiet.add(ident)
        try:
            run_bare(body, name)
        finally:
            quiet.discard(ident)
            ended.set()

    identities: list[int] = []  # none until it begins

    def join(timeout: float | None = None) -> None:
        if identities:
            ended.wait(timeout)

    made = types.SimpleNamespace(  # `threading` does not know it
        name=name,
        join=join,
        is_alive=lambda: bool(identities) and not ended.is_set(),
    )
    if before is not None:
        before(made)
    # Noted by the C call that begins it: a signal handler comes before both, or after.
    identities.extend(map(start_new_thread, (last,), ((),)))
    return made


class Event:
    """A `threading.Event` of real threads; see the module for what differs."""

    __slots__ = ("_free", "_set", "_waiters")

    def __init__(self) -> None:
        self._set = False
        # Each waiter waits for a lock of its own.  `pop` raises IndexError when
        # none is left; the iterators survive that and serve the next `set`.
        self._waiters: list[_thread.LockType] = []
        self._free = map(_release, iter(self._waiters.pop, None))

    def is_set(self) -> bool:
        """Say whether `set` was called since the last `clear`."""
        return self._set

    def set(self) -> None:
        """Let every waiter go on, and those that come later."""
        self._set = True
        try:  # noqa: SIM105  suppress() would be a call before the one that counts
            deque(self._free, 0)
        except IndexError:
            pass

    def clear(self) -> None:
        """Unset it: the next callers of `wait` wait."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to *timeout* seconds (None: for ever); say whether it is set."""
        if self._set:
            return True
        if timeout is not None and timeout <= 0:
            return False
        lock = allocate_lock()
        lock.acquire()
        try:
            self._waiters.append(lock)
            if not self._set:  # else `set` may have come before the append
                lock.acquire(True, -1 if timeout is None else timeout)
        finally:
            with contextlib.suppress(ValueError):  # `set` has taken it
                self._waiters.remove(lock)
        return self._set


def pause(seconds: float) -> None:
    """Let the other threads run for *seconds*; the caller's greenlets wait, too."""
    lock = allocate_lock()
    lock.acquire()
    lock.acquire(True, seconds)
