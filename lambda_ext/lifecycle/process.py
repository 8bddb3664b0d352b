"""
Process-wide state: its locks, forks and resets, and what signal handlers raise.

A module that keeps state for the whole process says here how to bring it back
to what it was at import (`at_reset`) and what a forked child must not share
with its parent (`at_fork`).  `Lock` needs neither: it frees itself in a child.

Forks
    In the child every `Lock` is free first; then the functions given to
    `at_fork` run, in the order in which they were given.  One that raises is
    skipped, so that the next ones run: a fork has no caller to tell.

Threads
    A container that other threads change is copied before a loop over it, by one call
    into C: ``[*a_list]``, ``[*a_set]``, ``[*a_dict]``, ``[*a_dict.values()]`` and
    ``a_dict.copy().items()``.  Not ``[*a_dict.items()]``: it makes a tuple for each
    item, and up to CPython 3.11 the garbage collector may run there, and with it
    finalizers, callbacks of weak references and other threads.

Signals
    A signal handler may raise wherever CPython runs one: at the entry of a
    Python function, after a call, at a jump backwards.  ``with lock:`` is safe
    there only if ``__enter__`` is C code, so `Lock` overrides no method, and
    no wrapper may add one.  ``lock.acquire()`` followed by ``try`` is not safe.
    CPython 3.13 leaves a ``with`` or ``try`` without its end where a handler
    raises at the jump of a loop that stands directly in it, after a condition.
    So such a loop stands in a function of its own; a test reads the tables.

    What a handler of the user's raises (a guard against a time-out, say) must
    arrive where the user expects it.  Code of the user's that this library calls
    (a sink, a number's ``__float__``) may raise on its own, a BaseException too,
    which must not end the runtime.  So code that catches exceptions of such code
    asks `by_signal_handler`.

    What no library can help: a handler that raises while a module is loaded for the
    first time may leave CPython's lock of imports taken, and then no other thread
    loads a module any more.  A program with such a handler does well to install it
    after INIT, and to load before it what its invocations need.  In CPython 3.14
    ``with lock:`` has a gap between the lock and the block (not tried here):
    https://github.com/python/cpython/issues/148874
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal` (0.7 ms)
import contextlib
import functools
import itertools
import os
import sys
import weakref

from . import real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[[], object])
    T = TypeVar("T")

_locks: set[weakref.ref[Lock]] = set()
_resets: list[Callable[[], object]] = []
_forks: list[Callable[[], object]] = []
_follows_forks = False

_VARARGS = 0x04  # of a code object; `inspect`


class Lock(real_threads.RLock):  # type: ignore[misc]  # the C class, of which mypy sees Any
    """A re-entrant lock that is free again in a forked child; use it by `with`."""

    def __init__(self) -> None:
        _follow_forks()
        remember(_locks, self)


class _Reference(weakref.ref):  # type: ignore[type-arg]  # of anything
    """A weak reference that equals no other: what it refers to is not compared."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def remember(among: set[weakref.ref[T]], found: T) -> None:
    """
    Add a weak reference to *found* to the set *among*; read the set by `living`.

    Call it once for an object: a second call adds a second reference.
    """
    among.add(_Reference(found, among.discard))


def living(among: set[weakref.ref[T]]) -> list[T]:
    """
    Return the objects in the set *among* that are still alive.

    A `weakref.WeakSet` raises where another thread adds to it meanwhile: its loop is
    Python code, this copy is not.
    """
    return [found for reference in [*among] if (found := reference()) is not None]


def at_fork(function: F) -> F:
    """Call *function*, without arguments, in each child that this process forks."""
    _follow_forks()
    _forks.append(function)
    return function


def at_reset(function: F) -> F:
    """Call *function*, without arguments, at each `reset`, after those before it."""
    _resets.append(function)
    return function


def reset() -> None:
    """Bring all process-wide state back to what it was at import, for tests."""
    for function in _resets.copy():
        function()


def _follow_forks() -> None:
    global _follows_forks
    if not _follows_forks:
        _follows_forks = True
        os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    real_threads.bare.clear()
    real_threads.ours.clear()
    real_threads.quiet.clear()
    for lock in living(_locks):
        lock._at_fork_reinit()
    for function in _forks.copy():
        with contextlib.suppress(Exception):
            function()


# Signals ---------------------------------------------------------------------


def by_signal_handler(exception: BaseException) -> bool:
    """
    Say whether a signal handler raised *exception*, as far as can be told.

    It did if its traceback has a frame of a handler that is installed, or one
    that was called as handlers are, with a signal's number and a frame.  So
    did Python's own handler of SIGINT, which has no frame, if no ``raise``
    statement raised a KeyboardInterrupt.
    """
    if not real_threads.in_main_thread():
        return False  # handlers run in the main thread only
    codes = []
    for number in _signal.valid_signals():
        handler = _signal.getsignal(number)
        if handler is _signal.default_int_handler:
            if isinstance(exception, KeyboardInterrupt) and not _stated(exception):
                return True
        elif callable(handler):
            codes.append(_code(handler))
    traceback = exception.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if any(frame.f_code is code for code in codes) or _is_handler(frame):
            return True
        traceback = traceback.tb_next
    return False


def _code(handler: Any) -> object:
    while isinstance(handler, functools.partial):
        handler = handler.func
    kind = type(handler)
    # Neither a function nor a method; its own ``__getattr__`` may raise anything.
    if not (hasattr(kind, "__code__") or hasattr(kind, "__func__")):
        handler = kind.__call__
    return getattr(handler, "__code__", None)


def _is_handler(frame: FrameType) -> bool:
    """Say whether *frame* is of a function called with a signal and a frame."""
    code = frame.f_code
    count = code.co_argcount
    names = code.co_varnames[: count + bool(code.co_flags & _VARARGS)]
    given: list[Any] = []
    for name in names:
        value = frame.f_locals.get(name)
        if name in names[count:]:
            given += value if isinstance(value, tuple) else ()
        else:
            given.append(value)
    return any(
        isinstance(first, int) and isinstance(second, type(sys._getframe()))
        for first, second in itertools.pairwise(given)
    )


def _stated(exception: BaseException) -> bool:
    """Say whether a ``raise`` statement raised *exception*."""
    import opcode  # only a KeyboardInterrupt pays for it

    traceback = exception.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code.co_code
    return code[traceback.tb_lasti] == opcode.opmap["RAISE_VARARGS"]
