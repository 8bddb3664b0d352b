"""Which listener is called when, in which order, and how one affects the others."""

from __future__ import annotations

import logging
import os

import pytest

import lambda_ext
from lambda_ext.lifecycle import phases, real_threads


class TestOrder:
    """Low priority first, then the order of registration."""

    def test_priority_then_registration(self):
        """The sort is stable."""
        seen = []
        for name, priority in (("a", 50), ("b", 90), ("c", 0), ("d", 50), ("e", 0)):
            phases.listen(
                phases.INVOKE, lambda name=name: seen.append(name), priority=priority
            )
        phases.call(phases.INVOKE)

        assert ["c", "e", "a", "d", "b"] == seen

    def test_registration_during_a_call_counts_from_the_next(self):
        """A call works on the listeners that there were when it began."""
        seen = []

        def first():
            seen.append("first")
            phases.listen(phases.INVOKE, lambda: seen.append("late"))

        phases.listen(phases.INVOKE, first)
        phases.call(phases.INVOKE)

        assert ["first"] == seen

    def test_silenced_listener_is_not_called(self):
        """silence() takes away what listen() added, and nothing else."""
        seen = []
        first = lambda: seen.append(1)  # noqa: E731
        phases.listen(phases.INVOKE, first)
        phases.listen(phases.INVOKE, lambda: seen.append(2))
        phases.silence(phases.INVOKE, first)
        phases.silence(phases.RESPONSE, first)
        phases.call(phases.INVOKE)

        assert [2] == seen

    def test_listener_in_the_place_of_a_silenced_one_is_called(self):
        """As many listeners as before are not the same ones."""
        seen = []
        first = lambda: seen.append(1)  # noqa: E731
        phases.listen(phases.INVOKE, first)
        phases.call(phases.INVOKE)
        phases.silence(phases.INVOKE, first)
        phases.listen(phases.INVOKE, lambda: seen.append(2))
        phases.call(phases.INVOKE)
        phases.call_within(30, phases.INVOKE)

        assert [1, 2, 2] == seen


class TestIsolation:
    """One listener's failure is its own."""

    @pytest.mark.logs
    def test_failure_is_logged_and_counted_and_stops_no_other(self, caplog):
        """The next one runs, and the log names who failed, with a traceback."""
        seen = []

        def bad():
            raise ValueError("no")

        phases.listen(phases.RESPONSE, bad)
        phases.listen(phases.RESPONSE, lambda: seen.append(1))
        phases.call(phases.RESPONSE)

        assert [1] == seen
        assert 1 == phases.calls[phases.RESPONSE]
        assert 1 == phases.ended[phases.RESPONSE]
        assert 1 == phases.failures[phases.RESPONSE]
        (record,) = caplog.records
        assert "listener_failed phase=response" in record.getMessage()
        assert "bad" in record.getMessage()
        assert "ValueError: no" in record.getMessage()

    def test_logging_filter_that_raises_is_no_matter(self):
        """The others are called though the failure cannot be logged."""
        seen = []

        def refuse(record):
            raise ValueError("of the filter")

        def bad():
            raise ValueError("of the listener")

        logger = logging.getLogger("lambda_ext")
        logger.addFilter(refuse)
        try:
            phases.listen(phases.RESPONSE, bad)
            phases.listen(phases.RESPONSE, lambda: seen.append(1))
            phases.call(phases.RESPONSE)
        finally:
            logger.removeFilter(refuse)

        assert ([1], 1) == (seen, phases.failures[phases.RESPONSE])

    def test_exit_passes_and_the_phase_has_ended(self):
        """SystemExit is no failure to swallow."""

        def leave():
            raise SystemExit(3)

        phases.listen(phases.INVOKE, leave)
        with pytest.raises(SystemExit):
            phases.call(phases.INVOKE)

        assert 1 == phases.ended[phases.INVOKE]

    def test_many_threads_register_and_none_is_lost(self):
        """Registration is one append."""
        from helpers import run_threads

        run_threads(
            16,
            lambda index: [
                phases.listen(phases.INVOKE, lambda: None) for _ in range(100)
            ],
        )

        assert 1_600 == len(phases.listeners(phases.INVOKE))


class TestBudget:
    """What each listener is given of it, where none gives any back."""

    def shares(self, time, *priorities):
        """Return the shares, of a budget of 0.3 s, that listeners use up."""
        found = []

        def uses_up():
            found.append(round(phases.share_s(), 6))
            time.advance(phases.share_s())

        for priority in priorities:
            phases.listen(
                phases.SHUTDOWN, lambda: uses_up(), priority=priority
            )  # each another function
        phases.call_within(0.3, phases.SHUTDOWN)
        return found

    def test_essential_have_half_of_it_beside_many_others(self, time):
        """The flush of metrics is not squeezed by what the user has registered."""
        assert [0.15, *[0.0075] * 20] == self.shares(time, 0, *[50] * 20)

    def test_essential_that_hang_leave_the_others_half_of_it(self, time):
        """The user's hooks, the network and the last flush."""
        assert [0.05, 0.05, 0.05, 0.075, 0.075] == self.shares(time, 0, 0, 0, 50, 90)

    def test_without_essential_ones_all_of_it_is_for_the_others(self, time):
        """Nothing is kept back."""
        assert [0.1, 0.1, 0.1] == self.shares(time, 50, 50, 90)


class TestFork:
    """What a forked child begins with."""

    def child(self, check):
        """Run check() in a forked child; say whether it was true."""
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = 0 if check() else 2
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1] == 0

    def test_counters_begin_at_zero(self):
        """An invocation of the parent's is not under way in the child."""
        phases.call(phases.INVOKE)

        assert self.child(lambda: phases.calls[phases.INVOKE] == 0)
        assert 1 == phases.calls[phases.INVOKE]

    def test_shutdown_callbacks_of_the_user_stay_behind(self):
        """They belong to the process that registered them; the library's don't."""
        lambda_ext.on_shutdown(lambda: None)
        ours = lambda: None  # noqa: E731
        phases.listen(phases.SHUTDOWN, ours)

        assert self.child(
            lambda: [call for _, call in phases.listeners(phases.SHUTDOWN)] == [ours]
        )
        assert 2 == len(phases.listeners(phases.SHUTDOWN))

    def test_registration_may_interrupt_a_registration(self):
        """A signal handler that registers in the middle of sorting gets through."""

        class Priority(int):
            def __lt__(self, other):
                phases.listen(phases.INVOKE, print)
                return int(self) < int(other)

        for _ in range(2):
            phases.listen(phases.INIT, print, priority=Priority(1))

        assert 2 == len(phases.listeners(phases.INIT))
        assert len(phases.listeners(phases.INVOKE)) > 0


def test_listener_with_a_share_counts_as_the_users():
    """It may write to stdout, and a metric then begins a line of its own."""
    found = []

    def listener():
        found.append(real_threads.get_ident() in real_threads.ours)

    assert phases.run_within(30, listener, phases.SHUTDOWN)
    assert [False] == found


def test_share_ends_with_its_listener(monkeypatch):
    """Where no thread is to be had, the caller's thread keeps no share of its own."""
    shares = []

    def start(*_):
        raise RuntimeError

    monkeypatch.setattr(phases.real_threads, "start", start)
    phases.run_within(10, lambda: shares.append(phases.share_s()), phases.SHUTDOWN)

    assert [10, 0] == [*shares, phases.share_s()]
