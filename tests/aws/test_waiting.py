"""Calls that wait as long as they like are given a time-out."""

from __future__ import annotations

import threading
import types

import pytest

from lambda_ext.aws import waiting
from lambda_ext.lifecycle import real_threads
from lambda_ext.testing import FakeClock


def test_result_is_returned():
    """What the function returns comes back, from a thread of its own."""
    found = waiting.within(30.0, threading.get_ident, "lambda_ext-test")

    assert threading.get_ident() != found
    assert () == waiting.left_behind()


def test_exception_is_raised():
    """What the function raises is raised by the caller."""
    with pytest.raises(ZeroDivisionError):
        waiting.within(30.0, lambda: 1 / 0, "lambda_ext-test")


def test_something_else_is_done_meanwhile():
    """The caller's thread works while the other waits."""
    done = threading.Event()

    assert waiting.within(30.0, lambda: done.wait(30), "lambda_ext-test", done.set)


@pytest.mark.parametrize(("spent_s", "left_s"), [(0.0, 5.0), (2.0, 3.0), (9.0, 0.0)])
def test_time_that_is_spent_meanwhile_counts(spent_s, left_s, monkeypatch):
    """The caller does not wait the whole time once more after its own work."""
    waits = []
    thread = types.SimpleNamespace(join=waits.append, is_alive=lambda: False)
    monkeypatch.setattr(real_threads, "start", lambda *_, **__: thread)
    with FakeClock() as clock, pytest.raises(TimeoutError):
        waiting.within(5.0, list, "lambda_ext-test", lambda: clock.advance(spent_s))

    assert [pytest.approx(left_s)] == waits


def test_answer_that_came_meanwhile_is_taken(monkeypatch):
    """However long the caller's own work took."""

    def start(name, body, *, is_quiet):
        body()
        return types.SimpleNamespace(join=float, is_alive=lambda: False)

    monkeypatch.setattr(real_threads, "start", start)
    with FakeClock() as clock:
        found = waiting.within(
            5.0, lambda: 7, "lambda_ext-test", lambda: clock.advance(60.0)
        )

    assert 7 == found


def test_threads_left_behind_are_bounded(monkeypatch):
    """A call that never ends costs one thread; too many, and none is begun."""
    monkeypatch.setattr(waiting, "MOST", 3)
    begun = []
    leave = threading.Event()

    def hang():
        begun.append(1)
        leave.wait(30)

    for _ in range(10):
        with pytest.raises(TimeoutError):
            waiting.within(0.0, hang, "lambda_ext-test")
    left = waiting.left_behind()
    assert 3 == len(left)
    leave.set()
    for thread in left:
        thread.join(30)

    assert 3 == len(begun)
    assert 5 == waiting.within(30.0, lambda: 5, "lambda_ext-test")


def test_call_whose_caller_was_interrupted_is_counted():
    """A signal handler that raises leaves a thread behind, too."""
    leave = threading.Event()

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        waiting.within(30.0, lambda: leave.wait(30), "lambda_ext-test", interrupt)
    (thread,) = waiting.left_behind()
    leave.set()
    thread.join(30)

    assert () == waiting.left_behind()
