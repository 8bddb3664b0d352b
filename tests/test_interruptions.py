"""The tool that interrupts code does so exactly where CPython runs handlers."""

from __future__ import annotations

import _thread
import dis
import sys

import pytest
from interleavings import interleavings
from interruptions import interruptions, where_handlers_run

THIS = [sys.modules[__name__]]


def by_with(lock):
    with lock:
        for _ in range(3):
            len("abc")


def by_try(lock):
    lock.acquire()
    try:
        len("abc")
    finally:
        lock.release()


def leaks(function):
    """Return how many runs there were, and how many of them left the lock taken."""
    runs = left = 0
    for interruption in interruptions(THIS):
        lock = _thread.RLock()
        with interruption:
            function(lock)
        assert interruption.happened == interruption.raised
        runs += 1
        left += lock._is_owned()
    return runs, left


class TestInterruptions:
    """One run of the code for each place."""

    def test_with_leaks_no_lock(self):
        """`with` a lock in C is never interrupted between lock and block."""
        runs, left = leaks(by_with)

        assert 0 == left
        assert runs > 5

    def test_acquire_and_try_leak(self):
        """The gap between acquire() and try is found."""
        _, left = leaks(by_try)

        assert left > 0

    def test_code_of_other_modules_is_an_error(self):
        """A loop that interrupts nothing would pass for every code."""
        runs = interruptions([dis])
        with next(runs):
            len("abc")

        with pytest.raises(AssertionError, match="no place"):
            next(runs)

    def test_threads_that_meet_outside_of_the_library_are_an_error(self):
        """The same for the places at which another thread runs."""
        runs = interleavings()
        with next(runs).of(list):
            len("abc")

        with pytest.raises(AssertionError, match="no place"):
            next(runs)

    def test_handler_that_does_not_raise(self):
        """Each place calls the function once; the code comes to its end."""
        called = []
        lock = _thread.RLock()

        with where_handlers_run(THIS, lambda: called.append(lock._is_owned())):
            by_with(lock)

        assert True in called
        assert False in called
        assert not lock._is_owned()

    def test_other_modules_are_left_alone(self):
        """Modules that were interrupted before are so no more."""
        calls = []
        lock = _thread.RLock()
        with where_handlers_run(THIS, lambda: None):
            by_with(lock)

        with where_handlers_run([dis], lambda: calls.append(1)):
            by_with(lock)

        assert [] == calls
