"""The doubles that ship, as a user's tests use them."""

from __future__ import annotations

import pytest

import lambda_ext
from lambda_ext.lifecycle import clock
from lambda_ext.testing import (
    FakeClock,
    FakeSource,
    simulate_restore,
    simulate_sigterm,
    simulate_timeout,
)


class TestFakeClock:
    """FakeClock"""

    def test_advance_moves_both_clocks(self):
        """Time goes by for run time and wall time alike."""
        fake = FakeClock(wall=100.0, monotonic=10.0)
        fake.advance(2.5)

        assert (102.5, 12.5) == (fake.wall(), fake.monotonic())

    def test_freeze_moves_the_wall_only(self):
        """A frozen process has no run time."""
        fake = FakeClock(wall=100.0, monotonic=10.0)
        fake.freeze(2.5)

        assert (102.5, 10.0) == (fake.wall(), fake.monotonic())

    def test_step_sets_the_wall_back(self):
        """As a clock that is corrected."""
        fake = FakeClock(wall=100.0, monotonic=10.0)
        fake.step(-2.5)

        assert (97.5, 10.0) == (fake.wall(), fake.monotonic())

    @pytest.mark.parametrize("seconds", [-1, float("nan")])
    @pytest.mark.parametrize("move", [FakeClock.advance, FakeClock.freeze])
    def test_time_that_goes_back_is_refused(self, move, seconds):
        """Run time never goes back; the message says what does."""
        with pytest.raises(ValueError, match="step"):
            move(FakeClock(), seconds)

    def test_is_the_librarys_clock_inside_the_block_only(self):
        """The context manager installs and restores."""
        with FakeClock(wall=100.0) as fake:
            inside = clock.now()
            fake.advance(1)
            later = clock.now()

        assert (100.0, 101.0) == (inside, later)
        assert clock.now() > 1_000_000_000


def test_simulated_sigterm_calls_the_listeners_in_order():
    """As Lambda's would, and the process goes on."""
    seen = []
    lambda_ext.on_shutdown(lambda: seen.append("user"))
    lambda_ext.on_shutdown(priority=10)(lambda: seen.append("early"))
    simulate_sigterm()

    assert ["early", "user"] == seen


def test_simulated_restore_calls_the_hooks_with_time_between():
    """The hooks see the clock before and after the snapshot."""
    seen = []
    with FakeClock() as fake:
        lambda_ext.before_snapshot(lambda: seen.append(clock.now()))
        lambda_ext.after_restore(lambda: seen.append(clock.now()))
        generation = clock.generation
        simulate_restore(fake, 3600)
        after = clock.generation

    assert 3600 == seen[1] - seen[0]
    assert after > generation


@pytest.mark.parametrize("values", [["db"], "db", 5])
def test_source_of_what_is_no_dictionary_is_refused(values):
    """The message shows the form."""
    with pytest.raises(TypeError, match="FakeSource takes a dictionary by name"):
        FakeSource(values)


def test_removing_what_is_not_there_says_so():
    """With the name of the double and of the value."""
    with pytest.raises(KeyError, match="this FakeSource has no 'db'"):
        FakeSource().remove("db")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((5,), "takes a FakeClock, not 5"), ((None, 5), "needs a FakeClock")],
)
def test_restore_without_a_clock_for_its_seconds_is_refused(arguments, said):
    """Before anything is called: seconds without a clock would be no seconds."""
    seen = []
    lambda_ext.before_snapshot(lambda: seen.append("snapshot"))
    with pytest.raises(TypeError, match=said):
        simulate_restore(*arguments)

    assert [] == seen


@pytest.mark.parametrize("given", ["0.3", None, True])
@pytest.mark.parametrize("simulate", [simulate_sigterm, simulate_timeout])
def test_time_that_is_no_number_is_refused(simulate, given):
    """Before anything is called, with what it takes."""
    called = []
    lambda_ext.on_shutdown(lambda: called.append(1))
    with pytest.raises(TypeError, match=rf"{simulate.__name__}\(\) takes seconds"):
        simulate(given)

    assert [] == called
