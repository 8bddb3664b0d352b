"""
Process-wide state: its locks, what a forked child lets go of, how tests reset it.

A module that keeps state for the whole process says here how to bring it back
to what it was at import (`at_reset`) and what a forked child must not share
with its parent (`at_fork`).  `Lock` needs neither: it frees itself in a child.

Forks
    In the child every `Lock` is free first; then the functions given to
    `at_fork` run, in the order in which they were given.  One that raises is
    skipped, so that the next ones run: a fork has no caller to tell.

Signals
    A signal handler may raise wherever CPython runs one: at the entry of a
    Python function, after a call, at a jump backwards.  ``with lock:`` is safe
    there only if ``__enter__`` is C code, so `Lock` overrides no method, and
    no wrapper may add one.  ``lock.acquire()`` followed by ``try`` is not safe.
"""

from __future__ import annotations

import contextlib
import os
import weakref

from . import real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    F = TypeVar("F", bound=Callable[[], object])

_locks: dict[int, weakref.ref[Lock]] = {}  # by id
_resets: list[Callable[[], object]] = []
_forks: list[Callable[[], object]] = []
_follows_forks = False


class Lock(real_threads.RLock):  # type: ignore[misc]  # the C class, of which mypy sees Any
    """A re-entrant lock that is free again in a forked child; use it by `with`."""

    def __init__(self) -> None:
        _follow_forks()
        number = id(self)

        def forget(_: object) -> None:
            _locks.pop(number, None)

        _locks[number] = weakref.ref(self, forget)


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
    for reference in [*_locks.values()]:
        lock = reference()
        if lock is not None:
            lock._at_fork_reinit()
    for function in _forks.copy():
        with contextlib.suppress(Exception):
            function()
