"""House time: never back, older after a freeze, one clock on the hit path."""

from __future__ import annotations

import os
import threading
import time

import pytest

import lambda_ext
from lambda_ext.lifecycle import clock
from lambda_ext.testing import FakeClock


@pytest.fixture(name="fake")
def _fake():
    with FakeClock() as fake:
        yield fake


class TestNow:
    """clock.now()"""

    def test_is_wall_time_at_first(self, fake):
        """House time begins as wall time."""
        assert clock.now() == fake.wall()

    def test_advances_with_run_time(self, fake):
        """While the process runs, house time goes with it."""
        before = clock.now()
        fake.advance(12.5)

        assert 12.5 == clock.now() - before

    def test_freeze_counts(self, fake):
        """A freeze that stops the monotonic clock ages everything all the same."""
        before = clock.now()
        fake.step(1800)

        assert 1800 == clock.now() - before

    def test_backward_step_has_no_effect(self, fake):
        """An hour back on the wall clock changes nothing."""
        before = clock.now()
        fake.step(-3600)
        clock.begin_invocation()
        fake.advance(1)

        assert 1 == clock.now() - before

    def test_forward_step_ages_early_and_once(self, fake):
        """A step forward and back again adds its length once, not twice."""
        before = clock.now()
        for _ in range(3):
            fake.step(3600)
            clock.begin_invocation()
            fake.step(-3600)
            clock.begin_invocation()

        assert 3600 == clock.now() - before

    def test_freeze_after_a_backward_step_counts_when_it_is_longer(self, fake):
        """What the largest lead already covers is not added again."""
        before = clock.now()
        fake.step(-600)
        fake.step(1800)
        clock.begin_invocation()

        assert 1200 == clock.now() - before

    def test_slewing_is_no_step(self, fake):
        """Less than STEP_S moves neither the lead nor the generation."""
        before = clock.lead, clock.generation
        fake.step(clock.STEP_S / 2)
        clock.monotonic()

        assert (clock.lead, clock.generation) == before

    def test_slewing_is_no_step_where_a_freeze_is_looked_for(self, fake):
        """A sync that finds less than STEP_S says so, and changes nothing."""
        before = clock.lead, clock.generation
        fake.step(clock.STEP_S / 2)

        assert 0.0 == clock.sync()
        assert (clock.lead, clock.generation) == before

    def test_slow_slewing_counts_when_it_has_added_up(self, fake):
        """Many small steps do not go unnoticed for ever."""
        before = clock.now()
        for _ in range(10):
            fake.step(clock.STEP_S / 2)
            clock.begin_invocation()

        assert clock.now() - before >= 10 * clock.STEP_S / 2 - clock.STEP_S


class CountingClock(FakeClock):
    """Counts who asks for the wall clock."""

    asked = 0

    def wall(self):
        self.asked += 1
        return super().wall()


class TestMonotonic:
    """clock.monotonic(), which is what a cache hit reads."""

    def test_looks_at_one_clock_during_an_invocation(self):
        """The lead is read once per invocation, and by no hit."""
        fake = CountingClock()
        with fake:
            clock.begin_invocation()
            asked = fake.asked
            for _ in range(100):
                clock.monotonic()
            hits = fake.asked - asked
            clock.begin_invocation()
            again = fake.asked - asked

        assert (0, 1) == (hits, again)

    def test_notices_a_freeze_without_any_invocation(self, fake):
        """Before the first decorated invocation it looks by itself."""
        before = clock.generation
        fake.step(60)
        clock.monotonic()

        assert clock.generation == before + 1


class TestGeneration:
    """clock.generation"""

    def test_changes_with_every_invocation(self, fake):
        """Work that began in an earlier invocation can tell that it is late."""
        before = clock.generation
        clock.begin_invocation()
        clock.begin_invocation()

        assert clock.generation == before + 2

    def test_changes_once_for_a_freeze_seen_at_an_invocation(self, fake):
        """The thaw and the invocation are one change."""
        before = clock.generation
        fake.step(60)
        clock.begin_invocation()

        assert clock.generation == before + 1

    def test_changes_once_for_a_freeze_that_was_noted_before(self, fake):
        """A thaw that a reader has noticed and the invocation after it are one change."""
        before = clock.generation
        fake.freeze(60)
        noticed = clock.generation
        clock.begin_invocation()

        assert (before + 1, before + 1) == (noticed, clock.generation)

    def test_changes_with_a_restore_however_short(self, fake):
        """A restored process is another one, even when no time has passed."""
        before = clock.generation
        clock.restored()

        assert clock.generation == before + 1


class TestRemaining:
    """clock.remaining()"""

    def test_counts_down_in_run_time(self, fake):
        """The deadline is that of the invocation under way."""
        clock.begin_invocation(3.0)
        fake.advance(1.0)

        assert 2.0 == clock.remaining()

    def test_is_none_outside_an_invocation(self, fake):
        """The end of a decorated handler forgets the deadline."""

        class Context:
            def get_remaining_time_in_millis(self):
                return 3_000

        handler = lambda_ext.handler(lambda event, context: clock.remaining())

        assert 3.0 == handler({}, Context())
        assert clock.remaining() is None


class TestThreads:
    """From any thread, in the middle of anything."""

    def test_asking_inside_a_sync_neither_blocks_nor_counts_twice(self):
        """A signal handler that asks for the time interrupts a sync."""
        inner = []

        class Interrupting(FakeClock):
            def wall(self):
                if len(inner) == 1:
                    inner.append(None)
                    inner[1] = clock.now()
                return super().wall()

        fake = Interrupting()
        with fake:
            before = clock.now()
            fake.step(60)
            inner.append("go")
            clock.sync()

            assert 60 == clock.now() - before
            assert 60 == inner[1] - before

    def test_child_of_a_fork_can_sync_while_the_lock_is_held_elsewhere(self):
        """The lock is replaced: its holder does not exist in the child."""
        held = threading.Event()
        release = threading.Event()

        def hold():
            with clock._lock:
                held.set()
                release.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(30)
        pid = os.fork()
        if not pid:
            clock.sync()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        release.set()
        thread.join()

        assert 0 == status


def test_machine_clocks_are_back_after_a_fake_one():
    """Leaving the block of a FakeClock restores the time."""
    with FakeClock():
        pass

    assert abs(clock.now() - time.time()) < 60
