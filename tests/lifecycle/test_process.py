"""Process-wide state: locks of a forked child, resets."""

from __future__ import annotations

import _thread
import gc
import os
import threading

from interruptions import interruptions

from lambda_ext.lifecycle import process


def in_child(claim):
    """Fork, and return whether *claim* holds in the child."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover (another process)
        try:
            held = claim()
        except BaseException:
            held = False
        os._exit(0 if held else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestLock:
    """process.Lock"""

    def test_is_entered_by_c_code(self):
        """No Python function runs between acquiring it and the `with` block."""
        for name in ("__enter__", "__exit__"):
            assert type(getattr(_thread.RLock, name)) is type(
                getattr(process.Lock, name)
            )
            assert name not in vars(process.Lock)

    def test_is_re_entrant_in_one_thread_only(self):
        """The thread that holds it may take it again, another may not."""
        lock = process.Lock()
        got = []

        with lock, lock:
            thread = threading.Thread(
                target=lambda: got.append(lock.acquire(blocking=False))
            )
            thread.start()
            thread.join()

        assert [False] == got

    def test_is_free_in_a_child_though_another_thread_held_it(self):
        """A forked child can take a lock that a lost thread was holding."""
        lock = process.Lock()
        held, release = threading.Event(), threading.Event()

        def hold():
            with lock:
                held.set()
                release.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        free = in_child(lambda: lock.acquire(blocking=False))
        release.set()
        thread.join()

        assert free

    def test_that_is_gone_is_not_remembered(self):
        """A lock does not outlive the object that made it."""
        gc.collect()
        before = len(process._locks)
        lock = process.Lock()

        assert len(process._locks) == before + 1

        del lock
        gc.collect()

        assert len(process._locks) == before


class Thing:
    """What is remembered for as long as it lives."""


class TestLiving:
    """process.remember() and process.living()"""

    def test_what_is_gone_is_not_among_them(self):
        """Nothing of it is kept, either."""
        among = set()
        kept, gone = Thing(), Thing()
        for each in (kept, gone):
            process.remember(among, each)
        del each, gone
        gc.collect()

        assert ([kept], 1) == (process.living(among), len(among))

    def test_what_is_equal_or_has_no_hash_is_told_apart(self):
        """Each is there once, and goes alone: nothing of theirs is called."""

        class Same:
            __hash__ = None

            def __eq__(self, _):
                raise AssertionError

        among = set()
        first, second = Same(), Same()
        process.remember(among, first)
        process.remember(among, second)
        found = process.living(among)
        assert found[0] is not found[1]
        assert 2 == len(found)

        found.clear()
        del first
        gc.collect()
        (left,) = process.living(among)
        assert second is left

    def test_one_that_comes_meanwhile_harms_nothing(self):
        """Another thread, or a signal handler, may remember one at any place."""
        among, others, runs = set(), [], 0
        first = [Thing(), Thing()]
        for each in first:
            process.remember(among, each)

        def come():
            others.append(Thing())
            process.remember(among, others[-1])

        for interruption in interruptions([process], come):
            others.clear()
            with interruption:
                found = process.living(among)
            assert {*first} <= {*found} <= {*first, *others}
            found.clear()
            runs += 1

        assert runs > 1


class TestAtFork:
    """process.at_fork()"""

    def test_runs_in_the_child_only_and_after_an_error(self, monkeypatch):
        """What one function raises keeps the next one from nothing."""
        monkeypatch.setattr(process, "_forks", [])
        seen = []

        @process.at_fork
        def fail():
            raise ValueError

        process.at_fork(lambda: seen.append("second"))

        assert in_child(lambda: seen == ["second"])
        assert [] == seen


class TestReset:
    """process.reset()"""

    def test_calls_everything_in_order(self, monkeypatch):
        """Functions run in the order in which their modules were imported."""
        monkeypatch.setattr(process, "_resets", [])
        seen = []
        process.at_reset(lambda: seen.append(1))
        process.at_reset(lambda: seen.append(2))

        process.reset()
        process.reset()

        assert [1, 2, 1, 2] == seen
