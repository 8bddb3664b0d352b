"""Several calls at a time, and a worker that waits between two wakes."""

from __future__ import annotations

import sys
import threading

import pytest
from helpers import eventually

from lambda_ext.exceptions import NotFoundError, SourceError
from lambda_ext.lifecycle import clock, real_threads
from lambda_ext.testing import FakeClock, FakeSource
from lambda_ext.typing import Answer
from lambda_ext.values import calls, store
from lambda_ext.values.batches import get_secrets
from lambda_ext.values.getters import get_secret


@pytest.fixture
def threadless(monkeypatch):
    """The interpreter is ending, or has reached its limit: no threads any more."""

    def start(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(real_threads, "start_new_thread", start)


class Singles:
    """A source that is asked for each key by itself."""

    name = scope = "singles"

    def __init__(self, ask=lambda key: Answer(key.name)):
        self.ask = ask

    def plan(self, wanted):
        return [[key] for key in wanted]

    def fetch(self, wanted, timeout_s):
        (key,) = wanted
        return {key: self.ask(key)}


def numbers(count):
    """Return the names "0", "1" ..."""
    return [str(number) for number in range(count)]


class TestSingles:
    """Many single calls for one caller."""

    def test_several_at_a_time(self):
        """Four calls that wait for each other come to an end."""
        together = threading.Barrier(calls.WORKERS)

        def ask(key):
            together.wait(30)
            return Answer(key.name)

        store.use(Singles(ask))
        names = numbers(2 * calls.WORKERS)

        assert dict(zip(names, names, strict=True)) == get_secrets(names)

    def test_one_key_needs_no_thread(self, monkeypatch):
        """A single call is made by the caller."""
        monkeypatch.setattr(calls, "may_be_interrupted", lambda: False)
        monkeypatch.setattr(calls, "spawn", lambda *a: pytest.fail("a thread"))
        store.use(Singles())

        assert "1" == get_secret("1")

    def test_errors_stay_with_their_keys(self):
        """What one raises is the outcome of that one."""

        def ask(key):
            if key.name == "2":
                raise NotFoundError("no", key="2")
            return Answer(key.name)

        store.use(Singles(ask))
        with pytest.raises(NotFoundError) as raised:
            get_secrets(["1", "2", "3"])
        assert "2" == raised.value.key
        assert {"1": "1", "3": "3"} == get_secrets(["1", "3"])
        assert 3 == store.snapshot().loads

    def test_make_do_without_threads(self, threadless):
        """One after the other is better than not at all."""
        store.use(Singles())

        assert {"1": "1", "2": "2", "3": "3"} == get_secrets(["1", "2", "3"])

    @pytest.mark.parametrize("raised", [KeyError, SystemExit, KeyboardInterrupt])
    def test_bug_of_a_source_reaches_the_caller(self, monkeypatch, raised):
        """What a source raises ends no thread with a traceback."""
        died = []
        monkeypatch.setattr(sys, "unraisablehook", died.append)
        monkeypatch.setattr(threading, "excepthook", died.append)
        together = threading.Barrier(calls.WORKERS)

        def ask(key):
            together.wait(30)
            raise raised

        store.use(Singles(ask))
        with pytest.raises(SourceError if raised is KeyError else raised):
            get_secrets(numbers(calls.WORKERS))
        assert [] == died


class TestLoads:
    """The calls of one batch."""

    def test_go_out_together(self):
        """Three chunks are under way at the same time."""
        with FakeSource({str(n): "x" for n in range(6)}, batch=2) as source:
            together = threading.Barrier(3)
            fetch = source.fetch

            def meeting(wanted, timeout_s):
                together.wait(30)
                return fetch(wanted, timeout_s)

            source.fetch = meeting
            assert 6 == len(get_secrets([str(n) for n in range(6)]))
            assert 3 == len(source.calls)

    def test_make_do_without_threads(self, threadless):
        """A batch is loaded by its caller alone."""
        with FakeSource({str(n): "x" for n in range(6)}, batch=2) as source:
            assert 6 == len(get_secrets([str(n) for n in range(6)]))
            assert 3 == len(source.calls)

    def test_one_failed_call_leaves_the_others_alone(self):
        """Each call has an outcome of its own."""
        with FakeSource({str(n): "x" for n in range(4)}, batch=2) as source:
            fetch = source.fetch

            def half(wanted, timeout_s):
                if wanted[0].name == "0":
                    raise NotFoundError("no", key="0")
                return fetch(wanted, timeout_s)

            source.fetch = half
            with pytest.raises(NotFoundError) as raised:
                get_secrets(["0", "1", "2", "3"])
            assert "0" == raised.value.key
            assert ("x", "x") == (get_secret("2"), get_secret("3"))


class TestWorker:
    """The thread that refreshes."""

    def test_runs_once_for_each_wake_and_parks(self):
        """It begins with the first wake and ends when it is closed."""
        ran = threading.Semaphore(0)
        spins = []
        idents = set()

        def body():
            idents.add(threading.get_ident())
            spins.append(not worker._gate.locked())  # it would not park then
            ran.release()

        worker = calls.Worker(body)
        assert [] == worker._started
        for _ in range(3):
            worker.wake()
            assert ran.acquire(timeout=30)
        (ident,) = idents

        worker.close()
        eventually(lambda: ident not in sys._current_frames())
        assert [False] * 3 == spins

    @pytest.mark.logs
    def test_survives_what_it_runs(self, caplog):
        """A bug in one refresh does not end all others."""
        ran = threading.Semaphore(0)
        fails = [ZeroDivisionError]

        def body():
            ran.release()
            if fails:
                raise fails.pop()

        worker = calls.Worker(body)
        for _ in range(2):
            worker.wake()
            assert ran.acquire(timeout=30)
        worker.close()

        assert "lambda_ext.worker_failed" in caplog.text

    def test_of_an_ending_interpreter_does_nothing(self, threadless):
        """A due hit at the very end is served without a refresh."""
        with FakeClock() as time, FakeSource({"db": "x"}) as source:
            get_secret("db")
            time.advance(271)

            assert "x" == get_secret("db")
            assert 1 == len(source.calls)

    def test_is_not_begun_by_values_that_are_not_due(self):
        """Most functions never have that thread."""
        with FakeClock(), FakeSource({"db": "x"}):
            for _ in range(10):
                get_secret("db")

            assert [] == store.loader.worker._started

    def test_is_begun_anew_after_a_fork(self):
        """A child has no thread of its parent's, and makes its own."""
        ran = threading.Semaphore(0)
        worker = calls.Worker(ran.release)
        worker.wake()
        assert ran.acquire(timeout=30)
        worker.forked()
        assert [] == worker._started
        worker.wake()
        assert ran.acquire(timeout=30)
        worker.close()


def test_time_that_is_left_is_the_least_of_all():
    """The option, the invocation less a reserve, or no limit at all."""
    with FakeClock():
        assert calls.left(None) is None
        assert 2.0 == calls.left(2.0)

        clock.begin_invocation(3.0)
        assert 2.9 == pytest.approx(calls.left(None))
        assert 2.0 == calls.left(2.0)
        assert 2.9 == pytest.approx(calls.left(10.0))
        clock.deadline_at = None
    assert 0 == store.snapshot().loads


def test_random_is_between_nothing_and_all():
    """Jitter needs no module of its own."""
    drawn = [calls.random() for _ in range(200)]

    assert all(0 <= number < 1 for number in drawn)
    assert len(set(drawn)) > 190
